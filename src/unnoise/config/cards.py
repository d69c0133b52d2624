"""Cards: what is saved beside weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import ContrastiveNet, EncoderConfig, NetConfig, UNetConfig


@dataclass(frozen=True)
class NoisyClassifierCard:
    """All that is needed to guide by a classifier's weights: what classifier.json holds."""

    net: UNetConfig = UNetConfig()
    process: DiffusionConfig = DiffusionConfig()
    classes: tuple[str, ...] = ()  # their names, in the order of their numbers
    info: dict[str, Any] = field(default_factory=dict)  # where it comes from, and how often it is right at which noise


@dataclass(frozen=True)
class ContrastiveCard:
    """All that is needed to judge by a contrastive model's weights and tokenizer: what contrastive.json holds."""

    net: ContrastiveNet = ContrastiveNet()
    info: dict[str, Any] = field(default_factory=dict)  # where it comes from, and how often it finds the caption


@dataclass(frozen=True)
class ValueRange:
    """A number that a model is told, by its name, and between which it lay in training."""

    name: str = ""
    low: float = 0.0
    high: float = 1.0
    usual: float | None = None  # what it is told where nobody says it; None: what the network has for that
    null: float | None = None  # what guidance leads away from; None: the number itself, where it has a usual one


@dataclass(frozen=True)
class PixelsConfig:
    """A model whose x is the picture itself."""

    kind: Literal["pixels"] = "pixels"


@dataclass(frozen=True)
class LatentsConfig:
    """A model whose x is an autoencoder's latents: x = scale (latents - shift). Rombach et al. 2022."""

    kind: Literal["latents"] = "latents"
    factor: int = 8  # pixels along a side of a picture for each element along that side of x
    picture_channels: int = 3  # 1 grey, 3 colour
    scale: float = 1.0  # 1 and shift 0 also where the autoencoder is not read
    shift: float = 0.0


CodecConfig = PixelsConfig | LatentsConfig


@dataclass(frozen=True)
class ModelCard:
    """All that is needed to draw from weights: what model.json holds."""

    net: NetConfig = UNetConfig()
    process: DiffusionConfig = DiffusionConfig()
    size: tuple[int, int] = (32, 32)  # height and width of x: of a picture, or of its latents
    channels: int = 3  # of x; of pictures 1 grey, 3 colour
    codec: CodecConfig = PixelsConfig()  # between pictures and x
    classes: tuple[str, ...] = ()  # the names of the classes, in the order of their numbers
    values: tuple[ValueRange, ...] = ()  # the numbers that it is told, in the order of its columns
    captions: tuple[str, ...] = ()  # what was said of some of the pictures it saw: examples of what it understands
    encoder: EncoderConfig | None = None  # what reads captions, where that is beside the network
    sampler: str = "ddim"  # what `auto` means for this model
    spacing: str = "auto"  # the times of that sampler, for this model; auto: what the sampler likes
    clip: bool = True  # its pictures lie in [-1, 1], and estimates may be clipped to that
    info: dict[str, Any] = field(default_factory=dict)  # where it comes from: pictures seen, data, source
