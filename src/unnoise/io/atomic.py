"""A file is written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def publish(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside `path`, then move over it: whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
