"""The configurations of trainings: of diffusion models, classifiers and contrastive models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unnoise.config.data import DataConfig
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.field import setting
from unnoise.config.networks import ContrastiveNet, EncoderConfig, NetConfig, UNetConfig

SHIFT = "pixels by which pictures are moved at most, in each direction"
HELD_OUT = "fraction of the pictures held out from training, if the set has no test part of its own"


@dataclass(frozen=True)
class Fit:
    """How a network is fitted: length, optimizer, averages, precision."""

    images: int = setting(100_000_000, "length of the training, in pictures")
    batch: int = setting(128, "pictures per step, over all processes and all accumulated parts")
    accumulate: int = setting(1, "parts in which a batch is computed (gradient accumulation)")
    optimizer: Literal["adam", "adamw", "muon"] = setting(
        "adam",
        "muon: updates of matrices have equal singular values, the other parameters use AdamW (training/muon.py)",
    )
    lr: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup: int = setting(5_000, "steps in which the learning rate rises linearly")
    decay: Literal["constant", "cosine"] = "constant"
    clip: float | None = setting(1.0, "largest global norm of the gradient; none: not clipped")
    ema: tuple[int, ...] = setting(
        (887_000,),
        "half-lives of averages of the weights: after so many pictures older weights count half (0.9999 per step at "
        "batch 128 is 887,000); samples are generated with the first one",
    )
    ema_rampup: float | None = setting(
        0.05, "a half-life is at most this fraction of the pictures trained on so far; none: no limit"
    )
    precision: Literal["auto", "float32", "exact", "tf32", "bfloat16"] = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False
    fsdp: bool = setting(
        False, "shard parameters, gradients and optimizer over processes (FSDP2) instead of copying them"
    )
    non_finite: Literal["stop", "skip", "rollback"] = "stop"
    max_skips: int = setting(3, 'non-finite steps in a row that "skip" allows')
    seed: int = 0


@dataclass(frozen=True)
class LogConfig:
    """What a training writes while it runs: measurements, checkpoints and sample grids."""

    log_every: int = setting(50, "steps between lines of the log")
    checkpoint_every: float = setting(300.0, "seconds between checkpoints; also at the end and at a signal")
    checkpoint_steps: int | None = setting(None, "steps between checkpoints; none: by seconds only")
    keep: int = setting(2, "number of checkpoints to keep, the newest ones")
    grid_every: int = setting(2_000, "steps between sample grids at fixed seeds; 0: none")
    grid_labels: int = 10
    grid_rows: int = 4
    grid_steps: int = 25
    grid_guidance: float = setting(1.0, "guidance scale of the sample grids; 1: no guidance")


@dataclass(frozen=True)
class TrainConfig:
    """The whole training of a diffusion model."""

    name: str = "custom"
    about: str = setting("", "where the numbers come from")
    base: str = setting(
        "", "a run or a model to start from; with net.controls it stays frozen, and the ControlNet is trained"
    )
    device: str = "auto"
    data: DataConfig = DataConfig()
    net: NetConfig = UNetConfig()
    encoder: EncoderConfig | None = setting(
        None, "a pretrained text encoder, for a net with a `context` of its width and no `text`"
    )
    process: DiffusionConfig = DiffusionConfig()
    fit: Fit = Fit()
    log: LogConfig = LogConfig()


@dataclass(frozen=True)
class ClassifierConfig:
    """The training of a picture classifier, for class accuracy and for the features of the Frechet distance."""

    name: str = "classifier"
    about: str = ""
    device: str = "auto"
    data: DataConfig = DataConfig(flip=True)
    width: int = setting(32, "channels of the first level")
    features: int = setting(128, "width of the pooled features")
    shift: int = setting(1, SHIFT)
    held_out: float = setting(0.1, HELD_OUT)
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
    """The training of a classifier of noisy pictures, for classifier guidance (Dhariwal & Nichol 2021)."""

    name: str = "noisy-classifier"
    about: str = ""
    device: str = "auto"
    data: DataConfig = DataConfig()
    net: UNetConfig = setting(UNetConfig(), "its encoder half is the classifier; `classes` is the number of outputs")
    process: DiffusionConfig = setting(
        DiffusionConfig(), "the process of the model to guide: which noise, and how often each level is sampled"
    )
    shift: int = setting(1, SHIFT)
    held_out: float = setting(0.1, HELD_OUT)
    fit: Fit = Fit(images=10_000_000, batch=256, optimizer="adamw", lr=3e-4, weight_decay=0.05, decay="cosine")
    log: LogConfig = LogConfig(grid_every=0)


@dataclass(frozen=True)
class ContrastiveConfig:
    """The training of a contrastive model of pictures and captions, for caption retrieval."""

    name: str = "contrastive"
    about: str = ""
    device: str = "auto"
    data: DataConfig = DataConfig()
    net: ContrastiveNet = ContrastiveNet()
    shift: int = setting(1, SHIFT)
    fit: Fit = Fit(images=1_000_000, batch=256, optimizer="adamw", lr=1e-3, weight_decay=0.05, decay="cosine")
    log: LogConfig = LogConfig(grid_every=0)


AnyConfig = TrainConfig | ClassifierConfig | NoisyClassifierConfig | ContrastiveConfig
