"""The settings of a training in latents that follow from the autoencoder's card, and the checks of those a user sets.

x has the autoencoder's latent channels, and a `factor`-th of the picture's height and width. No torch is imported
before a card is read.
"""

from __future__ import annotations

from typing import Any

from unnoise.config.cards import AutoencoderCard
from unnoise.config.networks import NetConfig, UNetConfig, height_width
from unnoise.config.training import TrainConfig
from unnoise.errors import UserError

TRAIN_ONE = (
    "train one with `unnoise train autoencoder --data PICTURES`, and name its run with --set autoencoder=runs/..., or "
    "name a diffusers folder"
)


def card_of(config: TrainConfig) -> AutoencoderCard:
    """The card of `config.autoencoder`. Raises UserError where there is no autoencoder."""
    from unnoise.formats.autoencoders import read_card
    from unnoise.recipes.latents import find

    return read_card(find(config.autoencoder))


def implied(config: TrainConfig) -> dict[str, tuple[str, Any]]:
    """{setting: (the origin, value)} of the data and of x, for a training in latents."""
    card = card_of(config)
    factor = card.latents.factor
    found: dict[str, tuple[str, Any]] = {
        "data.channels": ("the autoencoder's pictures", card.net.in_channels),
        "net.size": (f"data.size / {factor}, the autoencoder's factor", max(1, config.data.size // factor)),
        "net.in_channels": ("the autoencoder's latents", card.net.latent_channels),
    }
    if is_cached(config):  # the pictures are read once, to be encoded
        found["data.cache_bytes"] = ("latent_cache replaces it", 0)
    return found


def is_cached(config: TrainConfig) -> bool:
    """Whether a training reads latents from files: they are wanted, and the pictures are the same in every epoch."""
    return config.latent_cache is not None and not why_not_cached(config)


def why_not_cached(config: TrainConfig) -> str:
    """Why the latents of these pictures cannot be encoded once; empty where they can."""
    if config.data.crop == "random":
        return "data.crop is random, so that every epoch has other pictures"
    if config.process.concat:
        return f"process.concat {config.process.concat!r} is made from the pictures"
    return ""


def check(config: TrainConfig) -> None:
    """Raises UserError where data or network do not fit the autoencoder of a training in latents."""
    if not config.autoencoder:
        return
    card, net, where = card_of(config), config.net, config.autoencoder
    factor, size = card.latents.factor, config.data.size
    unit = factor * multiple(net)
    if size % unit:
        near = max(unit, round(size / unit) * unit)
        raise UserError(
            f"data.size {size} should be a multiple of {unit}, as {where} makes one latent of {factor}x{factor} pixels "
            f"and the network needs a multiple of {multiple(net)} latents: set data.size={near}"
        )
    sides = height_width(net.size)
    if sides != (size // factor, size // factor):
        raise UserError(f"net.size {net.size} should be {size // factor}, data.size {size} / {factor}: leave it out")
    if net.in_channels != card.net.latent_channels:
        raise UserError(
            f"net.in_channels {net.in_channels} should be {card.net.latent_channels}, the channels of the latents of "
            f"{where}: leave it out"
        )
    if config.data.channels != card.net.in_channels:
        raise UserError(
            f"data.channels {config.data.channels} should be {card.net.in_channels}, those of the pictures of {where}"
        )
    for control in net.controls if isinstance(net, UNetConfig) else ():
        if control.scale != factor:
            raise UserError(f"scale {control.scale} of net.controls should be {factor}, the factor of {where}")


def multiple(net: NetConfig) -> int:
    """What the height and width of a network's input have to be a multiple of."""
    return net.patch * (2 ** (len(net.channels) - 1) if isinstance(net, UNetConfig) else 1)
