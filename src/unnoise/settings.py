"""What a person can set: plain, typed, frozen values.

Nothing here imports torch, so that the command line answers at once. A string names a choice; the dictionary that
turns it into a function stands beside the functions (`SCHEDULES` in schedules.py, `SAMPLERS` in samplers, ...).
Sizes are in pixels, lengths of training in pictures, half-lives in pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


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
    joined: int = 0  # channels of a picture that is joined to the input, beyond in_channels
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
class Process:
    """What diffusion is: the schedule, what the network is asked for, and how it is taught."""

    schedule: str = "linear"  # a name in schedules.SCHEDULES
    steps: int = 1000  # T: entries of a table, and what the network's clock counts
    schedule_options: dict[str, int | float | tuple[float, ...]] = field(
        default_factory=dict
    )  # fields of that schedule
    zero_snr: bool = False  # shifted so that nothing of the picture is left at t = 1 (Lin et al. 2023)
    predicts: str = "eps"  # a name in denoiser.PREDICTIONS
    learned_variance: bool = False
    objective: Literal["auto", "simple", "hybrid", "bound"] = "auto"  # auto: hybrid where the variance is learned
    weight: str = "simple"  # a name in objectives.WEIGHTS
    weight_options: dict[str, float] = field(default_factory=dict)
    draw: str = "uniform"  # how training draws t: a name in objectives.DRAWS
    draw_options: dict[str, float] = field(default_factory=dict)
    stratified: bool = True  # the batch's draws are spread evenly (low discrepancy)
    label_dropout: float = 0.1  # share of rows told nothing (no class, no words), per row; for guidance
    drop_each: float = 0.0  # share of rows not told their class; likewise words, and each number, each by itself
    joined: Literal["", "small", "masked"] = ""  # what is joined to x_t: the picture made small, or with a hole in it
    joined_factor: int = 4  # how much smaller "small" is, in each direction


@dataclass(frozen=True)
class DataConfig:
    """Which pictures, and how they become tensors."""

    path: str = "fashion"  # a folder, a file, or the name of a set that comes with the package
    size: int = 28  # pixels
    channels: int = 1  # 1 grey, 3 colour
    crop: Literal["center", "random"] = "center"
    flip: bool = False  # left-right, half of the time
    control: str = (
        ""  # drawings beside the pictures: "edges", "segmentation" (of sets that have it), or a folder of them
    )
    values: tuple[str, ...] = ()  # numbers told beside the pictures: keys of metadata.jsonl, columns of a table
    background: tuple[int, int, int] = (255, 255, 255)  # under transparent pictures
    max_broken: float = 0.01  # share of unreadable files above which nothing starts
    max_pixels: int = 89_478_485  # a picture larger than this counts as broken, before it is decoded
    cache_bytes: int = 4 * 2**30  # decoded pictures are kept in memory up to this
    workers: int = 0  # decoding threads beyond the main one, where pictures are not cached


@dataclass(frozen=True)
class Fit:
    """How a network is fitted."""

    images: int = 100_000_000  # length of the training, in pictures
    batch: int = 128  # pictures a step, over all processes and all accumulated parts
    accumulate: int = 1  # parts in which a batch is computed
    optimizer: Literal["adam", "adamw", "muon"] = "adam"  # muon: of matrices, and AdamW of the rest (training/muon.py)
    lr: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup: int = 5_000  # steps of linear rise
    decay: Literal["constant", "cosine"] = "constant"
    clip: float | None = 1.0  # global norm of the gradient; None: not clipped
    ema: tuple[int, ...] = (
        887_000,
    )  # half-lives in pictures (0.9999 a step at batch 128); the first one is drawn from
    ema_rampup: float | None = 0.05  # a half-life is at most this share of the pictures seen so far
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False
    fsdp: bool = False  # shard parameters, gradients and optimizer over processes (FSDP2) instead of copying them
    non_finite: Literal["stop", "skip", "rollback"] = "stop"
    max_skips: int = 3  # non-finite steps in a row that "skip" bears
    seed: int = 0


@dataclass(frozen=True)
class Watch:
    """What a training leaves behind on its way."""

    log_every: int = 50  # steps
    checkpoint_every: float = 300.0  # seconds; also at the end and at a signal
    checkpoint_steps: int | None = None  # steps; None: by seconds only
    keep: int = 2  # newest checkpoints kept
    grid_every: int = 2_000  # steps between sample grids at fixed seeds; 0: none
    grid_labels: int = 10
    grid_rows: int = 4
    grid_steps: int = 25
    grid_guidance: float = 1.0  # of the sample grids; 1: none


@dataclass(frozen=True)
class TrainConfig:
    """A training of a diffusion model, whole."""

    name: str = "custom"
    about: str = ""  # where the numbers come from
    base: str = ""  # a run or a model to start from; with controls in the net it stays as it is, and they learn
    device: str = "auto"
    data: DataConfig = DataConfig()
    net: NetConfig = UNetConfig()
    encoder: EncoderConfig | None = None  # of captions, for a net with a `context` of its width and no `text`
    process: Process = Process()
    fit: Fit = Fit()
    watch: Watch = Watch()


@dataclass(frozen=True)
class ClassifierConfig:
    """A training of a picture classifier: the judge of class accuracy and the features of the Frechet distance."""

    name: str = "classifier"
    about: str = ""
    device: str = "auto"
    data: DataConfig = DataConfig(flip=True)
    width: int = 32  # channels of the first level
    features: int = 128  # width of the pooled features
    shift: int = 1  # pixels, by which pictures are moved at most, each way
    held_out: float = 0.1  # share of the pictures that is not trained on, where the set has no such part of its own
    fit: Fit = Fit(
        images=400_000,
        batch=128,
        optimizer="adamw",
        lr=4e-3,
        weight_decay=0.05,
        warmup=100,
        decay="cosine",
        ema=(10_000,),
    )
    watch: Watch = Watch(grid_every=0)


@dataclass(frozen=True)
class NoisyClassifierConfig:
    """A training of a classifier of noisy pictures: the guide of classifier guidance (Dhariwal & Nichol 2021)."""

    name: str = "noisy-classifier"
    about: str = ""
    device: str = "auto"
    data: DataConfig = DataConfig()
    net: UNetConfig = UNetConfig()  # its way down; `classes` are those told apart
    process: Process = Process()  # of the model that it will guide: which noise, and how often which is drawn
    shift: int = 1  # pixels, by which pictures are moved at most, each way
    held_out: float = 0.1  # share of the pictures that is not trained on, where the set has no such part of its own
    fit: Fit = Fit(images=10_000_000, batch=256, optimizer="adamw", lr=3e-4, weight_decay=0.05, decay="cosine")
    watch: Watch = Watch(grid_every=0)


@dataclass(frozen=True)
class NoisyClassifierCard:
    """All that is needed to guide by a classifier's weights: what classifier.json holds."""

    net: UNetConfig = UNetConfig()
    process: Process = Process()
    classes: tuple[str, ...] = ()  # their names, in the order of their numbers
    info: dict[str, Any] = field(default_factory=dict)  # where it comes from, and how often it is right at which noise


