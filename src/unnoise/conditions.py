"""Conditions: what a network is conditioned on besides the noisy picture, as a frozen record with a row per sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from unnoise.transfer import send

Many = tuple[Tensor, ...]
Record = TypeVar("Record")


@dataclass(frozen=True)
class EncodedControl:
    """What one control network computes from a condition beforehand."""

    hint: Tensor  # (B, C, H, W): features of the control image, in the size of x_t
    keys_values: Many = ()  # (B, L, 2 D) for each of its cross-attentions, in the order in which they run


@dataclass(frozen=True)
class Encoded:
    """What a network computes from a condition that depends on neither x_t nor time, once per sampling."""

    pooled: Tensor | None = None  # (B, D): the mean of the text embeddings of the network's own text encoder
    keys_values: Many = ()  # (B, L, 2 D) for each of its cross-attentions, in the order in which they run
    controls: tuple[EncodedControl, ...] = ()  # for each control network; () without control images


@dataclass(frozen=True)
class Cond:
    """A condition for each row: any of these, or none. A field of None is absent for all rows.

    A null row has a null value in each field: the label one past the last class, the value NaN, the empty caption,
    control_scale 0. Which nulls a network was trained with is known to the model's conditioner (model.py).
    """

    label: Tensor | None = None  # (B,) int64: a class
    value: Tensor | None = None  # (B, K) float32: numbers, a column each; NaN where a number is missing
    tokens: Tensor | None = None  # (B, L) int64: a caption, for a network with a text encoder of its own
    text: Tensor | None = None  # (B, L, D): embeddings of a caption by an encoder outside the network
    mask: Tensor | None = None  # (B, L) bool: which tokens are attended to; None: all of them
    pooled: Tensor | None = None  # (B, D): one embedding vector, as of a caption
    concat: Tensor | None = None  # (B, C, H, W) in [-1, 1]: a picture concatenated to x_t as further channels
    control: Many = ()  # of (B, C, h, w) in [0, 1]: a control image for each control network
    control_scale: Tensor | None = None  # (B, controls) or (B, controls, depths): factors of their residuals; None: 1
    encoded: Encoded | None = None  # what the network has computed from tokens, text and control (`encode`)

    def to(self, device: torch.device | str) -> Cond:
        return _map(self, lambda _, tensor: send(tensor, device))

    def __getitem__(self, rows: slice | Tensor) -> Cond:
        if isinstance(rows, slice):
            return _map(self, lambda _, tensor: tensor[rows])
        return _map(self, lambda _, tensor: tensor[send(rows, tensor.device)])

    def where(self, rows: Tensor, other: Cond) -> Cond:
        """The rows of `other` where `rows` (B,) bool is true. A field that `other` lacks is unchanged.

        Raises ValueError if `other` has a field that this condition lacks.
        """
        others = dict(other.tensors())
        _check_same(set(others) - {name for name, _ in self.tensors()})

        def choose(name: str, mine: Tensor) -> Tensor:
            if name not in others:
                return mine
            mask = send(rows, mine.device).view(-1, *[1] * (mine.ndim - 1))
            return torch.where(mask, send(others[name].to(mine.dtype), mine.device), mine)

        return _map(self, choose)

    def cat(self, other: Cond) -> Cond:
        """These rows, followed by the other's. Raises ValueError unless both have the same fields."""
        others = dict(other.tensors())
        _check_same({name for name, _ in self.tensors()} ^ set(others))
        return _map(self, lambda name, mine: torch.cat([mine, others[name]]))

    @property
    def rows(self) -> int | None:
        """The number of rows; None for a condition without fields."""
        return next((len(tensor) for _, tensor in self.tensors()), None)

    def tensors(self) -> list[tuple[str, Tensor]]:
        """Each tensor with its name, as `label`, `control.0` or `encoded.controls.1.hint`, in the order of fields."""
        found: list[tuple[str, Tensor]] = []

        def note(name: str, tensor: Tensor) -> Tensor:
            found.append((name, tensor))
            return tensor

        _map(self, note)
        return found


NOTHING = Cond()
"""The condition without fields."""


def _map(record: Record, change: Callable[[str, Tensor], Tensor], name: str = "") -> Record:
    """A record of the same structure with `change(name, tensor)` in place of each tensor, however deep."""
    if isinstance(record, Tensor):
        return change(name, record)  # type: ignore[return-value]  # mypy: a Record that is a Tensor
    if isinstance(record, tuple):
        return tuple(_map(each, change, f"{name}.{i}") for i, each in enumerate(record))  # type: ignore[return-value]
    if record is None:
        return record
    prefix = f"{name}." if name else ""
    values = {field.name: getattr(record, field.name) for field in fields(record)}  # type: ignore[arg-type]
    changed = {each: _map(value, change, prefix + each) for each, value in values.items()}
    return replace(record, **changed)  # type: ignore[type-var]


def _check_same(missing: set[str]) -> None:
    if missing:
        raise ValueError(f"rows with and without {min(missing)} cannot be in one condition")
