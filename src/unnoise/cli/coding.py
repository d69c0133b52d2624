"""What compressing and decompressing have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from unnoise.cli.console import UsageError
from unnoise.cli.options import option

MOST_BYTES = 2**24  # of a compressed picture that is described

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


def described(path: Path) -> dict[str, Any] | None:
    """What the header of a compressed picture says, as a JSON document; None for a file of another kind.

    Raises UserError for a damaged file.
    """
    from unnoise.compression import format

    if not path.is_file():
        return None
    with path.open("rb") as file:
        data = file.read(MOST_BYTES) if file.read(len(format.MAGIC)) == format.MAGIC else b""
    if not data:
        return None
    found = format.read(format.MAGIC + data, str(path))
    header = found.header
    return {
        "kind": "compressed picture",
        "path": str(path),
        "bytes": len(format.MAGIC) + len(data),
        "whole": "yes" if found.whole else f"no: {len(found.payload):,} of {found.size:,} bytes of the picture",
        "channels, height, width": list(header.shape),
        "seed": header.seed,
        "class": "none" if header.label is None else header.label,
        "model": f"fingerprint {header.model.hex()}, printed by `unnoise compress --json`",
    }


def require_coder() -> None:
    """Raises UsageError where the package that codes bits is not installed."""
    import importlib.util

    if importlib.util.find_spec("constriction") is None:
        raise UsageError(
            "compression needs the package constriction, which is not installed. Run: pip install 'unnoise[coder]'"
        )
