"""A training so small that it can be killed fifty times: 20 pictures of 4x4, a network with dropout, seconds at most.

Everything that makes resuming hard is here: augmentation, dropout, label dropout, averages, parts of a batch. As a
program it trains in a directory, and says every step: `python tests/helpers/tiny_training.py DIR '{"lr": 0.1}'`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unnoise import noise
from unnoise.config import convert
from unnoise.config.data import DataConfig
from unnoise.config.training import Fit, LogConfig
from unnoise.io import checkpoint
from unnoise.training import trainer
from unnoise.training.distributed import ALONE, Processes, processes
from unnoise.training.loop import Tick
from unnoise.training.player import Player, SampleRNG
from unnoise.training.run import open_run
from unnoise.training.train_state import TrainState
from unnoise.training.trainer import Task

COUNT, CLASSES = 20, 3
FACTS = {"fingerprint": "tiny", "count": COUNT}

DATA = DataConfig(path="tiny", size=4)
FIT = Fit(
    images=80,  # 10 steps, 4 epochs
    batch=8,  # 2.5 steps an epoch
    accumulate=2,
    lr=0.05,
    warmup=3,
    decay="cosine",
    clip=0.5,
    ema=(40, 16),
    ema_rampup=0.5,
)
WATCH = LogConfig(log_every=3, checkpoint_every=1e9, keep=3, grid_every=0)


@dataclass(frozen=True)
class TinyConfig:
    name: str = "tiny"
    data: DataConfig = DATA
    fit: Fit = FIT
    log: LogConfig = WATCH
    poison: tuple[int, ...] = ()  # samples of the data set that are not finite
    poison_step: int = -1  # only at this step; -1: at every step
    slow: float = 0.0  # seconds a step


class Batch(NamedTuple):
    x: Tensor
    label: Tensor
    index: tuple[int, ...]


def batches(config: TinyConfig, start: int, who: Processes = ALONE) -> Iterator[Batch]:
    """Pictures in an order and with flips that are functions of (seed, place)."""
    fit = config.fit
    share = fit.batch // who.world
    step = start
    while True:
        time.sleep(config.slow)
        first = step * fit.batch + who.rank * share
        index, pictures = [], []
        for place in range(first, first + share):
            epoch, at = divmod(place, COUNT)
            order = torch.randperm(COUNT, generator=noise.generator(fit.seed, "order", epoch)).tolist()
            picture = noise.normal((1, 4, 4), "picture", order[at])
            if noise.uniform((), fit.seed, "flip", epoch, order[at]) < 0.5:
                picture = picture.flip(-1)
            if order[at] in config.poison and config.poison_step in (-1, step):
                picture = picture * float("nan")
            index.append(order[at])
            pictures.append(picture)
        yield Batch(torch.stack(pictures), torch.tensor(index) % CLASSES, tuple(index))
        step += 1


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.drop = nn.Dropout(0.3)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.drop(torch.tanh(self.conv(h)))


class Net(nn.Module):
    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.label = nn.Embedding(CLASSES + 1, 4)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.last = nn.Conv2d(4, 1, 1)
        self.register_buffer("scale", torch.tensor(2.0))
        for block in self.blocks:
            block.drop.p = dropout

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        h = self.first(x) + self.label(label).to(x.dtype)[:, :, None, None]
        for block in self.blocks:
            h = block(h)
        return self.last(h) * self.scale.to(h.dtype)


def make_net(dropout: float = 0.3) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net(dropout)


def objective(net: nn.Module) -> Callable[[Batch, SampleRNG], Tensor]:
    """Guess the noise in a half noisy picture; one row in five has no class."""

    def loss(batch: Batch, rows: SampleRNG) -> Tensor:
        eps = rows.normal((1, 4, 4), "noise")
        told = torch.where(rows.uniform("label") < 0.2, CLASSES, batch.label)
        out = net((0.6 * batch.x + 0.8 * eps).to(net.first.weight.dtype), told)
        return (out.float() - eps).square().flatten(1).mean(1)

    return loss


def ticks(
    config: TinyConfig,
    path: Path,
    who: Processes = ALONE,
    dtype: torch.dtype = torch.float32,
    sample: Callable[..., bool] | None = None,
) -> Iterator[Tick]:
    """The whole course."""

    def task(net: nn.Module) -> Task:
        player = Player(net, config.fit, objective(net))
        return Task(player, config.log, lambda start: batches(config, start, who), write, sample)

    def write(directory: Path, weights: Mapping[str, Tensor]) -> None:
        checkpoint.save(weights, directory / "model.safetensors")

    net = make_net(0.0 if config.name == "calm" else 0.3)
    state = TrainState(net, config.fit, dtype=dtype, processes=who)
    if not who.first:
        yield from trainer.train(None, task(net), state, processes=who)
        return
    with open_run(path, config) as run:
        run.record_data(FACTS)
        yield from trainer.train(run, task(net), state, processes=who)


def contents(folder: Path) -> dict[str, Tensor]:
    """Every tensor of the newest checkpoint, by file and name."""
    newest = checkpoint.newest(folder / "checkpoints")
    assert newest is not None
    return {
        f"{path.name}:{name}": value
        for path in sorted(newest.glob("*.safetensors"))
        for name, value in checkpoint.read(path).items()
    }


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def changed(config: TinyConfig = TinyConfig(), **values: object) -> TinyConfig:
    """With some fields of `fit`, `log` or the config itself replaced, each by its own name."""
    for part in ("fit", "log"):
        old = getattr(config, part)
        mine = {k: v for k, v in values.items() if hasattr(old, k)}
        config = replace(config, **{part: replace(old, **mine)})
        values = {k: v for k, v in values.items() if k not in mine}
    return replace(config, **values)


# --- as a program, and as children that need no second import of torch ---


def train(who: Processes, path: str, values: dict[str, str]) -> None:
    """Train in `path`, and say every step."""
    for tick in ticks(convert.override(TinyConfig(), values), Path(path), who):
        if who.first:
            print(tick.step, tick.loss, tick.event, flush=True)


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["unnoise.recipes.diffusion", "unnoise.training.run"])


@dataclass
class Child:
    """A process of its own, with what it said in a file."""

    process: multiprocessing.process.BaseProcess
    out: Path

    def wait_for(self, step: int) -> None:
        """Until it has said that this step is done."""
        while not any(int(line.split()[0]) >= step for line in self.said().splitlines()):
            assert self.process.is_alive(), self.said()
            time.sleep(0.002)

    def said(self) -> str:
        text = self.out.read_text() if self.out.exists() else ""
        return text[: text.rfind("\n") + 1]

    def end(self, timeout: float = 60) -> int:
        """Its exit code."""
        self.process.join(timeout)
        assert not self.process.is_alive(), "does not end"
        return self.process.exitcode


def launch(out: Path, work: Callable[..., None], *args: object, world: int = 1, device: str = "cpu") -> list[Child]:
    """`work(who, *args)` in `world` processes that meet as torchrun's do; what they say goes to files below `out`.

    With the device cuda they meet as processes with a GPU each do: see `pretended_cards`.
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    children = []
    for r in range(world):
        file = out / f"said-{time.monotonic_ns()}-{r}.txt"
        env = shared | {"RANK": str(r), "LOCAL_RANK": str(r)}
        process = FORKS.Process(target=_child, args=(file, env, device, work, args))
        process.start()
        children.append(Child(process, file))
    return children


