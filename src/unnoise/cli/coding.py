"""What compressing and decompressing have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from unnoise.cli.console import UsageError
from unnoise.cli.options import option

if TYPE_CHECKING:
    pass

ModelOption = Annotated[
    Path,
    option(
        "A run, a model directory, a checkpoint or a diffusers folder: the same one for compress and decompress.",
        "-m",
    ),
]
DeviceOption = Annotated[
    str,
    option("auto, cpu, cuda, cuda:1 or mps: the same one for compress and decompress, which need the same arithmetic."),
]


def require_coder() -> None:
    """Raises UsageError where the package that codes bits is not installed."""
    import importlib.util

    if importlib.util.find_spec("constriction") is None:
        raise UsageError(
            "compression needs the package constriction, which is not installed. Run: pip install 'unnoise[coder]'"
        )
