"""`unnoise info`: how a picture was made and the command that makes it again; what a run, a model or a file is.

Nothing here imports torch or opens a pickle: descriptions come from headers, JSON and YAML.
"""

from __future__ import annotations

import json as json_format
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from unnoise.cli.console import emit, existing, plain, say, show, table
from unnoise.cli.options import flag, flags, option
from unnoise.cli.requests import known_card
from unnoise.config.renamed import upgrade
from unnoise.config.request import Request
from unnoise.config.usage import supported_inputs_of
from unnoise.errors import UserError
from unnoise.io.hashing import sha256
from unnoise.io.units import human

PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
NOT_SAID = (
    "seeds",
    "prompts",
    "values",
    "controls",
    "previews",
)  # of a Request: said otherwise in a recipe, or without effect on it


def info(
    path: Annotated[Path, option("a picture, a run, a model or a weights file")],
    /,
    *,
    command: Annotated[bool, flag("print nothing but the command that makes the picture again")] = False,
    json: Annotated[bool, flag("one JSON document on stdout")] = False,
) -> None:
    """Read how a picture was made and print the command that makes it again; or describe a run or a model."""
    existing(path, "file, run or model")
    found = describe(path)
    if command and "command" not in found:
        raise UserError(f"{path} is no picture that unnoise made: there is no command that makes it again")
    if json:
        emit(found)
    elif command:
        show(found["command"])
    else:
        show(as_text(found))
    for warning in found.get("warnings", ()):
        say(f"note: {warning}")


def completion(shell: Annotated[Literal["bash", "zsh", "fish", "powershell"], option("which shell")] = "bash") -> None:
    """Print the script that teaches a shell to complete unnoise's commands.

    For bash: unnoise completion bash >> ~/.bashrc; for zsh and fish: into a file of their completions folder.
    """
    from unnoise.cli.main import app

    show(app.generate_completion(shell=shell))


def describe(path: Path) -> dict[str, Any]:
    """What `path` is, as a JSON document with `kind` first."""
    if path.is_dir():
        return describe_folder(path)
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(PICTURES):
        return describe_picture(path)
    return describe_weights(path, head)


# ---------------------------------------------------------------------------------------------------- pictures


def describe_picture(path: Path) -> dict[str, Any]:
    from unnoise.io.png import read_recipe

    recipe = read_recipe(path)
    if recipe is None:
        raise UserError(
            f"{path} is a picture without a recipe: unnoise did not draw it, --no-metadata was given, or a program "
            "that touched it since threw the recipe away"
        )
    found = {"kind": "picture", "path": str(path), "command": again(recipe), "recipe": recipe}
    return found | {"warnings": doubts(recipe)}


def again(recipe: Mapping[str, Any]) -> str:
    """The command that draws this picture again, bit for bit on the same machine: with its batch around it.

    Sums inside a network are taken in an order that may depend on the size of the batch, so that a picture drawn
    alone can differ from the same one drawn among others in its last bits.
    """
    try:
        model, request = recipe["model"]["path"], upgrade("Request", recipe["request"])
        words = ["unnoise", "sample", str(model), "--seeds", str(recipe["together"])]
        for text in recipe.get("prompts", ()):
            words += [f"--prompt={text}"] if str(text).startswith("-") else ["--prompt", str(text)]
        for path in recipe.get("control_models", ()):
            words += ["--control-model", str(path)]
        for name, number in request.get("values", {}).items():
            words += ["--value", f"{name}={number[0]!r}"]
        for drawing in request.get("controls", ()):
            words += ["--control", str(drawing)]
        words += flags({k: v for k, v in request.items() if k not in NOT_SAID}, Request)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the recipe in this picture is damaged: it lacks {error}") from error
    renamed = ["--timestep-spacing" if word == "--spacing" else word for word in words]
    if "columns" in recipe:
        renamed += ["--grid", "grid.png", "--columns", str(recipe["columns"])]
    return shlex.join(plain(word) for word in renamed)


