"""Train the judge: cross-entropy on real pictures, moved a little, and its accuracy on pictures it never saw.

    loss = -log softmax(net(moved(x)))[label]

The averaged weights are kept, and rounded to float16 before they are measured: what is saved is what was judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unnoise import data, noise
from unnoise.acceleration.placement import best
from unnoise.data import Batch, Dataset
from unnoise.data.source import Source
from unnoise.data.sources import SETS
from unnoise.errors import UserError
from unnoise.metrics.classifier import RESULT, Accuracy, Judge, accuracy, save_classifier
from unnoise.nn.classifier import Classifier, Shape, shifted
from unnoise.settings import ClassifierConfig, DataConfig
from unnoise.training.distributed import ALONE, Processes
from unnoise.training.learner import Learner
from unnoise.training.loop import Rows, Tick, fit


def train(config: ClassifierConfig, run: Path, *, processes: Processes = ALONE) -> Iterator[Tick]:
    """Train a classifier and leave it in run/classifier, where `metrics.classifier.load_classifier(run)` finds it.

    Raises UserError where the pictures have no classes.
    """
    pictures, held, held_name = split(config)
    channels, size, _ = pictures.shape
    shape = Shape(size, channels, len(pictures.classes), config.width, config.features)
    with torch.random.fork_rng([]):
        torch.manual_seed(noise.generator(config.fit.seed, "weights").initial_seed())
        net = Classifier(shape)
    net.to(best(config.device, config.fit.precision).device)

    def loss(batch: Batch, rows: Rows) -> Tensor:
        assert batch.label is not None
        down, right = (_pixels(rows.uniform(name), config.shift) for name in ("down", "right"))
        return F.cross_entropy(net(shifted(batch.x, down, right, config.shift)), batch.label, reduction="none")

    learner = Learner(net, config.fit, processes=processes)
    batches = data.batches(
        pictures, batch=config.fit.batch, seed=config.fit.seed, rank=processes.rank, world=processes.world
    )
    yield from fit(net, batches, loss, config.fit, learner=learner, processes=processes)

    net.load_state_dict({k: v.half().float() for k, v in learner.average(config.fit.ema[0]).items()})
    net.cpu().eval().requires_grad_(False)
    about = {"path": config.data.path, "n": len(pictures), "fingerprint": pictures.fingerprint}
    trained = {"data": about, "shift": config.shift, "fit": asdict(config.fit)}
    judge = Judge(net, pictures.classes, config.name, Accuracy(0.0, 0), trained)
    judge = replace(judge, accuracy=measure(judge, held, held_name))
    if processes.first:
        save_classifier(run / RESULT, judge)


def split(config: ClassifierConfig) -> tuple[Dataset, Dataset, str]:
    """What is trained on; what is held out and its name: the set's own test part, or a share of its pictures by lot."""
    pictures = data.open(config.data)
    if pictures.labels is None or len(pictures.classes) < 2:
        raise UserError(f"{config.data.path}: the pictures have no classes to tell apart; put each in a sub-folder")
    plain = replace(config.data, flip=False, crop="center")
    tested = own_test(plain)
    if tested is not None:
        return pictures, data.open(tested), tested.path
    source = pictures.source
    lot = (noise.uniform((len(source.names),), "held out") < config.held_out).numpy()
    if not lot.any() or lot.all():
        raise UserError(f"holding out {config.held_out} of {len(lot)} pictures leaves a part empty; hold out 0.1")
    name = f"{config.data.path}, a share of {config.held_out} by lot"
    return Dataset(chosen(source, ~lot), config.data), Dataset(chosen(source, lot), plain), name


def chosen(source: Source, mask: NDArray[np.bool_]) -> Source:
    """The pictures of a source where `mask` (N,) is true."""
    rows = np.flatnonzero(mask)
    return replace(
        source,
        names=tuple(source.names[row] for row in rows),
        sizes=source.sizes[rows],
        read=lambda i: source.read(int(rows[i])),
        array=None if source.array is None else source.array[rows],
        labels=None if source.labels is None else source.labels[rows],
        captions=None if source.captions is None else tuple(source.captions[row] for row in rows),
        refused=(),
    )


def own_test(config: DataConfig) -> DataConfig | None:
    """The part that a named set holds out, if it is one that comes with the package."""
    name = config.path.removesuffix(":train")
    return replace(config, path=f"{name}:test") if name in SETS else None


def measure(judge: Judge, held: Dataset, name: str, *, batch: int = 256) -> Accuracy:
    """The judge's accuracy on real pictures."""
    seen, asked = [], []
    for first in range(0, len(held), batch):
        found = held.batch(range(first, min(first + batch, len(held))))
        assert found.label is not None
        seen.append(judge(found.x)[0])
        asked.append(found.label)
    return accuracy(torch.cat(seen), torch.cat(asked), judge.classes, data=name)


def _pixels(u: Tensor, most: int) -> Tensor:
    """Whole numbers from -most to most, all equally likely, from numbers in [0, 1)."""
    return (u * (2 * most + 1)).long() - most
