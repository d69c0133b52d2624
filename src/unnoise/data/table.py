"""Parquet tables with picture files in a column: plain bytes, or {bytes, path} as written by Hugging Face's `datasets`.

A table is a file, or a folder of shards. Classes come from a column `label` (or class, category, fine_label) of text or
numbers, with the names of the ClassLabel in the schema if there is one; captions from `caption`, `text`, `prompt` or
`name`, one text or a list of them; numbers from every numeric column. Another column of picture files has control
images. `PATH:test` selects the rows whose column `split` is "test", or the shards whose names begin with it. Row groups
are read on demand, and the last ones used stay in memory.
"""

from __future__ import annotations

import bisect
import functools
import json
import posixpath
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unnoise.data.captions import caption_notes, texts_of
from unnoise.data.folder import Files
from unnoise.data.layout import hidden, natural
from unnoise.data.plain_text import escaped
from unnoise.data.source import FILE_BYTES, Source, Unreadable, number_classes, numbers
from unnoise.data.unused import count_endings
from unnoise.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

IMAGES = ("image", "img", "picture", "jpg", "png", "webp", "bytes", "image_bytes")
LABELS = ("label", "labels", "class", "category", "fine_label")
CAPTIONS = ("caption", "text", "prompt", "captions", "texts", "prompts", "name")
CACHE_BYTES = 512 * 2**20  # decompressed row groups in memory


def table(path: Path, shards: Sequence[Path], split: str = "", files: Files | None = None) -> Source:
    """The rows of a table, in file order: of the file `path`, or of these shards among the `files` of a folder.

    Raises UserError for a table without pictures, or with several splits.
    """
    pa, pq = _pyarrow(path)
    shards, by_name = _of_split(path, shards, split)
    try:
        tables = [pq.ParquetFile(shard) for shard in shards]
        schema = tables[0].schema_arrow
        column, others = _image_columns(schema, path)
        numeric = _numeric(schema)
        rest = [name for name in schema.names if name in (*LABELS, *CAPTIONS, "split", *numeric)]
        texts = pa.concat_tables([file.read(columns=rest) for file in tables])
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read as parquet ({error}); download it again") from error
    total = sum(file.metadata.num_rows for file in tables)
    rows = np.arange(total) if by_name or not split else _rows_of(split, texts, path)
    notes = [] if split else _split_notes(texts, path)
    classes, labels = _labels(schema, texts, rows, path)
    values, odd = numbers({name: texts[name].take(rows).to_pylist() for name in numeric}, str(path))
    captions, more = _captions(rest, texts, rows, path, notes)
    notes += [*odd, *_unused(schema, column, others, rest), *_unused_files(files)]

    def source(column: str, where: str) -> Source:
        groups = _Groups(tables, column)
        places = [groups.place(int(row)) for row in rows]
        names = tuple(f"{escaped(shards[file].name)}/{row}" for file, row, _, _ in places)
        sizes = np.array([groups.mean_size(file, group) for file, _, group, _ in places], np.int64)
        return Source(where, names, sizes, lambda i: groups.read(places[i]), file=lambda i: shards[places[i][0]])

    return replace(
        source(column, f"{path}:{split}" if split else str(path)),
        classes=classes,
        labels=labels,
        captions=captions,
        more_captions=more,
        values=values,
        control_columns={name: source(name, f"column {name} of {path}") for name in others},
        notes=tuple(notes),
    )


def shards_in(files: Files) -> list[Path]:
    """The parquet files of a folder in natural order, without metadata.parquet, which describes other files."""
    names = [name for name in files.paths if name.endswith(".parquet") and not hidden(name)]
    return [files.paths[name] for name in sorted(names, key=natural) if posixpath.basename(name) != "metadata.parquet"]


def has_pictures(shard: Path) -> bool:
    """Whether a parquet file has a column of picture files. Raises UserError if it cannot be read."""
    pa, pq = _pyarrow(shard)
    try:
        return bool(_byte_columns(pq.read_schema(shard)))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{shard} cannot be read as parquet ({error}); download it again") from error


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{path} is a parquet table, which needs pyarrow; run: pip install 'unnoise[data]'") from error
    return pyarrow, pyarrow.parquet


