"""Trainings that are conditioned on captions, and on control images: coloured shapes, emoji, pictures of your own."""

from __future__ import annotations

from dataclasses import replace

from unnoise.config.data import DataConfig
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import ControlConfig, TextConfig, UNetConfig
from unnoise.config.training import (
    Fit,
    LogConfig,
    TrainConfig,
)


def shapes_text() -> TrainConfig:
    """Coloured shapes in 16x16 from a sentence: kind, colour, size, position, background. The pictures are made.

    Grow it around its core with --set base=runs/00001-shapes-text-core: alone it confuses two shapes for long.
    """
    return TrainConfig(
        name="shapes-text",
        about="ours: a small U-Net with cross-attention (Rombach et al. 2022) and a text encoder of its own",
        data=DataConfig(path="shapes", size=16, channels=3),
        net=UNetConfig(
            size=16,
            channels=(64, 64, 64),  # wide at full resolution, for the outlines
            blocks=1,
            attention=(False, False, True),  # at 4x4
            head_width=32,
            groups=8,
            scale_shift=True,
            text=TextConfig(vocabulary=512, length=32, width=96, depth=2, heads=4),
        ),
        process=DiffusionConfig(
            schedule="cosine",
            predicts="v",
            weight="snr-plus-one",
            # around sigma / alpha = 2, where outlines are learned: with less noise only plain colours remain
            time_sampler="edm",
            time_sampler_options={"mean": 0.7, "std": 1.2},
            cond_dropout=0.1,
        ),
        # small batches: in some minutes of training, the number of steps is the limit
        fit=Fit(
            images=300_000,
            batch=32,
            optimizer="muon",
            lr=3e-3,
            warmup=100,
            decay="cosine",
            ema=(7_000,),
            ema_rampup=0.1,
        ),
        log=LogConfig(
            log_every=20, checkpoint_every=120.0, grid_every=1_000, grid_rows=4, grid_steps=20, grid_guidance=3.0
        ),
    )


def shapes_text_core() -> TrainConfig:
    """The inner part of shapes-text, at 4x4, which learns composition: shapes-text --set base=RUN grows around it."""
    text = shapes_text()
    assert isinstance(text.net, UNetConfig)
    return replace(
        text,
        name="shapes-text-core",
        about="ours: the network of shapes-text without its two outer levels (Vasconcelos et al. 2024)",
        data=replace(text.data, path="shapes-two", size=4),  # with one shape there is no composition to learn
        net=replace(text.net, size=4, channels=text.net.channels[2:], attention=text.net.attention[2:]),
        # a pixel of 4x4 is the mean of 16 pixels of 16x16: a quarter of the noise
        process=replace(text.process, schedule_options={"shift": 0.25}, time_sampler_options={"mean": 0.7, "std": 1.0}),
        fit=replace(text.fit, images=150_000, batch=64),
        log=replace(text.log, grid_every=0),
    )


def shapes_control() -> TrainConfig:
    """Coloured shapes from their outlines: a control network beside a frozen shapes-text model.

    Needs that model: --set base=runs/00001-shapes-text.
    """
    text = shapes_text()
    assert isinstance(text.net, UNetConfig)
    return replace(
        text,
        name="shapes-control",
        about="ours, in size; Zhang et al. 2023, with half of the captions dropped",
        data=replace(text.data, control="edges"),
        net=replace(text.net, controls=(ControlConfig(hint=(16, 32, 64), scale=1),)),
        process=replace(text.process, cond_dropout=0.5),
        fit=replace(text.fit, images=50_000, batch=16),
    )


def emoji() -> TrainConfig:
    """Emoji in 32x32 by their names, flat or 3d: "a 3d emoji of cow face". The pictures come with the package."""
    base = shapes_text()
    return replace(
        base,
        name="emoji",
        about="ours: the network of shapes-text, for larger pictures and more words",
        data=DataConfig(path="emoji", size=32, channels=3),
        net=UNetConfig(
            size=32,
            channels=(32, 64, 64, 64),
            blocks=1,
            attention=(False, False, False, True),  # at 4x4
            head_width=32,
            groups=8,
            scale_shift=True,
            text=TextConfig(vocabulary=2048, length=24, width=128, depth=2, heads=4),
        ),
        process=replace(
            base.process, time_sampler_options={"mean": 0.3, "std": 1.3}
        ),  # colours are less plain, and there are more fine details
        fit=replace(base.fit, images=100_000),
    )


def my_captions() -> TrainConfig:
    """Pictures of your own with a caption each, in 32x32: text files beside them, or a metadata.jsonl."""
    base = emoji()
    return replace(base, name="my-captions", data=replace(base.data, path="my-captions"))
