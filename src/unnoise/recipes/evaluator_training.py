"""What the trainings of evaluators and guides have in common: networks that are not sampled from while they train."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from unnoise import data
from unnoise.config.data import DataConfig
from unnoise.config.training import ClassifierConfig, ContrastiveConfig, NoisyClassifierConfig
from unnoise.data import Batch, Dataset
from unnoise.data.registry import SETS
from unnoise.nn.classifier import shifted
from unnoise.recipes.model_card import log_notes
from unnoise.training import trainer
from unnoise.training.distributed import Processes
from unnoise.training.loop import Tick
from unnoise.training.player import Player, SampleRNG
from unnoise.training.run import Run
from unnoise.training.train_state import TrainState
from unnoise.training.trainer import Task

EvaluatorConfig = ClassifierConfig | NoisyClassifierConfig | ContrastiveConfig


def fit_evaluator(
    config: EvaluatorConfig,
    pictures: Dataset,
    state: TrainState,
    loss: Callable[[Batch, SampleRNG], Tensor],
    write: Callable[[Path, Mapping[str, Tensor]], None],
    run: Run | None,
    processes: Processes,
    draws: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> Iterator[Tick]:
    """Trains on the pictures from the run's newest checkpoint to the end; yields a tick per step.

    `loss` is given pictures as float32; `draws` as in `Player`.
    """
    fit = config.fit
    facts = {"fingerprint": pictures.fingerprint, "count": len(pictures)}
    if run is not None:
        run.record_data(facts | {"parts": pictures.fingerprint_parts})
        log_notes(run, pictures)

    def batches(step: int) -> Iterator[Batch]:
        return data.batches(
            pictures, batch=fit.batch, seed=fit.seed, start=step, rank=processes.rank, world=processes.world,
            workers=config.data.workers, as_bytes=state.device.type != "cpu",
        )  # fmt: skip

    player = Player(state.net, fit, lambda batch, rows: loss(data.scaled(batch), rows), draws=draws)
    task = Task(player, config.log, batches, write, facts=facts)
    yield from trainer.train(run, task, state, processes=processes)


def without_augmentation(config: DataConfig) -> DataConfig:
    """The data settings to measure with: no flips, and no random crops."""
    return replace(config, flip=False, crop="center")


def held_out_part(config: DataConfig) -> DataConfig | None:
    """The test part of a data set that comes with the package; None for any other."""
    name = config.path.removesuffix(":train")
    return replace(config, path=f"{name}:test") if name in SETS else None


def random_shift(x: Tensor, rows: SampleRNG, most: int) -> Tensor:
    """Shifts each picture of x (B, C, H, W) by at most `most` pixels in each direction; a function of the sample."""
    down, right = (_pixels(rows.uniform(name), most) for name in ("down", "right"))
    return shifted(x, down, right, most)


def _pixels(u: Tensor, most: int) -> Tensor:
    """Integers from -most to most, all equally likely, from uniform numbers in [0, 1)."""
    return (u * (2 * most + 1)).long() - most


def half_rounded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights rounded to float16, as float32 on the CPU."""
    return {name: value.half().float().cpu() for name, value in weights.items()}


def on_cpu(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights in float32 on the CPU."""
    return {name: value.to("cpu", torch.float32) for name, value in weights.items()}
