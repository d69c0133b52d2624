"""The one training loop, a generator: the caller logs, saves and stops.

    loss(batch, rows) -> (B,)      a number each row; their mean is minimised
    for tick in fit(net, batches, loss, how): ...

Every random draw of a step is a function of (seed, place in the sequence of all samples): `Rows` hands them out. So
the same global batch is the same computation for 1, 2 or 4 processes and in 1 or 4 parts; and a training that is
stopped and resumed is, at the same number of processes, bit for bit the one that was not. Dropout masks are seeded by
(seed, step, rank). A step whose loss or gradient is not finite never reaches the optimizer, on any process.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unnoise import noise
from unnoise.config.training import Fit
from unnoise.errors import UserError
from unnoise.training.distributed import ALONE, Processes
from unnoise.training.train_state import TrainState

B = TypeVar("B", bound=NamedTuple)  # a batch: a named tuple of tensors and tuples with a row per sample


@dataclass(frozen=True)
class SampleRNG:
    """Which samples a batch holds: their `places` among all that the training sees, epoch after epoch."""

    seed: int
    places: tuple[int, ...]
    batch: int  # samples a step, over all processes and parts

    def __getitem__(self, rows: slice) -> SampleRNG:
        return SampleRNG(self.seed, self.places[rows], self.batch)

    def normal(self, shape: Sequence[int], name: str) -> Tensor:
        """Standard normals (B, *shape), float32: a row belongs to its sample."""
        return torch.stack([noise.normal(shape, self.seed, name, place) for place in self.places])

    def uniform(self, name: str) -> Tensor:
        """(B,) in [0, 1), float64: a number belongs to its sample."""
        return torch.cat([noise.uniform((1,), self.seed, name, place) for place in self.places])

    @property
    def index(self) -> Tensor:
        """Which of the step's samples each row is: (B,) int64 in 0..batch - 1."""
        return torch.tensor(self.places) % self.batch


@dataclass(frozen=True)
class Tick:
    """One step, done."""

    step: int  # steps done, this one included
    images: int  # pictures seen, over all processes
    loss: float  # of this step: the mean over its batch
    lr: float
    grad_norm: float  # before clipping
    seconds: float  # that the step took, waiting for data included
    rate: float  # pictures a second
    waiting: float  # share of the time spent waiting for data
    event: str = ""  # what else happened, in words
    wishes: tuple[bool, ...] = ()  # what any process wished at the end of this step


class NonFinite(UserError):
    """A step with a loss or a gradient that is no number; nothing was changed by it."""

    def __init__(self, step: int, samples: Sequence[int], what: str) -> None:
        self.step, self.samples = step, tuple(samples)
        shown = ", ".join(map(str, self.samples[:16])) + (", ..." if len(self.samples) > 16 else "")
        super().__init__(
            f"step {step}: {what} is not finite; stopped before it could change anything. Samples of the data set in "
            f"it: {shown}. Look at them, lower fit.lr, or set fit.non_finite to skip or rollback"
        )


Wishes = Callable[[], Sequence[bool]]
"""What this process would like to happen after the step; the ticks say what any process wished."""


class Memory(Protocol):
    """What a loss remembers from step to step, beside the network: in a checkpoint with it."""

    def settle(self, gather: Callable[[Tensor], Tensor]) -> None:
        """The end of a step that counted; `gather` brings rows (n, ...) of all processes to all, in order."""

    def forget(self) -> None:
        """The end of one that did not."""

    def state(self) -> dict[str, Tensor]: ...

    def load(self, state: Mapping[str, Tensor]) -> None: ...


