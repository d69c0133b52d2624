"""From a request to pictures, step by step: the one path for the command line, the page and the server.

    for frame in generate(model, request): ...      # stop reading to cancel

A picture depends on its seed, its label and the settings; not on how many are drawn beside it, nor on previews.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.acceleration.placement import Placement, best, place, prepare
from unnoise.codec import to_bytes
from unnoise.conditions import Cond
from unnoise.config.request import Request
from unnoise.data import degrade
from unnoise.denoiser import Denoiser, Diffusion, Estimate
from unnoise.errors import UserError
from unnoise.generate.conditions import add_control_images, conditions, full_condition, null_conditions
from unnoise.guidance import (
    classifier,
    classifier_free,
    clip_denoised,
    dynamic_threshold,
    guidance_interval,
    noisy_classifier,
)
from unnoise.guidance.noisy_classifier import NoisyClassifier
from unnoise.io.pictures import Pictures
from unnoise.model import Model
from unnoise.noise import Seeds
from unnoise.samplers import Sampler, find, find_spacing, walk
from unnoise.schedules import Level
from unnoise.text.conditioner import Conditioner


@dataclass(frozen=True)
class Frame:
    """One step of the answer: where the walk is, for some of the pictures."""

    rows: slice  # which of the request's pictures
    step: int  # 1 to steps
    steps: int
    pictures: (
        Tensor | None
    )  # (B, C, H, W) float32, of pictures in [-1, 1]: at the last step all of it, before it a preview, or none
    calls: int = 0  # of the denoiser so far, for these pictures

    @property
    def done(self) -> bool:
        """These pictures are finished."""
        return self.step == self.steps


class Start(NamedTuple):
    """Where walks begin, if not in the noise of their seeds at t = 1: x (B, C, H, W), a row a picture, at time t."""

    x: Tensor
    t: float

    def cut(self, times: Tensor) -> Tensor:
        """What is left of a grid of times when one begins here."""
        return torch.cat([torch.tensor([self.t], dtype=torch.float64), times[times < self.t - 1e-9]])


def generate(model: Model, request: Request, start: Start | None = None, cond: Cond | None = None) -> Iterator[Frame]:
    """Draw what is asked, batch after batch, and yield after each step. Raises UserError before the first one.

    `cond`, a row a seed, is told in place of the request's labels, prompts, numbers and pictures. `request.steps` lie
    between t = 1 and 0; a walk that starts on the way takes those that are left. What a mask leaves is at the end
    exactly as it was given.
    """
    model = steered(model, request.classifier)
    sampler, cond = _ready(model, request, cond)
    request = replace(request, clip=request.clip and model.card.clip)
    if start is not None and len(start.x) != len(request.seeds):
        raise ValueError(f"{len(start.x)} rows to start from, for {len(request.seeds)} pictures")
    placement = best(request.device, request.precision)
    diffusion = place(model.diffusion, placement)
    guide = guide_of(request, placement)
    times = times_of(model, request)
    if start is not None:
        times = start.cut(times)
    step, steps = sampler.make(request), len(times) - 1
    shown = {round(steps * (i + 1) / (request.previews + 1)) for i in range(request.previews)}
    for first in range(0, len(request.seeds), request.batch):
        rows = slice(first, min(first + request.batch, len(request.seeds)))
        noise = Seeds(request.seeds[rows], model.x_shape, placement.device)
        asked = Counted(
            guided_denoiser(diffusion, model.conditioner, cond[rows], rows.stop - rows.start, request, placement, guide)
        )
        denoiser = Denoiser(diffusion.schedule, asked)
        if start is None:
            x = noise.start() * deviation(diffusion.schedule(times[0]))
        else:
            x = start.x[rows].to(placement.device)
        for at, state in enumerate(walk(denoiser, x, times, step, noise), start=1):
            pictures = None
            if at == steps:
                pictures = model.decode(state.x).cpu()
                if model.card.process.concat == "masked" and cond.concat is not None:
                    pictures = degrade.paste(pictures, cond.concat[rows].cpu())
            elif at in shown:
                pictures = model.decode(state.history[-1].mean).cpu()
            yield Frame(rows, at, steps, pictures, asked.calls)


def times_of(model: Model, request: Request) -> Tensor:
    """The times at which the walks of a request stop. Raises UserError for a grid that has not so many."""
    card = model.card
    name = card.sampler if request.sampler == "auto" else request.sampler
    own = card.spacing if name == card.sampler and card.spacing != "auto" else find(name).spacing
    grid = find_spacing(own if request.spacing == "auto" else request.spacing, model.diffusion.steps)
    return grid(model.diffusion.schedule, request.steps)


VISIBLE = 0.2  # of x_t's deviation: more of the picture than this at the first time, and it shows in what is drawn


def begins_in_a_picture(model: Model, request: Request) -> str:
    """In words, that a walk begins in noise at a time where the picture is still seen; empty where it does not.

    The DDIM authors' quadratic grid begins at t = 0.8, which is noise on their linear betas and is not on a cosine.
    """
    first = times_of(model, request)[0]
    level = model.diffusion.schedule(first)
    share = level.alpha.item() / deviation(level)
    if share <= VISIBLE:
        return ""
    return (
        f"this grid begins at t = {first.item():.2f}, where x_t is {share:.0%} picture on this model's schedule, and "
        "the walk begins in noise alone: take a grid that begins at 1, such as even"
    )


def deviation(level: Level) -> float:
    """The standard deviation of the noise that walks from this level begin in."""
    return math.hypot(level.alpha.item(), level.sigma.item())


class Counted:
    """A denoiser that counts how often it is called: what a walk costs."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser, self.calls = denoiser, 0

    def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
        self.calls += 1
        return self.denoiser(x_t, t)


