"""The training loop, a generator: the caller logs, saves and stops.

    for tick in fit(Player(net, config, loss), batches): ...
    for tick in fit({"autoencoder": a, "discriminator": d}, batches): ...

In each step the players update their networks in turn, in the order of the dictionary, on the same batch: each sees the
weights that the players before it have just updated. A player's loss changes the weights of its own network alone.

The same global batch is the same computation for 1, 2 or 4 processes and in 1 or 4 parts, because every random number
is a function of (seed, position of the sample); and a training that is stopped and resumed is, with the same number of
processes, bit for bit the one that was not. Dropout masks are seeded by (seed, step, rank), and by the player's name
after the first player. An update whose loss or gradient is not finite is never applied, on any process.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

from unnoise.config.training import Fit
from unnoise.training.ahead import ahead, pinned
from unnoise.training.distributed import ALONE, Processes
from unnoise.training.player import Player, SampleRNG, by_name, shared_fit
from unnoise.training.train_state import TrainState
from unnoise.training.turn import Turn, Update, make_turn, play
from unnoise.transfer import pin

B = TypeVar("B", bound=NamedTuple)  # a batch: a named tuple of tensors and tuples with a row per sample


@dataclass(frozen=True)
class Tick:
    """A step that is done. `loss`, `lr` and `grad_norm` are those of the first player."""

    step: int  # steps done, including this one
    images: int  # pictures trained on so far, over all processes
    loss: float  # mean over the batch of this step
    lr: float
    grad_norm: float  # before clipping
    seconds: float  # duration of the step, including the wait for data
    rate: float  # pictures per second
    waiting: float  # fraction of the step spent waiting for data
    event: str = ""  # what else happened
    flags: tuple[bool, ...] = ()  # for each flag, whether any process raised it at the end of this step
    players: Mapping[str, Update] = field(default_factory=dict)  # every player's update, in order


Flags = Callable[[], Sequence[bool]]
"""Flags that this process raises after a step, such as to stop or to save; a Tick has those that any process raised."""


def fit(
    players: Player | Mapping[str, Player],
    batches: Iterator[B],
    *,
    states: TrainState | Mapping[str, TrainState] | None = None,
    processes: Processes = ALONE,
    flags: Flags = tuple,
) -> Iterator[Tick]:
    """Trains the players in turn, one step at a time, until `fit.images` pictures have been processed.

    `batches` yields this process's part of every step, from the step of `states` on; `states` are the weights, moments,
    averages and step counts to continue from, new ones by default. To stop early, stop iterating. Raises NonFinite
    according to `fit.non_finite`; UserError or ValueError where the players cannot be trained together.
    """
    named = by_name(players)
    config = shared_fit(named)
    if states is None:
        states = {name: TrainState(player.net, player.fit, processes=processes) for name, player in named.items()}
    states = by_name(states)
    turns = [make_turn(name, named, states, processes) for name in named]
    first = turns[0].state
    source = _prepared(named, batches, config, processes, first)
    while first.step < steps(config):
        for turn in turns:
            if not turn.player.net.training:  # the caller may have sampled from it
                turn.player.net.train()
        begin = time.perf_counter()
        with processes.together():  # data that one process cannot read ends all, with its message
            batch, rows = next(source)
        waited = time.perf_counter() - begin
        updates, raised = _step(turns, batch, rows, flags)
        for state in states.values():
            state.step += 1
        seconds = time.perf_counter() - begin
        main = updates[turns[0].name]
        yield Tick(
            step=first.step,
            images=first.step * config.batch,
            loss=main.loss,
            lr=main.lr,
            grad_norm=main.grad_norm,
            seconds=seconds,
            rate=config.batch / seconds,
            waiting=waited / seconds,
            event="; ".join(update.event for update in updates.values() if update.event),
            flags=raised,
            players=updates,
        )


def _step(turns: Sequence[Turn], batch: B, rows: SampleRNG, flags: Flags) -> tuple[dict[str, Update], tuple[bool, ...]]:
    """The players' updates, one after the other; the flags are exchanged between processes in the last one."""
    updates: dict[str, Update] = {}
    raised: tuple[bool, ...] = ()
    for turn in turns:
        lr = rate(turn.player.fit, turn.state.step)
        updates[turn.name], raised = play(turn, batch, rows, lr, flags if turn is turns[-1] else tuple)
    return updates, raised


def _prepared(
    players: Mapping[str, Player], batches: Iterator[B], config: Fit, processes: Processes, state: TrainState
) -> Iterator[tuple[B, SampleRNG]]:
    """The batch and the random numbers of every step; on a graphics card made ahead, in pinned memory."""
    device, span = state.device, (state.step, steps(config))
    if device.type == "cpu":
        return ((next(batches), _rows(config, step, processes)) for step in range(*span))

    def make(step: int) -> tuple[B, SampleRNG]:
        rows = _rows(config, step, processes)
        draws = [(name, shape) for player in players.values() for name, shape in player.draws.items()]
        ready = {name: pin(rows.normal(shape, name), device) for name, shape in draws}
        return pinned(next(batches), device), replace(rows, ready=ready)

    return ahead(make, *span)


def _rows(config: Fit, step: int, processes: Processes) -> SampleRNG:
    """The positions of this process's samples of a step."""
    size = config.batch // processes.world
    first = step * config.batch + processes.rank * size
    return SampleRNG(config.seed, tuple(range(first, first + size)), config.batch)


def steps(config: Fit) -> int:
    """The number of steps of a training: the least with at least `images` pictures."""
    return -(-config.images // config.batch)


def rate(config: Fit, step: int) -> float:
    """The learning rate of a step: it rises linearly for `warmup` steps, then is constant or half a cosine to 0."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.decay == "constant":
        return config.lr
    done = (step - config.warmup) / max(1, steps(config) - config.warmup)
    return config.lr * (1 + math.cos(math.pi * min(1.0, done))) / 2