@dataclass(frozen=True)
class ContrastiveNet:
    """An encoder of pictures and one of captions that meet on one sphere. Radford et al. 2021 (CLIP), made small."""

    size: int = 32  # pixels, height and width
    in_channels: int = 3  # 1 grey, 3 colour
    width: int = 32  # channels of the picture encoder's first level
    features: int = 256  # width of its pooled features
    embedding: int = 128  # dimensions of the sphere
    text: TextConfig = TextConfig(vocabulary=2048, length=24)


@dataclass(frozen=True)
class ContrastiveConfig:
    """A training of a contrastive model of pictures and captions: the judge of caption retrieval."""

    name: str = "contrastive"
    about: str = ""
    device: str = "auto"
    data: DataConfig = DataConfig()
    net: ContrastiveNet = ContrastiveNet()
    shift: int = 1  # pixels, by which pictures are moved at most, each way
    fit: Fit = Fit(images=1_000_000, batch=256, optimizer="adamw", lr=1e-3, weight_decay=0.05, decay="cosine")
    watch: Watch = Watch(grid_every=0)


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
    untold: float | None = None  # what guidance leads away from; None: the number itself, where it has a usual one


@dataclass(frozen=True)
class ModelCard:
    """All that is needed to draw from weights: what model.json holds."""

    net: NetConfig = UNetConfig()
    process: Process = Process()
    size: tuple[int, int] = (32, 32)  # height and width of a picture
    channels: int = 3  # 1 grey, 3 colour
    classes: tuple[str, ...] = ()  # the names of the classes, in the order of their numbers
    values: tuple[ValueRange, ...] = ()  # the numbers that it is told, in the order of its columns
    captions: tuple[str, ...] = ()  # what was said of some of the pictures it saw: examples of what it understands
    encoder: EncoderConfig | None = None  # what reads captions, where that is beside the network
    sampler: str = "ddim"  # what `auto` means for this model
    grid: str = "auto"  # the times of that sampler, for this model; auto: what the sampler likes
    clip: bool = True  # its pictures lie in [-1, 1], and estimates may be clipped to that
    latents: bool = False  # what it draws are the latents of an autoencoder that is not read
    info: dict[str, Any] = field(default_factory=dict)  # where it comes from: pictures seen, data, source


