"""Estimates the cost of a training before it starts: parameters, operations and memory are counted, time is measured.

Operations and memory are counted on the meta device, which allocates nothing, so that a network that does not fit is
refused, with the numbers, before time is measured in a few real steps on this machine.
"""

from __future__ import annotations

import itertools
import statistics
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from unnoise import nn as networks
from unnoise.acceleration.memory import available_memory
from unnoise.acceleration.placement import best, prepare
from unnoise.config import validate
from unnoise.config.training import Fit, TrainConfig
from unnoise.data import Batch
from unnoise.denoiser import make_diffusion
from unnoise.errors import UserError
from unnoise.io.units import human
from unnoise.recipes.conditioning import batch_condition, concat_input, placeholder_conditioner
from unnoise.recipes.diffusion import objective
from unnoise.recipes.initialization import init_network
from unnoise.training.loop import fit, steps
from unnoise.training.player import Player, SampleRNG
from unnoise.training.train_state import TrainState

TIMED_FLOPS = 5e11  # of a timed step, which determines its pictures: a second or so on a CPU


@dataclass(frozen=True)
class Cost:
    """The cost of a whole training. A multiplication and an addition count as two operations."""

    parameters: int
    flops: int  # forward pass of one picture; a training step needs about three times that per picture
    steps: int
    images: int
    memory: int  # bytes: weights, gradients, moments, averages, and activations saved for the backward pass
    checkpoint: int  # bytes of a checkpoint: weights, moments, averages
    images_per_second: float  # measured on this machine, in one process
    seconds: float  # of the whole training at that rate
    device: str
    precision: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def cost(config: TrainConfig, *, timed: int = 3, processes: int = 1) -> Cost:
    """Estimates the cost, in a few seconds, most of them for `timed` steps on pictures of noise.

    Raises UserError before them where the training, split over `processes`, needs more memory than is available.
    """
    validate.check(config)
    placement = best(config.device, config.fit.precision)
    with torch.device("meta"):
        net = networks.build(config.net).to("meta")  # and its computed buffers
    parameters = sum(p.numel() for p in net.parameters())
    flops, saved = _count(net, config)
    width = 2 if placement.dtype == torch.bfloat16 else 4
    part = config.fit.batch // config.fit.accumulate
    # float32 weights, gradients, two moments, averages; in bfloat16 also rounded copies and their gradients
    state = parameters * (4 * (4 + len(config.fit.ema)) + (4 if width == 2 else 0))
    picture = 0 if config.fit.gradient_checkpointing else saved * width // 4  # only block inputs are kept: not counted
    sharing = processes if placement.device.startswith("cuda") else 1  # processes on CPUs share the machine's memory
    share = replace(config.fit, batch=config.fit.batch // sharing)
    check_memory(state // (sharing if config.fit.fsdp else 1), picture, share, available_memory(placement.device))
    rate = _rate(config, placement, min(part, max(1, int(TIMED_FLOPS / (3 * flops)))), timed)
    images = steps(config.fit) * config.fit.batch
    return Cost(
        parameters=parameters,
        flops=flops,
        steps=steps(config.fit),
        images=images,
        memory=state + part * saved * width // 4,
        checkpoint=4 * parameters * (3 + len(config.fit.ema)),
        images_per_second=rate,
        seconds=images / rate,
        device=placement.device,
        precision=placement.precision,
    )


def check_memory(state: int, picture: int, fit: Fit, available: int | None) -> None:
    """Raises UserError where `state` bytes, and `picture` bytes for each picture that is computed at once, exceed the
    `available` bytes (None: not known). The message has the smallest accumulation that fits."""
    needed = state + fit.batch // fit.accumulate * picture
    if available is None or needed <= available:
        return
    divisors = [k for k in range(fit.accumulate, fit.batch + 1) if fit.batch % k == 0]
    enough = next((k for k in divisors if state + fit.batch // k * picture <= available), None)
    fix = f"set fit.accumulate={enough}, which computes a batch in parts" if enough else "choose a smaller network"
    raise UserError(
        f"a training step of {fit.batch // fit.accumulate:,} pictures needs about {human(needed)}B of memory, and "
        f"{human(available)}B are available on this machine: {fix}"
    )


def _count(net: torch.nn.Module, config: TrainConfig) -> tuple[int, int]:
    """Counts operations of a forward pass of a picture, and float32 bytes saved for its backward pass (meta device)."""
    size, channels = config.data.size, config.data.channels
    x = torch.empty(1, channels, size, size, device="meta")
    batch = _batch(config, 1)
    cond = batch_condition(batch, placeholder_conditioner(config), config)
    if config.process.concat:
        cond = replace(cond, concat=concat_input(batch.x, config.process, SampleRNG(0, (0,), 1)))
    cond = cond.to("meta")
    weights = {id(p) for p in net.parameters()}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if id(tensor) not in weights:
            saved[id(tensor)] = tensor
        return tensor

    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(keep, lambda tensor: tensor):
        net(x, torch.zeros(1, device="meta"), cond)
    return counter.get_total_flops(), sum(t.numel() * t.element_size() for t in saved.values())


def _rate(config: TrainConfig, placement: Any, batch: int, timed: int) -> float:
    """Pictures per second, measured in real steps of `batch` pictures."""
    short = replace(config.fit, batch=batch, accumulate=1, images=batch * (timed + 1), fsdp=False, compile=False)
    net = prepare(init_network(config), placement)
    pictures = itertools.repeat(_batch(config, batch))
    loss = objective(make_diffusion(net, config.process), config, placeholder_conditioner(config))
    ticks = list(fit(Player(net, short, loss), pictures, states=TrainState(net, short, dtype=placement.dtype)))
    return batch / statistics.median(tick.seconds for tick in ticks[1:])


def _batch(config: TrainConfig, count: int) -> Batch:
    """Pictures of noise, of the first class, with a caption, and a blank control image where the data has them."""
    x = torch.randn(count, config.data.channels, config.data.size, config.data.size).clamp(-1, 1)
    control = torch.zeros(count, 3, *x.shape[2:]) if config.data.control else None
    value = torch.zeros(count, len(config.data.values), dtype=torch.float64) if config.data.values else None
    label = torch.zeros(count, dtype=torch.int64)
    return Batch(x, label, ("a picture",) * count, tuple(range(count)), control, value)
