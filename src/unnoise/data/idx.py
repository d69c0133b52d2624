"""IDX files, the format of MNIST: a big-endian header (0, 0, type, number of axes, then each length) and bytes.

http://yann.lecun.com/exdb/mnist. Files may be plain, .gz or .xz. Labels are in a file of the same name with "labels"
instead of "images" and "idx1" instead of "idx3".
"""

from __future__ import annotations

import gzip
import lzma
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from unnoise.data.source import ARRAY_BYTES, Source, is_bomb, number_classes
from unnoise.errors import UserError
from unnoise.io.reading import open_regular

MOST_AXES = 4  # pictures, height, width and channels


def is_idx(path: Path) -> bool:
    """Whether the file begins like an IDX file of bytes."""
    try:
        with _opened(path) as file:
            head = file.read(4)
    except (OSError, EOFError, lzma.LZMAError, zlib.error):
        return False
    return len(head) == 4 and head[:3] == b"\0\0\x08" and 1 <= head[3] <= MOST_AXES


def idx(path: Path, *, classes: tuple[str, ...] = ()) -> Source:
    """The pictures of an IDX file, with the labels of the file beside it if there is one; `classes` are their names.

    Raises UserError for a damaged file.
    """
    pictures = _array(path)
    if pictures.ndim < 3:
        raise UserError(f"{path} has {pictures.ndim} axes and contains no pictures; give the file of images")
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    names: tuple[str, ...] = ()
    labels = None
    if beside != path and beside.exists():
        values = _array(beside)
        if values.shape != pictures.shape[:1]:
            raise UserError(f"{beside} has {len(values)} labels for {len(pictures)} pictures in {path}; give its own")
        names, labels = number_classes(values, str(beside))
        if classes and len(names) > len(classes):
            raise UserError(f"{beside} has a label {len(names) - 1}; there are {len(classes)} classes")
    return array_source(pictures, str(path), classes=classes or names, labels=labels)


def array_source(
    pictures: NDArray[np.uint8],
    where: str,
    *,
    classes: tuple[str, ...] = (),
    labels: NDArray[np.int64] | None = None,
    notes: tuple[str, ...] = (),
) -> Source:
    """A source of pixels (N, H, W) or (N, H, W, C), uint8; the names are row numbers."""
    return Source(
        where=where,
        names=tuple(str(i) for i in range(len(pictures))),
        sizes=np.full(len(pictures), int(np.prod(pictures.shape[1:])), np.int64),
        read=lambda i: np.asarray(pictures[i]),
        array=pictures,
        classes=classes,
        labels=labels,
        notes=notes,
    )


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with open_regular(path) as file:
        if path.suffix == ".gz":
            yield cast(IO[bytes], gzip.GzipFile(fileobj=file))
        else:
            yield lzma.LZMAFile(file) if path.suffix == ".xz" else file  # noqa: SIM115  # it reads the file above


def _array(path: Path) -> NDArray[np.uint8]:
    """The whole array. No more bytes are decompressed than the header claims, after a check against the file size."""
    try:
        with _opened(path) as file:
            head = file.read(4)
            if len(head) < 4 or head[:3] != b"\0\0\x08":
                raise UserError(f"{path} is not an IDX file of bytes (it begins {head.hex(' ')}); give one that is")
            if head[3] > MOST_AXES:
                raise UserError(f"{path} claims {head[3]} axes, and pictures have 3 or 4; it is damaged")
            shape = struct.unpack(f">{head[3]}I", file.read(4 * head[3]))
            count = 1
            for length in shape:
                count *= length
            if count > ARRAY_BYTES or is_bomb(count, path.stat().st_size):
                raise UserError(
                    f"{path} claims {count:,} bytes in a file of {path.stat().st_size:,}; it is damaged or a bomb"
                )
            data = file.read(count + 1)
    except UserError:
        raise
    except (OSError, EOFError, lzma.LZMAError, zlib.error, struct.error) as error:
        raise UserError(f"{path} cannot be decompressed ({error}); download it again") from error
    if len(data) != count:
        raise UserError(
            f"{path} contains {len(data):,} bytes or more, but its header says {count:,}; download it again"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)
