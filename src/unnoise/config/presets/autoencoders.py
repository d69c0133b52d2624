"""Trainings of autoencoders, in whose latents a model can diffuse."""

from __future__ import annotations

from unnoise.config.autoencoders import KLConfig
from unnoise.config.data import DataConfig
from unnoise.config.training import (
    AutoencoderLossConfig,
    AutoencoderTrainConfig,
    DiscriminatorConfig,
    Fit,
    LogConfig,
)


def autoencoder() -> AutoencoderTrainConfig:
    """An autoencoder of your own pictures in 256x256, eight pixels to a latent along a side."""
    return AutoencoderTrainConfig(
        name="autoencoder",
        about="KL-f8 of Rombach et al. 2022, in half its width; losses, betas and init as published, group norm",
        data=DataConfig(path="pictures", size=256, channels=3, flip=True, crop="random"),
        net=KLConfig(size=256, channels=(64, 128, 256, 256)),
        discriminator=DiscriminatorConfig(start=50_001, lr=5.4e-5),
        fit=Fit(
            images=3_000_000,
            batch=12,
            lr=5.4e-5,  # 4.5e-6 for each picture of a batch
            betas=(0.5, 0.9),
            warmup=1_000,
            clip=None,
            ema=(50_000,),
        ),
        log=LogConfig(log_every=50, grid_every=2_000),
    )


def shapes_autoencoder() -> AutoencoderTrainConfig:
    """Simple shapes in 32x32, four pixels to a latent along a side."""
    return AutoencoderTrainConfig(
        name="shapes-autoencoder",
        about="ours: KL-f4 of Rombach et al. 2022 in small, with a discriminator for the last quarter",
        data=DataConfig(path="shapes", size=32, channels=3),
        net=KLConfig(
            size=32, latent_channels=4, channels=(32, 64, 64), blocks=1, attention=(False, False, False), groups=8
        ),
        loss=AutoencoderLossConfig(adversarial=0.1),  # of pictures without texture, more adds noise at their edges
        discriminator=DiscriminatorConfig(width=16, layers=2, start=9_001, lr=4e-4),
        fit=Fit(
            images=384_000,
            batch=32,
            lr=1e-3,
            betas=(0.5, 0.9),
            warmup=100,
            decay="cosine",
            ema=(10_000,),
        ),
        log=LogConfig(log_every=50, checkpoint_every=120.0, grid_every=1_000),
    )
