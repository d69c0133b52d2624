"""Pictures in NumPy files: .npz (images, and optionally labels), .npy (labels in NAME-labels.npy beside it).

Axes: (N, H, W), (N, H, W, C) or (N, C, H, W) with C of 1, 3 or 4. Values are converted to bytes:

    uint8 as is;  bool 0 or 255;  other whole numbers within 0..255 as is, uint16 beyond that v / 257
    float in [0, 1] is 255 v, in [-1, 1] with a negative 127.5 (v + 1), in [0, 255] as is; all rounded

Nothing is unpickled, so a file cannot run code. A .npy file of bytes is memory-mapped.
"""

from __future__ import annotations

import lzma
import math
import os
import struct
import sys
import tokenize
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray

from unnoise.data.idx import array_source
from unnoise.data.source import ARRAY_BYTES, Source, is_bomb, number_classes
from unnoise.errors import UserError
from unnoise.io.reading import open_regular

IMAGES = ("images", "image", "x", "X", "data", "pictures", "arr_0")
LABELS = ("labels", "label", "y", "Y", "targets", "arr_1")
NAMES = ("classes", "class_names", "label_names")
CHANNELS = (1, 3, 4)
SHOWN = 8  # names of arrays in a message
MOST_AXES = 8
READING = (  # what NumPy and zipfile raise for a damaged file
    *(ValueError, OSError, EOFError, TypeError, KeyError, SyntaxError, MemoryError, RecursionError, OverflowError),
    *(NotImplementedError, RuntimeError, struct.error, tokenize.TokenError, zlib.error, lzma.LZMAError),
    zipfile.BadZipFile,
)


def arrays(path: Path, split: str = "") -> Source:
    """The pictures of a .npz or .npy file; `split` "test" reads x_test or test_images instead of x_train.

    Raises UserError for a file of another kind, and for one that is damaged or a decompression bomb.
    """
    if path.suffix == ".npy":
        beside = path.with_name(path.stem + "-labels.npy")
        return _source(_load(path), _load(beside) if beside.exists() else None, None, str(path))
    try:
        with open_regular(path) as opened, zipfile.ZipFile(opened) as members:
            for info in members.infolist():
                _check_member(info, path)
            stored = {info.filename.removesuffix(".npy"): info for info in members.infolist()}
            keys = tuple(stored)
            images = _find(keys, IMAGES, split)
            if not images:
                listed = ", ".join(keys[:SHOWN]) or "nothing"
                raise UserError(f"no pictures in {path}: it contains {listed}; name the array 'images'")
            used = (images, _find(keys, LABELS, split), _find(keys, NAMES, ""))
            found = [_member(members, stored[key]) if key else None for key in used]
    except UserError:
        raise
    except READING as error:
        raise UserError(_refusal(path, error)) from error
    pictures, labels, names = found
    assert pictures is not None
    source = _source(pictures, labels, names, str(path))
    unread = [key for key in keys if key not in used]
    note = (f"arrays that are not read: {', '.join(unread)}",) if unread else ()
    return replace(source, notes=(*source.notes, *note))


def _check_member(info: zipfile.ZipInfo, path: Path) -> None:
    if info.file_size > ARRAY_BYTES or is_bomb(info.file_size, info.compress_size):
        raise UserError(
            f"{info.filename} in {path} expands from {info.compress_size:,} bytes to {info.file_size:,}, "
            "like a decompression bomb; save it with numpy.savez (not compressed)"
        )


