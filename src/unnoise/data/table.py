"""Parquet tables with picture files in a column: plain bytes, or {bytes, path} as written by Hugging Face's `datasets`.

A table is a file, or a folder of shards. Classes come from a column `label` (or class, category, fine_label) of text or
numbers, with the names of the ClassLabel in the schema if there is one; captions from `caption`, `text`, `prompt` or
`name`, one text or a list of them; numbers from every numeric column. Another column of picture files has control
images. `PATH:test` selects the rows whose column `split` is "test", or the shards whose names begin with it. Row groups
are read on demand, and the last ones used stay in memory.
"""

from __future__ import annotations

import posixpath
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
from unnoise.data.row_groups import Groups
from unnoise.data.source import MEMBERS, Source, is_bomb, number_classes, numbers
from unnoise.data.unused import count_endings, unused_columns
from unnoise.errors import UserError
from unnoise.io.json_files import parse_json
from unnoise.io.reading import check_regular

if TYPE_CHECKING:
    import pyarrow as pa

IMAGES = ("image", "img", "picture", "jpg", "png", "webp", "bytes", "image_bytes")
LABELS = ("label", "labels", "class", "category", "fine_label")
CAPTIONS = ("caption", "text", "prompt", "captions", "texts", "prompts", "name")


def table(path: Path, shards: Sequence[Path], split: str = "", files: Files | None = None) -> Source:
    """The rows of a table, in file order: of the file `path`, or of these shards among the `files` of a folder.

    Raises UserError for a table without pictures, or with several splits.
    """
    pa, _ = _pyarrow(path)
    shards, by_name = _of_split(path, shards, split)
    try:
        tables = [_opened(shard) for shard in shards]
        schema = tables[0].schema_arrow
        column, others = _image_columns(schema, path)
        numeric = _numeric(schema)
        rest = [name for name in schema.names if name in (*LABELS, *CAPTIONS, "split", *numeric)]
        texts = pa.concat_tables([file.read(columns=rest) for file in tables])
        texts.validate(full=True)  # that texts are UTF-8
        groups = {name: Groups(tables, name) for name in (column, *others)}
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
    places = [groups[column].place(int(row)) for row in rows]
    names = tuple(f"{escaped(shards[file].name)}/{row}" for file, row, _, _ in places)

    def source(column: str, where: str) -> Source:
        own = groups[column]
        sizes = np.array([own.mean_size(file, group) for file, _, group, _ in places], np.int64)
        return Source(where, names, sizes, lambda i: own.read(places[i]), file=lambda i: shards[places[i][0]])

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
    check_regular(shard)
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


def _opened(shard: Path) -> Any:
    """An open table. Raises UserError for a pipe, and for one that says of itself that it expands like a bomb."""
    import pyarrow.parquet as pq

    check_regular(shard)
    file, packed = pq.ParquetFile(shard), shard.stat().st_size
    rows, groups = file.metadata.num_rows, range(file.metadata.num_row_groups)
    size = sum(int(file.metadata.row_group(group).total_byte_size) for group in groups)
    if rows > MEMBERS or is_bomb(size, packed):
        raise UserError(
            f"{shard} has {rows:,} rows of {size:,} bytes in a file of {packed:,}: more than {MEMBERS:,} rows, or a "
            "decompression bomb; split it"
        )
    return file


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
    return unused_columns([name for name in schema.names if name not in known], others)


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
        features = parse_json((schema.metadata or {})[b"huggingface"], column)["info"]["features"]
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
