"""A training of an autoencoder that takes seconds: shapes of 12x12 pixels, and a discriminator from step 3 on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from unnoise.config import convert
from unnoise.config.autoencoders import KLConfig, VQConfig
from unnoise.config.data import DataConfig
from unnoise.config.training import AutoencoderLossConfig, AutoencoderTrainConfig, DiscriminatorConfig, Fit, LogConfig
from unnoise.recipes import autoencoder
from unnoise.training.distributed import ALONE, Processes
from unnoise.training.loop import Tick
from unnoise.training.run import open_run

KL = KLConfig(
    size=12, in_channels=1, latent_channels=2, channels=(8, 8), blocks=1, attention=(False, False), groups=4
)  # fmt: skip
VQ = VQConfig(
    size=12, in_channels=1, latent_channels=2, codes=16, channels=(8, 8), blocks=1, attention=(False, False), groups=4
)  # fmt: skip
TINY = AutoencoderTrainConfig(
    name="tiny",
    data=DataConfig(path="fashion:test", size=12, channels=1, flip=True),
    net=KL,
    features="none",
    loss=AutoencoderLossConfig(perceptual=0.0),
    discriminator=DiscriminatorConfig(width=4, layers=1, start=3, lr=1e-2),
    measured=100,
    fit=Fit(images=24, batch=4, lr=1e-2, betas=(0.5, 0.9), warmup=1, clip=None, ema=(16,), precision="float32"),
    log=LogConfig(log_every=1, checkpoint_every=1e9, grid_every=0),
)


def changed(**values: Any) -> AutoencoderTrainConfig:
    """The training with some settings replaced, each by its dotted name with two underscores for the dot."""
    net = values.pop("net", TINY.net)
    return convert.override(replace(TINY, net=net), {k.replace("__", "."): v for k, v in values.items()})


def ticks(config: AutoencoderTrainConfig, path: Path, who: Processes = ALONE) -> Iterator[Tick]:
    """The whole training, in the run at `path`."""
    with ExitStack() as stack:
        with who.together():
            run = stack.enter_context(open_run(path, config)) if who.first else None
        yield from autoencoder.train(config, run, processes=who)


def train(who: Processes, path: str, values: dict[str, Any]) -> None:
    """Trains in `path`, as a process of `tiny_training.launch`."""
    for tick in ticks(changed(**values), Path(path), who):
        if who.first:
            print(tick.step, tick.loss, flush=True)