def draw(model: Model, request: Request, start: Start | None = None, cond: Cond | None = None) -> Pictures:
    """The pictures of a request, all at the end; or the latents, of a model that draws these."""
    model = steered(model, request.classifier)
    parts = [frame.pictures for frame in generate(model, request, start, cond) if frame.done]
    drawn = torch.cat([part for part in parts if part is not None])
    cond = conditions(model.conditioner, request) if cond is None else cond
    labels = () if cond.label is None else tuple(model.conditioner.name(int(row)) for row in cond.label)
    return Pictures(drawn if model.latent_only else to_bytes(drawn), request.seeds, labels)


def guided_denoiser(
    diffusion: Diffusion,
    reader: Conditioner,
    cond: Cond,
    count: int,
    request: Request,
    placement: Placement,
    guide: NoisyClassifier | None,
) -> Denoiser:
    """The denoiser that is told these rows, guided and kept in the range of pictures as the request says."""
    cond = cond.to(placement.device)
    label = cond.label
    if reader.classifier_only:  # the label is the classifier's alone
        cond = replace(cond, label=None)
    null = cond if request.guidance == 1 else null_conditions(reader, request, cond, count).to(placement.device)
    denoiser = classifier_free(diffusion, cond, null, request.guidance, rescale=request.guidance_rescale)
    if guide is not None and label is not None:
        denoiser = classifier(denoiser, guide.log_prob(label), request.classifier_scale)
    if request.guidance_interval is not None:
        plain = diffusion.given(null if request.guidance == 0 else cond)
        denoiser = guidance_interval(denoiser, plain, *request.guidance_interval)
    if request.dynamic_threshold is not None:
        return dynamic_threshold(denoiser, request.dynamic_threshold)
    return clip_denoised(denoiser) if request.clip else denoiser


def steered(model: Model, classifier: str) -> Model:
    """The model, hearing the classes of a noisy classifier where it knows none itself."""
    if not classifier or model.classes:
        return model
    return replace(
        model, classifier_classes=noisy_classifier.read_card(noisy_classifier.find(Path(classifier))).classes
    )


def guide_of(request: Request, placement: Placement) -> NoisyClassifier | None:
    """The classifier that a request guides by, where pictures are drawn."""
    if not request.classifier:
        return None
    guide = noisy_classifier.load(request.classifier)
    prepare(guide.net, placement)
    return guide


