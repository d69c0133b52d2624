"""A player's turn in a step: gradients of its losses, part by part, then one update of its network.

While a player has its turn, the parameters of the others do not require gradients: its losses may be computed with
their networks, and gradients pass through these, but reach no weights of theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from unnoise import noise
from unnoise.config.usage import some
from unnoise.errors import UserError
from unnoise.training.distributed import Processes
from unnoise.training.player import Loss, Player, SampleRNG
from unnoise.training.train_state import TrainState
from unnoise.transfer import send

B = TypeVar("B", bound=NamedTuple)  # a batch: a named tuple of tensors and tuples with a row per sample
UNNAMED = "loss"  # the name of a loss that is returned without one


@dataclass(frozen=True)
class Update:
    """What one player did in a step."""

    loss: float  # the sum of its losses, averaged over the batch
    lr: float
    grad_norm: float  # before clipping
    losses: Mapping[str, float]  # each named loss, averaged over the batch; empty for an unnamed one
    event: str = ""  # what else happened


class NonFinite(UserError):
    """A loss or gradient that is not finite; the player's weights and optimizer state are as before the step."""

    def __init__(self, step: int, samples: Sequence[int], what: str) -> None:
        self.step, self.samples = step, tuple(samples)
        shown = some(list(map(str, self.samples)), 16)
        super().__init__(
            f"step {step}: {what} is not finite; the update was not applied. Samples of the data set in it: {shown}. "
            "Inspect them, lower fit.lr, or set fit.non_finite to skip or rollback"
        )


