"""Untrusted files: JSON and safetensors, checked before they are used.

Shapes are read from the header of a file and compared with the expected ones before memory is allocated. If a file is
of another kind than its name, the error names that kind.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from unnoise.errors import UserError
from unnoise.io.json_files import MOST_JSON, parse_json, read_object
from unnoise.io.reading import open_regular
from unnoise.io.weights import read_header

SHOWN = 4  # wrong tensors that an error names
FLOATS = {"F64", "F32", "F16", "BF16"}

Shape = tuple[int, ...]


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object. Raises UserError, which names the kind of another file, as `io.json_files.read_object` does."""
    try:
        return read_object(file)
    except UserError as problem:
        kind = what_it_is(file) if file.is_file() else ""
        raise UserError(f"{file} is not JSON: {kind}" if kind else str(problem)) from None


@dataclass(frozen=True)
class Tensors:
    """The tensors of one or more safetensors files, by name. Nothing is loaded before `load`."""

    home: dict[str, Path]  # the file that contains each tensor

    @classmethod
    def of(cls, *files: Path) -> Tensors:
        """All tensors of these files. Raises UserError for a file that is not safetensors, or a name in two of them."""
        home: dict[str, Path] = {}
        for file in files:
            with _opened(file) as tensors:
                for name in tensors.keys():  # noqa: SIM118  # not a dictionary: it has keys and no iterator
                    if name in home:
                        raise UserError(f"{name} is both in {home[name].name} and in {file.name}: remove one of them")
                    home[name] = file
        return cls(home)

    def shapes(self) -> dict[str, Shape]:
        """Shapes, from the headers of the files. Raises UserError for a tensor that is not floating-point."""
        shapes: dict[str, Shape] = {}
        for file in self._files():
            with _opened(file) as tensors:
                for name in self._in(file):
                    head = tensors.get_slice(name)
                    if head.get_dtype() not in FLOATS:
                        raise UserError(
                            f"{file}: {name} is {head.get_dtype()}: weights are {', '.join(sorted(FLOATS))}"
                        )
                    shapes[name] = tuple(head.get_shape())
        return shapes

    def without(self, endings: tuple[str, ...]) -> Tensors:
        """All tensors except those whose names end with one of `endings`."""
        return Tensors({name: file for name, file in self.home.items() if not name.endswith(endings)})

    def load(self) -> dict[str, Tensor]:
        """All tensors, in float32."""
        state: dict[str, Tensor] = {}
        for file in self._files():
            with _opened(file) as tensors:
                state |= {name: tensors.get_tensor(name).to(torch.float32) for name in self._in(file)}
        return state

    def _files(self) -> list[Path]:
        return sorted(set(self.home.values()))

    def _in(self, file: Path) -> list[str]:
        return [name for name, home in self.home.items() if home == file]


def save_weights(file: Path, state: Mapping[str, Tensor]) -> None:
    """Write tensors to a safetensors file: contiguous, on the CPU, none sharing memory with another."""
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}, file)


def weights(folder: Path, name: str) -> Tensors | None:
    """The tensors called `name` in a folder: one file, its shards, or a variant (fp16); None if there are none."""
    whole = folder / f"{name}.safetensors"
    index = folder / f"{name}.safetensors.index.json"
    if whole.is_file():
        return Tensors.of(whole)
    if index.is_file():
        return _shards(index)
    variants = sorted(folder.glob(f"{name}.*.safetensors"))
    if len(variants) > 1:
        names = ", ".join(file.name for file in variants)
        raise UserError(f"{folder} has several variants of the weights, {names}: rename the one to use to {whole.name}")
    return Tensors.of(*variants) if variants else None


def _shards(index: Path) -> Tensors:
    """The tensors of an index of shards. Raises UserError where the index and the shards disagree."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise UserError(f"{index} has no weight_map from tensors to files: copy the whole folder")
    for file in set(places.values()):
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise UserError(f"{index}: {file!r} is not the name of a safetensors file in the same folder")
    tensors = Tensors.of(*(index.parent / file for file in sorted(set(places.values()))))
    for name, file in places.items():
        if tensors.home.get(name) != index.parent / file:
            raise UserError(f"{index}: {name} is not in {file}: the index and the shards belong to different models")
    return tensors


def what_is_wrong(found: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> str:
    """The first few tensors that are missing, unknown or of another shape, as text; empty if all match."""
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} is unknown" for name in found if name not in wanted]
    problems += [
        f"{name} is {found[name]} instead of {shape}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return "; ".join(problems[:SHOWN]) + more


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    if not file.is_file():
        raise UserError(f"{file} is missing: copy the whole folder")
    try:
        read_header(file)  # the library accepts shapes of any length
    except UserError as problem:
        raise UserError(f"{file} is not a complete safetensors file: {what_it_is(file) or problem}") from None
    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except UserError:
        raise
    except Exception as problem:  # safetensors raises its own, and OSError, and ValueError
        raise UserError(f"{file} is not a complete safetensors file: {what_it_is(file) or problem}") from None


def what_it_is(file: Path) -> str:
    """The kind of an unreadable file, as text, from its first bytes; empty if they are inconclusive."""
    with open_regular(file) as bytes_:
        head = bytes_.read(64)
    size = file.stat().st_size
    if not head.strip(b"\0"):
        return f"it is empty ({size:,} bytes); copy or download it again"
    if head.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer to the weights, not the weights; run `git lfs pull` where it came from"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page; the download was refused or redirected"
    if head.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04")):
        return "it is a pickle (.bin, .pt, .ckpt), which can run code and is not opened; convert it to safetensors"
    whole = _whole_size(file)
    if whole is not None and size < whole:
        return f"it ends after {size:,} of {whole:,} bytes; copy or download it again"
    return ""


def _whole_size(file: Path) -> int | None:
    """The size that the header of a safetensors file announces; None for another kind of file."""
    with open_regular(file) as bytes_:
        start = bytes_.read(8)
        if len(start) < 8:
            return None
        (length,) = struct.unpack("<Q", start)
        if length > MOST_JSON:
            return None
        head = bytes_.read(length)
    if not head.startswith(b"{"):
        return None
    if len(head) < length:
        return int(8 + length)
    try:
        entries = [entry for name, entry in parse_json(head, str(file)).items() if name != "__metadata__"]
        return int(8 + length + max(entry["data_offsets"][1] for entry in entries))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError):
        return None
