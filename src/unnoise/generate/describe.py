"""What a file or a folder is: a picture with its recipe, a run, a model, a diffusers folder or a weights file.

Each description is a JSON document with `kind` first. Descriptions come from headers, JSON and YAML: nothing here
loads a pickle, and only the descriptions of diffusers folders and files of weights import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unnoise.config import convert, files
from unnoise.config.cards import ModelCard
from unnoise.config.networks import UNetConfig
from unnoise.config.usage import uses_text
from unnoise.errors import UserError
from unnoise.generate.recipe import option_word, reproducibility_warnings, sample_command, sample_line
from unnoise.io import checkpoint
from unnoise.io.hashing import sha256
from unnoise.io.json_files import last_metrics, read_json, read_object
from unnoise.io.reading import open_regular
from unnoise.io.weights import read_header
from unnoise.io.whatis import not_a
from unnoise.training.run_list import summary

AUTOENCODER_CARD = "autoencoder.json"
FEW = 16  # classes: all of them are shown in one grid
PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")  # how picture files begin


def describe(path: Path) -> dict[str, Any]:
    """What `path` is. Raises UserError, which names what it is instead, for what unnoise cannot read."""
    if path.is_dir():
        return describe_folder(path)
    with open_regular(path) as file:
        head = file.read(512)
    return describe_picture(path) if head.startswith(PICTURES) else describe_weights(path)


def describe_picture(path: Path) -> dict[str, Any]:
    """The recipe of a picture, the command that makes it again, and why that may give another picture here."""
    from unnoise.io.png import read_recipe

    recipe = read_recipe(path)
    if recipe is None:
        raise UserError(
            f"{path} contains no recipe: it was not made by unnoise, or was made with --no-metadata, or a program "
            "that saved it since removed the recipe"
        )
    found = {"kind": "picture", "path": str(path), "command": sample_command(recipe), "recipe": recipe}
    return found | {"warnings": reproducibility_warnings(recipe)}


def describe_weights(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, and what it contains: the parts of a checkpoint, or another kind of file."""
    found = _header(path)
    from unnoise.formats.single_file.describe import describe as contents  # here, for it imports torch

    return found | contents(path)


def _header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file."""
    header = read_header(path)
    return {
        "kind": "weights",
        "path": str(path),
        "tensors": header.tensors,
        "parameters": header.parameters,
        "dtypes": header.dtypes,
        "sha256": sha256(path),
        "metadata": header.metadata,
    }


def describe_folder(path: Path) -> dict[str, Any]:
    """A run (config.yaml), a model (model.json) or a diffusers folder (model_index.json or config.json)."""
    if (path / "config.yaml").is_file():
        return describe_run(path)
    if (path / "model.json").is_file():
        return describe_model(path)
    if (path / AUTOENCODER_CARD).is_file():
        return describe_model(path, AUTOENCODER_CARD)
    if (path / "model_index.json").is_file() or (path / "config.json").is_file():
        return describe_diffusers(path)
    raise not_a("a run or a model", path)


def describe_diffusers(path: Path) -> dict[str, Any]:
    """The settings of a diffusers folder's network; the warnings are its notes, or why it cannot be loaded."""
    from unnoise.formats import diffusers, places  # here, for they import torch

    inner = path / "unet" / "config.json"
    config = read_json(inner if inner.is_file() else path / "config.json")
    try:
        warnings = list(diffusers.read_settings(places.locate(path)).hints["notes"])
    except UserError as error:
        warnings = [f"it cannot be loaded: {error}"]
    return {"kind": "diffusers folder", "path": str(path), "config": config, "warnings": warnings}


def describe_run(path: Path) -> dict[str, Any]:
    """A run's configuration, how far it is, its last metrics, its checkpoints and the model in the newest of them.

    `done` is the part of the training that is done, in [0, 1].
    """
    values, _ = files.read(path / "config.yaml")
    last = last_metrics(path / "metrics.jsonl")
    found: dict[str, Any] = {"kind": "run", "path": str(path), "name": values.get("name"), "config": values}
    about = summary(path)
    found |= {"last": last, "summary": asdict(about)}
    if about.step is not None and about.steps:
        found["done"] = min(1.0, about.step / about.steps)
    found["checkpoints"] = [folder.name for folder in reversed(checkpoint.steps(path / "checkpoints").values())]
    others = [name for name in checkpoint.stray(path / "checkpoints") if not name.startswith(".")]
    warnings = [about.problem] if about.problem else []
    warnings += [f"checkpoints/{name} is not a finished checkpoint and is not used" for name in others]
    newest = path / "checkpoints" / found["checkpoints"][-1] if found["checkpoints"] else None
    if newest is not None and (newest / AUTOENCODER_CARD).is_file():
        measured = path / "autoencoder"
        found["autoencoder"] = describe_model(
            measured if (measured / AUTOENCODER_CARD).is_file() else newest, AUTOENCODER_CARD
        )
    elif newest is not None:
        found["model"] = describe_model(newest)
    else:
        warnings.append("this run has no checkpoint yet: it cannot be sampled from")
    warnings += _unreadable(path / "config.yaml", values)
    for name in ("env", "data"):
        if (path / f"{name}.json").is_file():
            try:
                found[name] = read_json(path / f"{name}.json")
            except UserError as error:
                warnings.append(f"{error}: it is left out")
    if not isinstance(found.get("data", {}), dict):
        warnings.append(f"{path / 'data.json'} is damaged: it is left out")
        del found["data"]
    return found | {"warnings": warnings}


