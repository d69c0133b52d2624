"""What a checkpoint file contains, by the names of its tensors: its parts, and what it lacks.

    model.diffusion_model.                     the U-Net
    model_ema.                                 its moving average, whose names have no dots
    first_stage_model.                         the autoencoder
    cond_stage_model.transformer.              CLIP's text tower (Stable Diffusion 1)
    cond_stage_model.model.                    OpenCLIP's text tower (2)
    conditioner.embedders.{0, 1}.              the text towers of XL, or of its refiner
    cond_stage_model.embedding.weight          a table of classes, each of which is a context of one token
    control_model.                             a ControlNet
    betas, alphas_cumprod, ...                 buffers of the training code

A U-Net, an autoencoder or a ControlNet may be alone in a file, without its prefix. A file of another kind is named.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from unnoise.errors import UserError
from unnoise.io.weights import PICKLE_NAMES, read_header

UNET, EMA, VAE, CONTROL = "model.diffusion_model.", "model_ema.", "first_stage_model.", "control_model."
CLASSES = "cond_stage_model.embedding.weight"
CLIP, OPEN_CLIP = "clip", "open_clip"  # the two ways of naming a text tower
TOWERS = (  # prefix, kind, a tensor that only this kind has
    ("cond_stage_model.transformer.text_model.", CLIP, "embeddings.token_embedding.weight"),
    ("cond_stage_model.transformer.", CLIP, "embeddings.token_embedding.weight"),
    ("cond_stage_model.model.", OPEN_CLIP, "token_embedding.weight"),
    ("conditioner.embedders.0.transformer.text_model.", CLIP, "embeddings.token_embedding.weight"),
    ("conditioner.embedders.0.model.", OPEN_CLIP, "token_embedding.weight"),
    ("conditioner.embedders.1.model.", OPEN_CLIP, "token_embedding.weight"),
)
PREFIXES = (UNET, EMA, VAE, CONTROL, "cond_stage_model.", "conditioner.")
BUFFERS = (  # of the training code; betas are read, the others follow from them
    *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
    *("log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"),
    *("posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
    *("logvar", "lvlb_weights", "scale_factor", "denoiser.sigmas", "v_pred", "ztsnr"),
)
BARE = {  # a tensor that identifies a part without its prefix
    "input_hint_block.0.weight": CONTROL,
    "input_blocks.0.0.weight": UNET,
    "decoder.up.0.block.0.conv1.weight": VAE,
}
OTHERS = (  # part of a name, and what a file with it is
    ("lora_", "a LoRA, which changes a model: it is not a model"),
    (".lora.", "a LoRA, which changes a model: it is not a model"),
    ("emb_params", "the embedding of a new word (textual inversion): it is not a model"),
    ("string_to_param", "the embedding of a new word (textual inversion): it is not a model"),
    ("edm_mean", "a model with EDM's scaling of latents, which is not supported: use another checkpoint"),
    ("double_blocks.", "a transformer (Flux or a relative), which is not supported: use a Stable Diffusion 1, 2 or XL"),
    ("joint_blocks.", "Stable Diffusion 3, which is not supported: use a Stable Diffusion 1, 2 or XL"),
    ("emb_proj.", "the weights of an unnoise model: give its folder, which has its settings (model.json)"),
    ("down_blocks.", "a network with diffusers' names: put it in a folder with its config.json, and give that folder"),
    ("transformer_blocks.", "a transformer with diffusers' names: put it in a folder with its config.json"),
    ("text_model.", "a text encoder: it belongs into a folder text_encoder/ with its config.json"),
)
UNSUPPORTED = ("edm_mean", "double_blocks.", "joint_blocks.")  # of these, in models that may have the usual prefix
NOT_OPENED = (
    "{file} is a pickle, which can run code, and is not opened: get the model as safetensors, or, if you trust it, "
    "convert it once: unnoise export {file} FOLDER --allow-pickle"
)
MOST_NAMES = 3  # in a sentence


@dataclass(frozen=True)
class Contents:
    """The parts of a checkpoint file: the prefix of each, or None where the file does not have it."""

    unet: str | None = None
    vae: str | None = None
    control: str | None = None
    towers: tuple[tuple[str, str], ...] = ()  # prefix and kind
    classes: bool = False
    ema: bool = False
    unread: tuple[str, ...] = ()  # tensors outside all of these

    @property
    def parts(self) -> list[str]:
        """The parts in words."""
        named = {"U-Net": self.unet, "autoencoder": self.vae, "ControlNet": self.control}
        found = [name for name, prefix in named.items() if prefix is not None]
        found += [f"text encoder ({'OpenCLIP' if kind == OPEN_CLIP else 'CLIP'})" for _, kind in self.towers]
        return found + ["table of classes"] * self.classes + ["moving average of the U-Net (--ema)"] * self.ema


def contents_of(names: Collection[str]) -> Contents:
    """The parts of a file with tensors of these names."""
    for marker, part in BARE.items():
        if marker in names and not any(name.startswith(PREFIXES) for name in names if not name.startswith(EMA)):
            alone = {each: "" if each == part else None for each in (UNET, VAE, CONTROL)}
            return Contents(alone[UNET], alone[VAE], alone[CONTROL], ema=any(name.startswith(EMA) for name in names))
    has = {prefix: any(name.startswith(prefix) for name in names) for prefix in PREFIXES}
    towers: dict[str, str] = {}  # by the start of the prefix, since "transformer." begins "transformer.text_model."
    for prefix, kind, marker in TOWERS:
        if prefix + marker in names and not any(known.startswith(prefix) for known in towers):
            towers[prefix] = kind
    return Contents(
        unet=UNET if has[UNET] else None,
        vae=VAE if has[VAE] else None,
        control=CONTROL if has[CONTROL] else None,
        towers=tuple(towers.items()),
        classes=CLASSES in names,
        ema=has[EMA],
        unread=tuple(sorted(n for n in names if not n.startswith(PREFIXES) and n not in BUFFERS)),
    )


def what_else(names: Collection[str]) -> str:
    """What a file that is no checkpoint is, as a clause; it names its first tensors where this is not known."""
    for part, kind in OTHERS:
        if any(part in name for name in names):
            return kind
    first = ", ".join(sorted(names)[:MOST_NAMES])
    return f"of an unknown kind: its {len(names):,} tensors begin with {first or 'none'}; a checkpoint has {UNET}..."


def require(found: Contents, part: str, names: Collection[str], where: str) -> str:
    """The prefix of a part. Raises UserError, which says what the file is instead."""
    prefix: str | None = getattr(found, part)
    odd = part == "unet" and any(name in each for each in names for name in UNSUPPORTED)
    if prefix is not None and not odd:
        return prefix
    wanted = {"unet": "a model", "vae": "an autoencoder", "control": "a ControlNet"}[part]
    if found.control is not None:
        fix = "add it to a model with --control-model"
        raise UserError(f"{where} is a ControlNet, not {wanted}: {fix}")
    if found.unet is not None and not odd:
        raise UserError(f"{where} is a model without {wanted}: give a file that has one")
    if found.vae is not None and not odd:
        raise UserError(
            f"{where} is an autoencoder, not {wanted}: give a file with a U-Net, and put this one beside it as "
            "an autoencoder only where a command takes one"
        )
    raise UserError(f"{where} is not {wanted} that is supported: it is {what_else(names)}")


def check_checkpoint(file: Path, *, allow_pickle: bool) -> None:
    """Raises UserError for a file without a U-Net, by its header alone, and for a pickle unless `allow_pickle`."""
    if file.suffix.lower() in PICKLE_NAMES:
        if not allow_pickle:
            raise UserError(NOT_OPENED.format(file=file))
        return
    names = read_header(file).names
    require(contents_of(names), "unet", names, str(file))
