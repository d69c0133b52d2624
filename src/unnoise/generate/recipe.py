"""The recipe in a picture: which model, settings and versions made it."""

from __future__ import annotations

import dataclasses
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from unnoise.config.request import Request
from unnoise.io.hashing import sha256
from unnoise.model import Model


def recipe_of(folder: Path, model: Model, request: Request) -> dict[str, Any]:
    """What all pictures of a request have in common: the model and its weights, the settings, the versions."""
    weights = sorted(folder.glob("**/*.safetensors")) if folder.is_dir() else []
    own = [file for file in weights if file.parent in (folder, folder / "unet")]  # not those of text encoders
    chosen = folder / "model.safetensors"
    file = chosen if chosen in weights else (own or weights)[0]
    rows = ("seeds", "prompts") if request.prompts else ("seeds", "labels", "prompts")
    settings = {key: value for key, value in dataclasses.asdict(request).items() if key not in rows}
    settings["sampler"] = model.card.sampler if request.sampler == "auto" else request.sampler
    inputs = [file for file in (request.image, request.mask, *request.controls) if file]
    return {
        "format": 1,
        "model": {"path": str(folder), "weights": str(file), "sha256": sha256(file)},
        "request": settings,
        **({"files": {file: sha256(Path(file)) for file in inputs}} if inputs else {}),
        "versions": {
            "unnoise": metadata.version("unnoise"),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
        "machine": {"cpu": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()},
    }
