"""JSON files and files of one JSON object a line, read without torch; sizes and depths are limited."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from unnoise.errors import UserError
from unnoise.io.reading import open_regular, read_text

MOST_JSON = 16 * 2**20  # bytes: more than any table of betas or index of shards
DEEPEST = 64  # objects and lists inside each other; the files of all formats here have fewer than 10
TAIL = 65_536  # bytes: a line of metrics is shorter


def read_json(path: Path, most: int = MOST_JSON) -> Any:
    """The value in a JSON file.

    Raises UserError for a file that is missing or larger than `most` bytes, and as `parse_json` does.
    """
    try:
        return parse_json(read_text(path, most), str(path))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: copy the whole folder") from None
    except OSError as error:
        raise error if isinstance(error, UserError) else UserError(f"{path} cannot be read: {error}") from None


def read_object(path: Path, most: int = MOST_JSON) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError as `read_json` does, and for any other value."""
    found = read_json(path, most)
    if not isinstance(found, dict):
        raise UserError(f"{path} contains a {type(found).__name__}, not a JSON object of settings")
    return found


def parse_json(text: str | bytes, where: str) -> Any:
    """The value of JSON text. Raises UserError, which begins with `where`, for any other text.

    Nesting deeper than DEEPEST is refused: functions that follow it would exceed the limit of recursion.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a ValueError too
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UserError(f"{where} is not JSON: {why}") from None
    level = [found]
    for _ in range(DEEPEST):
        inside = [
            value.values() if isinstance(value, dict) else value for value in level if isinstance(value, dict | list)
        ]
        level = [value for values in inside for value in values]
        if not level:
            return found
    raise UserError(f"{where} has objects inside each other more than {DEEPEST} deep: it is damaged or no settings")


def last_metrics(path: Path) -> dict[str, Any]:
    """The last complete object of a metrics file, one JSON object a line; empty where there is none.

    A line that a crash cut off, or that is damaged, is skipped. Only the last 64 KiB are read.
    """
    if not path.is_file():
        return {}
    with open_regular(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
        lines = file.read(TAIL).splitlines()
    for line in reversed(lines):
        try:
            values = parse_json(line, str(path))
        except UserError:
            continue
        if isinstance(values, dict):
            return values
    return {}
