"""Trainings of published models, with the settings of the papers, and of a folder of pictures.

Half-lives of averages are in pictures: a decay of d per step of B pictures has the half-life B log(1/2) / log(d).
"""

from __future__ import annotations

import math

from unnoise.config.data import DataConfig
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import UNetConfig
from unnoise.config.training import (
    Fit,
    LogConfig,
    TrainConfig,
)


def half_life(decay: float, batch: int) -> int:
    """Returns the half-life in pictures of an average with this decay per step."""
    return round(batch * math.log(0.5) / math.log(decay))


def cifar10_ddpm() -> TrainConfig:
    """DDPM on CIFAR-10, as published: 800,000 steps, 35.7M parameters, FID 3.17."""
    return TrainConfig(
        name="cifar10-ddpm",
        about="Ho, Jain, Abbeel 2020, App. B; warm-up and clipping from the authors' code",
        data=DataConfig(path="cifar10", size=32, channels=3, flip=True),
        net=UNetConfig(dropout=0.1),  # 128 x (1, 2, 2, 2), attention at 16x16: the defaults are this network
        process=DiffusionConfig(schedule="linear", cond_dropout=0.0, stratified=False),
        fit=Fit(images=800_000 * 128, ema=(half_life(0.9999, 128),), ema_rampup=None, precision="float32"),
    )


def cifar10_improved() -> TrainConfig:
    """Improved DDPM on CIFAR-10: cosine schedule in 4,000 steps, learned variance, hybrid loss; NLL 3.17, FID 3.19."""
    return TrainConfig(
        name="cifar10-improved",
        about="Nichol & Dhariwal 2021, sec. 3 and App. A, with the flags of the authors' code",
        data=DataConfig(path="cifar10", size=32, channels=3, flip=True),
        net=UNetConfig(
            out_channels=6,
            channels=(128, 256, 256, 256),
            blocks=3,
            attention=(False, True, True, False),  # at 16x16 and 8x8
            heads=4,
            dropout=0.3,
            norm_eps=1e-5,
            scale_shift=True,
            asymmetric_padding=False,
            cosine_first=True,
            frequency_shift=0.0,
        ),
        process=DiffusionConfig(
            schedule="cosine",
            steps=4000,
            learned_variance=True,
            cond_dropout=0.0,
            stratified=False,
        ),
        fit=Fit(
            images=500_000 * 128,
            lr=1e-4,
            warmup=0,
            clip=None,
            ema=(half_life(0.9999, 128),),
            ema_rampup=None,
            precision="float32",
        ),
    )


def celeba64() -> TrainConfig:
    """Faces in 64x64, with the network of the DDIM paper: 78.7M parameters. The length is ours: the paper has none."""
    return TrainConfig(
        name="celeba64",
        about="Song, Meng, Ermon 2021, App. D, with the settings of the authors' code",
        data=DataConfig(path="celeba64", size=64, channels=3, flip=True),
        net=UNetConfig(
            size=64,
            channels=(128, 256, 256, 256, 512),
            attention=(False, False, True, False, False),  # at 16x16
            dropout=0.1,
        ),
        process=DiffusionConfig(schedule="linear", cond_dropout=0.0, stratified=False),
        fit=Fit(images=500_000 * 128, ema=(half_life(0.9999, 128),), ema_rampup=None, precision="float32"),
    )


def lsun256() -> TrainConfig:
    """Churches (or any 256x256 folder) with the paper's network: 113.7M parameters, 1.2 million steps."""
    return TrainConfig(
        name="lsun256",
        about="Ho, Jain, Abbeel 2020, App. B: LSUN Church 256x256, FID 7.89",
        data=DataConfig(path="lsun256", size=256, channels=3, flip=True),
        net=UNetConfig(
            size=256,
            channels=(128, 128, 256, 256, 512, 512),
            attention=(False, False, False, False, True, False),  # at 16x16
        ),
        process=DiffusionConfig(schedule="linear", cond_dropout=0.0, stratified=False),
        fit=Fit(images=1_200_000 * 64, batch=64, lr=2e-5, ema=(half_life(0.9999, 64),), ema_rampup=None),
    )


def folder64() -> TrainConfig:
    """A folder of your own in 64x64: a network that one GPU trains in a day, to try on a CPU."""
    return TrainConfig(
        name="folder64",
        about="ours: the U-Net of Dhariwal & Nichol 2021 made small; half-life and ramp-up of Karras et al. 2022",
        data=DataConfig(path="pictures", size=64, channels=3, flip=True),
        net=UNetConfig(
            size=64,
            channels=(64, 128, 192, 256),
            attention=(False, False, True, True),  # at 16x16 and 8x8
            head_width=64,
            dropout=0.1,
            scale_shift=True,
        ),
        process=DiffusionConfig(schedule="cosine", cond_dropout=0.1),
        fit=Fit(images=5_000_000, batch=64, lr=2e-4, warmup=1_000, ema=(500_000, 100_000), ema_rampup=0.05),
        log=LogConfig(grid_every=1_000),
    )
