"""The files of a run that grow by a line at a time: log.txt, and metrics.jsonl, a JSON object of numbers a line.

A line is written whole or not at all, except where the process is killed; a reader skips what is not a line of metrics.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from unnoise.io.atomic import write_text
from unnoise.io.reading import open_regular


def append(file: Path, line: str) -> None:
    """Appends a line. Raises OSError where that fails, as on a full disk, and then removes what was written of it."""
    size = file.stat().st_size if file.exists() else 0
    try:
        with file.open("a", encoding="utf-8") as f:
            f.write(line + "\n")
    except OSError:
        with suppress(OSError):
            os.truncate(file, size)
        raise


def read(file: Path) -> list[dict[str, Any]]:
    """Returns the lines of a metrics file, without truncated and damaged ones."""
    return [values for line in _lines(file) if (values := _values(line)) is not None]


def rewind(file: Path, step: int) -> None:
    """Removes the lines after this step, and damaged ones. Raises OSError."""
    lines = _lines(file)
    valid = [line for line in lines if (values := _values(line)) is not None and int(values["step"]) <= step]
    if valid != lines:
        write_text(file, "".join(line + "\n" for line in valid))


def tensorboard(directory: Path, step: int) -> Any:
    """Returns a TensorBoard writer that removes entries from `step` on; False where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return False
    return SummaryWriter(str(directory), purge_step=step)


def _lines(file: Path) -> list[str]:
    if not file.exists():
        return []
    with open_regular(file) as f:
        return f.read().decode("utf-8", errors="replace").splitlines()


def _values(line: str) -> dict[str, Any] | None:
    """The numbers of a line; None for what is not a line of metrics."""
    try:
        values: dict[str, Any] = json.loads(line)
        return values if int(values["step"]) >= 0 else None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
