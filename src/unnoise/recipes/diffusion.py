"""Train a diffusion model: at a random time of each picture, guess the picture from its noisy self.

    t = draw(u),   x_t = alpha_t x + sigma_t eps,   loss = w_t ||x - mean(x_t, t, cond)||^2

Ho et al. 2020, algorithm 1, with any prediction, weight and draw of t. Some rows are told no class, so that the model
can be guided (Ho & Salimans 2022). A learned variance adds a thousandth of the bound, through the variance alone
(L_hybrid; Nichol & Dhariwal 2021, eq. 16).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from unnoise import data, nn, noise
from unnoise.acceleration.placement import Placement, best, prepare
from unnoise.codec import to_bytes
from unnoise.conditions import NOTHING, Cond
from unnoise.data import Batch, Dataset
from unnoise.denoiser import Diffusion, Estimate, make_diffusion
from unnoise.errors import UserError
from unnoise.generate import draw
from unnoise.likelihood import bound_term
from unnoise.model import Model, write_model
from unnoise.objectives import make_draw, make_weight, stratified
from unnoise.pictures import Pictures
from unnoise.settings import ModelCard, Request, TrainConfig
from unnoise.training.course import Plan, follow
from unnoise.training.distributed import ALONE, Processes
from unnoise.training.learner import Learner
from unnoise.training.loop import Rows, Tick
from unnoise.training.run import Run

HYBRID = 0.001  # the share of the bound in L_hybrid


def objective(diffusion: Diffusion, config: TrainConfig) -> Any:
    """The loss of a batch, a number a row: (batch, rows) -> (B,)."""
    process, schedule = config.process, diffusion.schedule
    draw_time, weight = make_draw(process), make_weight(process, schedule)
    null = config.net.classes if config.net.classes and config.net.null_class else None

    def loss(batch: Batch, rows: Rows) -> Tensor:
        u = rows.uniform("t")
        t = draw_time(stratified(u, rows.index, rows.batch) if process.stratified else u, schedule)
        x = batch.x.contiguous(memory_format=torch.channels_last)
        eps = rows.normal(x.shape[1:], "eps").to(x.device).contiguous(memory_format=torch.channels_last)
        cond = Cond(batch.label) if config.net.classes else NOTHING
        if null is not None:
            cond = cond.drop(rows.uniform("no class") < process.label_dropout, null)
        if not process.learned_variance:
            return diffusion.loss(x, t, cond, noise=eps, weight=weight)
        simple, x_t, estimate = diffusion.loss_and_estimate(x, t, cond, noise=eps, weight=weight)
        held = Estimate(estimate.mean.detach(), estimate.spread)  # the bound teaches the variance, not the mean
        return simple + HYBRID * process.steps * bound_term(x, x_t, held, t, schedule, process.steps)

    return loss


def train(config: TrainConfig, run: Run | None, *, processes: Processes = ALONE) -> Iterator[Tick]:
    """Train in a run's directory, which the first process holds, from its newest checkpoint to the end.

    Raises UserError before the first step where the pictures and the settings do not fit.
    """
    pictures = data.open(config.data)
    check(config, pictures)
    facts = {"fingerprint": pictures.fingerprint, "count": len(pictures)}
    if run is not None:
        run.same_data(facts)
    placement = best(config.device, config.fit.precision)
    diffusion = new_born(config)
    net = prepare(diffusion.net, placement)
    net.checkpointing = config.fit.gradient_checkpointing
    learner = Learner(net, config.fit, dtype=placement.dtype, processes=processes)
    card = card_of(config, pictures)

    def write(folder: Path, weights: Mapping[str, Tensor]) -> None:
        write_model(folder, weights, replace(card, info=card.info | {"images": learner.step * config.fit.batch}))

    def sheet(file: Path, weights: Mapping[str, Tensor]) -> None:
        drawn = samples(
            Model.of(card, {name: w.float().cpu() for name, w in weights.items()}, "the average"), config, processes
        )
        if processes.first:
            drawn.save(
                file, columns=max(1, min(config.watch.grid_labels, len(card.classes)) or config.watch.grid_labels)
            )

    def batches(step: int) -> Iterator[Batch]:
        fit = config.fit
        return data.batches(
            pictures, batch=fit.batch, seed=fit.seed, start=step, rank=processes.rank, world=processes.world,
            workers=config.data.workers,
        )  # fmt: skip

    plan = Plan(config.fit, config.watch, batches, objective(diffusion, config), write, sheet, facts)
    yield from follow(run, learner, plan, processes=processes)


def new_born(config: TrainConfig) -> Diffusion:
    """The diffusion before its training: its weights are those of the seed."""
    with torch.random.fork_rng([]):
        torch.manual_seed(noise.generator(config.fit.seed, "weights").initial_seed())
        return make_diffusion(nn.build(config.net), config.process)


def check(config: TrainConfig, pictures: Dataset) -> None:
    """Raises UserError where the network is not made for these pictures."""
    channels, height, width = pictures.shape
    outputs = channels * (2 if config.process.learned_variance else 1)
    problems = []
    if (config.net.in_channels, config.net.out_channels) != (channels, outputs):
        problems.append(
            f"pictures of {channels} channels need net.in_channels={channels} and net.out_channels={outputs}, "
            f"not {config.net.in_channels} and {config.net.out_channels}"
        )
    if config.net.size != height:
        problems.append(f"pictures of {height} pixels need net.size={height}, not {config.net.size}")
    if config.net.classes not in (0, len(pictures.classes)):
        problems.append(f"{len(pictures.classes)} classes in the data, net.classes={config.net.classes}")
    if problems:
        raise UserError(f"{config.data.path}: {'; '.join(problems)}")


def card_of(config: TrainConfig, pictures: Dataset) -> ModelCard:
    """What the trained model will say of itself."""
    channels, height, width = pictures.shape
    info = {
        "training": config.name,
        "about": config.about,
        "data": config.data.path,
        "fingerprint": pictures.fingerprint,
    }
    classes = pictures.classes if config.net.classes else ()
    sampler = "heun" if config.process.schedule == "edm" else "ddim"
    return ModelCard(config.net, config.process, (height, width), channels, classes, sampler, True, info)


def samples(model: Model, config: TrainConfig, processes: Processes) -> Pictures:
    """The sheet of a training: always the same seeds, a column a class; each process draws its part."""
    watch = config.watch
    classes = model.card.classes[: watch.grid_labels]
    columns = len(classes) or watch.grid_labels
    rows = [
        (row * columns + i, name) for row in range(watch.grid_rows) for i, name in enumerate(classes or [""] * columns)
    ]
    mine = processes.share(rows)
    pixels = torch.empty(0, *model.shape, dtype=torch.uint8)
    if mine:
        labels = tuple(name for _, name in mine) if classes else ()
        seeds = tuple(seed for seed, _ in mine)
        request = Request(seeds, labels, steps=watch.grid_steps, precision=config.fit.precision, device=config.device)
        pixels = draw(model, request).pixels
    return Pictures(processes.gather(pixels), tuple(seed for seed, _ in rows), tuple(name for _, name in rows))


def cost(config: TrainConfig, pictures: Dataset | None = None, *, steps: int = 3) -> dict[str, Any]:
    """What a training will take: parameters, operations a picture, memory, and seconds from a few timed steps.

    Nothing of it is kept. `steps` 0 times nothing.
    """
    with torch.device("meta"):
        net = nn.build(config.net)
        fake = torch.empty(1, config.net.in_channels, config.net.size, config.net.size)
        label = torch.zeros(1, dtype=torch.int64) if config.net.classes else None
        with FlopCounterMode(display=False) as counter:
            net(fake, torch.zeros(1), Cond(label))
    count = sum(p.numel() for p in net.parameters())
    forward = counter.get_total_flops()
    found: dict[str, Any] = {
        "parameters": count,
        "flops_a_picture": forward,
        "training_flops_a_picture": 3 * forward,
        # float32 weights, their gradient, two moments, each average; and the copies that compute
        "state_bytes": count * (4 * (4 + len(config.fit.ema)) + 4),
        "images": config.fit.images,
    }
    if steps and pictures is not None:
        rate = _rate(config, pictures, steps)
        found |= {"images_per_second": rate, "seconds": config.fit.images / rate}
    return found


def _rate(config: TrainConfig, pictures: Dataset, steps: int) -> float:
    """Pictures a second, the median of a few real steps on a copy of everything."""
    from unnoise.training.loop import fit

    short = replace(config.fit, images=config.fit.batch * (steps + 1), compile=False)
    placement: Placement = best(config.device, config.fit.precision)
    diffusion = new_born(config)
    net = prepare(diffusion.net, placement)
    learner = Learner(net, short, dtype=placement.dtype)
    batches = data.batches(pictures, batch=short.batch, seed=short.seed)
    rates = [tick.rate for tick in fit(net, batches, objective(diffusion, config), short, learner=learner)]
    return sorted(rates[1:])[len(rates[1:]) // 2]
