"""Trains the classifier that evaluates samples: cross-entropy on slightly shifted real pictures.

    loss = -log softmax(net(shift(x)))[label]

The averaged weights are rounded to float16 before their accuracy on held-out pictures is measured, so that the weights
that are saved are those that were measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unnoise import data, noise
from unnoise.acceleration.placement import prepare
from unnoise.config.training import ClassifierConfig, NoisyClassifierConfig
from unnoise.data import Batch, Dataset
from unnoise.errors import UserError
from unnoise.io import checkpoint
from unnoise.metrics.classifier import RESULT, Accuracy, ClassifierEvaluator, accuracy, save_classifier
from unnoise.nn.classifier import Classifier, Shape
from unnoise.recipes.evaluator_training import (
    fit_evaluator,
    half_rounded,
    held_out_part,
    random_shift,
    without_augmentation,
)
from unnoise.recipes.initialization import seeded_weights
from unnoise.recipes.placing import place
from unnoise.training.distributed import ALONE, Processes
from unnoise.training.loop import Tick
from unnoise.training.player import SampleRNG
from unnoise.training.run import Run
from unnoise.training.train_state import TrainState


def train(
    config: ClassifierConfig, run: Run | None, *, processes: Processes = ALONE, pictures: Dataset | None = None
) -> Iterator[Tick]:
    """Trains in a run, which the first process passes, from its newest checkpoint to the end.

    Saves the classifier in the run's folder `classifier`; `metrics.classifier.load_classifier` loads it from the run's
    path. `pictures` is the data set where it is open already. Raises UserError before the first step where the pictures
    have no classes.
    """
    with processes.together():
        pictures, test, test_name = train_and_test(config, pictures)
    net = init_network(config, pictures)
    placement = place(config, processes)
    # float32 on every machine: at this size bfloat16 is not faster, and an evaluator should not be rounded
    state = TrainState(prepare(net, replace(placement, channels_last=False)), config.fit, processes=processes)

    def write(folder: Path, weights: Mapping[str, Tensor]) -> None:
        checkpoint.save(weights, folder / "model.safetensors")

    yield from fit_evaluator(config, pictures, state, objective(net, config), write, run, processes)
    average = state.average(config.fit.ema[0])
    if run is not None:
        about = {"path": config.data.path, "n": len(pictures), "fingerprint": pictures.fingerprint}
        trained = {"data": about, "shift": config.shift, "fit": asdict(config.fit)}
        rounded = init_network(config, pictures).eval().requires_grad_(False)
        rounded.load_state_dict(half_rounded(average))
        evaluator = ClassifierEvaluator(rounded, pictures.classes, config.name, Accuracy(0.0, 0), trained)
        evaluator = replace(evaluator, accuracy=measure(evaluator, test, test_name))
        save_classifier(run.path / RESULT, evaluator)
        found = evaluator.accuracy
        run.log(f"accuracy {found.value:.1%} on {found.n} held-out pictures ({test_name})")


def objective(net: Classifier, config: ClassifierConfig) -> Callable[[Batch, SampleRNG], Tensor]:
    """Returns the loss: (batch, rows) -> (B,)."""

    def loss(batch: Batch, rows: SampleRNG) -> Tensor:
        assert batch.label is not None
        return F.cross_entropy(net(random_shift(batch.x, rows, config.shift)), batch.label, reduction="none")

    return loss


def init_network(config: ClassifierConfig, pictures: Dataset) -> Classifier:
    """Returns the classifier before training: its weights are a function of the seed."""
    channels, size, _ = pictures.shape
    for name, value in (("width", config.width), ("features", config.features)):
        if value < 8 or value % 8:
            raise UserError(
                f"{name} {value}: the classifier's normalization groups have 8 channels: use a multiple of 8"
            )
    with seeded_weights(config.fit.seed):
        return Classifier(Shape(size, channels, len(pictures.classes), config.width, config.features))


def check_data(config: ClassifierConfig, pictures: Dataset, run: Path) -> None:
    """Raises UserError where the training could not start with these pictures."""
    check_parts(config, pictures)
    init_network(config, pictures)


def check_parts(config: ClassifierConfig | NoisyClassifierConfig, pictures: Dataset) -> None:
    """Raises UserError where there are fewer than two classes, or fewer than two pictures to train or to test with."""
    if pictures.labels() is None or len(pictures.classes) < 2:
        raise UserError(
            f"{config.data.path} has no classes, or only one: put the pictures of each class in a sub-folder"
        )
    held_out = _held_out(config, pictures)
    if held_out_part(config.data) is None and min(held_out.sum(), (~held_out).sum()) < 2:
        raise UserError(
            f"held_out {config.held_out} of {len(held_out)} pictures leaves {held_out.sum()} to test with and "
            f"{(~held_out).sum()} to train with: set held_out so that both are 2 or more, or add pictures"
        )


def _held_out(config: ClassifierConfig | NoisyClassifierConfig, pictures: Dataset) -> NDArray[np.bool_]:
    """(N,): which pictures of the source are held out from training."""
    found: NDArray[np.bool_] = (noise.uniform((len(pictures.source.names),), "held out") < config.held_out).numpy()
    return found


def train_and_test(
    config: ClassifierConfig | NoisyClassifierConfig, pictures: Dataset | None = None
) -> tuple[Dataset, Dataset, str]:
    """Returns the training set, and the test set with its name: the set's own, or a random fraction of its pictures.

    `pictures` is the data set where it is open already. Raises UserError as `check_parts`.
    """
    pictures = data.open(config.data) if pictures is None else pictures
    check_parts(config, pictures)
    plain = without_augmentation(config.data)
    own = held_out_part(plain)
    if own is not None:
        return pictures, data.open(own), own.path
    source, held_out = pictures.source, _held_out(config, pictures)
    name = f"{config.data.path}, a random fraction of {config.held_out}"
    return Dataset(source.only(~held_out), config.data), Dataset(source.only(held_out), plain), name


def measure(evaluator: ClassifierEvaluator, test: Dataset, name: str, *, batch: int = 256) -> Accuracy:
    """Returns the classifier's accuracy on real pictures."""
    predicted, labels = [], []
    for first in range(0, len(test), batch):
        found = test.batch(range(first, min(first + batch, len(test))))
        assert found.label is not None
        predicted.append(evaluator(found.x)[0])
        labels.append(found.label)
    return accuracy(torch.cat(predicted), torch.cat(labels), evaluator.classes, data=name)
