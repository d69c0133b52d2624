"""Settings of trainings: of diffusion models, classifiers and contrastive models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unnoise.config.data import DataConfig
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import ContrastiveNet, EncoderConfig, NetConfig, UNetConfig


@dataclass(frozen=True)
class Fit:
    """Optimization: length, optimizer, averages and precision."""

    images: int = 100_000_000  # length of the training, in pictures
    batch: int = 128  # pictures per step, over all processes and accumulated parts
    accumulate: int = 1  # parts in which a batch is computed
    optimizer: Literal["adam", "adamw", "muon"] = (
        "adam"  # muon: for matrices, with AdamW for the rest (training/muon.py)
    )
    lr: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup: int = 5_000  # steps of linear rise
    decay: Literal["constant", "cosine"] = "constant"
    clip: float | None = 1.0  # global norm of the gradient; None: not clipped
    ema: tuple[int, ...] = (887_000,)  # half-lives in pictures (0.9999 per step at batch 128); the model uses the first
    ema_rampup: float | None = 0.05  # a half-life is at most this fraction of the pictures so far
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False
    fsdp: bool = False  # shard parameters, gradients and optimizer over processes (FSDP2) instead of replicating them
    non_finite: Literal["stop", "skip", "rollback"] = "stop"
    max_skips: int = 3  # non-finite steps in a row that "skip" allows
    seed: int = 0


@dataclass(frozen=True)
class LogConfig:
    """What a training writes: metrics, checkpoints and sample grids."""

    log_every: int = 50  # steps
    checkpoint_every: float = 300.0  # seconds; also at the end and at a signal
    checkpoint_steps: int | None = None  # steps; None: by seconds only
    keep: int = 2  # number of newest checkpoints that are not deleted
    grid_every: int = 2_000  # steps between sample grids at fixed seeds; 0: none
    grid_labels: int = 10
    grid_rows: int = 4
    grid_steps: int = 25
    grid_guidance: float = 1.0  # of the sample grids; 1: none


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a training of a diffusion model."""

    name: str = "custom"
    about: str = ""  # where the numbers come from
    base: str = ""  # a run or a model to start from; it is frozen where net.controls are trained beside it
    device: str = "auto"
    data: DataConfig = DataConfig()
    net: NetConfig = UNetConfig()
    encoder: EncoderConfig | None = None  # of captions, for a net with a `context` of its width and no `text`
    process: DiffusionConfig = DiffusionConfig()
    fit: Fit = Fit()
    log: LogConfig = LogConfig()


@dataclass(frozen=True)
class ClassifierConfig:
    """A training of a picture classifier, for class accuracy and as features of the Frechet distance."""

    name: str = "classifier"
    about: str = ""
    device: str = "auto"
    data: DataConfig = DataConfig(flip=True)
    width: int = 32  # channels of the first level
    features: int = 128  # width of the pooled features
    shift: int = 1  # pixels by which pictures are shifted at most, in each direction
    held_out: float = 0.1  # fraction of the pictures that is held out, where the data set has no test part
    fit: Fit = Fit(
        images=400_000,
        batch=128,
        optimizer="adamw",
        lr=4e-3,
        weight_decay=0.05,
        warmup=100,
        decay="cosine",
        ema=(10_000,),
    )
    log: LogConfig = LogConfig(grid_every=0)


@dataclass(frozen=True)
class NoisyClassifierConfig:
    """A training of a classifier of noisy pictures, for classifier guidance (Dhariwal & Nichol 2021)."""

    name: str = "noisy-classifier"
    about: str = ""
    device: str = "auto"
    data: DataConfig = DataConfig()
    net: UNetConfig = UNetConfig()  # its encoder is used; `classes` are those of the classifier
    process: DiffusionConfig = DiffusionConfig()  # of the model that it will guide: schedule and time sampler
    shift: int = 1  # pixels by which pictures are shifted at most, in each direction
    held_out: float = 0.1  # fraction of the pictures that is held out, where the data set has no test part
    fit: Fit = Fit(images=10_000_000, batch=256, optimizer="adamw", lr=3e-4, weight_decay=0.05, decay="cosine")
    log: LogConfig = LogConfig(grid_every=0)


@dataclass(frozen=True)
class ContrastiveConfig:
    """A training of a contrastive model of pictures and captions, for caption retrieval."""

    name: str = "contrastive"
    about: str = ""
    device: str = "auto"
    data: DataConfig = DataConfig()
    net: ContrastiveNet = ContrastiveNet()
    shift: int = 1  # pixels by which pictures are shifted at most, in each direction
    fit: Fit = Fit(images=1_000_000, batch=256, optimizer="adamw", lr=1e-3, weight_decay=0.05, decay="cosine")
    log: LogConfig = LogConfig(grid_every=0)


AnyConfig = TrainConfig | ClassifierConfig | NoisyClassifierConfig | ContrastiveConfig
