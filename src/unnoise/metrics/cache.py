"""A cache of the features of real pictures on disk: computed once for each set of pictures, network and number.

The name of a file is a hash of everything that its contents depend on. Files are written atomically; what cannot be
read is computed again. safetensors only.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from unnoise.io import checkpoint
from unnoise.io.atomic import publish


def key(*parts: str) -> str:
    """The hash of these strings, in this order."""
    return hashlib.sha256("\0".join(("real features 1", *parts)).encode()).hexdigest()[:32]


def load(folder: Path, name: str, shape: tuple[int, int]) -> Tensor | None:
    """The features (n, D) float32 of this name; None if there is no readable file, or its shape differs."""
    try:
        found = checkpoint.read(folder / f"{name}.safetensors").get("features")
    except checkpoint.Damaged:
        return None
    return found if found is not None and tuple(found.shape) == shape else None


def save(folder: Path, name: str, features: Tensor) -> None:
    """Keep features (n, D). A disk that is full or read-only costs the cache, not the evaluation."""
    with contextlib.suppress(OSError, SafetensorError):
        publish(folder / f"{name}.safetensors", lambda beside: save_file({"features": features.contiguous()}, beside))