class _Objective(nn.Module):
    """The losses as a module around the network, so that DistributedDataParallel reduces gradients during backward."""

    def __init__(self, net: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.net = net
        self._loss = loss

    def forward(self, batch: Any, rows: SampleRNG) -> dict[str, Tensor]:
        found = self._loss(batch, rows)
        losses = {UNNAMED: found} if isinstance(found, Tensor) else dict(found)
        for name, loss in losses.items():
            if loss.shape != (len(rows.places),):
                raise ValueError(f"{name} has shape {tuple(loss.shape)}: return ({len(rows.places)},), one per row")
        return losses


@dataclass(frozen=True)
class Turn:
    """A player with all that its turn needs; `run` is its loss as a module."""

    name: str
    player: Player
    state: TrainState
    run: nn.Module
    others: tuple[TrainState, ...]
    first: bool
    processes: Processes

    @property
    def of(self) -> str:
        """The player in messages: nothing where there is only one."""
        return f" of {self.name}" if self.others else ""


def make_turn(name: str, players: Mapping[str, Player], states: Mapping[str, TrainState], processes: Processes) -> Turn:
    """The turn of one of the players. Raises UserError where its batch cannot be split over processes and parts."""
    player, config = players[name], players[name].fit
    if config.batch % (processes.world * config.accumulate):
        raise UserError(
            f"fit.batch {config.batch} cannot be split over {processes.world} processes in {config.accumulate} parts "
            f"each: set it to a multiple of {processes.world * config.accumulate}"
        )
    run: nn.Module = _Objective(player.net, player.loss)
    if processes.world > 1 and not config.fsdp:
        run = DistributedDataParallel(run)
    if config.compile:
        player.net.compile()
    others = tuple(state for other, state in states.items() if other != name)
    return Turn(name, player, states[name], run, others, name == next(iter(players)), processes)


def play(
    turn: Turn, batch: B, rows: SampleRNG, lr: float, flags: Callable[[], Sequence[bool]]
) -> tuple[Update, tuple[bool, ...]]:
    """Updates the player's network; returns what happened, and for each flag whether any process raised it.

    Raises NonFinite where the loss or the gradient is not finite and `fit.non_finite` does not allow to skip it.
    """
    state, memory, world = turn.state, turn.player.memory, turn.processes.world
    if turn.others:
        state.forget()  # gradients of other losses: of sharded parameters, or from outside of this loop
    with _frozen(turn.others):
        losses = _backward(turn, batch, rows)
    values = _sum(losses)
    names = [name for name in losses if list(losses) != [UNNAMED]]
    means = [each.mean()[None] / world for each in (values, *(losses[name] for name in names))]
    raised = send(torch.tensor([float(flag) for flag in flags()], dtype=values.dtype), values.device)
    sums = turn.processes.sum(torch.cat([*means, raised]))
    norm, mean, *rest = torch.cat([state.gradient_norm()[None], sums]).tolist()  # the only wait for the device
    event = ""
    if math.isfinite(mean) and math.isfinite(norm):
        state.update(lr, norm)
        if memory is not None:
            memory.settle(turn.processes.gather)
    else:
        if memory is not None:
            memory.forget()
        event = _skip(turn, batch, values, mean)
    update = Update(mean, lr, norm, dict(zip(names, rest)), event)
    return update, tuple(flag > 0 for flag in rest[len(names) :])


def _backward(turn: Turn, batch: B, rows: SampleRNG) -> dict[str, Tensor]:
    """Accumulates the gradients of a step, part by part; returns each loss for every row, (B,), detached."""
    state, config = turn.state, turn.player.fit
    device, size = state.device, len(rows.places) // config.accumulate
    ddp = isinstance(turn.run, DistributedDataParallel)
    later = ddp and state.adds_up_in_place  # processes exchange gradients in the last part only
    parts = []
    player = () if turn.first else (turn.name,)
    key = noise.generator(config.seed, "dropout", state.step, turn.processes.rank, *player).initial_seed()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(key)
        for part in range(config.accumulate):
            inside = slice(part * size, (part + 1) * size)
            wait = later and part < config.accumulate - 1
            with turn.run.no_sync() if wait else nullcontext():  # type: ignore[operator]
                losses = turn.run(take(batch, inside, device), rows[inside])
                (_sum(losses).sum() / len(rows.places)).backward()  # type: ignore[no-untyped-call]
            parts.append({name: each.detach().float() for name, each in losses.items()})
            state.collect()
    return {name: torch.cat([each[name] for each in parts]) for name in parts[0]}


def _sum(losses: Mapping[str, Tensor]) -> Tensor:
    first, *others = losses.values()
    for other in others:
        first = first + other
    return first


@contextmanager
def _frozen(states: Sequence[TrainState]) -> Iterator[None]:
    """The parameters of these players do not require gradients inside the block.

    Sharded ones do require them, because FSDP2 decides at the first forward pass whether a parameter has a gradient.
    """
    held = [p for state in states for p in state.net.parameters() if p.requires_grad and not isinstance(p, DTensor)]
    for p in held:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in held:
            p.requires_grad_(True)


def take(batch: B, rows: slice, device: torch.device) -> B:
    """Some rows of a batch, on a device; float64 stays on the CPU, because not every device has it."""

    def part(field: Any) -> Any:
        if isinstance(field, Tensor):
            return field[rows] if field.dtype == torch.float64 else send(field[rows], device)
        return field if field is None else field[rows]

    return type(batch)(*(part(field) for field in batch))


def _skip(turn: Turn, batch: Any, values: Tensor, mean: float) -> str:
    """Handles an update that is not finite. All processes decide alike, because all have the same mean and norm."""
    state, config, processes = turn.state, turn.player.fit, turn.processes
    state.forget()
    index = torch.tensor(batch.index, dtype=torch.int64, device=values.device)
    guilty = processes.gather(index[~torch.isfinite(values)])
    what = f"{'the loss' if not math.isfinite(mean) else 'the gradient'}{turn.of}"
    samples = (guilty if len(guilty) else processes.gather(index)).tolist()
    error = NonFinite(state.step + 1, samples, what)
    state.skips += 1
    if config.non_finite != "skip" or state.skips > config.max_skips:
        raise error
    return f"skipped: {what} is not finite for samples {', '.join(map(str, samples))}"