@dataclass(frozen=True)
class EvaluateConfig:
    """Which measures of drawn pictures, against which real ones, in which features."""

    metrics: tuple[str, ...] = ("frechet", "kernel", "precision", "recall", "density", "coverage", "accuracy")
    count: int = 10_000  # pictures drawn; their seeds are the next `count` from `seed` on
    seed: int = 0
    real: int = 50_000  # real pictures compared with, at most; drawn by lot where there are more
    features: str = "auto"  # inception, a weight file of it, a shipped classifier, or a classifier's directory
    judge: str = "auto"  # of class accuracy: a shipped classifier or a directory; of retrieval: a contrastive run
    subsets: int = 100  # of the kernel distance as published
    subset_size: int = 1_000  # pictures in each
    bits_count: int = 100  # real pictures whose bits are counted
    bits_steps: int = 0  # steps of the bound, out of the model's; 0: all of them
    bits_times: int = 0  # steps asked of each picture, other ones of each: an estimate of their mean; 0: all of them
    bits_variance: str = "auto"  # of reverse steps: small, large, learned; auto: learned where it was, else small
    bits_repeats: int = 1  # dequantisations of a picture, and probes, whose mean is its figure by the flow
    bits_trace: Literal["hutchinson", "exact"] = "hutchinson"  # the flow's: of a probe, or exact, for tiny pictures


@dataclass(frozen=True)
class Request:
    """What a person asks of a model: which pictures, and how to draw them."""

    seeds: tuple[int, ...] = (0,)  # one picture a seed (and label)
    labels: tuple[
        str, ...
    ] = ()  # names or numbers; one for all, or one a picture; "none": no class; empty: by the seed
    prompts: tuple[str, ...] = ()  # words; one prompt for all, or one a picture; empty: no words
    negative_prompt: str = ""  # words that guidance leads away from, in place of none
    values: dict[str, tuple[float, ...]] = field(default_factory=dict)  # numbers by name; one for all, or one a picture
    image: str = ""  # a file: the small picture that is made larger, or the one that a mask's hole is filled of
    mask: str = ""  # a file of the size of that picture; what is white is drawn anew
    controls: tuple[str, ...] = ()  # files of drawings to follow, one a control network of the model
    control_scale: tuple[float, ...] = (1.0,)  # how strongly drawings are followed, one for all or one each; 0: not
    guess: bool = False  # follow the drawings where no words help: guidance of 3 or so then leads towards them
    sampler: str = "auto"  # a name in samplers.SAMPLERS; auto: the model's own default
    steps: int = 50
    grid: str = "auto"  # spacing of the times: a name in samplers.times.GRIDS
    eta: float = 0.0  # DDIM: 0 is deterministic, 1 is ancestral
    guidance: float = 1.0  # how strongly what is told is followed; 1 is plainly, 1.5 to 4 is usual, 0 tells nothing
    guidance_rescale: float = 0.0  # share of the unguided contrast that is kept, 0.7 against burnt colours; 0: none
    guidance_interval: tuple[float, float] | None = (
        None  # guide only where the noise, sigma / alpha, lies between the two
    )
    classifier: str = ""  # a run of a noisy classifier, to guide by too; with guidance 0, by it alone
    classifier_scale: float = 1.0  # how strongly that classifier guides; 1 is Bayes' rule
    clip: bool = True  # keep each estimate on the way in [-1, 1], where the model allows it
    threshold: float | None = None  # a quantile, 0.995 say: estimates are divided by it instead of clipped
    batch: int = 64  # pictures drawn at once; fewer take less memory
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    previews: int = 0  # pictures of the estimate on the way; 0: none
