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
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from unnoise.errors import UserError

DONE, FAILED, USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


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
    """Columns of text, padded to the widest; numbers to the right, everything else, or all if `ragged`, to the left."""
    body = [list(head), *map(list, rows)] if head else [list(row) for row in rows]
    if not body:
        return ""
    widths = [max(len(row[i]) for row in body if i < len(row)) for i in range(max(map(len, body)))]
    right = [not ragged and all(_number(row[i]) for row in rows if i < len(row) and row[i]) for i in range(len(widths))]
    lines = []
    for row in body:
        cells = [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=False)]
        lines.append(indent + "  ".join(cells).rstrip())
    if head:
        lines.insert(1, indent + "  ".join("-" * w for w in widths))
    return "\n".join(lines)


def _number(cell: str) -> bool:
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


def plain(word: str) -> str:
    """Without control characters: what a file says is shown on a terminal, and may not steer it."""
    return "".join(c for c in word if c.isprintable())