Place = tuple[int, int, int, int]  # file, row in it, row group, row in that


class _Groups:
    """The row groups of the picture column, decompressed on first use, with a cache of a few."""

    def __init__(self, files: Sequence[Any], column: str) -> None:
        self._files, self._column = files, column
        self._lock = threading.Lock()  # one reader at a time: a ParquetFile has one file position
        self._starts = [
            np.cumsum([0] + [f.metadata.row_group(g).num_rows for g in range(f.metadata.num_row_groups)]) for f in files
        ]
        self._firsts = np.cumsum([0] + [f.metadata.num_rows for f in files]).tolist()
        largest = max((self._bytes(f, g) for f in range(len(files)) for g in range(files[f].num_row_groups)), default=1)
        self._group = functools.lru_cache(maxsize=max(2, CACHE_BYTES // max(largest, 1)))(self._load)

    def place(self, row: int) -> Place:
        file = bisect.bisect_right(self._firsts, row) - 1
        local = row - self._firsts[file]
        group = int(np.searchsorted(self._starts[file], local, side="right")) - 1
        return file, local, group, local - int(self._starts[file][group])

    def mean_size(self, file: int, group: int) -> int:
        rows = int(self._files[file].metadata.row_group(group).num_rows)
        return self._bytes(file, group) // max(rows, 1)

    def read(self, place: Place) -> bytes:
        file, _, group, row = place
        with self._lock:
            column = self._group(file, group)
        value = column[row]
        if hasattr(value, "keys"):  # a struct; null has no bytes either
            value = value["bytes"] if value.is_valid else value
        if not value.is_valid:
            raise Unreadable("no bytes in this row")
        buffer = value.as_buffer()
        if buffer.size > FILE_BYTES:
            raise Unreadable(f"larger than {FILE_BYTES >> 20} MiB")
        return bytes(buffer)

    def _load(self, file: int, group: int) -> pa.ChunkedArray:
        import pyarrow as pa

        try:
            return self._files[file].read_row_group(group, columns=[self._column])[self._column]
        except (pa.ArrowException, OSError) as error:
            raise Unreadable(f"row group {group} cannot be read: {error}") from error

    def _bytes(self, file: int, group: int) -> int:
        metadata = self._files[file].metadata.row_group(group)
        columns = [metadata.column(i) for i in range(metadata.num_columns)]
        own = [column for column in columns if column.path_in_schema.split(".")[0] == self._column]
        return sum(int(column.total_uncompressed_size) for column in own)


def _of_split(path: Path, shards: Sequence[Path], split: str) -> tuple[list[Path], bool]:
    """The shards of a split, and whether it was selected by their names."""
    if path.is_file():
        return [path], False
    kinds = {shard.name.split("-")[0] for shard in shards}
    if split in kinds:
        return [shard for shard in shards if shard.name.split("-")[0] == split], True
    if not split and len(kinds) > 1 and "train" in kinds:
        raise UserError(f"{path} contains the splits {', '.join(sorted(kinds))}; give one, as in {path}:train")
    return list(shards), False


def _byte_columns(schema: pa.Schema) -> list[str]:
    import pyarrow as pa

    def has_bytes(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return any(kind[i].name == "bytes" for i in range(kind.num_fields))
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    return [field.name for field in schema if has_bytes(field.type)]


def _image_columns(schema: pa.Schema, path: Path) -> tuple[str, list[str]]:
    """The column of pictures, and the other columns of bytes."""
    columns = _byte_columns(schema)
    named = [name for name in IMAGES if name in columns]
    if not columns and "file_name" in schema.names:
        raise UserError(f"{path} describes pictures in other files: give the folder that contains them")
    if len(columns) != 1 and not named:
        raise UserError(f"{path} has {len(columns)} columns of bytes among {', '.join(schema.names)}; name one 'image'")
    column = named[0] if named else columns[0]
    return column, [name for name in columns if name != column]


def _unused(schema: pa.Schema, column: str, others: Sequence[str], read: Sequence[str]) -> list[str]:
    """Notes about the columns that are not read."""
    caption = next((name for name in CAPTIONS if name in read), "")
    label = next((name for name in LABELS if name in read), "")
    known = {column, *others, caption, label, "split", *_numeric(schema)}
    unread = [name for name in schema.names if name not in known]
    notes = [f"columns that are not read: {', '.join(unread)}"] if unread else []
    return notes + [
        f"column {name} is not trained on: data.control={name} conditions a ControlNet on it, if it has pictures"
        for name in others
    ]


def _unused_files(files: Files | None) -> list[str]:
    """Notes about the files of a folder beside its parquet tables."""
    if files is None:
        return []
    shards = set(shards_in(files))
    counts = count_endings(name for name, path in files.paths.items() if path not in shards and not hidden(name))
    return [*files.notes, *([f"{counts} are not read: the pictures are those of the tables"] if counts else [])]


def _split_notes(texts: pa.Table, path: Path) -> list[str]:
    if "split" not in texts.column_names:
        return []
    kinds = sorted({str(value) for value in texts["split"].to_pylist()})
    return [f"all splits together ({', '.join(kinds)}); {path}:{kinds[0]} selects one"]


def _numeric(schema: pa.Schema) -> list[str]:
    """The names of the numeric columns."""
    from pyarrow import types

    kinds = (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean)
    return [field.name for field in schema if any(is_one(field.type) for is_one in kinds)]


def _rows_of(split: str, texts: pa.Table, path: Path) -> NDArray[np.int64]:
    if "split" not in texts.column_names:
        raise UserError(f"{path} has no column 'split' to select {split!r} from; give the path alone")
    values = np.array([str(value) for value in texts["split"].to_pylist()])
    rows = np.flatnonzero(values == split)
    if not len(rows):
        raise UserError(f"no rows of split {split!r} in {path}; it has {', '.join(np.unique(values))}")
    return rows


def _labels(
    schema: pa.Schema, texts: pa.Table, rows: NDArray[np.int64], path: Path
) -> tuple[tuple[str, ...], NDArray[np.int64] | None]:
    name = next((name for name in LABELS if name in texts.column_names), "")
    if not name or texts[name].null_count:
        return (), None
    values = np.array(texts[name].to_pylist())
    if values.dtype.kind == "i" and not (values[rows] != -1).any():  # -1 is how rows without a label are published
        return (), None
    if values.dtype.kind == "i":
        elsewhere = np.ones(len(values), bool)
        elsewhere[rows] = False
        values[elsewhere & (values == -1)] = 0
    classes, labels = number_classes(values, f"column {name!r} of {path}")  # over all splits, so that they agree
    named = _class_names(schema, name)
    return named if len(named) >= len(classes) else classes, labels[rows]


def _class_names(schema: pa.Schema, column: str) -> tuple[str, ...]:
    """The names of the ClassLabel in the metadata of Hugging Face's `datasets`; empty if there is none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[column]["names"]))
    except (KeyError, TypeError, ValueError):
        return ()


def _captions(
    columns: Sequence[str], texts: pa.Table, rows: NDArray[np.int64], path: Path, notes: list[str]
) -> tuple[tuple[str, ...] | None, tuple[tuple[str, ...], ...] | None]:
    """The first caption of each row, and the others if a row has several."""
    name = next((name for name in CAPTIONS if name in columns), "")
    if not name:
        return None, None
    values = texts[name].to_pylist()
    found = [texts_of({"text": values[row]}) for row in rows]
    if not any(found):
        notes.append(f"column {name} of {path} contains no texts, so there are no captions")
        return None, None
    notes += caption_notes(found)
    first = tuple(many[0] if many else "" for many in found)
    return first, tuple(many[1:] for many in found) if any(len(many) > 1 for many in found) else None
