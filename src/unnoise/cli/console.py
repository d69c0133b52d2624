"""What commands write: data to stdout, messages to stderr, and an exit code for each kind of ending.

0 done · 1 failed while working · 2 wrong usage: refused before the first step, nothing was started
130 interrupted (Ctrl-C) · 143 terminated; a training writes a checkpoint before both
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any, TextIO, TypeVar

from unnoise.errors import UserError
from unnoise.io.printable import printable, visible

DONE, FAILED, USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
WIDEST = 100_000  # columns of a table, which is not cut to the terminal's width


T = TypeVar("T")


class UsageError(UserError):
    """A command was used in a wrong form and has started nothing. Exit code 2."""


@contextmanager
def asking() -> Iterator[None]:
    """Turns a UserError that is raised inside, before any work starts, into a UsageError (exit code 2)."""
    try:
        yield
    except UsageError:
        raise
    except UserError as error:
        raise UsageError(str(error)) from error


def started(steps: Iterable[T]) -> Iterator[T]:
    """Yields the same steps. A UserError before the first of them becomes a UsageError: nothing has been started."""
    later = iter(steps)
    with asking():
        first = list(islice(later, 1))
    yield from first
    yield from later


def say(message: str = "") -> None:
    """Prints a message to stderr, so that it is never mixed into data."""
    print(visible(message), file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Prints a result to stdout. Characters that could steer a terminal are shown as escapes, here and in `say`."""
    print(visible(text))


def emit(document: Mapping[str, Any]) -> None:
    """Prints a result as one JSON document to stdout."""
    show(as_json(document))


def as_json(document: Mapping[str, Any]) -> str:
    """The document as JSON. NaN and infinity, which JSON does not have, become null; what is not seen is escaped."""
    text = json.dumps(_jsonable(document), indent=2, ensure_ascii=False, allow_nan=False)
    return "".join(c if visible(c) == c else json.dumps(c)[1:-1] for c in text)


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy and torch numbers
        return _jsonable(value.tolist())
    return value


def table(rows: Sequence[Sequence[str]], *, head: Sequence[str] = (), indent: str = "", ragged: bool = False) -> str:
    """Lines of aligned columns, two spaces apart, as wide as their cells whatever the terminal's width.

    A column of numbers is aligned to the right, any other to the left; `ragged`: all to the left.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    body = [list(head), *map(list, rows)] if head else [list(row) for row in rows]
    if not body:
        return ""
    cells = [[Text(printable(cell)) for cell in row] for row in body]
    if head:
        widths = [max(row[i].cell_len for row in cells if i < len(row)) for i in range(max(map(len, cells)))]
        cells.insert(1, [Text("-" * width) for width in widths])
    grid = Table.grid(padding=(0, 2, 0, 0))
    for i in range(max(map(len, body))):
        right = not ragged and all(_is_number(row[i]) for row in rows if i < len(row) and row[i])
        grid.add_column(justify="right" if right else "left", no_wrap=True)
    for row in cells:
        grid.add_row(*row)
    console = Console(file=StringIO(), width=WIDEST, color_system=None, force_terminal=False)
    console.print(grid)
    assert isinstance(console.file, StringIO)
    return "\n".join(indent + line.rstrip() for line in console.file.getvalue().splitlines())


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "").rstrip("%"))
    except ValueError:
        return False
    return True


def animated(out: TextIO) -> bool:
    """Whether `out` is a terminal on which a bar can be redrawn."""
    try:
        return out.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # closed
        return False
