"""The families of models that have the form of latent diffusion's code."""

from __future__ import annotations

from unnoise.config.networks import UNetConfig
from unnoise.formats.single_file.infer import BASE_IDS


def family(config: UNetConfig, *, classes: bool) -> str:
    """The name of the family of a U-Net. `classes`: its context are classes."""
    if classes:
        return "latent diffusion with classes"
    if not config.context:
        return "diffusion without text"
    if config.value_width:
        return "Stable Diffusion XL" if config.values == BASE_IDS else "Stable Diffusion XL refiner"
    return "Stable Diffusion 2" if config.linear_projection else "Stable Diffusion 1"
