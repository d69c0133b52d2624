"""The layout of a tree of pictures: order, classes, captions and numbers, from the names of its files.

Order: natural, part by part ("2.png" before "10.png"). Classes: the labels of a dataset.json, or the folders of the
first level that has more than one, or the key `label` of the metadata; there are none if pictures lie beside those
folders, or if there is only one folder. Captions: captions.py. Numbers: every other key of the metadata (metadata.py)
that has numeric values. A picture that metadata names in another key, as conditioning_image, is a control image and no
training picture. The rules are the same for folders and archives. Files that are not used are counted in notes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from os.path import splitext
from types import MappingProxyType
from typing import NamedTuple
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from unnoise.data.captions import caption_key, read_captions
from unnoise.data.decode import SUFFIXES
from unnoise.data.metadata import Metadata, Row, read_metadata
from unnoise.data.source import Broken, Source, number_classes, numbers
from unnoise.data.unused import unused_notes
from unnoise.errors import UserError

SPLITS = frozenset(("train", "training", "test", "testing", "val", "valid", "validation", "dev"))
LABEL = "label"  # the key of the metadata
TEXT_BYTES = 64 * 2**20  # a metadata file or caption larger than this is not text

LEFTOVERS = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini"))  # of Windows

Read = Callable[[str], bytes]
NONE: Mapping[str, str] = MappingProxyType({})


def natural(name: str) -> tuple[str, str]:
    """A sort key by the parts of a path, with digits compared by value; the name itself breaks ties."""
    by_value = re.sub("[0-9]+", lambda digits: _sortable(digits.group()), name)
    return (by_value.replace("/", "\0"), name)


def _sortable(digits: str) -> str:
    """Text that sorts like the number: the number of digits comes first."""
    value = digits.lstrip("0")
    return f"{len(value):04}{value}"


def hidden(name: str) -> bool:
    """Whether a file was left by the operating system or a tool: .DS_Store, .git/..., __MACOSX/..., Thumbs.db"""
    parts = name.split("/")
    return any(part.startswith(".") or part == "__MACOSX" for part in parts) or parts[-1].lower() in LEFTOVERS


def is_picture(name: str) -> bool:
    """Whether a file of this name is read as a picture."""
    return splitext(name)[1].lower() in SUFFIXES and not hidden(name)


def tree_source(
    sizes: Mapping[str, int],
    read: Read,
    where: str,
    *,
    refused: Sequence[Broken] = (),
    reasons: Mapping[str, str] = NONE,
    notes: Sequence[str] = (),
) -> Source:
    """The source of the files in a tree, by their names; `reasons` are of files that may not be read.

    `read` raises OSError or Unreadable. Raises UserError for a metadata file that cannot be read, and for a folder
    whose sub-folders are splits.
    """

    def text(name: str) -> bytes:
        if sizes[name] > TEXT_BYTES:
            raise UserError(f"{where}/{name} is larger than {TEXT_BYTES >> 20} MiB, too large for captions or metadata")
        return read(name)

    layout = read_layout(sizes, text, where, reasons)
    pictures = layout.pictures

    def source(names: Sequence[str], files: Sequence[str], place: str) -> Source:
        sizes_of = np.array([sizes[file] for file in files], np.int64)
        return Source(place, tuple(names), sizes_of, lambda i: read(files[i]))

    controls = {
        column: source(list(files), list(files.values()), f"{column} in the metadata of {where}")
        for column, files in layout.controls.items()
    }
    return replace(
        source(pictures, pictures, where),
        classes=layout.classes,
        labels=layout.labels,
        captions=layout.captions,
        more_captions=layout.more_captions,
        values=layout.values,
        control_columns=controls,
        refused=tuple(sorted(refused, key=lambda broken: natural(broken.path))),
        notes=(*layout.notes, *notes),
    )


class Layout(NamedTuple):
    """Pictures of a tree, with their classes, captions, numbers and control images."""

    pictures: tuple[str, ...]
    classes: tuple[str, ...]
    labels: NDArray[np.int64] | None
    captions: tuple[str, ...] | None
    more_captions: tuple[tuple[str, ...], ...] | None  # of each picture, besides the first
    values: dict[str, NDArray[np.float64]]  # (N,) each; NaN if missing
    controls: dict[str, dict[str, str]]  # column -> picture -> its control image
    notes: tuple[str, ...]


def read_layout(files: Iterable[str], read: Read, where: str, reasons: Mapping[str, str] = NONE) -> Layout:
    """The layout of these files, with notes about all that are not used; `reasons` are of files that may not be read.

    Raises UserError for a metadata file that cannot be read, and for a folder whose sub-folders are splits.
    """
    found: list[str] = []
    others: list[str] = []
    for name in files:
        if not hidden(name):
            (found if splitext(name)[1].lower() in SUFFIXES else others).append(name)
    found.sort(key=natural)
    others.sort(key=natural)
    metadata = read_metadata(others, found, read, where)
    controls, pictures = _without_controls(metadata, found)
    captions = read_captions(pictures, metadata.rows, others, read)
    notes = [*metadata.notes, *captions.notes]
    rows = [_merged(metadata.rows.get(name, ())) for name in pictures]
    names, labels, key = _classes(pictures, metadata, rows, where, notes)
    values = _values(rows, where, notes)
    used = {"file_name", key, *controls, *values, *map(caption_key, rows)}
    unread = dict.fromkeys(key for row in rows for key in row if key not in used)
    if unread:
        notes.append(f"keys of the metadata that are not read: {', '.join(unread)} (captions are text or caption)")
    notes += _control_notes(controls, metadata)
    unused = [name for name in others if name not in metadata.files and name not in captions.files]
    notes += unused_notes([*unused, *(name for name in reasons if not hidden(name))], captions.unread | dict(reasons))
    captioned, several = any(captions.texts), any(len(texts) > 1 for texts in captions.texts)
    return Layout(
        pictures=tuple(pictures),
        classes=names,
        labels=labels,
        captions=tuple(texts[0] if texts else "" for texts in captions.texts) if captioned else None,
        more_captions=tuple(texts[1:] for texts in captions.texts) if several else None,
        values=values,
        controls=controls,
        notes=tuple(notes),
    )


def _without_controls(metadata: Metadata, found: Sequence[str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The columns of control images, and the pictures that are none: those with a row, or that no row names."""
    controls = {
        column: images
        for column, images in metadata.controls.items()
        if not all(image in metadata.rows for image in images.values())
    }
    named = {image for images in controls.values() for image in images.values()}
    return controls, [name for name in found if name in metadata.rows or name not in named]


