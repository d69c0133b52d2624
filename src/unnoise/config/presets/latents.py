"""Trainings in the latents of an autoencoder, which is trained first: `unnoise train autoencoder`."""

from __future__ import annotations

from dataclasses import replace

from unnoise.config.data import DataConfig
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import UNetConfig
from unnoise.config.presets.captions import emoji, shapes_text
from unnoise.config.presets.published import folder64
from unnoise.config.presets.small import my_pictures
from unnoise.config.training import TrainConfig


def latent() -> TrainConfig:
    """Pictures of your own in 256x256, in 32x32 latents: --set autoencoder=RUN, or a diffusers folder."""
    base = my_pictures()
    assert isinstance(base.net, UNetConfig)
    return replace(
        base,
        name="latent",
        about="ours: the network of my-pictures, in latents (Rombach et al. 2022)",
        autoencoder="runs/00001-autoencoder",
        data=replace(base.data, size=256, cache_bytes=0),
        net=replace(base.net, size=32, in_channels=4, out_channels=4),
    )


def shapes_latent() -> TrainConfig:
    """Coloured shapes in 32x32 from a sentence, in 8x8 latents: train the preset shapes-autoencoder first."""
    base = shapes_text()
    assert isinstance(base.net, UNetConfig)
    return replace(
        base,
        name="shapes-latent",
        about="ours: the network of shapes-text, in latents (Rombach et al. 2022)",
        autoencoder="runs/00001-shapes-autoencoder",
        data=replace(base.data, size=32, cache_bytes=0),
        net=replace(
            base.net,
            size=8,
            in_channels=4,
            out_channels=4,
            channels=(96, 96),
            attention=(False, True),  # at 4x4
        ),
        # latents of unit variance have no plain colours to learn first: times around sigma / alpha = 1
        process=replace(base.process, time_sampler_options={"mean": 0.0, "std": 1.2}),
    )


def emoji64_latent() -> TrainConfig:
    """Emoji in 64x64 by their names, in 16x16 latents: first train shapes-autoencoder with --data emoji and size 64."""
    base = emoji()
    assert isinstance(base.net, UNetConfig)
    return replace(
        base,
        name="emoji64-latent",
        about="ours: the network of emoji, in latents (Rombach et al. 2022)",
        autoencoder="runs/00001-emoji64-autoencoder",
        data=replace(base.data, size=64, cache_bytes=0),
        net=replace(
            base.net,
            size=16,
            in_channels=4,
            out_channels=4,
            channels=(64, 96, 96),
            attention=(False, False, True),  # at 4x4
        ),
        process=replace(base.process, time_sampler_options={"mean": 0.0, "std": 1.2}),
    )


def folder256() -> TrainConfig:
    """A folder of your own in 256x256, in 32x32 latents of an autoencoder of factor 8, such as Stable Diffusion's."""
    base = folder64()
    assert isinstance(base.net, UNetConfig)
    return replace(
        base,
        name="folder256",
        about="ours: the network of folder64, wider, in latents; the betas of Stable Diffusion 1 (Rombach et al. 2022)",
        autoencoder="runs/00001-autoencoder",
        data=DataConfig(path="pictures", size=256, channels=3, flip=True, cache_bytes=0),
        net=replace(
            base.net,
            size=32,
            in_channels=4,
            out_channels=4,
            channels=(128, 256, 384),
            attention=(False, True, True),  # at 16x16 and 8x8
            dropout=0.0,
        ),
        process=DiffusionConfig(
            schedule="scaled-linear",
            schedule_options={"begin": 0.00085, "end": 0.012},
            predicts="v",
            weight="snr-plus-one",
            cond_dropout=0.1,
        ),
    )
