"""What the denoiser is told, beside the noisy picture: a frozen record of tensors, a row per sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cond:
    """Nothing, or a class a row.

    `label` is (B,) int64; the index one past the last class is the null row, "no class", where the network has one.
    """

    label: Tensor | None = None

    def to(self, device: torch.device | str) -> Cond:
        return Cond(None if self.label is None else self.label.to(device))

    def __getitem__(self, rows: slice | Tensor) -> Cond:
        return Cond(None if self.label is None else self.label[rows])

    def drop(self, rows: Tensor, null: int) -> Cond:
        """The same, with `rows` (B,) bool told nothing: their label becomes `null`."""
        if self.label is None:
            return self
        return Cond(torch.where(rows.to(self.label.device), null, self.label))

    def then(self, other: Cond) -> Cond:
        """These rows, and below them the other's. Both say the same kinds of things."""
        if self.label is None or other.label is None:
            if self.label is not other.label:
                raise ValueError("rows with and without a label cannot stand in one condition")
            return Cond()
        return Cond(torch.cat([self.label, other.label]))


NOTHING = Cond()
"""The condition that says nothing."""
