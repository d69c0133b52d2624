"""Metadata files of a tree of pictures: rows with the `file_name` of a picture, and the labels of a dataset.json.

    metadata.jsonl     one JSON object per line; a line ends at a newline and nowhere else
    metadata.csv       a header, then a row per line; a text with a comma or a newline is in double quotes
    metadata.parquet   a table; needs pyarrow
    dataset.json       {"labels": [["00000/img00000000.png", 6], ...]}, or null for no classes

The first three are those of Hugging Face's imagefolder, the last that of StyleGAN's and EDM's tools, whose folders are
shards. A file name is relative to the folder of its file, and compared as a path: with "/" or "\\", "." and "..", and
composed or decomposed accents.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple
from unicodedata import normalize

from unnoise.data.captions import KEYS
from unnoise.data.plain_text import decode_text, escaped, some
from unnoise.data.source import Unreadable, reason
from unnoise.errors import UserError

FILES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
LABELS = "dataset.json"

Row = dict[str, object]
Find = Callable[[str, str], str | None]  # a folder and a path in it -> the picture


class Metadata(NamedTuple):
    """What the metadata files of a tree contain."""

    rows: dict[str, list[Row]]  # picture -> its rows
    labels: dict[str, object] | None  # picture -> label of a dataset.json; None if there is no such file
    controls: dict[str, dict[str, str]]  # column -> picture -> another picture, which it names
    files: set[str]  # those that were read
    notes: list[str]


def read_metadata(
    files: Iterable[str], pictures: Collection[str], read: Callable[[str], bytes], where: str
) -> Metadata:
    """The contents of the metadata files among `files`, in this order, for these `pictures`.

    Raises UserError, with the file and the line, for a metadata file that cannot be read.
    """
    find = finder(pictures)
    found = Metadata({}, None, {}, set(), [])
    for file in files:
        folder, name = posixpath.split(file)
        if name == LABELS:
            labels = _labels(_text(file, _bytes(file, read, where), where), f"{where}/{file}")
            if labels is not None:
                known = found.labels or {}
                known |= {key: label for given, label in labels.items() if (key := find(folder, given))}
                found = found._replace(labels=known)
                found.files.add(file)
        elif name in FILES:
            _add_rows(found, file, _rows(file, _bytes(file, read, where), where), find)
            found.files.add(file)
    return found


def finder(pictures: Collection[str]) -> Find:
    """A function from a folder and a path as written in a metadata file to the picture it names, or None."""
    exact = set(pictures)
    composed = {normalize("NFC", name): name for name in pictures}

    def find(folder: str, given: str) -> str | None:
        for path in (given, given.replace("\\", "/")):
            name = posixpath.normpath(posixpath.join(folder, path))
            picture = name if name in exact else composed.get(normalize("NFC", name))
            if picture is not None:
                return picture
        return None

    return find


def _add_rows(found: Metadata, file: str, rows: Iterable[Row], find: Find) -> None:
    """Adds the rows of a file to those of their pictures, and notes those that belong to none."""
    folder = posixpath.dirname(file)
    strangers = []
    for row in rows:
        picture = find(folder, str(row["file_name"]))
        if picture is None:
            strangers.append(escaped(str(row["file_name"])))
            continue
        found.rows.setdefault(picture, []).append(row)
        for column, value in row.items():
            other = find(folder, value) if isinstance(value, str) and column not in ("file_name", *KEYS) else None
            if other is not None and other != picture:
                found.controls.setdefault(column, {})[picture] = other
    if strangers:
        found.notes.append(f"{len(strangers):,} rows of {file} name a picture that does not exist ({some(strangers)})")


def _bytes(file: str, read: Callable[[str], bytes], where: str) -> bytes:
    try:
        return read(file)
    except (OSError, Unreadable) as error:
        raise UserError(f"{where}/{file} cannot be read ({reason(error)}); restore it, or remove it") from error


def _text(file: str, data: bytes, where: str) -> str:
    text = decode_text(data)
    if text is None:
        raise UserError(f"{where}/{file} cannot be read as UTF-8 text: save it as UTF-8")
    return text


def _rows(file: str, data: bytes, where: str) -> Iterator[Row]:
    """The rows of a metadata file, each with a `file_name`."""
    if file.endswith(".parquet"):
        return _parquet_rows(data, f"{where}/{file}")
    rows = _csv_rows if file.endswith(".csv") else _json_rows
    return rows(_text(file, data, where), f"{where}/{file}")


def _json_rows(text: str, where: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines, which divides at U+2028 and U+0085
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            row["file_name"] = str(row["file_name"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f"{where}, line {number}, is not an object with a file_name ({error!r}); write "
                '{"file_name": "a.png", "text": "what it shows"}'
            ) from error
        yield {escaped(key): value for key, value in row.items()}


def _csv_rows(text: str, where: str) -> Iterator[Row]:
    rows = csv.reader(io.StringIO(text, newline=""))
    try:
        header = next(rows, [])
        if "file_name" not in header:
            raise UserError(f"{where} has the columns {', '.join(header)} and no file_name; name one so")
        lines = []
        for cells in filter(None, rows):
            if len(cells) != len(header):
                raise UserError(
                    f"{where}, line {rows.line_num}, has {len(cells)} cells and the header {len(header)}; put a text "
                    'with a comma in double quotes: a.png,"a cup, blue"'
                )
            lines.append(cells)
    except csv.Error as error:
        raise UserError(f"{where}, line {rows.line_num}, cannot be read as CSV ({error}); write it again") from error
    columns = {name: _typed(name, [cells[place] for cells in lines]) for place, name in enumerate(header)}
    for values in zip(*columns.values()):
        yield dict(zip(columns, values))


def _typed(name: str, cells: list[str]) -> list[object]:
    """The cells of a column: whole numbers or numbers where all are, otherwise text; None for an empty cell."""
    given = [cell for cell in cells if cell]
    kind: Callable[[str], object] = str
    if name not in ("file_name", *KEYS):
        if all(re.fullmatch("-?(0|[1-9][0-9]{0,17})", cell) for cell in given):
            kind = int
        elif all(re.fullmatch("[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)?|nan", cell) for cell in given):
            kind = float
    return [kind(cell) if cell else None for cell in cells]


def _parquet_rows(data: bytes, where: str) -> Iterator[Row]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UserError(f"{where} needs pyarrow; run: pip install 'unnoise[data]'") from error
    try:
        table = pq.read_table(io.BytesIO(data))
        rows = table.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{where} cannot be read as parquet ({error}); write it again") from error
    if "file_name" not in table.column_names:
        raise UserError(f"{where} has the columns {', '.join(table.column_names)} and no file_name; name one so")
    for row in rows:
        yield row | {"file_name": str(row["file_name"])}


def _labels(text: str, where: str) -> Mapping[str, object] | None:
    """The labels of a dataset.json by file name; None if it is another kind of file."""
    try:
        document = json.loads(text)
        if not isinstance(document, dict) or "labels" not in document:
            return None
        return {str(name): label for name, label in dict(document["labels"] or {}).items()}
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f'{where} is not like {{"labels": [["a.png", 0], ...]}} ({error}); write it again, or remove it'
        ) from error
