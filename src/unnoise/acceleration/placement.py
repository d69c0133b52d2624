"""Where a network computes, and in which dtype and memory format."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from unnoise.denoiser import Diffusion


@dataclass(frozen=True)
class Placement:
    """A device, a dtype, a memory format."""

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    channels_last: bool = True


def best(device: str = "auto", precision: str = "auto") -> Placement:
    """The fastest placement of this machine."""
    dtype = {"auto": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    return Placement("cpu" if device == "auto" else device, dtype)


def place(diffusion: Diffusion, placement: Placement) -> Diffusion:
    """A copy of the diffusion whose network is placed so; the original stays as it is."""
    placed = copy.deepcopy(diffusion).to(placement.device, placement.dtype)
    return placed.to(memory_format=torch.channels_last) if placement.channels_last else placed  # type: ignore[call-overload,no-any-return]
