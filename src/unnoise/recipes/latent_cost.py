"""What a training in latents costs beside one in pixels: counted on the meta device, which allocates nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from unnoise.acceleration.placement import best
from unnoise.config.autoencoders import KLConfig
from unnoise.config.networks import UNetConfig
from unnoise.config.training import TrainConfig
from unnoise.config.validate import concat_channels, out_channels
from unnoise.recipes import latent_settings
from unnoise.recipes.cost import count, x_shape


def latent_cost(config: TrainConfig) -> dict[str, Any]:
    """The size of x, how many times fewer numbers it has than a picture, and the cost of the same network in pixels.

    `stored` is the bytes of a picture's latents on disk, or None where pictures are encoded at every step.
    """
    card = latent_settings.card_of(config)
    picture, shape = (config.data.channels, config.data.size, config.data.size), x_shape(config)
    views, parameters = 2 if config.data.flip else 1, 2 if isinstance(card.net, KLConfig) else 1
    other = in_pixels(config)
    counts = count(other, best(config.device, config.fit.precision))
    part = config.fit.batch // config.fit.accumulate
    return {
        "autoencoder": config.autoencoder,
        "factor": card.latents.factor,
        "shape": list(shape),
        "picture": list(picture),
        "compression": math.prod(picture) / math.prod(shape),
        "stored": 4 * views * parameters * math.prod(shape) if latent_settings.is_cached(config) else None,
        "in_pixels": {"flops": counts.flops, "memory": counts.state + part * counts.activations},
    }


def in_pixels(config: TrainConfig) -> TrainConfig:
    """The same training without the autoencoder: its network at the size of the pictures, without control networks."""
    channels = config.data.channels
    net = replace(
        config.net, size=config.data.size, in_channels=channels, out_channels=out_channels(config.process, channels)
    )
    if isinstance(net, UNetConfig):
        net = replace(net, concat_channels=concat_channels(config.process, channels), controls=())
    return replace(config, autoencoder="", net=net)