def check(model: Model, request: Request, cond: Cond | None = None) -> Sampler:
    """The sampler of a request that can be drawn here, told `cond` in place of what it says.

    Raises UserError with what is wrong and what would be right: all that `generate` would refuse.
    """
    return _ready(steered(model, request.classifier), request, cond)[0]


def _ready(model: Model, request: Request, cond: Cond | None) -> tuple[Sampler, Cond]:
    """The sampler, and what each picture is told: labels, prompts and numbers, joined picture, drawings; or `cond`."""
    if not request.seeds:
        raise UserError("no seeds: ask for at least one picture, for example --seeds 0-7")
    _check_numbers(request)
    if request.batch < 1:
        raise UserError(f"a batch of {request.batch}: draw at least one picture at once")
    sampler = find(model.card.sampler if request.sampler == "auto" else request.sampler)
    name = model.card.sampler if request.sampler == "auto" else request.sampler
    if request.eta != 0 and name != "ddim":
        raise UserError(f"eta is DDIM's share of new noise, and {name!r} is not DDIM: take --sampler ddim, or --eta 0")
    if name == "ddpm-learned" and not model.diffusion.learned_variance:
        raise UserError("this model did not learn its variance: take the sampler ddpm or ddpm-large")
    times_of(model, request)
    best(request.device, request.precision)
    if model.uses_text and model.text is None and (cond is None or (cond.text is None and cond.tokens is None)):
        raise UserError(
            "this network reads captions, and what reads them for it is not beside it: load the folder of its whole "
            "pipeline, or hand that to the model, words=..."
        )
    if request.negative_prompt and model.text is None:
        model.conditioner.null(1, request.negative_prompt)  # which says why
    if request.guidance != 1:
        if not model.card.classes and model.text is None and not model.card.values:
            raise UserError(
                "this model was trained without classes, words or numbers, so there is nothing to guide to: take "
                "--guidance 1"
            )
        model.conditioner.null(1, request.negative_prompt)
    elif request.negative_prompt:
        raise UserError("guidance 1 leads away from nothing, so a negative prompt is not heard: take --guidance 4")
    if cond is None:
        cond = full_condition(model, request)
    else:
        add_control_images(model, cond, request)  # only to be checked
    _check_guides(model, cond, request)
    return sampler, cond


def _check_numbers(request: Request) -> None:
    """Raises UserError for a scale that is no finite number, of which every picture would be nothing, and for a share
    that is none."""
    scales: dict[str, tuple[float, ...]] = {"eta": (request.eta,), "guidance": (request.guidance,)}
    scales |= {"guidance_rescale": (request.guidance_rescale,), "classifier_scale": (request.classifier_scale,)}
    for what, many in (scales | {"control_scale": request.control_scale}).items():
        if not all(map(math.isfinite, many)):
            raise UserError(f"{what} is {many[0] if len(many) == 1 else many}: give a finite number")
    shares = {"eta": request.eta, "guidance_rescale": request.guidance_rescale, "threshold": request.dynamic_threshold}
    for what, share in shares.items():
        if share is not None and not 0 <= share <= 1:
            raise UserError(f"{what} is {share:g}: it is a share, give one from 0 to 1")


def _check_guides(model: Model, cond: Cond, request: Request) -> None:
    """Raises UserError for a threshold on latents, an interval that is none, a classifier that cannot guide these."""
    low, high = request.guidance_interval or (0.0, 0.0)
    if not model.codec.bounded and request.dynamic_threshold is not None:
        raise UserError("this model draws latents, which have no range to be kept in: leave --dynamic-threshold out")
    if not 0 <= low <= high:
        raise UserError(f"no noise level lies between {low:g} and {high:g}: give --guidance-interval low high")
    if request.classifier:
        card = noisy_classifier.read_card(noisy_classifier.find(Path(request.classifier)))
        noisy_classifier.check(card, model.card)
        if cond.label is None or bool((cond.label >= len(card.classes)).any()):
            raise UserError(
                "a classifier guides to a class, and 'none' is no class: name one, and take --guidance 0 to tell the "
                "model itself nothing"
            )
