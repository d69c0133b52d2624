"""Train the judge: cross-entropy on real pictures, moved a little, and its accuracy on pictures it never saw.

    loss = -log softmax(net(moved(x)))[label]

The averaged weights are kept, and rounded to float16 before they are measured: what is saved is what was judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from unnoise import data, noise
from unnoise.acceleration.placement import best, prepare
from unnoise.config.data import DataConfig
from unnoise.config.training import ClassifierConfig, ContrastiveConfig, NoisyClassifierConfig
from unnoise.data import Batch, Dataset
from unnoise.data.registry import SETS
from unnoise.errors import UserError
from unnoise.io import checkpoint
from unnoise.metrics.classifier import RESULT, Accuracy, ClassifierEvaluator, accuracy, save_classifier
from unnoise.nn.classifier import Classifier, Shape, shifted
from unnoise.training.distributed import ALONE, Processes
from unnoise.training.loop import SampleRNG, Tick
from unnoise.training.run import Run
from unnoise.training.train_state import TrainState
from unnoise.training.trainer import Plan, follow


def train(config: ClassifierConfig, run: Run | None, *, processes: Processes = ALONE) -> Iterator[Tick]:
    """Train in a run's directory, which the first process holds, from its newest checkpoint to the end.

    Leaves the judge in its folder `classifier`; `metrics.classifier.load_classifier` takes the run's path. Raises
    UserError before the first step where the pictures have no classes.
    """
    pictures, held, held_name = split(config)
    net = new_born(config, pictures)
    placement = best(config.device, config.fit.precision)
    # float32 whatever the machine likes: at this size bfloat16 is no faster, and a judge should not be rounded
    learner = TrainState(prepare(net, replace(placement, channels_last=False)), config.fit, processes=processes)

    def write(folder: Path, weights: Mapping[str, Tensor]) -> None:
        checkpoint.save(weights, folder / "model.safetensors")

    yield from course(config, pictures, learner, objective(net, config), write, run, processes)
    average = learner.average(config.fit.ema[0])
    if run is not None:
        about = {"path": config.data.path, "n": len(pictures), "fingerprint": pictures.fingerprint}
        trained = {"data": about, "shift": config.shift, "fit": asdict(config.fit)}
        rounded = new_born(config, pictures).eval().requires_grad_(False)
        rounded.load_state_dict({name: value.half().float().cpu() for name, value in average.items()})
        judge = ClassifierEvaluator(rounded, pictures.classes, config.name, Accuracy(0.0, 0), trained)
        judge = replace(judge, accuracy=measure(judge, held, held_name))
        save_classifier(run.path / RESULT, judge)
        run.log(f"right on {judge.accuracy.value:.1%} of {judge.accuracy.n} held-out pictures ({held_name})")


def course(
    config: ClassifierConfig | NoisyClassifierConfig | ContrastiveConfig,
    pictures: Dataset,
    learner: TrainState,
    loss: Callable[[Batch, SampleRNG], Tensor],
    write: Callable[[Path, Mapping[str, Tensor]], None],
    run: Run | None,
    processes: Processes,
) -> Iterator[Tick]:
    """The course of a training of a judge, which draws nothing on its way: see training/trainer.py."""
    fit = config.fit
    facts = {"fingerprint": pictures.fingerprint, "count": len(pictures)}
    if run is not None:
        run.same_data(facts)

    def batches(step: int) -> Iterator[Batch]:
        return data.batches(
            pictures, batch=fit.batch, seed=fit.seed, start=step, rank=processes.rank, world=processes.world,
            workers=config.data.workers,
        )  # fmt: skip

    def no_sheet(_: Path, __: Mapping[str, Tensor]) -> None:
        """A judge draws nothing."""

    plan = Plan(fit, config.log, batches, loss, write, no_sheet, facts)
    yield from follow(run, learner, plan, processes=processes)


def objective(net: Classifier, config: ClassifierConfig) -> Callable[[Batch, SampleRNG], Tensor]:
    """The loss of a batch, a number a row: (batch, rows) -> (B,)."""

    def loss(batch: Batch, rows: SampleRNG) -> Tensor:
        assert batch.label is not None
        return F.cross_entropy(net(moved(batch.x, rows, config.shift)), batch.label, reduction="none")

    return loss


def new_born(config: ClassifierConfig, pictures: Dataset) -> Classifier:
    """The classifier before its training: its weights are those of the seed."""
    channels, size, _ = pictures.shape
    for name, value in (("width", config.width), ("features", config.features)):
        if value < 8 or value % 8:
            raise UserError(f"{name} {value}: the classifier's groups have eight channels, so take a multiple of 8")
    with torch.random.fork_rng([]):
        torch.manual_seed(noise.generator(config.fit.seed, "weights").initial_seed())
        return Classifier(Shape(size, channels, len(pictures.classes), config.width, config.features))


def split(config: ClassifierConfig | NoisyClassifierConfig) -> tuple[Dataset, Dataset, str]:
    """What is trained on; what is held out and its name: the set's own test part, or a share of its pictures by lot."""
    pictures = data.open(config.data)
    if pictures.labels() is None or len(pictures.classes) < 2:
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
    return Dataset(source.only(~lot), config.data), Dataset(source.only(lot), plain), name


def own_test(config: DataConfig) -> DataConfig | None:
    """The part that a named set holds out, if it is one that comes with the package."""
    name = config.path.removesuffix(":train")
    return replace(config, path=f"{name}:test") if name in SETS else None


def measure(judge: ClassifierEvaluator, held: Dataset, name: str, *, batch: int = 256) -> Accuracy:
    """The judge's accuracy on real pictures."""
    seen, asked = [], []
    for first in range(0, len(held), batch):
        found = held.batch(range(first, min(first + batch, len(held))))
        assert found.label is not None
        seen.append(judge(found.x)[0])
        asked.append(found.label)
    return accuracy(torch.cat(seen), torch.cat(asked), judge.classes, data=name)


def moved(x: Tensor, rows: SampleRNG, most: int) -> Tensor:
    """Pictures (B, C, H, W), each moved by at most so many pixels each way: by lot, and the lot is the sample's."""
    down, right = (_pixels(rows.uniform(name), most) for name in ("down", "right"))
    return shifted(x, down, right, most)


def _pixels(u: Tensor, most: int) -> Tensor:
    """Whole numbers from -most to most, all equally likely, from numbers in [0, 1)."""
    return (u * (2 * most + 1)).long() - most
