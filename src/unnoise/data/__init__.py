"""Data sets: pictures in any supported form on disk, as batches that are the same on every machine and restart.

Names are imported when they are used, because some of them need torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from unnoise.config.data import DataConfig

if TYPE_CHECKING:
    from unnoise.data.dataset import Batch, Dataset, scaled
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
    "scaled": "dataset",
}


def open(config: DataConfig) -> Dataset:
    """Opens the pictures at `config.path`: a named set (`fashion`; `fashion:test` is its test part), a folder, a file.

    All pictures are decoded at once if they fit into memory. Raises UserError for a path without pictures, or with too
    many broken ones.
    """
    from unnoise.data.dataset import Dataset
    from unnoise.data.registry import find, find_controls

    return Dataset(find(config.path, config.size), config, find_controls(config.control))


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


__all__ = ["SETS", "Batch", "Broken", "Dataset", "batches", "contact_sheet", "open", "order", "scaled"]
