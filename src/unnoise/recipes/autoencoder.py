"""Trains an autoencoder, in whose latents a model can diffuse, against a discriminator: two players in one loop.

    autoencoder      |x - y| + perceptual distance + KL or codebook + adversarial,    y = decode(encode(x, eps))
    discriminator    hinge loss of real pictures x and reconstructions y

The terms and their units are in autoencoder_losses.py. Both adversarial losses are 0 before the step
`discriminator.start`. Rombach et al. 2022, sec. 3.1 and App. G.

Laws (tests/recipes/test_autoencoder.py): each term reaches the weights that it should; a training that is stopped and
resumed is bit for bit the one that was not; two processes compute what one does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from unnoise import data
from unnoise.acceleration.placement import Placement, best, prepare
from unnoise.config.training import AutoencoderTrainConfig, Fit
from unnoise.data import Batch, Dataset
from unnoise.errors import UserError
from unnoise.io import checkpoint
from unnoise.metrics.perceptual import Perceptual, find_perceptual
from unnoise.nn import AutoencoderKL, VQModel
from unnoise.nn.discriminator import PatchDiscriminator, least_size
from unnoise.recipes import autoencoder_losses as losses
from unnoise.recipes.autoencoder_result import describe, init_network, reconstructions, save_result, write
from unnoise.recipes.initialization import seeded_weights
from unnoise.recipes.model_card import data_facts, log_notes
from unnoise.training import trainer
from unnoise.training.distributed import ALONE, Processes
from unnoise.training.loop import Tick
from unnoise.training.player import Player, SampleRNG
from unnoise.training.run import Run
from unnoise.training.train_state import TrainState
from unnoise.training.trainer import Task

AUTOENCODER, DISCRIMINATOR = "autoencoder", "discriminator"  # the names of the players
FEATURES = "perceptual"  # in state.json: the name of the distance that the run was trained with


@dataclass(frozen=True)
class Objective:
    """The losses of the two players, by name, each (B,)."""

    net: AutoencoderKL | VQModel
    discriminator: PatchDiscriminator | None
    perceptual: Perceptual | None
    config: AutoencoderTrainConfig
    processes: Processes = ALONE

    def autoencoder(self, batch: Batch, rows: SampleRNG) -> dict[str, Tensor]:
        """The weighted terms of the autoencoder's loss; a term whose weight is 0 is left out."""
        weights, x = self.config.loss, batch.x.contiguous(memory_format=torch.channels_last)
        y, found = self._reconstruct(x, rows)
        rebuilt = {"l1": weights.l1 * losses.absolute(x, y)}
        if self.perceptual is not None and weights.perceptual:
            rebuilt["perceptual"] = weights.perceptual * self.perceptual.distance(x, y)
        if self.discriminator is not None:
            found["adversarial"] = self._adversarial(y, sum(rebuilt.values(), torch.zeros(())), rows)
        return rebuilt | found

    def judge(self, batch: Batch, rows: SampleRNG) -> dict[str, Tensor]:
        """The discriminator's losses: of real pictures, and of reconstructions by the autoencoder of this step."""
        assert self.discriminator is not None
        if not self.started(rows):  # exactly 0, as is the gradient of every weight
            nothing = 0 * torch.stack([p.sum() for p in self.discriminator.parameters()]).sum().expand(len(batch.x))
            return {"real": nothing, "fake": nothing}
        with torch.no_grad():
            y, _ = self._reconstruct(batch.x.contiguous(memory_format=torch.channels_last), rows)
        dtype = next(self.discriminator.parameters()).dtype
        real, fake = (self.discriminator(each.to(dtype)) for each in (batch.x, y))  # separate batches for batch norm
        return losses.discriminator_losses(real, fake)

    def started(self, rows: SampleRNG) -> bool:
        """Whether the discriminator is trained in this step; steps are counted from 1."""
        return rows.places[0] // rows.batch + 1 >= self.config.discriminator.start

    def _reconstruct(self, x: Tensor, rows: SampleRNG) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstructions, float32, and the weighted loss of their latents."""
        weights = self.config.loss
        if isinstance(self.net, AutoencoderKL):
            posterior = self.net.posterior(x)
            latents = posterior.sample(rows.normal(posterior.mean.shape[1:], "latents"))
            scale = losses.kl_weight(weights.kl, latents.shape[1:], x.shape[1:])
            term = {"kl": scale * losses.kl_divergence(posterior)} if weights.kl else {}
        else:
            latents = self.net.encode(x)
            vectors = self.net.quantize.vectors(self.net.quantize.nearest(latents))
            distance = losses.codebook_loss(latents.float(), vectors.float(), weights.commitment)
            term = {"codebook": weights.codebook * distance}
        return self.net.decode(latents).float(), term

    def _adversarial(self, y: Tensor, reconstruction: Tensor, rows: SampleRNG) -> Tensor:
        if not self.started(rows):
            return torch.zeros(len(y), device=y.device)
        assert self.discriminator is not None
        dtype = next(self.discriminator.parameters()).dtype
        each = losses.generator_loss(self.discriminator(y.to(dtype)))
        numbers = y[0].numel() if isinstance(self.net, AutoencoderKL) else 1  # a VQ autoencoder's losses are means
        weight = losses.adaptive_weight(
            reconstruction.mean(),
            each.mean(),
            self.net.decoder.conv_out.weight,
            numbers=numbers,
            average=lambda gradient: self.processes.sum(gradient) / self.processes.world,
        )
        return self.config.loss.adversarial * weight * each


def train(
    config: AutoencoderTrainConfig, run: Run | None, *, processes: Processes = ALONE, pictures: Dataset | None = None
) -> Iterator[Tick]:
    """Trains in a run, which the first process passes, from its newest checkpoint to the end.

    Saves the autoencoder in the run's folder `autoencoder`, with the scale of its latents. `pictures` is the data set
    where it is open already. Raises UserError before the first step where the training cannot start.
    """
    check(config, processes.world)
    with processes.together():
        pictures = data.open(config.data) if pictures is None else pictures
        perceptual = find_features(config)
    placement = best(config.device, config.fit.precision)
    objective, players = make_players(config, placement, perceptual, processes)
    states = {
        name: TrainState(player.net, player.fit, dtype=placement.dtype, processes=processes)
        for name, player in players.items()
    }
    task = make_task(config, players, objective, pictures, processes)
    named = perceptual.name if perceptual is not None else "none"
    with processes.together():
        if run is not None:
            check_features(run, named)
    if run is not None:
        run.record_data(data_facts(pictures))
        run.log(f"{len(pictures)} pictures; perceptual distance: {named}; {placement.device}")
        log_notes(run, pictures)
    steps = 0
    for tick in trainer.train(run, task, states, processes=processes):
        steps += 1
        yield tick
    average = states[AUTOENCODER].average(config.fit.ema[0])
    if run is not None:
        save_result(run, config, average, pictures, placement, named, anew=steps > 0)


def make_players(
    config: AutoencoderTrainConfig, placement: Placement, perceptual: Perceptual | None, processes: Processes = ALONE
) -> tuple[Objective, dict[str, Player]]:
    """Returns the objective and its players: the discriminator only where its loss has a weight."""
    net = init_network(config)
    prepare(net, placement)
    judge = None
    if config.loss.adversarial:
        with seeded_weights(config.fit.seed):
            judge = PatchDiscriminator(config.discriminator, config.data.channels)
        prepare(judge, placement)
    if perceptual is not None:
        perceptual.distance.to(placement.device)
    objective = Objective(net, judge, perceptual, config, processes)
    players = {AUTOENCODER: Player(net, config.fit, objective.autoencoder)}
    if judge is not None:
        players[DISCRIMINATOR] = Player(judge, discriminator_fit(config), objective.judge)
    return objective, players


def discriminator_fit(config: AutoencoderTrainConfig) -> Fit:
    """How the discriminator is fitted: with Adam, without an average, and with a learning rate of its own."""
    return replace(config.fit, lr=config.discriminator.lr, optimizer="adam", weight_decay=0.0, ema=())


def make_task(
    config: AutoencoderTrainConfig,
    players: Mapping[str, Player],
    objective: Objective,
    pictures: Dataset,
    processes: Processes,
) -> Task:
    """Returns what the trainer needs: batches, how a checkpoint is written, and its sheet of reconstructions."""
    fit, perceptual = config.fit, objective.perceptual
    card = describe(config, pictures, perceptual.name if perceptual is not None else "none")

    def batches(step: int) -> Iterator[Batch]:
        workers = 0 if pictures.cached else config.data.workers
        return data.batches(
            pictures, batch=fit.batch, seed=fit.seed, start=step, rank=processes.rank, world=processes.world,
            workers=workers,
        )  # fmt: skip

    def sample(file: Path, weights: Mapping[str, Tensor], stop: Callable[[], bool]) -> bool:
        if processes.first:
            reconstructions(file, config, weights, pictures)
        return True

    def save(folder: Path, weights: Mapping[str, Tensor]) -> None:
        write(folder, weights, card)

    facts = {"fingerprint": pictures.fingerprint, FEATURES: card.info["perceptual"]}
    return Task(players, config.log, batches, save, sample, facts)


def find_features(config: AutoencoderTrainConfig) -> Perceptual | None:
    """Returns the perceptual distance of a training. Raises UserError where it is not on this disk, or does not fit."""
    if not config.loss.perceptual:
        return None
    return find_perceptual(config.features, (config.data.channels, config.data.size, config.data.size))


def check_features(run: Run, named: str) -> None:
    """Raises UserError where the run was trained with another perceptual distance: `auto` depends on the machine."""
    newest = checkpoint.newest(run.checkpoints)
    before = named if newest is None else checkpoint.read_state(newest).get(FEATURES, named)
    if before != named:
        raise UserError(
            f"{run.path} was trained with the perceptual distance {before!r}, and this machine has {named!r}: install "
            "the first one, or begin a new run"
        )


def check(config: AutoencoderTrainConfig, world: int = 1) -> None:
    """Raises UserError for settings with which the training cannot start in so many processes."""
    net, size, fit, judge = config.net, config.data.size, config.fit, config.discriminator
    if (net.size, net.in_channels) != (size, config.data.channels):
        raise UserError(
            f"net.size {net.size} and net.in_channels {net.in_channels} should be data.size {size} and "
            f"data.channels {config.data.channels}"
        )
    if size % net.factor:
        raise UserError(
            f"data.size {size} is no multiple of {net.factor}, the autoencoder's factor: set it to "
            f"{max(1, size // net.factor) * net.factor}, or use fewer levels in net.channels"
        )
    for name in ("compile", "fsdp", "gradient_checkpointing"):
        if getattr(fit, name):
            raise UserError(f"fit.{name} is not available for autoencoders: set it to false")
    if not fit.ema:
        raise UserError(
            "fit.ema is empty: the autoencoder that is saved is an average of the weights; name a half-life"
        )
    if not config.loss.adversarial:
        return
    if size < least_size(judge.layers):
        raise UserError(
            f"a discriminator with {judge.layers} layers needs pictures of {least_size(judge.layers)} pixels, and "
            f"data.size is {size}: set discriminator.layers to a smaller number"
        )
    if judge.norm == "batch" and (each := fit.batch // (world * fit.accumulate)) < 2:
        raise UserError(
            f"discriminator.norm batch needs two pictures or more at once, and there is {each}: raise fit.batch to "
            f"{2 * world * fit.accumulate}, or set discriminator.norm to group"
        )


def check_data(config: AutoencoderTrainConfig, pictures: Dataset, run: Path) -> None:
    """Raises UserError where the training could not start with these pictures."""
    check(config)
    find_features(config)
    with torch.device("meta"):
        init_network(config)
