"""A request made ready: every user error is raised here, and what is needed many times is computed once.

    placed = place(model)                    # the network is copied and packed once, for whoever keeps `placed`
    job = prepare(placed, request)           # files are opened and prompts encoded once; raises UserError
    for frame in frames(job): ...            # generate/frames.py; stop reading to cancel

A job is a value: it can be run again, from several threads, and for some of its rows (`job[rows]`). Inversion,
interpolation and evaluation build jobs too, so that a label, a prompt or a guidance scale means the same everywhere.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.acceleration import choices
from unnoise.acceleration.placement import Placement, best, place_autoencoder
from unnoise.acceleration.placement import place as place_diffusion
from unnoise.acceleration.placement import prepare as place_network
from unnoise.codec import Codec, Latents
from unnoise.conditions import Cond
from unnoise.config.request import Request
from unnoise.data.degrade import upscale
from unnoise.denoiser import Denoiser, Diffusion
from unnoise.formats.autoencoders import codec_of
from unnoise.generate.conditions import (
    add_control_images,
    concat_image,
    concat_rows,
    conditioner_of,
    null_condition,
    text_and_labels,
)
from unnoise.generate.validate import check_guidance, check_request
from unnoise.guidance import (
    classifier,
    classifier_free,
    clip_denoised,
    dynamic_threshold,
    guidance_interval,
    noisy_classifier,
)
from unnoise.guidance.noisy_classifier import NoisyClassifier
from unnoise.losses import ON_STEPS
from unnoise.model import Model
from unnoise.noise import Seeds
from unnoise.samplers import Step, find, find_spacing
from unnoise.schedules import Level
from unnoise.text.conditioner import Conditioner
from unnoise.transfer import send

VISIBLE = 0.2  # share of the picture in x_t's standard deviation above which it shows in a sample that starts there


_PLACING = threading.Lock()  # of all models: no value needs a lock of its own


@dataclass(frozen=True)
class Placed:
    """A model on one device. The network is copied, cast and packed when `diffusion` is first used, and only once.

    Several threads may use it at once: the first one makes the copy, and the others wait for it.
    """

    model: Model
    placement: Placement

    @property
    def diffusion(self) -> Diffusion:
        """The copy to sample with: no gradients; the model itself stays as it is."""
        with _PLACING:
            return self._copy

    @property
    def codec(self) -> Codec:
        """The model's codec, with a copy of its autoencoder on this device."""
        with _PLACING:
            return self._codec

    def decode(self, x: Tensor) -> Tensor:
        """Pictures of x, float32 in [-1, 1], as `Model.decode`."""
        return x.float() if self.model.latent_only else self.codec.decode(x)

    def preview(self, x: Tensor) -> Tensor:
        """Pictures of an estimate of x, (B, C, H, W): of latents by the linear map to colours, if the model has one.

        Decoding every step would take longer than the steps.
        """
        found = self.codec.preview(x) if isinstance(self.codec, Latents) else None
        return self.decode(x) if found is None else upscale(found, self.codec.factor)

    @cached_property
    def _copy(self) -> Diffusion:
        return place_diffusion(self.model.diffusion, self.placement)

    @cached_property
    def _codec(self) -> Codec:
        own = self.model.autoencoder
        if own is None:
            return self.model.codec
        return codec_of(place_autoencoder(own.net, self.placement, force_upcast=own.card.force_upcast), own.card)


def place(model: Model | Placed, device: str = "auto", precision: str = "auto") -> Placed:
    """The model on a device, in a precision; a placed model stays where it is. Raises UserError for an unknown one."""
    if isinstance(model, Placed):
        return model
    return Placed(model, best(model.device if device == "auto" else device, precision, model.diffusion.net))


class Start(NamedTuple):
    """The states that walks start from, if not the noise of their seeds: x (B, C, H, W), a row per picture, at t."""

    x: Tensor
    t: float

    def cut(self, times: Tensor) -> Tensor:
        """The part of a grid of times that is left when a walk starts here."""
        return torch.cat([torch.tensor([self.t], dtype=torch.float64), times[times < self.t - 1e-9]])


