"""Trainings of classifiers: of clean pictures to evaluate, of noisy ones to guide, of captions for retrieval."""

from __future__ import annotations

from dataclasses import replace

from unnoise.config.networks import ContrastiveNet, TextConfig, UNetConfig
from unnoise.config.presets.captions import emoji
from unnoise.config.presets.small import fashion
from unnoise.config.training import (
    ClassifierConfig,
    ContrastiveConfig,
    Fit,
    LogConfig,
    NoisyClassifierConfig,
)


def classifier() -> ClassifierConfig:
    """A picture classifier, for class accuracy and as features of the Frechet distance."""
    return ClassifierConfig()


def fashion_noisy_classifier() -> NoisyClassifierConfig:
    """The clothes at every noise level of the preset fashion, for its classifier guidance."""
    base = fashion()
    assert isinstance(base.net, UNetConfig)
    return NoisyClassifierConfig(
        name="fashion-noisy-classifier",
        about="ours, in size; the way down of the U-Net with attention pooling of Dhariwal & Nichol 2021",
        data=base.data,
        net=replace(base.net, patch=1, channels=(16, 32, 64), attention=(False, False, True)),  # at 7x7
        process=base.process,
        fit=Fit(
            images=150_000,
            batch=64,
            optimizer="adamw",
            lr=1e-3,
            weight_decay=0.05,
            warmup=100,
            decay="cosine",
            ema=(7_000,),
            ema_rampup=0.1,
        ),
        log=LogConfig(log_every=20, checkpoint_every=60.0, grid_every=0),
    )


def emoji_contrastive() -> ContrastiveConfig:
    """Embeddings of emoji and their names, for the caption retrieval of the preset emoji."""
    return ContrastiveConfig(
        name="emoji-contrastive",
        about="ours, in size; Radford et al. 2021",
        data=emoji().data,
        net=ContrastiveNet(
            size=32,
            width=32,
            features=256,
            embedding=128,
            text=TextConfig(vocabulary=2048, length=24, width=128, depth=2, heads=4),
        ),
        shift=2,
        fit=Fit(
            images=70_000,  # 23 epochs
            batch=128,
            optimizer="adamw",
            lr=2e-3,
            weight_decay=0.05,
            warmup=100,
            decay="cosine",
            ema=(10_000,),
            ema_rampup=0.1,
        ),
        log=LogConfig(log_every=20, checkpoint_every=120.0, grid_every=0),
    )
