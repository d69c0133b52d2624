"""What a path is that was given as something else: for error messages, by the names of files alone."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from unnoise.errors import UserError

PICTURES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic")
PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl")
AUTOENCODER = "autoencoder.json"
CHECKPOINTS = (".safetensors", ".ckpt", ".pt", ".pth")  # files that may be a whole model (formats/single_file)
EVALUATORS = ("classifier.json", "contrastive.json")  # the cards of models that generate no pictures
LOOKED_AT = 5_000  # entries of a folder and the folders in it
SHOWN = 5  # names in a sentence


def is_model(path: Path) -> bool:
    """Whether a directory has the files of a model, a run or a diffusers folder; they may still be damaged."""
    if _has(path, (*EVALUATORS, AUTOENCODER)):
        return False
    names = ("model.json", "model_index.json", "config.json")
    return (path / "checkpoints").is_dir() or any((path / name).is_file() for name in names)


def _has(path: Path, cards: Iterable[str]) -> bool:
    """Whether a directory has one of these cards, or is the run of a training that writes it."""
    found = (file for name in cards for file in (path / name, *path.glob(f"checkpoints/step-*/{name}")))
    return any(card.is_file() for card in found)


def is_checkpoint(path: Path) -> bool:
    """Whether this is a file that may be a checkpoint of a whole model, by the end of its name."""
    return path.suffix.lower() in CHECKPOINTS and path.is_file()


def not_a(wanted: str, path: Path) -> UserError:
    """The error for a path that exists and is not `wanted`: says what it is, and what can be done with it."""
    kind, fix = _folder(path) if path.is_dir() else _file(path)
    return UserError(f"{path} is {kind}, not {wanted}: {fix}")


def _file(path: Path) -> tuple[str, str]:
    suffix, named = path.suffix.lower(), shlex.quote(str(path))
    if suffix in PICTURES:
        return "a picture", f"`unnoise info {named}` shows which model made it, if unnoise did"
    if suffix == ".safetensors":
        return "a file of weights", "give the folder that has it and its settings (model.json or config.json)"
    if suffix in PICKLES:
        return "a pickle or a file of unknown weights", "pickles can run code; give a folder with safetensors files"
    if suffix == ".un":
        return "a compressed picture", f"`unnoise decompress {named} -o out.png --model MODEL` reads it"
    return "a file", "give the folder of a run or of a model"


def _folder(path: Path) -> tuple[str, str]:
    for folder, kind in ((path, "a folder of runs"), (path / "runs", "a folder with runs/ in it")):
        if runs := runs_in(folder):
            return kind, f"give one of the runs: {_some([str(run) for run in runs])}"
    if _has(path, (AUTOENCODER,)):
        named = shlex.quote(str(path))
        return "an autoencoder", f"train a model in its latents: `unnoise train latent --set autoencoder={named}`"
    if _has(path, EVALUATORS):
        return "a classifier or a contrastive model", "it evaluates pictures and generates none"
    found = list(islice(_files(path), LOOKED_AT))
    pictures = Counter(sorted(suffix for name in found if (suffix := Path(name).suffix.lower()) in PICTURES))
    if pictures:
        counts = ", ".join(f"{count:,} {suffix}" for suffix, count in pictures.most_common(3))
        more = " or more" if len(found) == LOOKED_AT else ""
        named = shlex.quote(str(path))
        return (
            f"a folder of pictures ({counts}{more})",
            f"`unnoise data {named}` describes it, `unnoise train PRESET --data {named}` trains on it",
        )
    models = sorted(folder for folder in path.iterdir() if folder.is_dir() and is_model(folder))
    if models:
        return "a folder with models in it", f"give one of them: {_some([str(folder) for folder in models])}"
    near = runs_in(path.parent) or runs_in(Path("runs"))
    names = sorted(entry.name for entry in path.iterdir())
    kind = f"a folder with {_some(names)}" if names else "an empty folder"
    if near:
        return kind, f"the nearest runs are {_some([str(run) for run in near])}"
    return kind, "a model has model.json, a run has config.yaml and checkpoints/, diffusers' folders have config.json"


def runs_in(path: Path) -> list[Path]:
    """The runs directly in a folder, the newest first."""
    found = [file.parent for file in islice(path.glob("*/config.yaml"), LOOKED_AT)]
    return sorted(found, key=lambda run: (run.stat().st_mtime, run.name), reverse=True)


def _files(path: Path) -> Iterator[str]:
    for _, _, names in os.walk(path):
        yield from names


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")
