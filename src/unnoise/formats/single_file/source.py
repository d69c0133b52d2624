"""The tensors of a checkpoint file, by name: a safetensors file, or a pickle that the caller allows to be opened.

A pickle (.ckpt, .pt) is opened by torch.load(weights_only=True), which builds tensors and plain containers and calls
nothing else. Its tensors are those of its `state_dict`, or its own. Everything is read as float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unnoise.errors import UserError
from unnoise.formats.files import Shape, Tensors
from unnoise.formats.single_file.contents import NOT_OPENED
from unnoise.io.reading import check_regular
from unnoise.io.weights import PICKLE_NAMES, read_header

WITHOUT_EFFECT = ("position_ids", "logit_scale", "attn_mask")  # of text towers: constants, and a number of the training


@dataclass(frozen=True)
class Source:
    """A file's tensors, of which nothing is loaded before `load`."""

    file: Path
    names: tuple[str, ...]
    metadata: Mapping[str, Any]
    shapes_of: Callable[[Iterable[str]], dict[str, Shape]]
    load: Callable[[Iterable[str]], dict[str, Tensor]]  # in float32

    def shapes(self, prefix: str) -> dict[str, Shape]:
        """The shapes of the tensors whose names begin with `prefix`, by the rest of their names.

        Those without an effect on the output are left out.
        """
        names = [name for name in self.names if name.startswith(prefix) and not name.endswith(WITHOUT_EFFECT)]
        found = self.shapes_of(names)
        return {name.removeprefix(prefix): shape for name, shape in found.items()}


def opened(file: Path, *, allow_pickle: bool = False) -> Source:
    """The tensors of a file. Raises UserError for a damaged file, and for a pickle unless `allow_pickle`."""
    if file.suffix.lower() in PICKLE_NAMES:
        return _unpickled(file, allow_pickle=allow_pickle)
    metadata = read_header(file).metadata
    tensors = Tensors.of(file)

    def only(names: Iterable[str]) -> Tensors:
        return Tensors(dict.fromkeys(names, file))

    return Source(
        file, tuple(tensors.home), metadata, lambda names: only(names).shapes(), lambda names: only(names).load()
    )


def _unpickled(file: Path, *, allow_pickle: bool) -> Source:
    if not allow_pickle:
        raise UserError(NOT_OPENED.format(file=file))
    check_regular(file)
    try:
        stored = torch.load(file, map_location="cpu", weights_only=True, mmap=_is_zip(file))
    except Exception as error:  # torch raises a dozen kinds, none of them documented
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{file} is not a file of tensors alone: {why}") from None
    state = stored.get("state_dict", stored) if isinstance(stored, dict) else None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise UserError(f"{file} has no tensors by name: give a checkpoint of a model")
    found = {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
    if len(found) < len(state):
        other = next(name for name in state if name not in found)
        raise UserError(
            f"{file}: {other} is a {type(state[other]).__name__}, not a tensor: give a checkpoint of a model"
        )

    def shapes_of(names: Iterable[str]) -> dict[str, Shape]:
        return {name: _shape(file, name, found[name]) for name in names}

    def load(names: Iterable[str]) -> dict[str, Tensor]:
        return {name: found[name].to(torch.float32).clone() for name in names}

    return Source(file, tuple(found), {}, shapes_of, load)


def _shape(file: Path, name: str, tensor: Tensor) -> Shape:
    if not tensor.is_floating_point():
        raise UserError(f"{file}: {name} is {tensor.dtype}: weights are floating-point numbers")
    return tuple(tensor.shape)


def _is_zip(file: Path) -> bool:
    with file.open("rb") as head:
        return head.read(2) == b"PK"