def _unreadable(file: Path, values: Mapping[str, Any]) -> list[str]:
    """Why the configuration of a training of a network is not one of this version; empty where it is one."""
    from unnoise.config.training import AutoencoderTrainConfig, TrainConfig  # here: `unnoise sample` needs none

    kind = AutoencoderTrainConfig if "discriminator" in values else TrainConfig
    try:
        convert.from_dict(kind, values, str(file))
    except UserError as error:
        return [f"this version of unnoise cannot read the configuration: {error}"] if "net" in values else []
    return []


def describe_model(path: Path, card: str = "model.json") -> dict[str, Any]:
    """The card of a directory of a model, or of an autoencoder, and the header of its weights."""
    kind = "autoencoder" if card == AUTOENCODER_CARD else "model"
    found = {"kind": kind, "path": str(path), "card": _card(path / card)}
    weights = path / "model.safetensors"
    if not weights.is_file():
        return found | {"warnings": [f"{weights} is missing: the model cannot be loaded"]}
    header = _header(weights)
    found |= {key: header[key] for key in ("tensors", "parameters", "dtypes", "sha256")}
    notes = found["card"].get("notes", ()) if isinstance(found["card"], Mapping) else ()
    return found | {"warnings": list(map(str, notes if isinstance(notes, list) else ()))}


def _card(file: Path) -> dict[str, Any]:
    """The settings in a card, of this version or of another. Raises UserError for a file that is no card."""
    card = read_object(file).get("card", {})
    if not (isinstance(card, dict) and all(isinstance(card.get(key, {}), dict) for key in ("net", "process", "info"))):
        raise _odd(file)
    lists = [card.get(key) or [] for key in ("classes", "captions", "values")] + [
        card.get("net", {}).get("controls", [])
    ]
    if not all(isinstance(each, list) for each in lists) or not all(map(_is_range, lists[2])):
        raise _odd(file)
    return card


def _is_range(value: object) -> bool:
    """Whether an entry of a card's values has a name and a range."""
    ends = [value.get("low"), value.get("high")] if isinstance(value, dict) and "name" in value else [None]
    return all(isinstance(end, int | float) for end in ends)


def _odd(file: Path) -> UserError:
    return UserError(f"{file} is not the card of a model: its settings are of other types. Copy the model again")


def known_card(path: Path) -> ModelCard | None:
    """The card of a model directory, or of a run's newest checkpoint; None where there is none that can be read."""
    for file in [folder / "model.json" for folder in (path, *checkpoint.steps(path / "checkpoints").values())]:
        try:
            return convert.from_dict(ModelCard, read_json(file)["card"], str(file))
        except (OSError, UserError, ValueError, KeyError, TypeError):
            continue
    return None


def first_command(path: Path) -> str:
    """A command that samples from a model or a run, with an input of each kind that its network is conditioned on."""
    words: list[str] = []
    card, seeds = known_card(path), "0-15"
    if card is not None:
        if uses_text(card):
            words += option_word("--prompt", next(iter(card.captions), "a description"))
        if card.classes:
            few = len(card.classes) <= FEW
            words += ["--labels", "all"] if few else option_word("--label", card.classes[0])
            seeds = "0-7" if few else seeds
        for known in card.values:
            words += ["--value", f"{known.name}={(known.low + known.high) / 2:g}"]
        if card.process.concat:
            words += ["--image", "FILE"]
            words += ["--mask", "FILE"] if card.process.concat == "masked" else []
        words += ["--control", "FILE"] * (len(card.net.controls) if isinstance(card.net, UNetConfig) else 0)
    return sample_line(str(path), [*words, "--seeds", seeds, "--grid", "grid.png"])