def fit(
    net: nn.Module,
    batches: Iterator[B],
    loss: Callable[[B, SampleRNG], Tensor],
    how: Fit,
    *,
    learner: TrainState | None = None,
    memory: Memory | None = None,
    processes: Processes = ALONE,
    wishes: Wishes = tuple,
) -> Iterator[Tick]:
    """Fit `net`, a step at a time, until `how.images` pictures are seen; stop reading to stop.

    `batches` is this process's share of every step, from the learner's step on; `learner` is what a training remembers
    (weights, moments, averages, step), a new one where none is given; `memory` is what the loss does. Raises NonFinite
    as `how.non_finite` says.
    """
    learner = learner or TrainState(net, how, processes=processes)
    share = _share(how, processes)
    objective = _Objective(net, loss)
    run: nn.Module = objective
    if processes.world > 1 and not how.fsdp:
        run = DistributedDataParallel(objective)
    if how.compile:
        net.compile()
    while learner.step < steps(how):
        if not net.training:  # the caller may have drawn from it
            net.train()
        begin = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - begin
        first = learner.step * how.batch + processes.rank * share
        rows = SampleRNG(how.seed, tuple(range(first, first + share)), how.batch)
        values = _backward(run, batch, rows, how, learner, processes)
        asked = values.new_tensor([float(wish) for wish in wishes()])
        sums = processes.sum(torch.cat([values.mean()[None] / processes.world, asked]))
        norm, mean, *told = torch.cat([learner.gradient_norm()[None], sums]).tolist()  # waits for the device: once
        event, lr = "", rate(how, learner.step)
        if math.isfinite(mean) and math.isfinite(norm):
            learner.update(lr, norm)
            if memory is not None:
                memory.settle(processes.gather)
        else:
            if memory is not None:
                memory.forget()
            event = _bad(how, learner, batch, values, mean, processes)
        learner.step += 1
        seconds = time.perf_counter() - begin
        yield Tick(
            step=learner.step,
            images=learner.step * how.batch,
            loss=mean,
            lr=lr,
            grad_norm=norm,
            seconds=seconds,
            rate=how.batch / seconds,
            waiting=waited / seconds,
            event=event,
            wishes=tuple(wish > 0 for wish in told),
        )


def steps(how: Fit) -> int:
    """The length of a training in steps: at least `images` pictures."""
    return -(-how.images // how.batch)


def rate(how: Fit, step: int) -> float:
    """The learning rate of a step: a linear rise over `warmup` steps, then constant, or half a cosine down to 0."""
    if step < how.warmup:
        return how.lr * (step + 1) / how.warmup
    if how.decay == "constant":
        return how.lr
    done = (step - how.warmup) / max(1, steps(how) - how.warmup)
    return how.lr * (1 + math.cos(math.pi * min(1.0, done))) / 2


class _Objective(nn.Module):
    """The loss as a module around the network, so that gradients meet those of other processes while they are made."""

    def __init__(self, net: nn.Module, loss: Callable[[Any, SampleRNG], Tensor]) -> None:
        super().__init__()
        self.net = net
        self._loss = loss

    def forward(self, batch: Any, rows: SampleRNG) -> Tensor:
        return self._loss(batch, rows)


def _share(how: Fit, processes: Processes) -> int:
    if how.batch % (processes.world * how.accumulate):
        raise UserError(
            f"fit.batch {how.batch} cannot be shared by {processes.world} processes in {how.accumulate} parts each: "
            f"make it a multiple of {processes.world * how.accumulate}"
        )
    return how.batch // processes.world


def _backward(run: nn.Module, batch: B, rows: SampleRNG, how: Fit, learner: TrainState, processes: Processes) -> Tensor:
    """Add up the gradients of a step, part by part; returns the loss of every row, (B,), detached."""
    device = learner.device
    size = len(rows.places) // how.accumulate
    values = []
    later = isinstance(run, DistributedDataParallel) and learner.adds_up_in_place  # processes meet in the last part
    key = noise.generator(how.seed, "dropout", learner.step, processes.rank).initial_seed()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(key)
        for part in range(how.accumulate):
            inside = slice(part * size, (part + 1) * size)
            wait = later and part < how.accumulate - 1
            with run.no_sync() if wait else nullcontext():  # type: ignore[operator]
                each = run(take(batch, inside, device), rows[inside])
                (each.sum() / len(rows.places)).backward()
            values.append(each.detach().float())
            learner.collect()
    return torch.cat(values)


def take(batch: B, rows: slice, device: torch.device) -> B:
    """Some rows of a batch, on a device."""

    def part(field: Any) -> Any:
        if isinstance(field, Tensor):
            return field[rows].to(device, non_blocking=True)
        return field if field is None else field[rows]

    return type(batch)(*(part(field) for field in batch))


def _bad(how: Fit, learner: TrainState, batch: Any, values: Tensor, mean: float, processes: Processes) -> str:
    """What happens at a step that is not finite: every process decides alike, for all see the same mean and norm."""
    learner.forget()
    index = torch.tensor(batch.index, dtype=torch.int64, device=values.device)
    guilty = processes.gather(index[~torch.isfinite(values)])
    what = "the loss" if not math.isfinite(mean) else "the gradient"
    samples = (guilty if len(guilty) else processes.gather(index)).tolist()
    error = NonFinite(learner.step + 1, samples, what)
    learner.skips += 1
    if how.non_finite != "skip" or learner.skips > how.max_skips:
        raise error
    return f"skipped: {what} is not finite for samples {', '.join(map(str, samples))}"
