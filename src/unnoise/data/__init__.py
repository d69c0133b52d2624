"""Data: from whatever pictures lie on a disk to batches, the same ones whoever asks, and however often.

Names are imported when used, for some of them take torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from unnoise.config.data import DataConfig

if TYPE_CHECKING:
    from unnoise.data.dataset import Batch, Dataset
    from unnoise.data.loading import batches
    from unnoise.data.random import order
    from unnoise.data.registry import SETS
    from unnoise.data.source import Broken
    from unnoise.data.summary import contact_sheet

_HOMES = {
    "SETS": "registry",
    "Batch": "dataset",
    "Broken": "source",
    "Dataset": "dataset",
    "batches": "loading",
    "contact_sheet": "summary",
    "order": "random",
}


def open(config: DataConfig) -> Dataset:
    """The pictures at `config.path`: a named set (`fashion`, `toy`, `:test` for the held-out part), a folder, a file.

    Raises UserError for a path that holds no pictures, or too many broken ones; decodes what fits into memory.
    """
    from unnoise.data.dataset import Dataset
    from unnoise.data.registry import find, find_drawings

    return Dataset(find(config.path, config.size), config, find_drawings(config.control))


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


__all__ = ["SETS", "Batch", "Broken", "Dataset", "batches", "contact_sheet", "open", "order"]
