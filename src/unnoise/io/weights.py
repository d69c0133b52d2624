"""The header of a safetensors file, read without torch and without loading a tensor, and what differs in it.

A safetensors file begins with the length of its header (8 bytes, little endian), then the header (JSON: dtype, shape
and place of each tensor), then the tensors. Files of other kinds are recognised by their first bytes, and the error
states what the file is. Nothing here opens a pickle.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from safetensors import safe_open

from unnoise.errors import UserError
from unnoise.io.json_files import parse_json
from unnoise.io.reading import open_regular

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
LONGEST_HEADER = 16 * 2**20  # bytes: more than 100,000 tensors; the format's own limit is 100 MB
MOST_AXES = 16  # of a tensor
PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # the first bytes of protocols 2 to 5
PICKLE_NAMES = (".ckpt", ".pt", ".pth")  # a zip file with a pickle in it


@dataclass(frozen=True)
class WeightsHeader:
    """What the header of a safetensors file contains."""

    tensors: int
    parameters: int
    dtypes: list[str]
    metadata: dict[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()  # of the tensors


def read_header(path: Path) -> WeightsHeader:
    """The header of a safetensors file, checked against the file's size.

    Raises UserError for a file of another kind, which it names, and for one that is damaged or cut off.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(512)
        _refuse_other_kinds(path, head, size)
        length = int.from_bytes(head[:8], "little")
        if size < 8 or head[8:9] != b"{":
            raise UserError(
                f"{path} is neither a picture nor a safetensors file, the kinds of files that unnoise reads"
            )
        if length > LONGEST_HEADER:
            raise UserError(f"{path} has a header of {length:,} bytes, more than {LONGEST_HEADER:,}: it is damaged")
        file.seek(8)
        text = file.read(length)
    try:
        header = parse_json(text, str(path))
        metadata = header.pop("__metadata__", {})
        entries = [_entry(name, entry) for name, entry in header.items()]
        if not isinstance(metadata, dict):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        state = "cut off" if len(text) < length else "damaged"
        raise UserError(f"{path} starts like a safetensors file, but its header is {state}. Fetch it again") from error
    expected = 8 + length + max((end for _, _, end in entries), default=0)
    if expected != size:
        raise UserError(f"{path} is {size:,} bytes long, but its header states {expected:,}: cut off. Fetch it again")
    parameters = sum(math.prod(shape) for _, shape, _ in entries)
    return WeightsHeader(len(entries), parameters, sorted({dtype for dtype, _, _ in entries}), metadata, tuple(header))


def _entry(name: str, entry: Any) -> tuple[str, list[int], int]:
    """A tensor's dtype, shape and end in the file. Raises ValueError, KeyError or TypeError for anything else."""
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or len(shape) > MOST_AXES or len(offsets) != 2:
        raise ValueError(name)
    if not all(type(number) is int and 0 <= number < 2**63 for number in (*shape, *offsets)):
        raise ValueError(name)
    return dtype, shape, offsets[1]


class Different(Exception):
    """A file has other tensors than those that are wanted; the message is a clause."""


def load_tensors(path: Path, wanted: Mapping[str, Tensor] | None, *, partial: bool) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU, with today's names; all of them where `wanted` is None.

    Raises Different, before a tensor is loaded, as `difference` states; SafetensorError or OSError for another file.
    """
    with safe_open(path, framework="pt") as file:
        names = renamed({name: name for name in file.keys()})  # noqa: SIM118  # it has no iterator
        heads = {name: file.get_slice(stored) for name, stored in names.items() if wanted and name in wanted}
        shapes = {name: (head.get_shape(), head.get_dtype()) for name, head in heads.items()}
        if wanted is not None and (why := difference(names, shapes, wanted, partial=partial)):
            raise Different(why)
        return {name: file.get_tensor(stored) for name, stored in names.items()}


def renamed(state: Mapping[str, T]) -> dict[str, T]:
    """Weights, averages or moments of an earlier version with today's names: `tell` is `emb_proj` since format 2."""
    return {re.sub(r"(?<!\w)tell\.", "emb_proj.", name): tensor for name, tensor in state.items()}


def difference(
    names: Collection[str],
    found: Mapping[str, tuple[Sequence[int], str]],
    wanted: Mapping[str, Tensor],
    *,
    partial: bool = False,
) -> str:
    """The first difference between a file's tensors and those of a network, as a clause; empty if there is none.

    `names` are all names in the file, `found` shape and dtype, as safetensors spells it, of those that are wanted. With
    `partial` the file may lack some. A tensor of one element does not stand for a larger one.
    """
    for name in () if partial else wanted:
        if name not in names:
            return f"the tensor {name} is missing"
    for name in names:
        if name not in wanted:
            return f"the tensor {name} is unknown"
        (shape, dtype), like = found[name], wanted[name]
        if tuple(shape) != tuple(like.shape):
            return f"the tensor {name} has the shape {tuple(shape)}, not {tuple(like.shape)} as in the network"
        if dtype.lstrip("B").startswith("F") != like.is_floating_point():
            return f"the tensor {name} has the type {dtype}, not {like.dtype} as in the network"
    return ""


def _refuse_other_kinds(path: Path, head: bytes, size: int) -> None:
    start = head.lstrip().lower()
    if size == 0:
        raise UserError(f"{path} is empty: an interrupted download or a full disk. Fetch it again")
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a git-LFS pointer, not the file itself. Run: git lfs pull")
    if start.startswith((b"<!doctype", b"<html")):
        raise UserError(f"{path} is a web page, not a model: the download was an error or login page. Fetch it again")
    header = size >= 8 and head[8:9] == b"{"  # a header of 640 bytes begins like a pickle
    if (head.startswith(PICKLES) and not header) or path.suffix in PICKLE_NAMES:
        raise UserError(
            f"{path} is a pickle, which can run any code when it is loaded, so unnoise never loads one. "
            "Get the model as a safetensors file, or convert it"
        )
