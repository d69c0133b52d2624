"""What is checked of a request before anything is computed: numbers, names, and what the model supports."""

from __future__ import annotations

import math

from unnoise.conditions import Cond
from unnoise.config.cards import NoisyClassifierCard
from unnoise.config.request import Request, check_seed
from unnoise.errors import UserError
from unnoise.guidance import noisy_classifier
from unnoise.model import Model
from unnoise.samplers import Sampler, find
from unnoise.text.tokenizer import check_text


def check_request(model: Model, request: Request, cond: Cond | None) -> Sampler:
    """The sampler of a request. Raises UserError for settings that are out of range or not supported by the model.

    `cond` is the condition that replaces the request's own, or None.
    """
    if not request.seeds:
        raise UserError("no seeds: ask for at least one picture, for example --seeds 0-7")
    for seed in request.seeds:
        check_seed(seed)
    if request.batch < 1:
        raise UserError(f"batch is {request.batch}: set it to 1 or more")
    _check_numbers(request)
    name = model.card.sampler if request.sampling.sampler == "auto" else request.sampling.sampler
    sampler = find(name)
    if request.sampling.eta != 0 and name != "ddim":
        raise UserError(f"eta is an option of DDIM, and the sampler is {name!r}: use --sampler ddim, or --eta 0")
    if name == "ddpm-learned" and not model.diffusion.learned_variance:
        raise UserError("this model has no learned variance: use the sampler ddpm or ddpm-large")
    _check_text(model, request, cond)
    return sampler


def _check_text(model: Model, request: Request, cond: Cond | None) -> None:
    """Raises UserError for a missing text encoder, and for guidance that has nothing to lead away from."""
    if model.uses_text and model.text is None and (cond is None or (cond.text is None and cond.tokens is None)):
        raise UserError(
            "this network is conditioned on text, but its text encoder is not beside it: load the folder of the whole "
            "pipeline, or pass the encoder to the model, text=..."
        )
    for text in (*request.prompt.prompts, request.prompt.negative_prompt):
        check_text(text)
    conditional = bool(model.card.classes or model.text is not None or model.card.values)
    if request.guidance.scale != 1 and not conditional:
        raise UserError(
            "this model was trained without classes, text or values, so it cannot be guided: use --guidance 1"
        )
    if request.prompt.negative_prompt and model.text is None:
        model.conditioner.null(1, request.prompt.negative_prompt)  # raises, with what the model supports
    if request.prompt.negative_prompt and request.guidance.scale == 1:
        raise UserError("--negative-prompt needs guidance above 1: add for example --guidance 4")


def _check_numbers(request: Request) -> None:
    """Raises UserError for a scale that is not finite, and for a fraction outside [0, 1]."""
    scales: dict[str, tuple[float, ...]] = {"eta": (request.sampling.eta,), "guidance": (request.guidance.scale,)}
    scales |= {
        "guidance_rescale": (request.guidance.rescale,),
        "classifier_scale": (request.guidance.classifier_scale,),
    }
    for name, values in (scales | {"control_scale": request.prompt.control_scale}).items():
        if not all(map(math.isfinite, values)):
            raise UserError(f"{name} is {values[0] if len(values) == 1 else values}: give a finite number")
    fractions = {"eta": request.sampling.eta, "guidance_rescale": request.guidance.rescale}
    for name, value in (fractions | {"dynamic_threshold": request.sampling.dynamic_threshold}).items():
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"{name} is {value:g}: give a number from 0 to 1")


def check_guidance(model: Model, cond: Cond, request: Request, guide: NoisyClassifierCard | None) -> None:
    """Raises UserError for a threshold on latents, an empty guidance interval, and a classifier that does not fit."""
    low, high = request.guidance.interval or (0.0, 0.0)
    if not model.codec.bounded and request.sampling.dynamic_threshold is not None:
        raise UserError("this model's samples are latents, which have no range: remove --dynamic-threshold")
    if not 0 <= low <= high:
        raise UserError(f"no noise level lies between {low:g} and {high:g}: give --guidance-interval LOW HIGH")
    if guide is not None:
        noisy_classifier.check(guide, model.card)
        if cond.label is None or bool((cond.label >= len(guide.classes)).any()):
            raise UserError(
                "classifier guidance needs a class for every picture, not 'none': name one, and use --guidance 0 for "
                "unconditional estimates of the model itself"
            )
