"""Networks: what each kind is built from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TextConfig:
    """A text encoder trained with the network that it speaks to: a small transformer over the tokens of a caption."""

    vocabulary: int = 1024  # rows of the token table; the tokenizer learns at most so many
    length: int = 32  # tokens of a caption, with its begin and its end; longer ones are cut, and that is said
    width: int = 128
    depth: int = 2
    heads: int = 4


@dataclass(frozen=True)
class EncoderConfig:
    """An encoder of captions that others trained, frozen, beside the network: CLIP's text tower or T5's encoder."""

    path: str = ""  # a folder that transformers loads, or a name on the hub
    length: int = 77  # tokens of a caption; longer ones are cut, and that is said
    layer: int = -1  # whose output is heard: -1 the last, -2 the one before it, with the last norm
    masked: bool = False  # padding is not heard; CLIP's networks hear it, T5's do not
    cache: str = ""  # a folder that keeps what was read of a training's captions


@dataclass(frozen=True)
class ControlConfig:
    """A copy of a U-Net's way down that reads a drawing and speaks to the U-Net's skips. Zhang et al. 2023."""

    channels: int = 3  # of the drawing
    order: Literal["rgb", "bgr"] = "rgb"  # of its channels
    hint: tuple[int, ...] = (16, 32, 96, 256)  # widths of the network that reads it
    scale: int = 8  # pixels of the drawing a pixel of x, a power of two: 8 for latents, 1 for pixels
    pooled: bool = False  # its residuals are spatial means (`global_pool_conditions`)


@dataclass(frozen=True)
class UNetConfig:
    """The DDPM U-Net and its descendants' options: improved DDPM, ADM, latent diffusion.

    Ho et al. 2020, App. B; Dhariwal & Nichol 2021, sec. 3; Rombach et al. 2022. Where words are told (`context`,
    `text`) a level that attends has transformers in place of plain attention; `controls` stand beside it.
    """

    kind: Literal["unet"] = "unet"
    size: int = 32  # pixels, height and width; the network itself takes any multiple of 2 ** (levels - 1)
    in_channels: int = 3
    out_channels: int = 3  # twice the picture's where the variance is learned
    channels: tuple[int, ...] = (128, 256, 256, 256)  # width of each level, the finest first
    blocks: int = 2  # residual blocks a level on the way down; one more on the way up
    attention: tuple[bool, ...] = (False, True, False, False)  # which levels attend
    middle_attention: bool = True
    heads: int | tuple[int, ...] | None = None  # number of heads, or one a level; None: by head_width
    head_width: int | None = None  # width of a head; both None: one head over all channels
    dropout: float = 0.0
    groups: int = 32  # of GroupNorm
    norm_eps: float = 1e-6
    scale_shift: bool = False  # time scales and shifts the second norm (AdaGN) instead of being added
    residual_resampling: bool = False  # residual blocks that go up and down (BigGAN), instead of one convolution
    asymmetric_padding: bool = True  # stride-2 convolutions pad right and bottom only, as DDPM's do
    cosine_first: bool = False  # the time embedding is [cos, sin] (ADM) instead of [sin, cos] (DDPM)
    frequency_shift: float = 1.0  # frequencies are 1e4 ** (-i / (half - shift)): DDPM 1, ADM 0
    classes: int = 0  # 0: unconditional
    null_class: bool = True  # one more row in the class embedding, for "no class": index `classes`
    values: int = 0  # numbers that are told (age, size), each by a sinusoid and two layers; NaN is a null of its own
    null_value: bool = True  # a learned vector for each number that is not told (NaN)
    vector: int = 0  # width of a vector that is told, by two layers, added to the time; 0: none
    value_width: int = 0  # of a value's sinusoid where vector and values feed one network (SDXL); 0: each has its own
    concat_channels: int = 0  # channels of a picture that is joined to the input, beyond in_channels
    context: int = 0  # width of the words that cross-attention reads; 0: the text encoder's, or none
    text: TextConfig | None = None  # an encoder of captions inside the network
    transformers: int | tuple[int, ...] = (
        1  # blocks of a transformer where a level attends to words, or one number a level
    )
    linear_projection: bool = False  # files hold the maps into and out of transformers as linear, not as convolutions
    controls: tuple[ControlConfig, ...] = ()  # networks that read drawings and add to the skips, one a drawing


@dataclass(frozen=True)
class DiTConfig:
    """A diffusion transformer with adaLN-zero. Peebles & Xie 2023. With `text` or `context` each block also reads words
    by cross-attention, between self-attention and the two-layer network (Chen et al. 2023, PixArt)."""

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


@dataclass(frozen=True)
class ContrastiveNet:
    """An encoder of pictures and one of captions that meet on one sphere. Radford et al. 2021 (CLIP), made small."""

    size: int = 32  # pixels, height and width
    in_channels: int = 3  # 1 grey, 3 colour
    width: int = 32  # channels of the picture encoder's first level
    features: int = 256  # width of its pooled features
    embedding: int = 128  # dimensions of the sphere
    text: TextConfig = TextConfig(vocabulary=2048, length=24)
