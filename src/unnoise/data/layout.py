"""The layout of a tree of pictures: order, classes, captions and numbers, from the names of its files.

Order: natural, part by part ("2.png" before "10.png"). Classes: the folders of the first level that has more than one;
there are none if pictures lie beside those folders, or if there is only one folder. Captions: `metadata.jsonl` (one
JSON object per line: `file_name` relative to its folder, `text` or `caption`, and `label` if the folders are no
classes), or a `.txt` of the same name beside each picture. Numbers: every other key of metadata.jsonl that has numeric
values. The rules are the same for folders and archives.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unnoise.data.decode import SUFFIXES
from unnoise.data.source import number_classes, numbers
from unnoise.errors import UserError

SPLITS = frozenset(("train", "training", "test", "testing", "val", "valid", "validation", "dev"))
CAPTION_KEYS = ("text", "caption", "prompt")


class Layout(NamedTuple):
    """Classes, captions and numbers of the pictures in a tree."""

    classes: tuple[str, ...]
    labels: NDArray[np.int64] | None
    captions: tuple[str, ...] | None
    values: dict[str, NDArray[np.float64]]  # (N,) each; NaN if missing
    notes: tuple[str, ...]


def natural(name: str) -> tuple[str, str]:
    """A sort key by the parts of a path, with digits compared by value; the name itself breaks ties."""
    by_value = re.sub("[0-9]+", lambda digits: _sortable(digits.group()), name)
    return (by_value.replace("/", "\0"), name)


def _sortable(digits: str) -> str:
    """Text that sorts like the number: the number of digits comes first."""
    value = digits.lstrip("0")
    return f"{len(value):04}{value}"


def hidden(name: str) -> bool:
    """Whether a file was left by the operating system or a tool: .DS_Store, .git/..., __MACOSX/..."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def is_picture(name: str) -> bool:
    """Whether a file of this name is read as a picture."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES and not hidden(name)


def read_layout(
    pictures: Sequence[str], others: Iterable[str], read_text: Callable[[str], str], where: str, *, classes: bool = True
) -> Layout:
    """Classes, captions and numbers of `pictures`, from their folders and from the text files among `others`.

    `classes` False ignores the folders. Raises UserError for a metadata.jsonl that cannot be read, and for a folder
    whose sub-folders are splits.
    """
    notes: list[str] = []
    texts = {name for name in others if not hidden(name)}
    rows = _metadata(sorted((n for n in texts if n.split("/")[-1] == "metadata.jsonl"), key=natural), read_text, where)
    folders = _folders(pictures, where, notes) if classes else None
    labels: NDArray[np.int64] | None = None
    names: tuple[str, ...] = ()
    if folders is not None:
        names = tuple(sorted(set(folders), key=natural))
        number = {name: k for k, name in enumerate(names)}
        labels = np.array([number[folder] for folder in folders], np.int64)
    elif all(isinstance(rows.get(name, {}).get("label"), int | str) for name in pictures) and rows:
        given = [rows[name]["label"] for name in pictures]
        same = given if len({type(label) for label in given}) == 1 else [str(label) for label in given]
        names, labels = number_classes(np.array(same), f"metadata.jsonl of {where}")
    captions = [_caption(name, rows, texts, read_text) for name in pictures]
    missing = sum(not caption for caption in captions)
    if 0 < missing < len(captions):
        notes.append(f"{missing} of {len(captions)} pictures have no caption")
    unmatched = len(rows.keys() - set(pictures))
    if unmatched:
        notes.append(f"{unmatched} rows of metadata.jsonl name a picture that does not exist")
    own = [rows.get(name, {}) for name in pictures]
    keys = dict.fromkeys(key for row in own for key in row)
    values, odd = numbers({key: [row.get(key) for row in own] for key in keys}, f"metadata.jsonl of {where}")
    notes += odd
    return Layout(names, labels, tuple(captions) if missing < len(captions) else None, values, tuple(notes))


def count_suffixes(names: Iterable[str]) -> str:
    """`12 .svg, 3 .txt`: the kinds of files in a folder or archive without pictures, for messages."""
    kinds = Counter(PurePosixPath(name).suffix.lower() or "without a suffix" for name in names if not hidden(name))
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5)) or "nothing"


def _folders(pictures: Sequence[str], where: str, notes: list[str]) -> list[str] | None:
    """The class folder of each picture, at the first level with more than one; None if there are no classes."""
    paths = [name.split("/")[:-1] for name in pictures]
    shallow = min((len(path) for path in paths), default=0)
    depth = 0
    while depth < shallow and len({path[depth] for path in paths}) == 1:
        depth += 1
    if shallow == depth:
        outside = sum(len(path) == depth for path in paths)
        if outside < len(paths):
            notes.append(f"no classes: {outside} pictures are beside the sub-folders, not inside one")
        return None
    found = [path[depth] for path in paths]
    if set(found) <= SPLITS:
        splits = sorted(set(found), key=lambda split: (not split.startswith("train"), split))
        example = "/".join([where, *paths[0][:depth], splits[0]])
        raise UserError(f"the folders in {where} are splits ({', '.join(splits)}), not classes; give one: {example}")
    return found


def _metadata(files: Sequence[str], read_text: Callable[[str], str], where: str) -> dict[str, dict[str, object]]:
    rows: dict[str, dict[str, object]] = {}
    for file in files:
        folder = file.rpartition("/")[0]
        for number, line in enumerate(read_text(file).splitlines(), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                name = row["file_name"]
                rows[f"{folder}/{name}" if folder else str(name)] = row
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise UserError(
                    f"{where}/{file}, line {number}, is not an object with a file_name ({error!r}); write "
                    '{"file_name": "a.png", "text": "what it shows"}'
                ) from error
    return rows


def _caption(name: str, rows: dict[str, dict[str, object]], texts: set[str], read_text: Callable[[str], str]) -> str:
    row = rows.get(name, {})
    for key in CAPTION_KEYS:
        if isinstance(row.get(key), str):
            return str(row[key])
    beside = str(PurePosixPath(name).with_suffix(".txt"))
    return read_text(beside).strip() if beside in texts else ""
