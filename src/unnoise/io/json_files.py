"""JSON files and files of one JSON object a line, read without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unnoise.errors import UserError

TAIL = 65_536  # bytes: a line of metrics is shorter


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises UserError where the file is not JSON in UTF-8."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error


def last_metrics(path: Path) -> dict[str, Any]:
    """The last complete object of a metrics file, one JSON object a line; empty where there is none.

    A line that a crash cut off is skipped. Only the last 64 KiB are read.
    """
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        lines = file.read().splitlines()
    for line in reversed(lines):
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict):
            return values
    return {}
