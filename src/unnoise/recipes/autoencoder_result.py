"""The result of an autoencoder's training: its weights, the scale of its latents, and a sheet of reconstructions.

    autoencoder/    as formats/autoencoders.py writes it, and manifest.json

The scale is 1 / the standard deviation of sampled latents, one number for all, over `config.measured` pictures: LDM's
scale_by_std (Rombach et al. 2022, App. D.1), there of a single batch. Its inverse is the standard deviation about the
mean over pictures, channels and positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unnoise import data, noise
from unnoise.acceleration.placement import Placement
from unnoise.codec import fit_preview
from unnoise.config.autoencoders import AutoencoderConfig
from unnoise.config.cards import AutoencoderCard, LatentsConfig
from unnoise.config.training import AutoencoderTrainConfig
from unnoise.data import Dataset
from unnoise.data.plain_text import escaped
from unnoise.formats.autoencoders import CARD, AutoencoderModel
from unnoise.generate.sheets import compared
from unnoise.io import checkpoint
from unnoise.io.png import write_png
from unnoise.nn import AutoencoderKL, VQModel, build_autoencoder
from unnoise.recipes.initialization import seeded_weights
from unnoise.training.run import Run

RESULT = "autoencoder"  # the folder of the autoencoder inside the run that trained it
BATCH = 32  # pictures that are encoded at once after the training
PREVIEW = 64  # pictures to which the preview is fitted
SHOWN = 8  # pictures of a sheet


@dataclass(frozen=True)
class Latents:
    """Statistics of sampled latents of `n` pictures: over all of their numbers, and of each channel."""

    n: int
    mean: float
    std: float
    channel_std: tuple[float, ...]


def init_network(config: AutoencoderTrainConfig) -> AutoencoderKL | VQModel:
    """Returns the autoencoder before training: its weights are a function of the seed."""
    with seeded_weights(config.fit.seed):
        net = build_autoencoder(config.net)
    assert isinstance(net, (AutoencoderKL, VQModel))
    return net


def describe(config: AutoencoderTrainConfig, pictures: Dataset, perceptual: str) -> AutoencoderCard:
    """Returns the card of the autoencoder that this training makes, before its latents are measured."""
    return AutoencoderCard(
        net=config.net,
        latents=LatentsConfig(factor=config.net.factor, picture_channels=config.net.in_channels),
        info={
            "training": config.name,
            "about": config.about,
            "data": escaped(config.data.path),
            "pictures": len(pictures),
            "fingerprint": pictures.fingerprint,
            "perceptual": perceptual,
            "loss": asdict(config.loss),
        },
    )


def write(folder: Path, weights: Mapping[str, Tensor], card: AutoencoderCard) -> None:
    """Writes weights and card into an existing directory."""
    AutoencoderModel(with_weights(card.net, weights), card).save(folder)


@torch.no_grad()
def save_result(
    run: Run,
    config: AutoencoderTrainConfig,
    weights: Mapping[str, Tensor],
    pictures: Dataset,
    placement: Placement,
    perceptual: str,
    *,
    anew: bool,
) -> None:
    """Measures the latents and saves the autoencoder in the run; once, unless `anew`."""
    target = run.path / RESULT
    if not anew and (target / CARD).is_file():
        return
    net = with_weights(config.net, weights).to(placement.device)
    found = latent_statistics(net, pictures, config.measured, seed=config.fit.seed)
    card = describe(config, pictures, perceptual)
    scale = 1 / found.std
    card = replace(card, latents=replace(card.latents, scale=scale), info=card.info | {"latents": asdict(found)})
    shown = next(_latents(net, pictures, PREVIEW, None, batch=PREVIEW))
    card = replace(card, preview=fit_preview(scale * shown[1], pictures.batch(shown[0]).x))
    checkpoint.publish(target, lambda folder: write(folder, weights, card))
    run.log(latents_text(card))


def latents_text(card: AutoencoderCard) -> str:
    """Returns a sentence with the scale of the latents, and what it was measured on."""
    found: Mapping[str, Any] = card.info["latents"]
    channels = ", ".join(f"{std * card.latents.scale:.2f}" for std in found["channel_std"])
    return (
        f"scale {card.latents.scale:.5g} = 1 / {found['std']:.5g}, the standard deviation of the latents of "
        f"{found['n']:,} pictures; of each channel after scaling: {channels}"
    )


def with_weights(config: AutoencoderConfig, weights: Mapping[str, Tensor]) -> AutoencoderKL | VQModel:
    """Returns the autoencoder with these weights, float32 on the CPU, without gradients."""
    with torch.device("meta"):
        net = build_autoencoder(config)
    assert isinstance(net, (AutoencoderKL, VQModel))
    net.load_state_dict({name: value.float().cpu() for name, value in weights.items()}, assign=True)
    return net.eval().requires_grad_(False)


@torch.no_grad()
def latent_statistics(net: AutoencoderKL | VQModel, pictures: Dataset, most: int, *, seed: int) -> Latents:
    """Returns the statistics of latents, each sampled with the noise of its picture, of at most `most` pictures."""
    total = square = torch.zeros(())
    numbers = n = 0
    for rows, latents in _latents(net, pictures, most, seed):
        z = latents.double().transpose(0, 1).flatten(1)
        total, square = total + z.sum(1).cpu(), square + z.square().sum(1).cpu()
        numbers, n = numbers + z.shape[1], n + len(rows)
    mean, power = total / numbers, square / numbers
    std = float((power.mean() - mean.mean().square()).sqrt())
    return Latents(n, float(mean.mean()), std, tuple((power - mean.square()).sqrt().tolist()))


def _latents(
    net: AutoencoderKL | VQModel, pictures: Dataset, most: int, seed: int | None, batch: int = BATCH
) -> Iterator[tuple[list[int], Tensor]]:
    """Rows of pictures in a random order, and their latents: sampled with a seed, without one the mean."""
    order = data.order(0, 0, len(pictures))[:most].tolist()
    side = pictures.shape[1] // net.config.factor
    shape = (net.config.latent_channels, side, side)
    for first in range(0, len(order), batch):
        rows = order[first : first + batch]
        eps = None if seed is None else torch.stack([noise.normal(shape, seed, "scale", row) for row in rows])
        yield rows, net.encode(pictures.batch(rows).x, eps)


@torch.no_grad()
def reconstructions(
    file: Path, config: AutoencoderTrainConfig, weights: Mapping[str, Tensor], pictures: Dataset
) -> None:
    """Writes a sheet of pictures beside what the autoencoder with these weights makes of them, without noise."""
    x = pictures.batch(range(min(SHOWN, len(pictures)))).x
    net = with_weights(config.net, weights)
    write_png(file, compared(x, net.decode(net.encode(x))), None)