def _control_notes(controls: Mapping[str, Mapping[str, str]], metadata: Metadata) -> list[str]:
    return [
        f"{len(set(images.values()) - metadata.rows.keys()):,} pictures, which the metadata names as {column}, are "
        f"control images and not trained on: data.control={column} conditions a ControlNet on them"
        for column, images in controls.items()
    ]


def _merged(rows: Sequence[Row]) -> Row:
    """One row of several of a picture: the first value of each key."""
    return {key: value for row in reversed(rows) for key, value in row.items() if value is not None}


def _classes(
    pictures: Sequence[str], metadata: Metadata, rows: Sequence[Row], where: str, notes: list[str]
) -> tuple[tuple[str, ...], NDArray[np.int64] | None, str]:
    """Class names, labels, and the key that they come from; empty if dataset.json or the folders are the classes."""
    if metadata.labels is not None:
        given = [metadata.labels.get(name) for name in pictures]
        return *_numbered(given, f"dataset.json of {where}", notes), ""
    folders = _folders(pictures, where, notes)
    if folders is not None:
        names = tuple(sorted(set(folders), key=natural))
        number = {name: k for k, name in enumerate(names)}
        return names, np.array([number[folder] for folder in folders], np.int64), ""
    found, labels = _numbered([row.get(LABEL) for row in rows], f"the metadata of {where}", notes)
    return found, labels, LABEL if labels is not None else ""


def _numbered(
    labels: Sequence[object], where: str, notes: list[str]
) -> tuple[tuple[str, ...], NDArray[np.int64] | None]:
    """Classes of these labels; none if some are missing or are no labels, which is noted."""
    given = [label for label in labels if isinstance(label, int | str) and not isinstance(label, bool)]
    present = sum(label is not None for label in labels)
    if not present or len(given) < len(labels):
        if present:
            notes.append(
                f"no classes: {len(given):,} of {len(labels):,} pictures have a number or a name as label in {where}"
            )
        return (), None
    same = given if len({type(label) for label in given}) == 1 else [str(label) for label in given]
    return number_classes(np.array(same), where)


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
    found = [normalize("NFC", path[depth]) for path in paths]
    if set(found) <= SPLITS:
        splits = sorted(set(found), key=lambda split: (not split.startswith("train"), split))
        example = "/".join([where, *paths[0][:depth], splits[0]])
        raise UserError(f"the folders in {where} are splits ({', '.join(splits)}), not classes; give one: {example}")
    return found


def _values(rows: Sequence[Row], where: str, notes: list[str]) -> dict[str, NDArray[np.float64]]:
    """The numeric keys of the metadata; values that are no numbers are noted."""
    keys = dict.fromkeys(key for row in rows for key in row)
    values, odd = numbers({key: [row.get(key) for row in rows] for key in keys}, f"the metadata of {where}")
    notes += odd
    return values