def doubts(recipe: Mapping[str, Any]) -> list[str]:
    """Why the command might not give this very picture here."""
    from importlib import metadata

    said = []
    model = recipe.get("model", {})
    weights = Path(str(model.get("weights", "")))
    if not Path(str(model.get("path", ""))).exists():
        said.append(f"the model {plain(str(model.get('path')))} is not here; put the right path into the command")
    elif model.get("sha256") and weights.is_file() and sha256(weights) != model["sha256"]:
        said.append(f"the weights in {weights} have changed since this picture was made: another one would come")
    for name, digest in recipe.get("files", {}).items():
        if not Path(str(name)).is_file():
            said.append(f"{plain(str(name))}, which the model was shown, is not here; put the right path in its place")
        elif sha256(Path(str(name))) != digest:
            said.append(f"{plain(str(name))}, which the model was shown, has changed since: another picture would come")
    said += [
        f"the model {plain(str(path))}, whose control was added, is not here; put the right path into the command"
        for path in recipe.get("control_models", ())
        if not Path(str(path)).exists()
    ]
    made = recipe.get("versions", {})
    for package in ("unnoise", "torch"):
        try:
            here = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
        if made.get(package) and str(made[package]).split("+")[0] != here.split("+")[0]:
            said.append(f"made with {package} {plain(str(made[package]))}, this is {here}: the last bits may differ")
    return said


# ------------------------------------------------------------------------------------------------ weights files


def describe_weights(path: Path, head: bytes) -> dict[str, Any]:
    """A safetensors file by its header; anything else by what it really is."""
    size = path.stat().st_size
    start = head.lstrip().lower()
    if size == 0:
        raise UserError(f"{path} is empty: an interrupted download or a full disk. Fetch it again")
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a git-LFS pointer, not the file itself. Run: git lfs pull")
    if start.startswith((b"<!doctype", b"<html")):
        raise UserError(f"{path} is a web page, not a model: the download was an error or login page. Fetch it again")
    if head.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")) or path.suffix in (".ckpt", ".pt", ".pth"):
        raise UserError(
            f"{path} is a pickle, which can run any code when it is opened, so unnoise never opens one. "
            "Ask its maker for the safetensors file"
        )
    if size < 8 or (length := int.from_bytes(head[:8], "little")) > 100_000_000 or head[8:9] != b"{":
        raise UserError(f"{path} is neither a picture nor a safetensors file, nor anything else that unnoise knows")
    with path.open("rb") as file:
        file.seek(8)
        text = file.read(length)
    try:
        header = json_format.loads(text)
        extra = header.pop("__metadata__", {})
        parameters = sum(math.prod(about["shape"]) for about in header.values())
        end = max((about["data_offsets"][1] for about in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        cut = "cut off" if len(text) < length else "damaged"
        raise UserError(f"{path} begins like a safetensors file, but its header is {cut}. Fetch it again") from error
    if 8 + length + end != size:
        raise UserError(f"{path} is {size:,} bytes where its header says {8 + length + end:,}: cut off. Fetch it again")
    dtypes = sorted({about["dtype"] for about in header.values()})
    return {
        "kind": "weights",
        "path": str(path),
        "tensors": len(header),
        "parameters": parameters,
        "dtypes": dtypes,
        "sha256": sha256(path),
        "metadata": extra,
    }


# --------------------------------------------------------------------------------------------- runs and models


def describe_folder(path: Path) -> dict[str, Any]:
    if (path / "config.yaml").is_file():
        return describe_run(path)
    if (path / "model.json").is_file():
        return describe_model(path)
    if (path / "model_index.json").is_file() or (path / "config.json").is_file():
        return {"kind": "diffusers folder", "path": str(path), "config": diffusers_config(path)}
    raise UserError(
        f"{path} is neither a run (config.yaml), a model (model.json) nor a diffusers folder (model_index.json). "
        "For a folder of pictures ask: unnoise data " + shlex.quote(str(path))
    )


def describe_run(path: Path) -> dict[str, Any]:
    from unnoise.config import convert, files
    from unnoise.config.training import TrainConfig

    values, _ = files.read(path / "config.yaml")
    found: dict[str, Any] = {"kind": "run", "path": str(path), "name": values.get("name"), "config": values}
    last = last_metrics(path / "metrics.jsonl")
    found["last"] = last
    fit = values.get("fit", {})
    if isinstance(fit, Mapping) and isinstance(fit.get("images"), int) and isinstance(last.get("images"), (int, float)):
        found["done"] = min(1.0, last["images"] / max(1, fit["images"]))
    checkpoints = sorted((path / "checkpoints").glob("step-*")) if (path / "checkpoints").is_dir() else []
    found["checkpoints"] = [c.name for c in checkpoints if (c / "manifest.json").is_file()]
    odd = [c.name for c in checkpoints if not (c / "manifest.json").is_file()]
    warnings = [f"checkpoints/{name} is incomplete and is not used" for name in odd]
    if found["checkpoints"]:
        found["model"] = describe_model(path / "checkpoints" / found["checkpoints"][-1])
    else:
        warnings.append("no checkpoint yet: nothing to draw from")
    try:
        convert.from_dict(TrainConfig, values, str(path / "config.yaml"))
    except UserError as error:
        if "net" in values:
            warnings.append(f"its configuration is not one that this version reads: {error}")
    for name in ("env", "data"):
        if (path / f"{name}.json").is_file():
            found[name] = read_json(path / f"{name}.json")
    return found | {"warnings": warnings}


def last_metrics(path: Path) -> dict[str, Any]:
    """The last whole line of a metrics file; a line cut off by a crash is passed over."""
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 65536))
        lines = file.read().splitlines()
    for line in reversed(lines):
        try:
            values = json_format.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict):
            return values
    return {}


