"""Train the guide: cross-entropy on pictures with noise of every level, and its accuracy at ten of them.

    loss = -log softmax(net(x_t, t))[label],    x_t = alpha_t moved(x) + sigma_t eps

with t drawn as the process that it will guide draws it. Dhariwal & Nichol 2021, sec. 4 and App. H: random crops there,
moves by a pixel or so here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from unnoise import losses, noise
from unnoise.acceleration.placement import best, prepare
from unnoise.config import validate
from unnoise.config.cards import NoisyClassifierCard
from unnoise.config.training import NoisyClassifierConfig
from unnoise.data import Batch, Dataset
from unnoise.errors import UserError
from unnoise.guidance import noisy_classifier
from unnoise.guidance.noisy_classifier import NoisyClassifier
from unnoise.io import checkpoint
from unnoise.nn.noisy_classifier import EncoderClassifier
from unnoise.recipes.classifier import course, moved, split
from unnoise.training.distributed import ALONE, Processes
from unnoise.training.loop import SampleRNG, Tick
from unnoise.training.run import Run
from unnoise.training.train_state import TrainState

TIMES = tuple(k / 10 for k in range(11))  # at which it is measured


def train(config: NoisyClassifierConfig, run: Run | None, *, processes: Processes = ALONE) -> Iterator[Tick]:
    """Train in a run's directory, which the first process holds, from its newest checkpoint to the end.

    Leaves the classifier in its folder `classifier`; `guidance.noisy.load` takes the run's path. Raises UserError
    before the first step where the pictures have no classes, or others than the network.
    """
    validate.check(config)
    pictures, held, held_name = split(config)
    card = describe(config, pictures)
    placement = best(config.device, config.fit.precision)
    net = prepare(new_born(config), placement)
    learner = TrainState(net, config.fit, dtype=placement.dtype, processes=processes)

    def write(folder: Path, weights: Mapping[str, Tensor]) -> None:
        noisy_classifier.write(folder, weights, card)

    goal = objective(NoisyClassifier(net, card), config)
    yield from course(config, pictures, learner, goal, write, run, processes)
    average = learner.average(config.fit.ema[0])
    if run is not None:
        final = EncoderClassifier(config.net).eval().requires_grad_(False)
        final.load_state_dict({name: value.float().cpu() for name, value in average.items()})
        right = measure(NoisyClassifier(final, card), held)
        about = {"accuracy": right, "held_out": held_name, "n": len(held)}
        done = replace(card, info=card.info | about)
        checkpoint.publish(
            run.path / noisy_classifier.RESULT, lambda folder: noisy_classifier.write(folder, final.state_dict(), done)
        )
        said = ", ".join(f"{value:.1%} at t = {t}" for t, value in right.items())
        run.log(f"right on {len(held)} held-out pictures ({held_name}): {said}")


def objective(classifier: NoisyClassifier, config: NoisyClassifierConfig) -> Callable[[Batch, SampleRNG], Tensor]:
    """The loss of a batch, a number a row: (batch, rows) -> (B,). Times and noise belong to the samples."""
    process = config.process
    times = losses.make_time_sampler(process)
    if isinstance(times, losses.LossAwareSampler):
        raise UserError(
            f"process.time_sampler {process.time_sampler} goes by a diffusion's losses, and a classifier has none: "
            "take uniform"
        )

    def loss(batch: Batch, rows: SampleRNG) -> Tensor:
        assert batch.label is not None
        u = rows.uniform("time")
        if process.stratified:
            u = losses.stratified(u, rows.index, rows.batch)
        t = times(u, classifier.schedule)
        x = moved(batch.x, rows, config.shift)
        eps = rows.normal(x.shape[1:], "noise").to(x.device)
        x_t = classifier.schedule(t).mix(x, eps).contiguous(memory_format=torch.channels_last)
        return F.cross_entropy(classifier(x_t, t), batch.label, reduction="none")

    return loss


def describe(config: NoisyClassifierConfig, pictures: Dataset) -> NoisyClassifierCard:
    """What is needed to guide by the network. Raises UserError where its classes are not those of the pictures."""
    classes, wanted = pictures.classes, config.net.classes
    if wanted != len(classes):
        raise UserError(f"net.classes {wanted} should be {len(classes)}, the classes of {config.data.path}")
    trained = {"training": config.name, "about": config.about, "data": config.data.path, "pictures": len(pictures)}
    trained |= {"fingerprint": pictures.fingerprint, "shift": config.shift, "fit": asdict(config.fit)}
    return NoisyClassifierCard(net=config.net, process=config.process, classes=classes, info=trained)


def new_born(config: NoisyClassifierConfig) -> EncoderClassifier:
    """The network before its training: its weights are those of the seed."""
    with torch.random.fork_rng([]):
        torch.manual_seed(noise.generator(config.fit.seed, "weights").initial_seed())
        return EncoderClassifier(config.net)


@torch.no_grad()
def measure(classifier: NoisyClassifier, held: Dataset, *, batch: int = 256) -> dict[str, float]:
    """How often it is right on real pictures at each of TIMES, by the time."""
    right = dict.fromkeys(TIMES, 0)
    for first in range(0, len(held), batch):
        rows = range(first, min(first + batch, len(held)))
        found = held.batch(rows)
        assert found.label is not None
        eps = torch.stack([noise.normal(found.x.shape[1:], "held out", row) for row in rows])
        for time in TIMES:
            t = torch.tensor(time, dtype=torch.float64)
            said = classifier(classifier.schedule(t).mix(found.x, eps), t).argmax(1)
            right[time] += int((said == found.label).sum())
    return {f"{time:g}": count / len(held) for time, count in right.items()}
