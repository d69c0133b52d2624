"""Presets: named trainings, with every setting and its source.

A preset is a function that returns a training's settings; files and flags override its fields. A data set that does not
come with the package is a path of your own: `--data PATH`.
"""

from __future__ import annotations

from collections.abc import Callable

from unnoise.config.presets.autoencoders import autoencoder, shapes_autoencoder
from unnoise.config.presets.captions import emoji, my_captions, shapes_control, shapes_text, shapes_text_core
from unnoise.config.presets.classifiers import classifier, emoji_contrastive, fashion_noisy_classifier
from unnoise.config.presets.latents import emoji64_latent, folder256, latent, shapes_latent
from unnoise.config.presets.published import celeba64, cifar10_ddpm, cifar10_improved, folder64, half_life, lsun256
from unnoise.config.presets.small import fashion, fashion_ddpm, fashion_edm, fashion_flow, fashion_ve, my_pictures, toy
from unnoise.config.training import (
    AnyConfig,
    AutoencoderTrainConfig,
    ClassifierConfig,
    ContrastiveConfig,
    NoisyClassifierConfig,
    TrainConfig,
)

PRESETS: dict[str, Callable[[], TrainConfig]] = {
    "fashion": fashion,
    "fashion-ddpm": fashion_ddpm,
    "fashion-edm": fashion_edm,
    "fashion-flow": fashion_flow,
    "fashion-ve": fashion_ve,
    "toy": toy,
    "shapes-text": shapes_text,
    "shapes-text-core": shapes_text_core,
    "shapes-control": shapes_control,
    "emoji": emoji,
    "my-pictures": my_pictures,
    "my-captions": my_captions,
    "cifar10-ddpm": cifar10_ddpm,
    "cifar10-improved": cifar10_improved,
    "celeba64": celeba64,
    "lsun256": lsun256,
    "folder64": folder64,
    "latent": latent,
    "shapes-latent": shapes_latent,
    "emoji64-latent": emoji64_latent,
    "folder256": folder256,
}

CLASSIFIERS: dict[str, Callable[[], ClassifierConfig | NoisyClassifierConfig | ContrastiveConfig]] = {
    "classifier": classifier,
    "fashion-noisy-classifier": fashion_noisy_classifier,
    "emoji-contrastive": emoji_contrastive,
}

AUTOENCODERS: dict[str, Callable[[], AutoencoderTrainConfig]] = {
    "autoencoder": autoencoder,
    "shapes-autoencoder": shapes_autoencoder,
}

ALL: dict[str, Callable[[], AnyConfig]] = {**PRESETS, **CLASSIFIERS, **AUTOENCODERS}

__all__ = [
    "ALL",
    "AUTOENCODERS",
    "CLASSIFIERS",
    "PRESETS",
    "autoencoder",
    "celeba64",
    "cifar10_ddpm",
    "cifar10_improved",
    "classifier",
    "emoji",
    "emoji64_latent",
    "emoji_contrastive",
    "fashion",
    "fashion_ddpm",
    "fashion_edm",
    "fashion_flow",
    "fashion_noisy_classifier",
    "fashion_ve",
    "folder64",
    "folder256",
    "half_life",
    "latent",
    "lsun256",
    "my_captions",
    "my_pictures",
    "shapes_autoencoder",
    "shapes_control",
    "shapes_latent",
    "shapes_text",
    "shapes_text_core",
    "toy",
]