@dataclass(frozen=True)
class Job:
    """A request made ready on a placed model."""

    placed: Placed
    request: Request
    conditioner: Conditioner  # the model's; with the classes of a classifier that guides it, where it has none
    cond: Cond  # a row per seed
    null: Cond  # a row per seed: the unconditional rows, or those of the negative prompt; `cond` without guidance
    guide: NoisyClassifier | None
    times: Tensor  # (N + 1,) float64, from noise to 0
    step: Step
    start: Start | None = None
    known: Tensor | None = None  # (1 or B, C + 1, H, W): the picture around the hole of an inpainting model, in pixels

    @property
    def model(self) -> Model:
        return self.placed.model

    def __getitem__(self, rows: Sequence[int]) -> Job:
        """The job of some of the seeds only."""
        index = torch.tensor(list(rows), dtype=torch.int64)
        start = None if self.start is None else Start(self.start.x[index], self.start.t)
        request = replace(self.request, seeds=tuple(self.request.seeds[row] for row in rows))
        known = self.known if self.known is None or len(self.known) == 1 else self.known[index]
        return replace(self, request=request, cond=self.cond[index], null=self.null[index], start=start, known=known)

    def starting(self, start: Start) -> Job:
        """The same job from other states than the noise of its seeds. Raises ValueError for another number of rows."""
        if len(start.x) != len(self.request.seeds):
            raise ValueError(f"{len(start.x)} rows to start from, for {len(self.request.seeds)} seeds")
        return replace(self, start=start, times=start.cut(self.times))

    def labels(self) -> tuple[str, ...]:
        """The class of each picture by name; () for a model without classes."""
        label = self.cond.label
        return () if label is None else tuple(self.conditioner.name(int(row)) for row in label)

    def noise(self, rows: slice) -> Seeds:
        """The noise of these rows: each row's own, by its seed."""
        return Seeds(self.request.seeds[rows], self.model.x_shape, self.placed.placement.device)

    def first(self, rows: slice) -> Tensor:
        """The states (B, C, H, W) that these rows start from, at `times[0]`."""
        if self.start is not None:
            return send(self.start.x[rows], self.placed.placement.device)
        return self.noise(rows).start() * deviation(self.placed.diffusion.schedule(self.times[0]))

    def denoiser(self, rows: slice) -> Denoiser:
        """The guided denoiser of these rows; its means are kept in the range of pictures if the request says so."""
        request, diffusion, device = self.request, self.placed.diffusion, self.placed.placement.device
        cond, null = self.cond[rows].to(device), self.null[rows].to(device)
        label = cond.label
        if self.conditioner.classifier_only:
            cond = replace(cond, label=None)
            null = cond if request.guidance.scale == 1 else null
        denoiser = classifier_free(diffusion, cond, null, request.guidance.scale, rescale=request.guidance.rescale)
        if self.guide is not None and label is not None:
            denoiser = classifier(denoiser, self.guide.log_prob(label), request.guidance.classifier_scale)
        if request.guidance.interval is not None:
            plain = diffusion.given(null if request.guidance.scale == 0 else cond)
            denoiser = guidance_interval(denoiser, plain, *request.guidance.interval)
        if request.sampling.dynamic_threshold is not None:
            return dynamic_threshold(denoiser, request.sampling.dynamic_threshold)
        return clip_denoised(denoiser) if request.sampling.clip and self.model.card.clip else denoiser


def prepare(model: Model | Placed, request: Request, *, start: Start | None = None, cond: Cond | None = None) -> Job:
    """The job of a request. `cond`, a row per seed, replaces the request's labels, prompts, values and pictures.

    `request.steps` lie between t = 1 and 0; a walk with a `start` on the way uses those that are left. Raises
    UserError for everything in the request that the model does not support, or that cannot be read.
    """
    placed = place(model, request.device, request.precision)
    model = placed.model
    sampler = check_request(model, request, cond)
    guide = guide_of(request, placed.placement)
    conditioner = conditioner_of(model, guide.card if guide is not None else None)
    times = timesteps(model, request)
    own = None if cond is None or model.card.codec.kind == "latents" else cond.concat  # a picture is in pixels
    image = own
    if cond is None:
        cond = text_and_labels(conditioner, request)
        image = concat_image(model, request)
        cond = replace(cond, concat=None if image is None else concat_rows(model, request, image))
    cond = cond if cond.control else add_control_images(model, cond, request)
    check_guidance(model, cond, request, guide.card if guide is not None else None)
    null = cond if request.guidance.scale == 1 else null_condition(conditioner, request, cond)
    known = image if model.card.process.concat == "masked" else None
    job = Job(placed, request, conditioner, cond, null, guide, times, sampler.make(request), known=known)
    return job if start is None else job.starting(start)


def guide_of(request: Request, placement: Placement) -> NoisyClassifier | None:
    """The noisy classifier that a request names, on the device of its samples."""
    if not request.guidance.classifier:
        return None
    guide = noisy_classifier.load(request.guidance.classifier)
    place_network(guide.net, placement)
    return guide


def timesteps(model: Model, request: Request) -> Tensor:
    """The times (N + 1,) of a request's walks. Raises UserError for a spacing that has not so many steps.

    A model's own spacing, whether by default or by its name, has the options of the model's card.
    """
    card, steps = model.card, model.diffusion.steps
    name = card.sampler if request.sampling.sampler == "auto" else request.sampling.sampler
    own = card.spacing if name == card.sampler and card.spacing != "auto" else find(name).spacing
    chosen = own if request.sampling.spacing == "auto" else request.sampling.spacing
    options = card.spacing_options if chosen == card.spacing else {}
    least = 1 / steps if card.process.time_sampler in ON_STEPS else 0.0  # below it the network has learned nothing
    spacing = find_spacing(chosen, steps, least, options)
    return spacing(model.diffusion.schedule, request.sampling.steps)


def deviation(level: Level) -> float:
    """The standard deviation of the noise that walks start from at this level."""
    return math.hypot(level.alpha.item(), level.sigma.item())


def ignored_measurement(job: Job) -> str:
    """A note if the stored measurement that would decide the precision cannot be read; else ""."""
    if job.request.precision != "auto":
        return ""
    return choices.find(job.model.diffusion.net, job.placed.placement.device)[1]


def starts_in_a_picture(model: Model, request: Request) -> str:
    """A note if walks start at a time where part of the picture is visible, which noise does not have; else "".

    The DDIM authors' quadratic spacing starts at t = 0.8: that is noise on their linear betas, and not on a cosine.
    """
    first = timesteps(model, request)[0]
    level = model.diffusion.schedule(first)
    share = level.alpha.item() / deviation(level)
    if share <= VISIBLE:
        return ""
    return (
        f"this spacing starts at t = {first.item():.2f}, where x_t is {share:.0%} picture on this model's "
        "schedule, but sampling starts from pure noise: choose a spacing that starts at t = 1, for example even"
    )
