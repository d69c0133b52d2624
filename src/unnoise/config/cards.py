"""Cards: the JSON files that are saved beside weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from unnoise.config.autoencoders import AutoencoderConfig, KLConfig
from unnoise.config.class_names import unreserved
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.field import setting
from unnoise.config.networks import ContrastiveNet, EncoderConfig, NetConfig, UNetConfig


@dataclass(frozen=True)
class NoisyClassifierCard:
    """The contents of classifier.json: everything besides the weights that classifier guidance needs."""

    net: UNetConfig = UNetConfig()
    process: DiffusionConfig = DiffusionConfig()
    classes: tuple[str, ...] = setting((), "class names, in the order of their numbers")
    info: dict[str, Any] = setting({}, "where the weights come from, and the accuracy at each noise level")

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", unreserved(self.classes))


@dataclass(frozen=True)
class ContrastiveCard:
    """The contents of contrastive.json: everything besides weights and tokenizer that caption retrieval needs."""

    net: ContrastiveNet = ContrastiveNet()
    info: dict[str, Any] = setting({}, "where the weights come from, and the accuracy of caption retrieval")


@dataclass(frozen=True)
class ValueRange:
    """A number that a model is conditioned on: its name and its range in training."""

    name: str = ""
    low: float = 0.0
    high: float = 1.0
    usual: float | None = setting(
        None, "the value that is used if none is given; none: the network's own null embedding"
    )
    null: float | None = setting(
        None, "the value that guidance leads away from; none: the given number, if there is a usual one"
    )


@dataclass(frozen=True)
class PixelsConfig:
    """A model whose x is the picture itself."""

    kind: Literal["pixels"] = "pixels"


@dataclass(frozen=True)
class LatentsConfig:
    """A model whose x is an autoencoder's latents: x = scale (latents - shift - mean) / std. Rombach et al. 2022.

    The mean and deviation of each channel are those of newer autoencoders; older ones have one scale for all.
    """

    kind: Literal["latents"] = "latents"
    factor: int = setting(8, "pixels along a side of a picture for each element along that side of x")
    picture_channels: int = setting(3, "1 grey, 3 colour")
    scale: float = setting(1.0, "of the latents; 1 also if the autoencoder is not read")
    shift: float = setting(0.0, "of the latents; 0 also if the autoencoder is not read")
    mean: tuple[float, ...] = setting((), "of the latents of each channel; empty: 0")
    std: tuple[float, ...] = setting((), "of the latents of each channel; empty: 1")


CodecConfig = PixelsConfig | LatentsConfig


@dataclass(frozen=True)
class PreviewConfig:
    """A linear map from x to colours: a picture of latents without a decoder, a pixel for each latent."""

    weight: tuple[float, ...] = setting((), "of each channel of x, for the first colour, then for the next")
    bias: tuple[float, ...] = setting((), "of each colour")


@dataclass(frozen=True)
class AutoencoderCard:
    """The contents of autoencoder.json: everything besides the weights that encoding and decoding need."""

    net: AutoencoderConfig = KLConfig()
    latents: LatentsConfig = setting(LatentsConfig(), "the map from the latents of this network to x")
    force_upcast: bool = setting(False, "compute in float32 whatever the precision: half precision would overflow")
    preview: PreviewConfig | None = None
    info: dict[str, Any] = setting({}, "where the weights come from: data, reconstruction error")


@dataclass(frozen=True)
class ModelCard:
    """The contents of model.json: everything besides the weights that sampling needs."""

    net: NetConfig = UNetConfig()
    process: DiffusionConfig = DiffusionConfig()
    size: tuple[int, int] = setting((32, 32), "height and width of x: of a picture, or of its latents")
    channels: int = setting(3, "channels of x; of pictures 1 grey, 3 colour")
    codec: CodecConfig = PixelsConfig()
    classes: tuple[str, ...] = setting((), "class names, in the order of their numbers")
    values: tuple[ValueRange, ...] = setting((), "the numbers it is conditioned on, in the order of their columns")
    captions: tuple[str, ...] = setting((), "some captions of the training set: examples of useful prompts")
    encoder: EncoderConfig | None = setting(None, "the text encoder, if it is outside the network")
    sampler: str = setting("ddim", "the sampler that `auto` stands for")
    spacing: str = setting("auto", "the spacing of that sampler's timesteps; auto: the sampler's default")
    spacing_options: dict[str, bool | int | float | str] = setting({}, "options of that spacing, by name")
    clip: bool = setting(True, "pictures lie in [-1, 1], and estimates may be clipped to that range")
    info: dict[str, Any] = setting({}, "where the weights come from: number of training pictures, data, source")
    notes: tuple[str, ...] = setting(
        (), "what the files of another library left open and was assumed, and which of their settings are not applied"
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", unreserved(self.classes))


def null_row(card: ModelCard) -> int | None:
    """The row of "no class" in the network's class embedding, if there is one."""
    return card.net.classes if card.net.classes and card.net.null_class else None
