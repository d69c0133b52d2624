"""Small checkpoint files of random weights, in the layouts of CompVis' code and OpenCLIP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from unnoise.config.autoencoders import KLConfig, VQConfig
from unnoise.config.networks import UNetConfig
from unnoise.formats import autoencoders, names
from unnoise.formats.files import Shape
from unnoise.formats.single_file import autoencoder, text, unet
from unnoise.formats.single_file.contents import CLIP, OPEN_CLIP, UNET, VAE
from unnoise.formats.single_file.entries import wanted
from unnoise.formats.single_file.infer import COMMON
from unnoise.nn.clip import ClipConfig

SD1 = UNetConfig(
    **COMMON | {"size": 64, "in_channels": 4, "out_channels": 4, "channels": (32, 64), "blocks": 1},
    attention=(True, False), heads=8, context=64,
)  # fmt: skip
SD2 = replace(SD1, size=96, channels=(64, 64), heads=None, head_width=64, context=128, linear_projection=True)
XL = replace(
    SD2, size=128, channels=(64, 64, 64), attention=(False, True, True), transformers=(1, 1, 2), context=192, values=6,
    value_width=256, vector=96,
)  # fmt: skip
REFINER = replace(XL, attention=(False, True, False), transformers=1, values=5, context=128)
CLASSES = replace(SD1, in_channels=3, out_channels=3, heads=1)  # latent diffusion on ImageNet
LATENT = replace(CLASSES, heads=None, head_width=32, context=0, attention=(False, True))  # its models of faces
PIXELS = replace(
    LATENT, out_channels=6, channels=(64, 128), head_width=64, residual_resampling=True, scale_shift=True, classes=7
)  # ADM
UNETS = {
    "sd1": SD1, "sd2": SD2, "xl": XL, "refiner": REFINER, "inpainting": replace(SD1, concat_channels=5),
    "classes": CLASSES, "latent": LATENT, "pixels": PIXELS, "unclip": replace(SD2, vector=96),
    "upscaler": replace(SD2, concat_channels=3, classes=9),
}  # fmt: skip
KL = KLConfig(channels=(32,) * 4, blocks=1, attention=(False,) * 4, latent_channels=4)  # eight pixels for a latent
VQ = VQConfig(channels=(32,) * 3, blocks=1, attention=(False,) * 3, latent_channels=3, codes=17)
TOWERS = {  # widths of heads are 64
    CLIP: ClipConfig(vocabulary=600, length=77, width=64, hidden=96, depth=2, heads=1, end=599),
    OPEN_CLIP: ClipConfig(
        vocabulary=600, length=77, width=128, hidden=160, depth=3, heads=2, activation="gelu", end=599, projection=96
    ),
}


def random_tensors(shapes: Mapping[str, Shape], seed: int = 0) -> dict[str, Tensor]:
    """Weights that keep signals at size one."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            values = values / max(1, values[0].numel()) ** 0.5
        norm = len(shape) == 1 and name.endswith("weight")
        state[name] = 1 + 0.3 * values if norm else values
    return state


def shapes_of_unet(config: UNetConfig) -> dict[str, Shape]:
    return wanted(unet.unet(config, names.wanted(names.pieces_of(config))))


def unet_tensors(config: UNetConfig, prefix: str = UNET, seed: int = 0) -> dict[str, Tensor]:
    return random_tensors({prefix + name: shape for name, shape in shapes_of_unet(config).items()}, seed)


def tower_tensors(kind: str, prefix: str, seed: int = 1, **settings: Any) -> dict[str, Tensor]:
    table = text.entries(replace(TOWERS[kind], **settings), kind)
    return random_tensors({prefix + name: shape for name, shape in wanted(table).items()}, seed)


def vae_tensors(config: KLConfig | VQConfig, prefix: str = VAE, seed: int = 4) -> dict[str, Tensor]:
    table = autoencoder.entries(config, names.wanted(autoencoders.pieces_of(config)))
    return random_tensors({prefix + name: shape for name, shape in wanted(table).items()}, seed)


def whole(name: str) -> dict[str, Tensor]:
    """The tensors of a model with its text encoders."""
    state = unet_tensors(UNETS[name])
    match name:
        case "sd1":
            state |= tower_tensors(CLIP, "cond_stage_model.transformer.text_model.")
            state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
        case "sd2":
            state |= tower_tensors(OPEN_CLIP, "cond_stage_model.model.")
            state["cond_stage_model.model.logit_scale"] = torch.tensor(4.6)
        case "xl":
            state |= tower_tensors(CLIP, "conditioner.embedders.0.transformer.text_model.")
            state |= tower_tensors(OPEN_CLIP, "conditioner.embedders.1.model.", seed=2)
        case "refiner":
            state |= tower_tensors(OPEN_CLIP, "conditioner.embedders.0.model.")
    return state


def save(file: Path, state: Mapping[str, Tensor], **metadata: str) -> Path:
    save_file(dict(state), file, metadata=metadata or None)
    return file
