"""The rows of one column of parquet files, read by row group: a group is decompressed when one of its rows is read."""

from __future__ import annotations

import bisect
import functools
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unnoise.data.source import FILE_BYTES, Unreadable

if TYPE_CHECKING:
    import pyarrow as pa

CACHE_BYTES = 512 * 2**20  # decompressed row groups in memory

Place = tuple[int, int, int, int]  # file, row in it, row group, row in that


class Groups:
    """The row groups of a column of pictures, decompressed on first use, with a cache of a few."""

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
