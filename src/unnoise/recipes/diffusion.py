"""Trains a diffusion model: a network that estimates a picture from its mixture with noise at a random time.

    L = E weight(t) ||x - mean(x_t, t, cond)||^2,    x_t = alpha_t x + sigma_t eps

With the prediction eps and the weight "simple" this is L_simple of Ho et al. 2020 (eq. 14). With a learned variance,
the bound's term is added, with a gradient through the variance alone: L_hybrid of Nichol & Dhariwal 2021 (eq. 16). The
objective "bound" is the bound itself, through mean and variance: their L_vlb, in bits per number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from unnoise import data, losses
from unnoise.acceleration.placement import Placement, prepare
from unnoise.codec import Codec
from unnoise.conditions import Cond
from unnoise.config import validate
from unnoise.config.training import TrainConfig
from unnoise.data import Batch, Dataset
from unnoise.denoiser import Diffusion, Estimate, Weight, make_diffusion
from unnoise.formats.directory import write_model
from unnoise.generate.captions import encode_captions
from unnoise.likelihood.bound import bound_term
from unnoise.recipes import latents
from unnoise.recipes.conditioning import (
    PIXELS,
    batch_condition,
    check_captions,
    concat_input,
    drop_conditions,
    prompt_encoder,
)
from unnoise.recipes.initialization import init_network, load_base
from unnoise.recipes.model_card import data_facts, describe, log_notes
from unnoise.recipes.placing import place
from unnoise.recipes.sample_sheet import SampleSheet
from unnoise.schedules import over
from unnoise.text.conditioner import Conditioner, make_conditioner
from unnoise.text.tokenizer import PromptEncoder, truncation_note
from unnoise.training import trainer
from unnoise.training.distributed import ALONE, Processes
from unnoise.training.loop import Tick
from unnoise.training.player import Player, SampleRNG
from unnoise.training.run import Run, open_run
from unnoise.training.train_state import TrainState
from unnoise.training.trainer import Task
from unnoise.transfer import send

NOISE = "noise"  # the name of the normals in x_t


@dataclass(frozen=True)
class Objective:
    """The loss of every row, (B,). Times, noise and dropped conditions depend on the sample alone (`rows`)."""

    diffusion: Diffusion
    config: TrainConfig
    minimised: str  # "simple", "hybrid" or "bound"
    weight: Weight
    times: losses.TimeSampler
    conditioner: Conditioner
    codec: Codec
    memory_format: torch.memory_format = torch.channels_last  # of x_t, as the placement has it

    @property
    def memory(self) -> losses.LossAwareSampler | None:
        """The recent losses of each step, where times are sampled by them; otherwise None."""
        return self.times if isinstance(self.times, losses.LossAwareSampler) else None

    def __call__(self, batch: Batch, rows: SampleRNG) -> Tensor:
        process, batch = self.config.process, data.scaled(batch)
        u = rows.uniform("time")
        if process.stratified:
            u = losses.stratified(u, rows.index, rows.batch)
        t = self.times(u, self.diffusion.schedule)
        x = batch.x.contiguous(memory_format=self.memory_format)
        eps = send(rows.normal(x.shape[1:], NOISE), x.device).contiguous(memory_format=self.memory_format)
        cond = batch_condition(batch, self.conditioner, self.config)
        if cond.rows:
            cond = drop_conditions(cond, rows, process, self.conditioner)
        if process.concat:
            picture = batch.x if batch.picture is None else batch.picture
            cond = replace(cond, concat=concat_input(picture, process, rows, self.codec))
        cond = cond.to(x.device)
        each = self._each(x, t, cond, eps)
        if self.memory is None:
            return each
        self.memory.record(t, each)
        return each * over(self.memory.weight(t), each)

    def _each(self, x: Tensor, t: Tensor, cond: Cond, eps: Tensor) -> Tensor:
        if self.minimised == "simple":
            return self.diffusion.loss(x, t, cond, noise=eps, weight=self.weight)
        simple, _, estimate = self.diffusion.loss_and_estimate(x, t, cond, noise=eps, weight=self.weight)
        steps = self.config.process.steps
        if self.minimised == "bound":
            return steps * bound_term(x, estimate, t, self.diffusion.schedule, steps)  # on average the sum over T steps
        frozen = Estimate(estimate.mean.detach(), estimate.variance_fraction)
        return simple + steps / 1000 * bound_term(x, frozen, t, self.diffusion.schedule, steps)  # 0.001 of the sum


def objective(diffusion: Diffusion, config: TrainConfig, conditioner: Conditioner, codec: Codec = PIXELS) -> Objective:
    """Returns the objective of a training, for batches of pictures, or of latents (data/latents.py).

    `codec` encodes pictures that are concatenated to x_t. Raises UserError for unknown or incompatible names.
    """
    process = config.process
    weight = losses.make_weight(process, diffusion.schedule)
    minimised, times = losses.make_objective(process), losses.make_time_sampler(process)
    return Objective(diffusion, config, minimised, weight, times, conditioner, codec)


def train(
    config: TrainConfig,
    run: Path,
    *,
    processes: Processes = ALONE,
    command: Sequence[str] = (),
    pictures: Dataset | None = None,
) -> Iterator[Tick]:
    """Trains in the directory `run`, from its newest checkpoint where it has one; yields a tick per step.

    Yields nothing where the training is finished. Raises UserError, before anything is written, where it cannot start;
    Stopped (a SystemExit) after a signal and a checkpoint. `command` is recorded in the run. `pictures` is
    the data set of `config.data` where it is open already.
    """
    validate.check(config)
    with processes.together():
        pictures = data.open(config.data) if pictures is None else pictures
        base = load_base(config, run)
        autoencoder = latents.open_autoencoder(config, run)
        card = describe(config, pictures, base, autoencoder)
        text = base.text if base is not None and config.encoder is None else prompt_encoder(config, pictures)
    placement = place(config, processes)
    encode_captions(text, pictures.every_caption(), device=placement.device, processes=processes)
    net = prepare(init_network(config, base), placement)
    state = TrainState(net, config.fit, dtype=placement.dtype, processes=processes)
    rows = latents.rows(config, pictures, autoencoder, placement, processes)

    def batches(step: int) -> Iterator[Batch]:
        fit, rank, world = config.fit, processes.rank, processes.world
        return data.batches(
            rows, batch=fit.batch, seed=fit.seed, start=step, rank=rank, world=world,
            workers=0 if pictures.cached else config.data.workers, as_bytes=placement.device != "cpu",
        )  # fmt: skip

    def write(folder: Path, weights: Mapping[str, Tensor]) -> None:
        info = card.info | {"images": state.step * config.fit.batch}
        write_model(folder, weights, replace(card, info=info), text, autoencoder)

    codec = PIXELS if autoencoder is None else autoencoder.codec
    loss = objective(make_diffusion(net, config.process), config, make_conditioner(card, text), codec)
    loss = replace(loss, memory_format=placement.memory_format)
    player = Player(net, config.fit, loss, loss.memory, {NOISE: (card.channels, *card.size)})
    sheet = SampleSheet(card, text, config, placement, processes, pictures, autoencoder)
    task = Task(player, config.log, batches, write, sheet.save, {"fingerprint": pictures.fingerprint})
    with ExitStack() as stack:
        opened = None
        with processes.together():
            if processes.first:
                opened = stack.enter_context(open_run(run, config, command=command))
                _record(opened, pictures, text, placement)
        yield from trainer.train(opened, task, state, processes=processes)
        if opened is not None:
            for broken in pictures.replaced:
                opened.log(f"broken picture, replaced by another: {broken.path}: {broken.why}")


def _record(run: Run, pictures: Dataset, text: PromptEncoder | None, placement: Placement) -> None:
    """Writes the facts of the data set and its notes. Raises UserError where it is not the one the run began with."""
    run.record_data(data_facts(pictures))
    run.log(f"{len(pictures)} pictures, {len(pictures.broken)} broken; {placement.device}")
    log_notes(run, pictures)
    if text is not None and (note := truncation_note(text, pictures.every_caption())):
        run.log(note)


def check_data(config: TrainConfig, pictures: Dataset, run: Path) -> None:
    """Raises UserError where the training in `run` could not start: base, classes, values or captions do not fit.

    Also where the disk has no room for the latents of the pictures.
    """
    base = load_base(config, run)
    describe(config, pictures, base, latents.open_autoencoder(config, run))
    latents.check(config, run, pictures)
    if base is None or config.encoder is not None:
        check_captions(config, pictures)