def describe_model(path: Path) -> dict[str, Any]:
    card = read_json(path / "model.json").get("card", {})
    found = {"kind": "model", "path": str(path), "card": card}
    weights = path / "model.safetensors"
    if not weights.is_file():
        return found | {"warnings": [f"{weights} is missing: the model cannot be loaded"]}
    with weights.open("rb") as file:
        head = file.read(512)
    about = describe_weights(weights, head)
    return found | {key: about[key] for key in ("tensors", "parameters", "dtypes", "sha256")} | {"warnings": []}


def read_json(path: Path) -> Any:
    try:
        return json_format.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error


def diffusers_config(path: Path) -> Any:
    inner = path / "unet" / "config.json"
    return read_json(inner if inner.is_file() else path / "config.json")


def as_text(found: Mapping[str, Any]) -> str:
    """A description to read."""
    maker = {"picture": picture_text, "run": run_text, "model": model_text}.get(found["kind"], facts_text)
    return maker(found)


def facts_text(found: Mapping[str, Any]) -> str:
    rows = []
    for key, value in found.items():
        if isinstance(value, Mapping):
            rows += [(f"{key}.{inner}", plain(str(v))) for inner, v in value.items()]
        elif isinstance(value, (list, tuple)):
            rows.append((key, ", ".join(plain(str(v)) for v in value)))
        else:
            rows.append((key, plain(f"{value:,}" if isinstance(value, int) else str(value))))
    return table(rows, ragged=True)


def picture_text(found: Mapping[str, Any]) -> str:
    recipe = found["recipe"]
    model = recipe.get("model", {})
    rows = [("picture", found["path"]), ("model", f"{model.get('path')}  (weights {str(model.get('sha256'))[:12]})")]
    for key in ("seed", "seeds", "label", "prompt", "size"):
        if recipe.get(key) is not None:
            rows.append((key, str(recipe[key])))
    rows += [(name, f"{number[0]:g}") for name, number in recipe.get("request", {}).get("values", {}).items()]
    rows += [(key, str(value)) for key, value in recipe.get("request", {}).items() if key not in NOT_SAID]
    rows.append(("versions", ", ".join(f"{name} {version}" for name, version in recipe.get("versions", {}).items())))
    body = table([(key, plain(value)) for key, value in rows], ragged=True)
    return f"{body}\n\nMake it again:\n  {found['command']}"


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
            rows.append((f"data {key}", plain(str(value))[:80]))
    parts = [table(rows, ragged=True)]
    if "model" in found:
        parts.append(model_text(found["model"]))
        parts.append(f"Draw from it:\n  unnoise sample {shlex.quote(found['path'])} --seeds 0-15 --grid grid.png")
    return "\n\n".join(parts)


def model_text(found: Mapping[str, Any]) -> str:
    card = found["card"]
    rows = [("model", found["path"])]
    if "parameters" in found:
        rows.append(
            ("parameters", f"{found['parameters']:,} ({human(found['parameters'])}, {', '.join(found['dtypes'])})")
        )
        rows.append(("sha256", found["sha256"]))
    for name in ("net", "process"):
        about = card.get(name)
        if isinstance(about, Mapping):
            rows.append((name, ", ".join(f"{key} {value}" for key, value in list(about.items())[:8])))
    classes = card.get("classes") or ()
    rows.append(("classes", ", ".join(map(str, classes)) or "none: it draws without labels"))
    if card.get("captions"):
        rows.append(("words", "for example " + ", ".join(repr(str(text)) for text in card["captions"][:3])))
    if card.get("net", {}).get("controls"):
        rows.append(("drawings", str(card.get("info", {}).get("control") or len(card["net"]["controls"]))))
    for known in card.get("values") or ():
        rows.append((f"value {known['name']}", f"{known['low']:g} to {known['high']:g} in training"))
    if (whole := known_card(Path(found["path"]))) is not None:
        rows.append(("told", supported_inputs_of(whole)))
    return table([(key, plain(value)) for key, value in rows], ragged=True)
