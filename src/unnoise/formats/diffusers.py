"""diffusers' UNet2DModel folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from unnoise.settings import Process, UNetConfig


def is_folder(folder: Path) -> bool:
    """Whether this looks like one."""
    return (folder / "config.json").is_file() or (folder / "model_index.json").is_file()


def read(folder: Path) -> tuple[UNetConfig, dict[str, Tensor], Process, dict[str, Any]]:
    """Its network, weights, process and hints."""
    raise NotImplementedError
