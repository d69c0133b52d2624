"""The process and the default sampler of a checkpoint file's model, as its published configuration has them.

Stable Diffusion: betas from 0.00085 to 0.012, linear in their square roots, 1,000 steps. The first version predicts
eps; of the second there are networks of both predictions, with tensors of the same shapes. A file may state which it
has: in its metadata (modelspec.prediction_type), or by an empty tensor `v_pred`; `ztsnr` stands for zero terminal SNR.
The betas of the training code are read where the file has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unnoise.config.networks import UNetConfig
from unnoise.errors import UserError
from unnoise.formats import schedulers
from unnoise.formats.schedulers import Scheduler
from unnoise.formats.single_file.contents import Contents
from unnoise.formats.single_file.source import Source

FACTOR = 8  # pixels for each latent along a side, of all these models without an autoencoder of their own
STABLE_SCALE, XL_SCALE, VQ_SCALE = 0.18215, 0.13025, 1.0  # of the latents
PREDICTS = {"eps": "epsilon", "v": "v_prediction"}  # names here, and in diffusers' and other tools' files
STABLE: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
LATENT: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.0015,
    "beta_end": 0.0195,
}  # latent diffusion's VQ models
PIXELS: dict[str, Any] = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}  # DDPM's and ADM's
SIZES = {"sd1": 64, "sd2": 96, "base": 64, "xl": 128}  # of latents
EPS_BESIDE = (1, 5)  # channels beside x of 2's networks for depth and inpainting, which predict eps
SAMPLER: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "clip_sample": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
XL_SAMPLER: dict[str, Any] = {"_class_name": "EulerDiscreteScheduler", "steps_offset": 1, "timestep_spacing": "leading"}
EITHER = (
    "{file}: a Stable Diffusion 2 network predicts v (768 pixels) or eps (512 pixels), which its tensors do not show: "
    "{predicts} is assumed; for the other: unnoise export {file} FOLDER --predicts {other}"
)


@dataclass(frozen=True)
class Chosen:
    """The process, the default sampler, the size of x, and what was assumed."""

    scheduler: Scheduler
    size: int | tuple[int, int]
    latents: bool
    notes: tuple[str, ...]


def choose(source: Source, config: UNetConfig, found: Contents, predicts: str) -> Chosen:
    """The process of a file's U-Net. Raises UserError for a prediction that is not in PREDICTS."""
    if predicts and predicts not in PREDICTS:
        raise UserError(f"--predicts {predicts}: a checkpoint file predicts {' or '.join(PREDICTS)}")
    notes = []
    second = bool(config.context) and config.linear_projection and not config.value_width
    given = predicts or _stated(source)
    if not given:
        given = "v" if second and config.concat_channels not in EPS_BESIDE else "eps"
        if second and not config.concat_channels and not config.vector:
            notes.append(EITHER.format(file=source.file, predicts="v", other="eps"))
    latents = bool(config.context) or found.vae is not None or config.in_channels not in (1, 3)
    settings = dict(XL_SAMPLER if config.value_width else SAMPLER)
    settings |= {"prediction_type": PREDICTS[given]} | _betas(source, config, found.classes, latents, notes)
    if "ztsnr" in source.names:
        settings |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    if config.out_channels == 2 * config.in_channels:
        settings = _learned(settings)
    scheduler = schedulers.from_config(settings, str(source.file))
    return Chosen(scheduler, _size(source, config, latents, given), latents, (*notes, *scheduler.notes))


def scale(source: Source, config: UNetConfig) -> float:
    """The scale of the latents of a file's U-Net: the training code's own, or that of the published models."""
    if "scale_factor" in source.names:
        return float(source.load(["scale_factor"])["scale_factor"])
    if config.value_width:
        return XL_SCALE
    return VQ_SCALE if config.in_channels == 3 else STABLE_SCALE  # VQ models have 3 channels or fewer


def _stated(source: Source) -> str:
    """What the file itself states that it predicts; empty where it states nothing."""
    if "v_pred" in source.names:
        return "v"
    stated = source.metadata.get("modelspec.prediction_type")
    return {"v": "v", "v_prediction": "v", "epsilon": "eps", "eps": "eps"}.get(str(stated), "")


def _size(source: Source, config: UNetConfig, latents: bool, predicts: str) -> int | tuple[int, int]:
    """Height and width of x: those of the metadata, or the published ones."""
    text = str(source.metadata.get("modelspec.resolution", ""))
    width, _, height = text.partition("x")
    factor, multiple = (FACTOR if latents else 1), 2 ** (len(config.channels) - 1)
    if width.isdecimal() and height.isdecimal() and len(text) < 12:
        sides = int(height) // factor, int(width) // factor
        if min(sides) > 0 and not any(side % multiple for side in sides):
            return sides[0] if sides[0] == sides[1] else sides
    if config.value_width:
        usual = SIZES["xl"]
    elif config.linear_projection:
        usual = SIZES["sd2" if predicts == "v" else "base"]
    else:
        usual = SIZES["sd1"]
    return usual if usual % multiple == 0 else multiple


def _betas(source: Source, config: UNetConfig, classes: bool, latents: bool, notes: list[str]) -> dict[str, Any]:
    """The betas in the file, or those of the published models."""
    if "betas" in source.names:
        return betas_settings(source.load(["betas"])["betas"].double())
    if config.context and not classes:
        return STABLE
    usual = LATENT if latents else PIXELS
    kind = "linear in their square roots" if latents else "linear"
    notes.append(
        f"{source.file} has no betas: those from {usual['beta_start']:g} to {usual['beta_end']:g}, {kind}, are assumed"
    )
    return usual


def betas_settings(betas: Tensor) -> dict[str, Any]:
    """The settings of a scheduler with these betas: linear in their square roots, linear, or a table."""
    begin, end = (float(f"{float(beta):.3g}") for beta in (betas[0], betas[-1]))  # a file may be in half precision
    count = len(betas)
    ends = {"num_train_timesteps": count, "beta_start": begin, "beta_end": end}
    line = torch.linspace(begin, end, count, dtype=torch.float64)
    roots = torch.linspace(begin**0.5, end**0.5, count, dtype=torch.float64) ** 2
    for name, candidate in (("scaled_linear", roots), ("linear", line)):
        if torch.allclose(betas, candidate, rtol=5e-3, atol=0):
            return ends | {"beta_schedule": name}
    return {"num_train_timesteps": count, "trained_betas": betas.tolist()}


def _learned(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of DDPM's sampler, for a network that learned its variance."""
    kept = {key: value for key, value in settings.items() if key in ("beta_schedule", "beta_start", "beta_end")}
    kept |= {key: value for key, value in settings.items() if key in ("num_train_timesteps", "trained_betas")}
    return {"_class_name": "DDPMScheduler", "variance_type": "learned_range", **kept}
