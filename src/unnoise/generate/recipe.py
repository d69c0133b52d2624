"""Recipes: how a picture was made, as the JSON document that its PNG file contains.

    model            path, weights (the file), sha256 (of that file); in a sheet of a training, its step instead
    inputs           "data", where the pictures that a sheet is conditioned on are of the data set
    control_models   paths of the models whose control networks were added
    request          the settings that all pictures of a request have in common, by the names of `Request`
    files            SHA-256 of each picture that the request names: image, mask, control images
    versions, machine
    seed, label or prompt, size          of this picture; `columns` instead of a seed for a grid
    together, prompts                    the batch that the picture was sampled in, as `--seeds` and `--prompt` give it

Law: on the same machine, with the same versions, `sample_command(recipe)` makes the same picture bit for bit
(tests/cli/test_sample.py). `reproducibility_warnings` lists what has changed since.

torch is imported by `request_recipe` only: a recipe is read without it.
"""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unnoise.config.renamed import upgrade
from unnoise.config.request import Request, RequestOptions
from unnoise.errors import UserError
from unnoise.generate.rows import Row, seeds_text
from unnoise.io.hashing import sha256
from unnoise.io.printable import command_line, printable
from unnoise.io.whatis import is_checkpoint

if TYPE_CHECKING:
    from unnoise.config.cards import ModelCard
    from unnoise.model import Model

Recipe = dict[str, Any]

FORMAT = 1
OWN_OPTIONS = ("seeds", "prompts", "values", "controls")  # fields of Request that the command gives in another form
NO_EFFECT = ("previews",)  # on the picture itself
NOT_SETTINGS = (*OWN_OPTIONS, *NO_EFFECT)
OPTION_NAMES = {"spacing": "timestep-spacing"}  # options whose name is not their field's


# ------------------------------------------------------------------------------------------------------- writing


def build_recipe(folder: Path, model: Model, request: Request) -> Recipe:
    """The part of a recipe that all pictures of a request have in common.

    `folder` is the directory that `model` was loaded from. Raises UserError where it contains no weights.
    """
    weights = weights_file(folder)
    about = {"path": str(folder), "weights": str(weights), "sha256": sha256(weights)}
    return request_recipe(about, model.card, request)


