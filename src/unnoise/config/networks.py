"""The configurations of networks: what each kind is built from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unnoise.config.field import setting


@dataclass(frozen=True)
class TextConfig:
    """A text encoder that is trained together with the network: a small transformer over the tokens of a caption."""

    vocabulary: int = setting(1024, "rows of the token table; the tokenizer learns at most so many tokens")
    length: int = setting(
        32, "tokens of a caption, with its begin and end tokens; longer captions are truncated, with a note"
    )
    width: int = 128
    depth: int = 2
    heads: int = 4


@dataclass(frozen=True)
class EncoderConfig:
    """A pretrained, frozen text encoder beside the network: CLIP's text tower or T5's encoder."""

    path: str = setting("", "a folder that transformers loads, or a name on the hub")
    length: int = setting(77, "tokens of a caption; longer captions are truncated, with a note")
    layer: int = setting(
        -1, "layer whose output is used: -1 the last, -2 the one before it, followed by the final norm"
    )
    masked: bool = setting(False, "mask padding in attention; CLIP's networks attend to padding, T5's do not")
    cache: str = setting("", "a folder for the embeddings of a training's captions")


@dataclass(frozen=True)
class ControlConfig:
    """A ControlNet: a copy of the U-Net's encoder that reads a control image and adds to the U-Net's skips.

    Zhang et al. 2023.
    """

    channels: int = setting(3, "channels of the control image")
    order: Literal["rgb", "bgr"] = setting("rgb", "order of these channels")
    hint: tuple[int, ...] = setting((16, 32, 96, 256), "widths of the network that embeds the control image")
    scale: int = setting(
        8, "pixels of the control image for each at the first level, a power of two: 8 for latents, 1 for pixels"
    )
    pooled: bool = setting(False, "the residuals are spatial means (`global_pool_conditions`)")


@dataclass(frozen=True)
class UNetConfig:
    """The DDPM U-Net and its descendants' options: improved DDPM, ADM, latent diffusion.

    Ho et al. 2020, App. B; Dhariwal & Nichol 2021, sec. 3; Rombach et al. 2022. With text conditioning (`context`,
    `text`) a level that attends has transformers instead of plain attention; `controls` are networks beside it.
    """

    kind: Literal["unet"] = "unet"
    size: int | tuple[int, int] = setting(
        32, "side in pixels, or height and width; the network itself accepts multiples of patch * 2 ** (levels - 1)"
    )
    in_channels: int = 3
    out_channels: int = setting(3, "twice the picture's channels if the variance is learned")
    patch: int = setting(
        1, "patch x patch pixels are the channels of one at the first level: 2 is a quarter of its work"
    )
    channels: tuple[int, ...] = setting((128, 256, 256, 256), "width of each level, the finest first")
    blocks: int = setting(2, "residual blocks of each level of the encoder; the decoder has one more")
    attention: tuple[bool, ...] = setting((False, True, False, False), "which levels attend")
    middle_attention: bool = True
    heads: int | tuple[int, ...] | None = setting(
        None, "number of heads, or one number for each level; none: computed from head_width"
    )
    head_width: int | None = setting(None, "width of a head; if heads is none too: one head over all channels")
    dropout: float = 0.0
    groups: int = setting(32, "groups of GroupNorm")
    norm_eps: float = 1e-6
    scale_shift: bool = setting(False, "time scales and shifts the second norm (AdaGN) instead of being added")
    residual_resampling: bool = setting(
        False, "up- and downsample with residual blocks (BigGAN) instead of one convolution"
    )
    asymmetric_padding: bool = setting(
        True, "stride-2 convolutions are padded at the right and the bottom only, as DDPM's"
    )
    cosine_first: bool = setting(False, "the time embedding is [cos, sin] (ADM) instead of [sin, cos] (DDPM)")
    frequency_shift: float = setting(1.0, "frequencies are 1e4 ** (-i / (half - shift)): DDPM 1, ADM 0")
    classes: int = setting(0, "number of classes; 0: unconditional")
    null_class: bool = setting(True, 'one more row in the class embedding, for "no class": index `classes`')
    values: int = setting(
        0, "numbers to condition on (age, size), each embedded by a sinusoid and two layers; NaN is the null value"
    )
    null_value: bool = setting(True, "a learned embedding for each number that is missing (NaN)")
    vector: int = setting(
        0, "width of the pooled embedding, added to the time embedding after two linear layers; 0: none"
    )
    value_width: int = setting(
        0, "width of a value's sinusoid if vector and values feed one network (SDXL); 0: one network for each"
    )
    concat_channels: int = setting(0, "channels of a picture concatenated to the input, in addition to in_channels")
    context: int = setting(
        0, "width of the text embeddings in cross-attention; 0: that of the text encoder, or no cross-attention"
    )
    text: TextConfig | None = setting(None, "a text encoder inside the network")
    transformers: int | tuple[int, ...] = setting(
        1, "transformer blocks where a level attends to text, or one number for each level"
    )
    linear_projection: bool = setting(
        False, "the projections into and out of transformers are stored as linear layers, not as convolutions"
    )
    controls: tuple[ControlConfig, ...] = setting((), "ControlNets, one for each control image")


@dataclass(frozen=True)
class DiTConfig:
    """A diffusion transformer with adaLN-zero.

    Peebles & Xie 2023. With `text` or `context` each block also has cross-attention to the text, between self-attention
    and the two-layer network (Chen et al. 2023, PixArt).
    """

    kind: Literal["dit"] = "dit"
    size: int = 32
    in_channels: int = 3
    out_channels: int = 3
    patch: int = 2
    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    classes: int = 0
    null_class: bool = True
    context: int = 0
    text: TextConfig | None = None


NetConfig = UNetConfig | DiTConfig


def height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of a `size`, which is one number for a square."""
    return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True)
class ContrastiveNet:
    """An image encoder and a text encoder with one embedding space: a small CLIP. Radford et al. 2021."""

    size: int = setting(32, "height and width in pixels")
    in_channels: int = setting(3, "1 grey, 3 colour")
    width: int = setting(32, "channels of the image encoder's first level")
    features: int = setting(256, "width of its pooled features")
    embedding: int = setting(128, "dimensions of the embedding space")
    text: TextConfig = TextConfig(vocabulary=2048, length=24)
