"""Players: the networks that are trained together in one loop, each with its settings and its loss.

    Player(net, fit, loss),    loss(batch, rows) -> (B,) or {name: (B,)}

A player minimises the mean over the batch of the sum of its losses, with respect to the weights of its own network
alone. A training of one network has one player; an autoencoder and its discriminator are two, which take their steps in
turn. Every random number of a loss is a function of (seed, position in the sequence of all samples): see SampleRNG.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from unnoise import noise
from unnoise.config.training import Fit
from unnoise.errors import UserError

MAIN = "net"  # the name of a player that is passed without one
SHARED = ("images", "batch", "seed", "non_finite", "max_skips")  # settings of a step, the same for all players

V = TypeVar("V")


@dataclass(frozen=True)
class SampleRNG:
    """Random numbers for the samples of a batch, given by their positions `places` in the sequence of all samples.

    The sequence continues over epochs. A row's numbers do not depend on the batch, or the part of it, that it is in.
    """

    seed: int
    places: tuple[int, ...]
    batch: int  # samples per step, over all processes and parts
    ready: Mapping[str, Tensor] = field(default_factory=dict, compare=False)  # normals computed ahead, by name

    def __getitem__(self, rows: slice) -> SampleRNG:
        ready = {name: numbers[rows] for name, numbers in self.ready.items()}
        return SampleRNG(self.seed, self.places[rows], self.batch, ready)

    def normal(self, shape: Sequence[int], name: str) -> Tensor:
        """Standard normal numbers (B, *shape), float32, one tensor of `shape` for each sample, on the CPU."""
        if name in self.ready and self.ready[name].shape[1:] == tuple(shape):
            return self.ready[name]
        return torch.stack([noise.normal(shape, self.seed, name, place) for place in self.places])

    def uniform(self, name: str) -> Tensor:
        """Uniform numbers in [0, 1), (B,), float64, one for each sample."""
        return torch.cat([noise.uniform((1,), self.seed, name, place) for place in self.places])

    @property
    def index(self) -> Tensor:
        """The position of each row in its step: (B,), int64, in 0..batch - 1."""
        return torch.tensor(self.places) % self.batch


class Memory(Protocol):
    """State that a loss updates from step to step, beside the network; it is saved in every checkpoint."""

    def settle(self, gather: Callable[[Tensor], Tensor]) -> None:
        """Ends a step whose update was made. `gather` concatenates rows (n, ...) of all processes, in order."""

    def forget(self) -> None:
        """Ends a step whose update was skipped."""

    def state(self) -> dict[str, Tensor]: ...

    def load(self, state: Mapping[str, Tensor]) -> None: ...


Loss = Callable[[Any, SampleRNG], Tensor | Mapping[str, Tensor]]
"""(batch, rows) -> the loss of every row, (B,); or several of them by name, whose sum is minimised."""


@dataclass(frozen=True)
class Player:
    """A network, the settings that it is fitted with, and the loss that it minimises; `memory` is the loss's.

    `draws` are shapes of the normals that the loss takes from its rows, by name: on a graphics card those of the next
    step are computed while this one runs.
    """

    net: nn.Module
    fit: Fit
    loss: Loss
    memory: Memory | None = None
    draws: Mapping[str, Sequence[int]] = field(default_factory=dict)


def by_name(values: V | Mapping[str, V]) -> dict[str, V]:
    """The values by player; a single value belongs to the player MAIN."""
    return dict(values) if isinstance(values, Mapping) else {MAIN: values}


def shared_fit(players: Mapping[str, Player]) -> Fit:
    """The settings of the first player, after checking that the players can be trained together.

    Raises ValueError for names that cannot be part of a file's name and for a parameter of two players, UserError
    where the players differ in a setting of SHARED.
    """
    (first, one), *others = players.items()
    owners: dict[int, str] = {}
    for name, player in players.items():
        if not name.isidentifier():
            raise ValueError(f"the name of player {name!r} is part of file names: use letters, digits and underscores")
        for p in player.net.parameters():
            if owners.setdefault(id(p), name) != name:
                raise ValueError(f"players {owners[id(p)]!r} and {name!r} share a parameter: give it to one of them")
    for name, player in others:
        for key in SHARED:
            mine, theirs = getattr(player.fit, key), getattr(one.fit, key)
            if mine != theirs:
                raise UserError(f"fit.{key} of {name!r} is {mine}: set it to {theirs}, the value of {first!r}")
    return one.fit
