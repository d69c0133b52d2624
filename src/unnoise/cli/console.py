"""What the command line says, and where: data to stdout, messages to stderr, one exit code a kind of ending.

0 done · 1 failed while working · 2 asked wrongly: refused before the first step, nothing was started
130 interrupted (Ctrl-C) · 143 terminated; a training has written a checkpoint before both
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from unnoise.errors import UserError

DONE, FAILED, USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
WIDEST = 100_000  # columns of a table, which is not cut to the terminal's width


T = TypeVar("T")


class UsageError(UserError):
    """What was asked is wrong: nothing has been started. Exit code 2."""


@contextmanager
def asking() -> Iterator[None]:
    """Errors meant for people, raised while the question is still being read, are questions asked wrongly."""
    try:
        yield
    except UsageError:
        raise
    except UserError as error:
        raise UsageError(str(error)) from error


def started(steps: Iterable[T]) -> Iterator[T]:
    """The same steps; what is refused before the first of them was asked wrongly, for nothing has been started."""
    later = iter(steps)
    with asking():
        first = list(islice(later, 1))
    yield from first
    yield from later


def say(message: str = "") -> None:
    """A message for the person who watches: stderr, never mixed into data."""
    print(message, file=sys.stderr, flush=True)


def show(text: str) -> None:
    """The answer: stdout."""
    print(text)


def emit(document: Mapping[str, Any]) -> None:
    """The answer as one JSON document on stdout."""
    show(as_json(document))


def as_json(document: Mapping[str, Any]) -> str:
    """The document as JSON, which has no word for what is no number: NaN and infinity are null."""
    return json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy and torch numbers
        return _plain(value.tolist())
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
    cells = [[Text(cell) for cell in row] for row in body]
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


def existing(path: Path, what: str) -> Path:
    """`path`, which must be there; otherwise an error that names the nearest neighbour in its folder."""
    if path.exists():
        return path
    import difflib

    folder = path.parent
    if not folder.is_dir():
        raise UsageError(f"no {what} at {path}: there is no folder {folder}. Check the path, or run from its root")
    names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    near = difflib.get_close_matches(path.name, names, n=1)
    if near:
        raise UsageError(f"no {what} at {path}; did you mean {folder / near[0]}?")
    there = ", ".join(sorted(names)[:8]) or "nothing"
    raise UsageError(f"no {what} at {path}; the folder {folder} has: {there}{' ...' if len(names) > 8 else ''}")


def writable(path: Path, what: str, *, folder: bool = False) -> Path:
    """`path`, where a file, or a `folder` of them, is to be written: checked before the work, not after it."""
    import os

    if path.exists() and path.is_dir() != folder:
        there, name = ("a file", "a folder") if folder else ("a folder", "a file in it, or another")
        raise UsageError(f"cannot write {what} to {path}: it is {there}. Name {name}")

    ancestor = path
    while not ancestor.exists() and ancestor != ancestor.parent:
        ancestor = ancestor.parent
    if ancestor is not path and not ancestor.is_dir():
        raise UsageError(f"cannot write {what} to {path}: {ancestor} is a file, not a folder")
    if not os.access(ancestor, os.W_OK):
        raise UsageError(f"cannot write {what} to {path}: no permission to write in {ancestor}. Choose another place")
    return path
