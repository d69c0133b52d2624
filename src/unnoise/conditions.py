"""What the denoiser is told, beside the noisy picture: a frozen record of tensors, a row per sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

Many = tuple[Tensor, ...]


@dataclass(frozen=True)
class Cond:
    """Nothing, or one thing or several of each row. What is None is not spoken of.

    A null row is said in the same words: the label one past the last class, the value NaN, the empty caption, strength
    0. Which null a network knows, the model's reader says (model.py).
    """

    label: Tensor | None = None  # (B,) int64: a class
    value: Tensor | None = None  # (B, K) float32: numbers, a column each; NaN where a number is not told
    tokens: Tensor | None = None  # (B, L) int64: a caption, for a network with a text encoder of its own
    text: Tensor | None = None  # (B, L, D): a caption as an encoder beside the network read it
    mask: Tensor | None = None  # (B, L) bool: which of the words count; None: all of them
    pooled: Tensor | None = None  # (B, D): a caption, or more, as one vector
    concat: Tensor | None = None  # (B, C, H, W) in [-1, 1]: a picture that is joined to x_t as further channels
    control: Many = ()  # of (B, C, h, w) in [0, 1]: a drawing for each control network
    control_scale: Tensor | None = None  # (B, hints), or (B, hints, depths): how strongly each of them steers; None: 1
    encoded: Many = ()  # of (B, ...): what the network has made of this beforehand (`hear`)

    def to(self, device: torch.device | str) -> Cond:
        return self._each(lambda tensor: tensor.to(device))

    def __getitem__(self, rows: slice | Tensor) -> Cond:
        return self._each(lambda tensor: tensor[rows])

    def where(self, rows: Tensor, other: Cond) -> Cond:
        """The rows of `other` where `rows` (B,) bool says so. What `other` does not speak of stays.

        Raises ValueError where `other` speaks of what this does not.
        """
        found = {}
        for name, mine, others in self._with(other):
            if mine is None and others is not None:
                raise ValueError(f"rows with and without {name} cannot stand in one condition")
            if mine is not None and others is not None:
                where = rows.to(mine.device).view(-1, *[1] * (mine.ndim - 1))
                found[name] = torch.where(where, others.to(mine), mine)
        return self._set(found)

    def then(self, other: Cond) -> Cond:
        """These rows, and below them the other's. Both speak of the same things, or ValueError."""
        found = {}
        for name, mine, others in self._with(other):
            if mine is None or others is None:
                raise ValueError(f"rows with and without {name} cannot stand in one condition")
            found[name] = torch.cat([mine, others])
        return self._set(found)

    @property
    def rows(self) -> int | None:
        """How many rows; None where nothing is said."""
        told = [tensor for _, tensor in self._flat()]
        return len(told[0]) if told else None

    # --- all tensors alike ---

    def _flat(self) -> list[tuple[str, Tensor]]:
        """Each tensor and its name; those of a tuple are called hints.0, hints.1."""
        found: list[tuple[str, Tensor]] = []
        for name, value in vars(self).items():
            if isinstance(value, tuple):
                found += [(f"{name}.{i}", tensor) for i, tensor in enumerate(value)]
            elif value is not None:
                found.append((name, value))
        return found

    def _with(self, other: Cond) -> list[tuple[str, Tensor | None, Tensor | None]]:
        mine, others = dict(self._flat()), dict(other._flat())
        return [(name, mine.get(name), others.get(name)) for name in mine | others]

    def _set(self, tensors: dict[str, Tensor]) -> Cond:
        """The same, with these in place of those of their names."""
        mine = dict(self._flat()) | tensors
        plain = {name: tensor for name, tensor in mine.items() if "." not in name}
        many: dict[str, Many] = {}
        for field in fields(self):
            many[field.name] = tuple(tensor for name, tensor in mine.items() if name.startswith(f"{field.name}."))
        return Cond(**plain, **{name: found for name, found in many.items() if found})  # type: ignore[arg-type]

    def _each(self, change: Callable[[Tensor], Tensor]) -> Cond:
        return self._set({name: change(tensor) for name, tensor in self._flat()})


NOTHING = Cond()
"""The condition that says nothing."""