@contextmanager
def pretended_cards(count: int) -> Iterator[None]:
    """GPUs for `processes`, on a machine that has none; NCCL, which exchanges no tensors of the CPU, is gloo for them.

    Without "cpu:gloo" beside it a group has no way for tensors of the CPU, as on a machine with GPUs.
    """
    join = dist.init_process_group

    def joined(backend: str, **how: Any) -> None:
        join("cuda:gloo" if backend == "nccl" else backend.replace("nccl", "gloo"), **how)

    with ExitStack() as stack:
        for owner, name, value in (
            (torch.cuda, "is_available", lambda: True),
            (torch.cuda, "device_count", lambda: count),
            (torch.cuda, "set_device", lambda device: None),
            (torch.cuda, "get_device_capability", lambda device: (8, 0)),
            (dist, "init_process_group", joined),
        ):
            stack.enter_context(patch.object(owner, name, value))
        yield


def _child(file: Path, env: dict[str, str], device: str, work: Callable[..., None], args: tuple[object, ...]) -> None:
    torch.set_num_threads(1)
    os.environ.update(env)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    with ExitStack() as stack:
        with pretended_cards(int(env["WORLD_SIZE"])) if device == "cuda" else nullcontext():
            who = stack.enter_context(processes(os.environ, device))
        work(who, *args)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with processes(os.environ) as who:
        train(who, sys.argv[1], json.loads(sys.argv[2]))
