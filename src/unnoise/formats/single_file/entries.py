"""The tensors of a checkpoint file and those of a diffusers or transformers folder: one table for each part, both ways.

A tensor of the file is one tensor of the folder in another shape (a pixelwise map may be a convolution of any
dimension), its transpose, or the queries, keys and values in one matrix. In CompVis' attention the rows of that matrix
are grouped by head: those of the first head's queries, keys and values, then those of the second head
(QKVAttentionLegacy); in OpenCLIP's they are not, which is the same as one head.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.formats.files import Shape


class Entry(NamedTuple):
    """A tensor of the file: its name and shape, and the names of the folder's tensors that it contains."""

    name: str
    shape: Shape
    parts: tuple[str, ...]  # one, or queries, keys and values
    heads: int = 1
    transposed: bool = False

    def divide(self, tensor: Tensor, shapes: Mapping[str, Shape]) -> dict[str, Tensor]:
        """The folder's tensors, of these shapes, from the file's."""
        whole = tensor.t().contiguous() if self.transposed else tensor
        rows = [whole]
        if len(self.parts) > 1:
            rows = list(whole.reshape(self.heads, len(self.parts), -1).unbind(1))
        return {part: row.reshape(shapes[part]) for part, row in zip(self.parts, rows, strict=True)}

    def unite(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The file's tensor from the folder's: the inverse of `divide`."""
        rows = [tensors[part] for part in self.parts]
        if len(rows) == 1:
            return (rows[0].t() if self.transposed else rows[0]).reshape(self.shape).contiguous()
        return torch.stack([row.reshape(self.heads, -1) for row in rows], 1).reshape(self.shape).contiguous()


def plain(names: Mapping[str, str], shapes: Mapping[str, Shape]) -> list[Entry]:
    """An entry for each tensor of `shapes` whose module is in `names`, {module of the folder: module of the file}.

    A module inside one of `names` keeps the rest of its name.
    """
    found = []
    for name, shape in shapes.items():
        module = name
        while module not in names:
            module, dot, _ = module.rpartition(".")
            assert dot, f"no module of the table contains {name}"
        found.append(Entry(names[module] + name.removeprefix(module), shape, (name,)))
    return found


def wanted(entries: Iterable[Entry]) -> dict[str, Shape]:
    """The shapes of the file's tensors, by name."""
    return {entry.name: entry.shape for entry in entries}


def to_folder(entries: Iterable[Entry], state: Mapping[str, Tensor], shapes: Mapping[str, Shape]) -> dict[str, Tensor]:
    """The tensors of a folder, of these shapes, from those of a file, in float32."""
    return {
        part: tensor
        for entry in entries
        for part, tensor in entry.divide(state[entry.name].to(torch.float32), shapes).items()
    }


def to_file(entries: Iterable[Entry], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file from those of a folder, none sharing memory with another."""
    return {entry.name: entry.unite(state).clone() for entry in entries}