def request_recipe(model: Mapping[str, Any], card: ModelCard, request: Request) -> Recipe:
    """The same with `model` as what the recipe states of the model."""
    import torch

    per_picture = ("seeds", "prompts") if request.prompt.prompts else ("seeds", "labels", "prompts")
    settings = {name: value for name, value in request.flat().items() if name not in per_picture}
    settings["sampler"] = card.sampler if request.sampling.sampler == "auto" else request.sampling.sampler
    files = [file for file in (request.prompt.image, request.prompt.mask, *request.prompt.controls) if file]
    return {
        "format": FORMAT,
        "model": dict(model),
        "request": settings,
        **({"files": {file: sha256(Path(file)) for file in files}} if files else {}),
        "versions": {
            "unnoise": metadata.version("unnoise"),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
        "machine": {"cpu": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()},
    }


def weights_file(folder: Path) -> Path:
    """The safetensors file of a model directory's network, not of its text encoder; a checkpoint file is its own."""
    if is_checkpoint(folder):
        return folder
    files = sorted(folder.glob("**/*.safetensors")) if folder.is_dir() else []
    if not files:
        raise UserError(f"{folder} contains no safetensors file: give the directory that the model was loaded from")
    if folder / "model.safetensors" in files:
        return folder / "model.safetensors"
    return next((file for file in files if file.parent in (folder, folder / "unet")), files[0])


def picture_recipe(recipe: Recipe, row: Row, batch: Sequence[Row], *, size: tuple[int, int], prompted: bool) -> Recipe:
    """The recipe of one picture of a request: `row`, sampled together with the rows of `batch`.

    `size` is (width, height) in pixels; `prompted`: rows contain prompts instead of classes.
    """
    seed, text = row
    prompts = list(dict.fromkeys(str(prompt) for _, prompt in batch)) if prompted else []
    own = {"seed": seed, "prompt" if prompted else "label": text, "size": list(size)}
    return recipe | own | _rows(batch, prompts)


def grid_recipe(
    recipe: Recipe, rows: Sequence[Row], *, columns: int, size: tuple[int, int], prompts: Sequence[str] = ()
) -> Recipe:
    """The recipe of a grid of all pictures of a request, `columns` in a line; `size`: one picture's (width, height)."""
    return recipe | {"columns": columns, "size": list(size)} | _rows(rows, prompts)


def _rows(rows: Sequence[Row], prompts: Sequence[str]) -> Recipe:
    return {"together": seeds_text(rows, prompts)} | ({"prompts": list(prompts)} if prompts else {})


# ------------------------------------------------------------------------------------------------------- reading


def sample_command(recipe: Mapping[str, Any]) -> str:
    """The shell command that makes this picture again, bit for bit on the same machine: with its whole batch.

    The order of the sums inside a network may depend on the batch size, so that a picture sampled alone can differ
    from the same picture sampled in a batch in its last bits. Raises UserError for a recipe that lacks a part.
    """
    check(recipe)
    model, request = str(recipe["model"]["path"]), upgrade("Request", recipe["request"])
    words = ["--seeds", str(recipe["together"])]
    for prompt in recipe.get("prompts", ()):
        words += option_word("--prompt", str(prompt))
    for path in recipe.get("control_models", ()):
        words += option_word("--control-model", str(path))
    for name, number in request.get("values", {}).items():
        words += option_word("--value", f"{name}={number[0]!r}")
    for path in request.get("controls", ()):
        words += option_word("--control", str(path))
    settings = {name: value for name, value in request.items() if name not in NOT_SETTINGS}
    words += option_words(settings, RequestOptions, OPTION_NAMES)
    if "columns" in recipe:
        words += ["--grid", "grid.png", *option_word("--columns", str(recipe["columns"]))]
    return sample_line(model, words)


def sample_line(model: str, words: Sequence[str]) -> str:
    """`unnoise sample` of a model with these options, as a shell reads it back.

    A model whose path begins with a dash stands after the options, behind the mark that ends them.
    """
    dashed = model.startswith("-")
    return command_line(["unnoise", "sample", *([] if dashed else [model]), *words, *(["--", model] if dashed else [])])


def check(recipe: Mapping[str, Any]) -> None:
    """Raises UserError, which names the part, for a recipe that lacks a part or has one of another type."""
    for name in ("model", "request", "together"):
        if name not in recipe:
            raise _damaged(f"it lacks {name!r}")
    groups = {"model": recipe["model"], "request": recipe["request"]}
    groups |= {name: recipe.get(name, {}) for name in ("versions", "files")}
    lists = {name: recipe.get(name, []) for name in ("prompts", "control_models", "size")}
    if isinstance(recipe["request"], Mapping):
        groups["values"] = recipe["request"].get("values", {})
        lists["controls"] = recipe["request"].get("controls", [])
    odd = [name for name, part in groups.items() if not isinstance(part, Mapping)]
    odd += [name for name, part in lists.items() if not isinstance(part, list | tuple)]
    if odd:
        raise _damaged(f"its {odd[0]!r} is not of the right type")
    if "path" not in recipe["model"]:
        raise _damaged("it lacks the model's 'path'")
    for name, number in groups["values"].items():
        if not isinstance(number, list | tuple) or not number or not isinstance(number[0], int | float):
            raise _damaged(f"the value {name!r} is no number")


def _damaged(why: str) -> UserError:
    return UserError(f"the recipe in this picture is damaged: {why}")


def reproducibility_warnings(recipe: Mapping[str, Any]) -> list[str]:
    """The reasons why `sample_command` may make another picture here: missing or changed files, other versions."""
    return [*_changed_model(recipe), *_changed_files(recipe), *_changed_versions(recipe)]


def _changed_model(recipe: Mapping[str, Any]) -> list[str]:
    model = recipe.get("model", {})
    path, weights = str(model.get("path", "")), Path(str(model.get("weights", "")))
    if not os.path.exists(path):  # unlike Path's, False for a name that is too long or has a NUL
        if "step" in model:
            return [
                f"the checkpoint {printable(path)} is not there any more: the path of another one makes other pictures"
            ]
        return [f"the model {printable(path)} does not exist here: put its path here into the command"]
    if model.get("sha256") and os.path.isfile(weights) and sha256(weights) != model["sha256"]:
        return [f"the weights in {printable(str(weights))} have changed since: the command makes another picture"]
    return []


def _changed_files(recipe: Mapping[str, Any]) -> list[str]:
    found = []
    if recipe.get("inputs") == "data":
        found.append("the pictures that this sheet is conditioned on are of the data set: add --image to the command")
    for name, digest in recipe.get("files", {}).items():
        if not os.path.isfile(str(name)):
            found.append(f"the input picture {printable(str(name))} does not exist here: put its path into the command")
        elif sha256(Path(str(name))) != digest:
            found.append(
                f"the input picture {printable(str(name))} has changed since: the command makes another picture"
            )
    for path in recipe.get("control_models", ()):
        if not os.path.exists(str(path)):
            found.append(f"the control model {printable(str(path))} does not exist here: put its path into the command")
    return found


def _changed_versions(recipe: Mapping[str, Any]) -> list[str]:
    found, versions = [], recipe.get("versions", {})
    for package in ("unnoise", "torch"):
        try:
            installed = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
        made = str(versions.get(package) or installed)
        if made.split("+")[0] != installed.split("+")[0]:
            found.append(f"made with {package} {printable(made)}, installed is {installed}: the last bits may differ")
    return found


# -------------------------------------------------------------------------------------- text of the command line


def option_words(values: Mapping[str, Any], settings: type, names: Mapping[str, str] | None = None) -> list[str]:
    """The command line options that set `values`, fields of the dataclass `settings`; defaults are left out.

    An option has its field's name with dashes, unless `names` has another.
    """
    words: list[str] = []
    defaults = settings()
    for field in dataclasses.fields(settings):
        default = getattr(defaults, field.name)
        value = values.get(field.name, default)
        if value == default or value is None:
            continue
        name = (names or {}).get(field.name, field.name.replace("_", "-"))
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, (list, tuple)):
            if default is None:  # a pair, given at once
                words += [f"--{name}", *map(str, value)]
            elif tuple(value) != default:
                words += [part for each in value for part in (f"--{name}", str(each))]
        else:
            words += option_word(f"--{name}", repr(value) if isinstance(value, float) else str(value))
    return words


def option_word(name: str, value: str) -> list[str]:
    """An option and its value; in one word where the value starts with a dash, which would be read as an option."""
    return [f"{name}={value}"] if value.startswith("-") else [name, value]
