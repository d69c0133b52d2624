"""What the names of a tree of pictures say: which files are pictures, their order, their classes, their captions.

Order: natural, part by part ("2.png" before "10.png"). Classes: the folders at the first level where the pictures
part; with pictures beside those folders, or one folder only, there are none. Captions: `metadata.jsonl` (one JSON
object a line: `file_name` relative to its folder, `text` or `caption`, and `label` where folders tell no class), or a
`.txt` of the same name beside each picture. Numbers: every other key of metadata.jsonl that holds some. A folder and an
archive are read alike.
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


class Told(NamedTuple):
    """What a tree tells about its pictures."""

    classes: tuple[str, ...]
    labels: NDArray[np.int64] | None
    captions: tuple[str, ...] | None
    values: dict[str, NDArray[np.float64]]  # (N,) each; NaN where a number is not told
    notes: tuple[str, ...]


def natural(name: str) -> tuple[str, str]:
    """A key that sorts part by part, and digits by their value; ties by the name itself, so that it is one order."""
    by_value = re.sub("[0-9]+", lambda digits: _sortable(digits.group()), name)
    return (by_value.replace("/", "\0"), name)


def _sortable(digits: str) -> str:
    """Text that sorts as the number does: its length first."""
    value = digits.lstrip("0")
    return f"{len(value):04}{value}"


def hidden(name: str) -> bool:
    """Files that systems leave about: .DS_Store, .git/..., __MACOSX/..."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def is_picture(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES and not hidden(name)


def tell(
    pictures: Sequence[str], others: Iterable[str], read_text: Callable[[str], str], where: str, *, classes: bool = True
) -> Told:
    """Classes, captions and numbers of `pictures`, from their folders and from the text files among `others`.

    Raises UserError for a metadata.jsonl that cannot be read, and for a folder whose sub-folders are splits.
    """
    notes: list[str] = []
    texts = {name for name in others if not hidden(name)}
    rows = _metadata(sorted((n for n in texts if n.split("/")[-1] == "metadata.jsonl"), key=natural), read_text, where)
    folders = _folders(pictures, where, notes) if classes else None
    labels: NDArray[np.int64] | None = None
    names: tuple[str, ...] = ()
    if folders is not None:
        names = tuple(sorted(set(folders), key=natural))
        place = {name: k for k, name in enumerate(names)}
        labels = np.array([place[folder] for folder in folders], np.int64)
    elif all(isinstance(rows.get(name, {}).get("label"), int | str) for name in pictures) and rows:
        told = [rows[name]["label"] for name in pictures]
        same = told if len({type(label) for label in told}) == 1 else [str(label) for label in told]
        names, labels = number_classes(np.array(same), f"metadata.jsonl of {where}")
    captions = [_caption(name, rows, texts, read_text) for name in pictures]
    missing = sum(not caption for caption in captions)
    if 0 < missing < len(captions):
        notes.append(f"{missing} of {len(captions)} pictures have no caption")
    unmet = len(rows.keys() - set(pictures))
    if unmet:
        notes.append(f"{unmet} rows of metadata.jsonl name a picture that is not there")
    told_of = [rows.get(name, {}) for name in pictures]
    keys = dict.fromkeys(key for row in told_of for key in row)
    values, odd = numbers({key: [row.get(key) for row in told_of] for key in keys}, f"metadata.jsonl of {where}")
    notes += odd
    return Told(names, labels, tuple(captions) if missing < len(captions) else None, values, tuple(notes))


def seen(names: Iterable[str]) -> str:
    """`12 .svg, 3 .txt`: what lies in a place without pictures."""
    kinds = Counter(PurePosixPath(name).suffix.lower() or "without a suffix" for name in names if not hidden(name))
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5)) or "nothing"


def _folders(pictures: Sequence[str], where: str, notes: list[str]) -> list[str] | None:
    """The class folder of each picture, at the first level where they part; None where there are no classes."""
    paths = [name.split("/")[:-1] for name in pictures]
    shallow = min((len(path) for path in paths), default=0)
    depth = 0
    while depth < shallow and len({path[depth] for path in paths}) == 1:
        depth += 1
    if shallow == depth:
        outside = sum(len(path) == depth for path in paths)
        if outside < len(paths):
            notes.append(f"no classes: {outside} pictures stand beside the sub-folders, not in one")
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
