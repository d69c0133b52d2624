"""Trains the noisy classifier of classifier guidance: cross-entropy on pictures with noise of every level.

    loss = -log softmax(net(x_t, t))[label],    x_t = alpha_t shift(x) + sigma_t eps

with t sampled as in the training of the model that it will guide. Dhariwal & Nichol 2021, sec. 4 and App. H, where
pictures are randomly cropped; here they are shifted by a pixel or so.
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
from unnoise.recipes.classifier import check_parts, train_and_test
from unnoise.recipes.evaluator_training import fit_evaluator, on_cpu, random_shift
from unnoise.recipes.initialization import seeded_weights
from unnoise.training.distributed import ALONE, Processes
from unnoise.training.loop import Tick
from unnoise.training.player import SampleRNG
from unnoise.training.run import Run
from unnoise.training.train_state import TrainState
from unnoise.transfer import send

NOISE = "noise"  # the name of the normals in x_t
TIMES = tuple(k / 10 for k in range(11))  # at which accuracy is measured


def train(
    config: NoisyClassifierConfig, run: Run | None, *, processes: Processes = ALONE, pictures: Dataset | None = None
) -> Iterator[Tick]:
    """Trains in a run, which the first process passes, from its newest checkpoint to the end.

    Saves the classifier in the run's folder `classifier`; `guidance.noisy_classifier.load` loads it from the run's
    path. `pictures` is the data set where it is open already. Raises UserError before the first step where the pictures
    have no classes, or others than the network.
    """
    validate.check(config)
    with processes.together():
        pictures, test, test_name = train_and_test(config, pictures)
    card = describe(config, pictures)
    placement = best(config.device, config.fit.precision)
    net = prepare(init_network(config), placement)
    state = TrainState(net, config.fit, dtype=placement.dtype, processes=processes)

    def write(folder: Path, weights: Mapping[str, Tensor]) -> None:
        noisy_classifier.write(folder, weights, card)

    loss = objective(NoisyClassifier(net, card), config, placement.memory_format)
    yield from fit_evaluator(config, pictures, state, loss, write, run, processes, {NOISE: pictures.shape})
    average = state.average(config.fit.ema[0])
    if run is not None:
        final = EncoderClassifier(config.net).eval().requires_grad_(False)
        final.load_state_dict(on_cpu(average))
        found = measure(NoisyClassifier(final, card), test)
        about = {"accuracy": found, "held_out": test_name, "n": len(test)}
        done = replace(card, info=card.info | about)
        checkpoint.publish(
            run.path / noisy_classifier.RESULT, lambda folder: noisy_classifier.write(folder, final.state_dict(), done)
        )
        rates = ", ".join(f"{value:.1%} at t = {t}" for t, value in found.items())
        run.log(f"accuracy on {len(test)} held-out pictures ({test_name}): {rates}")


def objective(
    classifier: NoisyClassifier,
    config: NoisyClassifierConfig,
    memory_format: torch.memory_format = torch.channels_last,
) -> Callable[[Batch, SampleRNG], Tensor]:
    """Returns the loss: (batch, rows) -> (B,). Times and noise depend on the sample alone."""
    process = config.process
    times = losses.make_time_sampler(process)
    if isinstance(times, losses.LossAwareSampler):
        raise UserError(
            f"process.time_sampler {process.time_sampler} needs the losses of a diffusion model, and a classifier "
            "has none: set it to uniform"
        )

    def loss(batch: Batch, rows: SampleRNG) -> Tensor:
        assert batch.label is not None
        u = rows.uniform("time")
        if process.stratified:
            u = losses.stratified(u, rows.index, rows.batch)
        t = times(u, classifier.schedule)
        x = random_shift(batch.x, rows, config.shift)
        eps = send(rows.normal(x.shape[1:], NOISE), x.device)
        x_t = classifier.schedule(t).mix(x, eps).contiguous(memory_format=memory_format)
        return F.cross_entropy(classifier(x_t, t), batch.label, reduction="none")

    return loss


def check_data(config: NoisyClassifierConfig, pictures: Dataset, run: Path) -> None:
    """Raises UserError where the training could not start with these pictures."""
    check_parts(config, pictures)
    card = describe(config, pictures)
    with torch.device("meta"):
        objective(NoisyClassifier(EncoderClassifier(config.net), card), config)


def describe(config: NoisyClassifierConfig, pictures: Dataset) -> NoisyClassifierCard:
    """Returns the card of the classifier. Raises UserError where its classes are not those of the data set."""
    classes, wanted = pictures.classes, config.net.classes
    if wanted != len(classes):
        raise UserError(f"net.classes {wanted} should be {len(classes)}, the classes of {config.data.path}")
    trained = {"training": config.name, "about": config.about, "data": config.data.path, "pictures": len(pictures)}
    trained |= {"fingerprint": pictures.fingerprint, "shift": config.shift, "fit": asdict(config.fit)}
    return NoisyClassifierCard(net=config.net, process=config.process, classes=classes, info=trained)


def init_network(config: NoisyClassifierConfig) -> EncoderClassifier:
    """Returns the network before training: its weights are a function of the seed."""
    with seeded_weights(config.fit.seed):
        return EncoderClassifier(config.net)


@torch.no_grad()
def measure(classifier: NoisyClassifier, test: Dataset, *, batch: int = 256) -> dict[str, float]:
    """Returns the accuracy on real pictures at each time of TIMES, by the time as text."""
    right = dict.fromkeys(TIMES, 0)
    for first in range(0, len(test), batch):
        rows = range(first, min(first + batch, len(test)))
        found = test.batch(rows)
        assert found.label is not None
        eps = torch.stack([noise.normal(found.x.shape[1:], "held out", row) for row in rows])
        for time in TIMES:
            t = torch.tensor(time, dtype=torch.float64)
            predicted = classifier(classifier.schedule(t).mix(found.x, eps), t).argmax(1)
            right[time] += int((predicted == found.label).sum())
    return {f"{time:g}": count / len(test) for time, count in right.items()}
