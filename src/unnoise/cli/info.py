"""`unnoise info`: how a picture was made and the command that makes it again; what a run or a model contains."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from unnoise.cli.coding import described
from unnoise.cli.console import UsageError, emit, say, show, table
from unnoise.cli.options import flag, option
from unnoise.cli.paths import existing
from unnoise.config.usage import supported_inputs_of
from unnoise.errors import UserError
from unnoise.generate.describe import describe, is_described, known_card
from unnoise.generate.recipe import NOT_SETTINGS
from unnoise.io.printable import printable
from unnoise.io.units import human
from unnoise.io.whatis import not_a

Rows = list[tuple[str, str]]


def info(
    path: Annotated[Path, option("A picture, a run, a model, a weights file or a compressed picture.")],
    /,
    *,
    command: Annotated[bool, flag("Print only the command that makes the picture again.")] = False,
    json: Annotated[bool, flag("Print one JSON document to stdout.")] = False,
) -> None:
    """Show how a picture was made and the command that makes it again, or describe a run, a model or a weights file."""
    existing(path, "file, run or model")
    if path.is_dir() and not is_described(path):
        raise UsageError(str(not_a("a run or a model", path)))
    found = described(path) or describe(path)
    if command and "command" not in found:
        raise UserError(f"{path} is not a picture: --command needs a picture that unnoise made")
    if json:
        emit(found)
    else:
        show(found["command"] if command else as_text(found))
    for warning in found.get("warnings", ()):
        say(f"note: {warning}")


def as_text(found: Mapping[str, Any]) -> str:
    """A description of any kind as text."""
    writer = {"picture": picture_text, "run": run_text, "model": model_text}.get(found["kind"], weights_text)
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
    rows = [("picture", found["path"]), ("model", f"{model.get('path')}  (weights {str(model.get('sha256'))[:12]})")]
    for key in ("seed", "seeds", "label", "prompt", "size"):
        if recipe.get(key) is not None:
            rows.append((key, str(recipe[key])))
    rows += [(name, f"{number[0]:g}") for name, number in request.get("values", {}).items()]
    shown = {key: value for key, value in request.items() if key not in NOT_SETTINGS and value not in (None, "", [])}
    rows += [(key, str(value)) for key, value in shown.items()]
    rows.append(("versions", ", ".join(f"{name} {version}" for name, version in recipe.get("versions", {}).items())))
    return f"{_lines(rows)}\n\nMake it again:\n  {found['command']}"


def run_text(found: Mapping[str, Any]) -> str:
    rows = [("run", found["path"]), ("preset", str(found["name"]))]
    if "done" in found:
        rows.append(("done", f"{100 * found['done']:.1f} %"))
    for key, value in found["last"].items():
        if isinstance(value, (int, float)):
            rows.append((key, f"{value:.6g}" if isinstance(value, float) else f"{value:,}"))
    rows.append(("checkpoints", ", ".join(found["checkpoints"]) or "none"))
    for key, value in found.get("data", {}).items():
        if isinstance(value, (int, float, str)):
            rows.append((f"data {key}", printable(str(value))[:80]))
    parts = [_lines(rows)]
    if "model" in found:
        parts.append(model_text(found["model"]))
        parts.append(f"Sample from it:\n  unnoise sample {shlex.quote(found['path'])} --seeds 0-15 --grid grid.png")
    return "\n\n".join(parts)


def model_text(found: Mapping[str, Any]) -> str:
    card = found["card"]
    rows = [("model", found["path"])]
    if "parameters" in found:
        count = found["parameters"]
        rows.append(("parameters", f"{count:,} ({human(count)}, {', '.join(found['dtypes'])})"))
        rows.append(("sha256", found["sha256"]))
    for name in ("net", "process"):
        settings = card.get(name)
        if isinstance(settings, Mapping):
            rows.append((name, ", ".join(f"{key} {value}" for key, value in list(settings.items())[:8])))
    classes = ", ".join(map(str, card.get("classes") or ()))
    rows.append(("classes", classes or "none: the model is not class-conditional"))
    if card.get("captions"):
        rows.append(("captions", "for example " + ", ".join(repr(str(text)) for text in card["captions"][:3])))
    if card.get("net", {}).get("controls"):
        rows.append(("control images", str(card.get("info", {}).get("control") or len(card["net"]["controls"]))))
    for known in card.get("values") or ():
        rows.append((f"value {known['name']}", f"{known['low']:g} to {known['high']:g} in training"))
    if (whole := known_card(Path(found["path"]))) is not None:
        rows.append(("inputs", supported_inputs_of(whole)))
    return _lines(rows)


def _lines(rows: Rows) -> str:
    return table([(printable(key), printable(value)) for key, value in rows], ragged=True)