def _member(members: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[np.generic]:
    """An array of a .npz file. Its header may claim no more bytes than the archive announces."""
    with members.open(info) as file:
        shape, order, kind = _header(file)
        count = math.prod(shape)
        data = file.read(count * kind.itemsize) if count * kind.itemsize <= info.file_size else b""
    if len(data) < count * kind.itemsize:
        raise ValueError(f"its header states {count * kind.itemsize:,} bytes, and it has {info.file_size:,}")
    return _valid(np.frombuffer(data, kind)).reshape(shape, order=order)


def _load(path: Path) -> NDArray[np.generic]:
    """The array of a .npy file, mapped into memory."""
    try:
        with open_regular(path) as file:
            shape, order, kind = _header(file)
            size, start = math.prod(shape) * kind.itemsize, file.tell()
            if size > os.fstat(file.fileno()).st_size - start:
                raise ValueError(f"its header states {size:,} bytes, and it has fewer")
            if size == 0:
                return np.empty(shape, kind)
            return _valid(np.memmap(file, kind, "r", start, shape, order))
    except UserError:
        raise
    except READING as error:
        raise UserError(_refusal(path, error)) from error


def _valid(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """`values`, if they are text with code points of Unicode. NumPy trusts them, and Python fails on others."""
    if values.dtype.kind == "U" and values.dtype.itemsize and values.size:
        points = np.ascontiguousarray(values).reshape(-1).view(np.dtype("u4").newbyteorder(values.dtype.byteorder))
        if points.max() > sys.maxunicode:
            raise ValueError("its text has numbers that are no characters")
    return values


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype[np.generic]]:
    """Shape, order and type of the array that follows. Raises ValueError for a header of another kind.

    NumPy's own reader evaluates a header of up to 10,000 characters as a literal, which cannot run code.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the format")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, kind = read(file)
    if kind.hasobject:
        raise ValueError("an array of Python objects, which are pickles")
    if len(shape) > MOST_AXES or not all(0 <= side < 2**48 for side in shape):
        raise ValueError(f"a shape of {len(shape)} axes")
    return shape, "F" if fortran else "C", kind


def _refusal(path: Path, error: Exception) -> str:
    if any(word in str(error).lower() for word in ("pickle", "object", "magic")):  # NumPy has three messages for it
        return f"{path} contains Python objects (or is no NumPy file), which could run code; save plain numbers instead"
    return f"{path} cannot be read as a NumPy file ({error}); save it again with numpy.savez"


def _find(keys: tuple[str, ...], known: tuple[str, ...], split: str) -> str:
    """The key of the first known name, alone or joined to the split as in x_train or train_images; empty if none."""
    split = split or "train"
    for name in known:
        for key in (f"{name}_{split}", f"{split}_{name}", name):
            if key in keys:
                return key
    return ""


def _source(
    images: NDArray[np.generic], labels: NDArray[np.generic] | None, names: NDArray[np.generic] | None, where: str
) -> Source:
    pixels, note = as_bytes(_channels_last(images, where), where)
    classes: tuple[str, ...] = ()
    rows = None
    if labels is not None:
        flat = labels.reshape(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels
        if flat.shape != pixels.shape[:1]:
            raise UserError(
                f"{where} has labels of shape {labels.shape} for {len(pixels)} pictures; give one number for each"
            )
        classes, rows = number_classes(flat, where)
        if names is not None:
            if len(names) < len(classes):
                raise UserError(
                    f"{where} names {len(names)} classes but has a label {len(classes) - 1}; name all classes"
                )
            classes = tuple(str(name) for name in names)
    return array_source(pixels, where, classes=classes, labels=rows, notes=(note,) if note else ())


def _channels_last(images: NDArray[np.generic], where: str) -> NDArray[np.generic]:
    if images.ndim == 3:
        return images
    if images.ndim == 4:
        last, first = images.shape[3] in CHANNELS, images.shape[1] in CHANNELS
        if last and first:
            raise UserError(
                f"{where} has shape {images.shape}, which is ambiguous; give (N, H, W, C), with H not 1, 3 or 4"
            )
        if last:
            return images[..., 0] if images.shape[3] == 1 else images
        if first:
            return images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)
    raise UserError(
        f"{where} has shape {images.shape}; give (N, H, W), (N, H, W, C) or (N, C, H, W) with C of 1, 3 or 4"
    )


def as_bytes(values: NDArray[np.generic], where: str) -> tuple[NDArray[np.uint8], str]:
    """Values as bytes, by the table above, and a note if their range was inferred from the values."""
    kind = values.dtype
    if not values.size:
        raise UserError(f"{where} has shape {values.shape}, which contains nothing; give at least 2 pictures")
    if kind == np.uint8:
        return values.view(np.ndarray).astype(np.uint8, copy=False), ""
    if kind == np.bool_:
        return values.astype(np.uint8) * np.uint8(255), ""
    if kind.kind not in "iuf":
        raise UserError(f"{where} contains values of type {kind}; give bytes, or numbers in [0, 1]")
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise UserError(f"{where} contains values that are not finite; remove them")
    if kind.kind == "f":
        for least, most, scale, shift in ((0.0, 1.0, 255.0, 0.0), (-1.0, 1.0, 127.5, 127.5), (0.0, 255.0, 1.0, 0.0)):
            if least <= low and high <= most:
                bytes_ = np.rint(values.astype(np.float64) * scale + shift).astype(np.uint8)
                return bytes_, f"float values from {low:g} to {high:g} read as [{least:g}, {most:g}]"
    elif low >= 0 and high <= 255:
        return values.astype(np.uint8), ""
    elif kind == np.uint16:
        return ((values.astype(np.int64) * 255 + 32767) // 65535).astype(np.uint8), "16-bit values scaled to 8 bits"
    raise UserError(
        f"{where} contains {kind} from {low:g} to {high:g}, which is no known range; give bytes, or numbers in [0, 1]"
    )
