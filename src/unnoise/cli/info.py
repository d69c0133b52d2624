"""`unnoise info`: how a picture was made and the command that makes it again; what a run or a model contains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from unnoise.cli.coding import described
from unnoise.cli.console import emit, say, show, table
from unnoise.cli.options import flag, option
from unnoise.cli.paths import existing_described
from unnoise.cli.reconstructing import autoencoder_text
from unnoise.config import convert
from unnoise.config.request import RequestOptions
from unnoise.config.usage import some, supported_inputs_of
from unnoise.errors import UserError
from unnoise.generate.describe import describe, first_command, known_card
from unnoise.generate.recipe import NOT_SETTINGS
from unnoise.io.printable import printable
from unnoise.io.units import duration, human

Rows = list[tuple[str, str]]
MOST = 20  # names in a line
USUAL = ("sampler", "steps", "guidance")


def info(
    path: Annotated[Path, option("A picture, a run, a model, a weights file or a compressed picture.")],
    /,
    *,
    command: Annotated[bool, flag("Print only the command that makes the picture again.")] = False,
    json: Annotated[bool, flag("Print one JSON document to stdout.")] = False,
) -> None:
    """Show how a picture was made and the command that makes it again, or describe a run, a model or a weights file."""
    found = described(existing_described(path)) or describe(path)
    if command and "command" not in found:
        raise UserError(f"{path} is not a picture: --command needs a picture that unnoise made")
    emit(found) if json else show(found["command"] if command else as_text(found))
    for warning in found.get("warnings", ()):
        say(f"note: {warning}")


def as_text(found: Mapping[str, Any]) -> str:
    """A description of any kind as text."""
    writer = {"picture": picture_text, "run": run_text, "model": model_text, "autoencoder": autoencoder_text}.get(
        found["kind"], weights_text
    )
    return writer(found)


def weights_text(found: Mapping[str, Any]) -> str:
    """Every entry of a description, and every entry of its dictionaries, in a line."""
    rows: Rows = []
    for key, value in found.items():
        if isinstance(value, Mapping):
            rows += [(f"{key}.{inner}", str(v)) for inner, v in value.items()]
        elif isinstance(value, (list, tuple)):
            rows.append((key, ", ".join(map(str, value))))
        else:
            rows.append((key, f"{value:,}" if isinstance(value, int) else str(value)))
    return _lines(rows)


def picture_text(found: Mapping[str, Any]) -> str:
    recipe = found["recipe"]
    model, request = recipe.get("model", {}), recipe.get("request", {})
    which = f"weights {str(model['sha256'])[:12]}" if model.get("sha256") else f"step {model.get('step')} of a training"
    rows = [("picture", found["path"]), ("model", f"{model.get('path')}  ({which})")]
    for key in ("seed", "seeds", "label", "prompt", "size"):
        if recipe.get(key) is not None:
            rows.append((key, str(recipe[key])))
    rows += [(name, f"{number[0]:g}") for name, number in request.get("values", {}).items()]
    rows += [(key, str(value)) for key, value in request.items() if _is_shown(key, value)]
    rows.append(("versions", ", ".join(f"{name} {version}" for name, version in recipe.get("versions", {}).items())))
    return f"{_lines(rows)}\n\nMake it again:\n  {found['command']}"


def _is_shown(key: str, value: Any) -> bool:
    """Whether a setting of a request is shown: the usual three, and those that are not at their default."""
    if key in NOT_SETTINGS or value in (None, "", []):
        return False
    default = getattr(RequestOptions(), key, None)
    return key in USUAL or (tuple(value) if isinstance(value, list) else value) != default


def run_text(found: Mapping[str, Any]) -> str:
    about = found["summary"]
    rows = [("run", found["path"]), ("preset", str(about["preset"])), ("status", about["status"])]
    if about["step"] is not None:
        done = f" ({100 * found['done']:.1f} %)" if "done" in found else ""
        rows.append(("step", f"{about['step']:,} of {about['steps'] or 0:,}{done}"))
    last = {key: value for key, value in found["last"].items() if isinstance(value, (int, float))}
    rows += [(key, f"{value:.4g}") for key, value in last.items() if "loss" in key]
    rows += [("pictures seen", f"{last['images']:,.0f}")] if "images" in last else []
    rows += [("time", duration(about["seconds"]))] if about["seconds"] is not None else []
    rows.append(("size on disk", human(about["bytes"], "B")))
    rows.append(("checkpoints", some(found["checkpoints"], MOST) or "none"))
    data = found.get("data")
    if isinstance(data, Mapping) and isinstance(data.get("count"), int):
        rows.append(("data", f"{data['count']:,} pictures of {data.get('path', 'a data set')}"))
    parts = [_lines(rows)]
    if "model" in found:
        parts.append(model_text(found["model"]))
        parts.append(f"Sample from it:\n  {first_command(Path(found['path']))}")
    if "autoencoder" in found:
        parts.append(autoencoder_text(found["autoencoder"]))
    return "\n\n".join(parts)


def model_text(found: Mapping[str, Any]) -> str:
    card = found["card"]
    rows = [("model", found["path"])]
    if "parameters" in found:
        count = found["parameters"]
        rows.append(("parameters", f"{count:,} ({human(count)}, {', '.join(found['dtypes'])})"))
        rows.append(("sha256", found["sha256"]))
    known = known_card(Path(found["path"]))
    for name in ("net", "process"):
        settings = card.get(name)
        if isinstance(settings, Mapping):
            rows.append((name, _settings(settings, known and getattr(known, name))))
    if card.get("classes"):
        rows.append(("classes", some(list(map(str, card["classes"])), MOST)))
    if card.get("captions"):
        rows.append(("captions", "for example " + ", ".join(repr(str(text)) for text in card["captions"][:3])))
    if card.get("net", {}).get("controls"):
        rows.append(("control images", str(card.get("info", {}).get("control") or len(card["net"]["controls"]))))
    for value in card.get("values") or ():
        rows.append((f"value {value['name']}", f"{value['low']:g} to {value['high']:g} in training"))
    if known is not None:
        rows.append(("inputs", supported_inputs_of(known)))
    return _lines(rows)


def _settings(settings: Mapping[str, Any], known: Any) -> str:
    """Settings in a line; of a type that is known, those that are not at their default."""
    if known is not None:
        plain = convert.flat(type(known)())
        settings = {key: value for key, value in convert.flat(known).items() if plain.get(key) != value}
    kind = {"kind": known.kind} if hasattr(known, "kind") else {}
    shown = {key: value for key, value in (kind | dict(settings)).items() if value not in ((), {}, "", None)}
    texts = {
        key: " ".join(map(str, value)) if isinstance(value, (list, tuple)) else value for key, value in shown.items()
    }
    return ", ".join(f"{key} {value}" for key, value in texts.items()) or "all settings at their defaults"


def _lines(rows: Rows) -> str:
    return table([(printable(key), printable(value)) for key, value in rows], ragged=True)
