"""A cache of the features of real pictures on disk: computed once for each set of pictures, network and number.

The name of a file is a hash of everything that its contents depend on. Files are written atomically; what cannot be
read is computed again. safetensors only.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


def key(*parts: str) -> str:
    """The hash of these strings, in this order."""
    return hashlib.sha256("\0".join(("real features 1", *parts)).encode()).hexdigest()[:32]


def load(folder: Path, name: str, shape: tuple[int, int]) -> Tensor | None:
    """The features (n, D) float32 of this name; None if there is no readable file, or its shape differs."""
    try:
        found = load_file(folder / f"{name}.safetensors").get("features")
    except (OSError, SafetensorError):
        return None
    return found if found is not None and tuple(found.shape) == shape else None


def save(folder: Path, name: str, features: Tensor) -> None:
    """Stores features (n, D). Errors of the disk are ignored: without its cache an evaluation only takes longer."""
    path = folder / f"{name}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, fresh = tempfile.mkstemp(dir=folder, prefix=".fresh-")
        os.close(handle)
        try:
            save_file({"features": features.contiguous()}, fresh)
            os.replace(fresh, path)
        finally:
            Path(fresh).unlink(missing_ok=True)
    except (OSError, SafetensorError):
        return
