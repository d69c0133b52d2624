"""Data: from whatever pictures lie on a disk to batches, the same ones whoever asks, and however often."""

from __future__ import annotations

from unnoise.data.chance import order
from unnoise.data.dataset import Batch, Dataset
from unnoise.data.describe import contact_sheet
from unnoise.data.loading import batches
from unnoise.data.source import Broken
from unnoise.data.sources import SETS, find
from unnoise.settings import DataConfig


def open(config: DataConfig) -> Dataset:
    """The pictures at `config.path`: a named set (`fashion`, `toy`, `:test` for the held-out part), a folder, a file.

    Raises UserError for a path that holds no pictures, or too many broken ones; decodes what fits into memory.
    """
    return Dataset(find(config.path), config)


__all__ = ["SETS", "Batch", "Broken", "Dataset", "batches", "contact_sheet", "open", "order"]
