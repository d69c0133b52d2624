"""In which space we diffuse: `encode` takes a picture there, `decode` brings it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Codec(Protocol):
    """Pictures are (B, C, H, W) float32, in [-1, 1] where they are pictures."""

    def encode(self, picture: Tensor) -> Tensor: ...

    def decode(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Pixels:
    """The space of the pictures themselves."""

    def encode(self, picture: Tensor) -> Tensor:
        return picture

    def decode(self, x: Tensor) -> Tensor:
        return x.float().clamp(-1, 1)


@dataclass(frozen=True)
class Latents:
    """The space of an autoencoder that is not here: latents go in and come out as they are, and have no range."""

    def encode(self, picture: Tensor) -> Tensor:
        return picture

    def decode(self, x: Tensor) -> Tensor:
        return x.float()


def to_bytes(picture: Tensor) -> Tensor:
    """uint8, from [-1, 1] to 0..255, rounded to the nearest: the inverse of k / 127.5 - 1 for every byte k."""
    return (picture.float().clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)


def from_bytes(picture: Tensor) -> Tensor:
    """float32 in [-1, 1] from bytes: k / 127.5 - 1."""
    return picture.float() / 127.5 - 1
