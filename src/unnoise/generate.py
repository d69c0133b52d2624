"""From a request to pictures, step by step: the one path for the command line, the page and the server.

    for frame in generate(model, request): ...      # stop reading to cancel

A picture depends on its seed, its label and the settings; not on how many are drawn beside it, nor on previews.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from unnoise import joined
from unnoise.acceleration.placement import Placement, best, place, prepare
from unnoise.codec import from_bytes, to_bytes
from unnoise.conditions import Cond
from unnoise.data.decode import Picture, decode
from unnoise.data.source import Unreadable, reason
from unnoise.denoiser import Denoiser, Diffusion, Estimate
from unnoise.errors import UserError
from unnoise.guidance import classifier, classifier_free, clip, dynamic_threshold, noisy, within
from unnoise.guidance.noisy import NoisyClassifier
from unnoise.model import Model, Reader
from unnoise.nn.control import guessing
from unnoise.noise import Seeds
from unnoise.pictures import Pictures
from unnoise.samplers import Sampler, find, find_grid, walk
from unnoise.schedules import Level
from unnoise.settings import ControlConfig, DataConfig, Request

T = TypeVar("T")


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
        noise = Seeds(request.seeds[rows], model.shape, placement.device)
        asked = Counted(told(diffusion, model.reader, cond[rows], rows.stop - rows.start, request, placement, guide))
        denoiser = Denoiser(diffusion.schedule, asked)
        if start is None:
            x = noise.start() * deviation(diffusion.schedule(times[0]))
        else:
            x = start.x[rows].to(placement.device)
        for at, state in enumerate(walk(denoiser, x, times, step, noise), start=1):
            pictures = None
            if at == steps:
                pictures = model.codec.decode(state.x).cpu()
                if model.card.process.joined == "masked" and cond.image is not None:
                    pictures = joined.paste(pictures, cond.image[rows].cpu())
            elif at in shown:
                pictures = model.codec.decode(state.trail[-1].mean).cpu()
            yield Frame(rows, at, steps, pictures, asked.calls)


def times_of(model: Model, request: Request) -> Tensor:
    """The times at which the walks of a request stop. Raises UserError for a grid that has not so many."""
    card = model.card
    name = card.sampler if request.sampler == "auto" else request.sampler
    own = card.grid if name == card.sampler and card.grid != "auto" else find(name).grid
    grid = find_grid(own if request.grid == "auto" else request.grid, model.diffusion.steps)
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
    cond = conditions(model.reader, request) if cond is None else cond
    labels = () if cond.label is None else tuple(model.reader.name(int(row)) for row in cond.label)
    return Pictures(drawn if model.card.latents else to_bytes(drawn), request.seeds, labels)


def told(
    diffusion: Diffusion,
    reader: Reader,
    cond: Cond,
    count: int,
    request: Request,
    placement: Placement,
    guide: NoisyClassifier | None,
) -> Denoiser:
    """The denoiser that is told these rows, guided and kept in the range of pictures as the request says."""
    cond = cond.to(placement.device)
    label = cond.label
    if reader.steers:  # the label is the classifier's alone
        cond = replace(cond, label=None)
    null = cond if request.guidance == 1 else without(reader, request, cond, count).to(placement.device)
    denoiser = classifier_free(diffusion, cond, null, request.guidance, rescale=request.guidance_rescale)
    if guide is not None and label is not None:
        denoiser = classifier(denoiser, guide.log_prob(label), request.classifier_scale)
    if request.guidance_interval is not None:
        plain = diffusion.given(null if request.guidance == 0 else cond)
        denoiser = within(denoiser, plain, *request.guidance_interval)
    if request.threshold is not None:
        return dynamic_threshold(denoiser, request.threshold)
    return clip(denoiser) if request.clip else denoiser


def steered(model: Model, classifier: str) -> Model:
    """The model, hearing the classes of a noisy classifier where it knows none itself."""
    if not classifier or model.classes:
        return model
    return replace(model, steered=noisy.read_card(noisy.find(Path(classifier))).classes)


def guide_of(request: Request, placement: Placement) -> NoisyClassifier | None:
    """The classifier that a request guides by, where pictures are drawn."""
    if not request.classifier:
        return None
    guide = noisy.load(request.classifier)
    prepare(guide.net, placement)
    return guide


def conditions(reader: Reader, request: Request) -> Cond:
    """What each picture is told, a row per seed. One label, prompt or number is for all; no label and no prompt: a
    class by the seed."""
    count = len(request.seeds)
    values = {name: _each(many, count, name) for name, many in request.values.items()}
    if not request.labels and not request.prompts:
        return reader.by_seed(request.seeds, values)
    return reader.read(_each(request.labels, count, "label"), _each(request.prompts, count, "prompt"), values)


def all_told(model: Model, request: Request) -> Cond:
    """`conditions`, and the joined picture and the drawings of a request: all that `generate` tells, a row per seed.
    Raises UserError for what the model does not take, and for what is missing."""
    cond = replace(conditions(model.reader, request), image=joined_picture(model, request))
    return follow(model, cond, request)


def without(reader: Reader, request: Request, cond: Cond, count: int) -> Cond:
    """The rows of `cond` told nothing, or the negative prompt: what guidance leads away from. The joined picture
    and the drawings stay, unless the model is to guess: then only what is told follows them."""
    null = reader.nothing(count, request.negative_prompt)
    strength = cond.strength
    if request.guess and strength is not None:
        strength = torch.zeros_like(strength)
    value = null.value if reader.null_value else reader.untold(cond.value)
    return replace(null, value=value, image=cond.image, hints=cond.hints, strength=strength)


def follow(model: Model, cond: Cond, request: Request) -> Cond:
    """`cond`, and the drawings of a request in every row. Raises UserError for one that cannot be used."""
    takes = model.controls
    strongly = not cond.hints and (request.guess or request.control_scale != (1.0,))
    if not takes and (request.controls or strongly):
        out = "--control" if request.controls else "--guess and --control-scale"
        raise UserError(f"this model follows no drawings: leave {out} out; {model.reader.takes}")
    if not request.controls:
        if strongly:
            raise UserError("there is no drawing to follow so strongly: give one, --control FILE")
        return cond
    count, scales = len(request.seeds), request.control_scale
    if len(request.controls) != len(takes):
        given, wants = (f"{n} drawing{'s' if n > 1 else ''}" for n in (len(request.controls), len(takes)))
        raise UserError(f"{given} for a model that takes {wants}: give --control so often")
    if len(scales) not in (1, len(takes)):
        raise UserError(f"{len(scales)} control scales for {len(takes)} drawings: give one, or one each")
    hints = tuple(drawing(Path(file), model, control) for file, control in zip(request.controls, takes))
    strength = torch.tensor(scales if len(scales) > 1 else scales * len(takes), dtype=torch.float32).expand(count, -1)
    if request.guess:
        strength = guessing(strength, model.residuals)
    return replace(cond, hints=tuple(hint.expand(count, -1, -1, -1) for hint in hints), strength=strength)


def joined_picture(model: Model, request: Request) -> Tensor | None:
    """What a request joins to x_t, in every row: (B, C, H, W). Raises UserError for a file that cannot be used, and
    where there has to be one, or none."""
    process = model.card.process
    if not process.joined:
        if request.image or request.mask:
            raise UserError(
                f"this model is shown no picture beside the noise: leave --image and --mask out; {model.reader.takes}"
            )
        return None
    if not request.image:
        wants = "the small picture" if process.joined == "small" else "the picture, and --mask what is drawn anew of it"
        raise UserError(f"this model is shown a picture beside the noise: give it, --image {wants}")
    if process.joined == "masked" and not request.mask:
        raise UserError("this model draws a part of a picture anew: say which, --mask white where it is, else black")
    if process.joined == "small" and request.mask:
        raise UserError("this model makes small pictures larger and takes no mask: leave --mask out")
    if process.joined == "small":
        image = joined.larger(small_picture(Path(request.image), model), process.joined_factor)
    else:
        hole = read_picture(Path(request.mask), model.card.size, 1, "mask")
        image = read_picture(Path(request.image), model.card.size, model.card.channels, "picture")
        image = joined.masked(from_bytes(image), (hole > 127).float())
    return image.expand(len(request.seeds), -1, -1, -1)


def small_picture(file: Path, model: Model) -> Tensor:
    """The small picture in a file, (1, C, h, w) in [-1, 1]: as it is; or that of a large one, brought to the size of
    the model's pictures and made small as in training. Raises UserError for one in between."""
    factor, (height, width) = model.card.process.joined_factor, model.card.size
    small = (height // factor, width // factor)
    found = open_picture(file, min(height, width), model.card.channels, "picture").size[::-1]  # height, width
    if found == small:
        return from_bytes(read_picture(file, small, model.card.channels, "picture"))
    if found[0] < height or found[1] < width:
        raise UserError(
            f"the picture {file} is {found[1]}x{found[0]}; this model makes {small[1]}x{small[0]} into {width}x"
            f"{height}: give it in one of these two sizes, or a larger one of that shape"
        )
    whole = read_picture(file, (height, width), model.card.channels, "picture")
    return joined.smaller(from_bytes(whole), factor)


def drawing(file: Path, model: Model, control: ControlConfig) -> Tensor:
    """A drawing as a control network takes it: (1, C, h, w) in [0, 1]. Raises UserError for a file that is none."""
    height, width = (side * control.scale for side in model.card.size)
    return read_picture(file, (height, width), control.channels, "drawing").float() / 255


def read_picture(file: Path, size: tuple[int, int], channels: int, what: str) -> Tensor:
    """Bytes (1, C, height, width) of a picture of this shape, whatever its size; transparent parts are black in
    drawings and masks, white in pictures. Raises UserError."""
    pixels = open_picture(file, min(size), channels, what).pixels
    if pixels.shape[1:] != size:
        raise UserError(
            f"the {what} {file} has another shape than the model's pictures, {size[1]}x{size[0]}: crop it to that"
        )
    return torch.from_numpy(pixels.copy())[None]


def open_picture(file: Path, size: int, channels: int, what: str) -> Picture:
    """A picture whose shorter side becomes `size`. Raises UserError for a file that is none."""
    background = (255, 255, 255) if what == "picture" else (0, 0, 0)
    try:
        config = DataConfig(size=size, channels=channels, background=background)
        return decode(file.read_bytes(), config, drawing=what == "drawing")
    except (OSError, Unreadable) as error:
        raise UserError(f"the {what} {file} cannot be read: {reason(error)}") from None


def _each(said: tuple[T, ...], count: int, what: str) -> tuple[T, ...]:
    """One a picture. Raises UserError where it is neither one for all nor as many as there are."""
    if len(said) not in (0, 1, count):
        raise UserError(f"{len(said)} {what}s for {count} seeds: give one {what}, or one a seed")
    return said * count if len(said) == 1 else said


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
    if model.hears and model.words is None and (cond is None or (cond.words is None and cond.tokens is None)):
        raise UserError(
            "this network reads captions, and what reads them for it is not beside it: load the folder of its whole "
            "pipeline, or hand that to the model, words=..."
        )
    if request.negative_prompt and model.words is None:
        model.reader.nothing(1, request.negative_prompt)  # which says why
    if request.guidance != 1:
        if not model.card.classes and model.words is None and not model.card.values:
            raise UserError(
                "this model was trained without classes, words or numbers, so there is nothing to guide to: take "
                "--guidance 1"
            )
        model.reader.nothing(1, request.negative_prompt)
    elif request.negative_prompt:
        raise UserError("guidance 1 leads away from nothing, so a negative prompt is not heard: take --guidance 4")
    if cond is None:
        cond = all_told(model, request)
    else:
        follow(model, cond, request)  # only to be checked
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
    shares = {"eta": request.eta, "guidance_rescale": request.guidance_rescale, "threshold": request.threshold}
    for what, share in shares.items():
        if share is not None and not 0 <= share <= 1:
            raise UserError(f"{what} is {share:g}: it is a share, give one from 0 to 1")


def _check_guides(model: Model, cond: Cond, request: Request) -> None:
    """Raises UserError for a threshold on latents, an interval that is none, a classifier that cannot guide these."""
    low, high = request.guidance_interval or (0.0, 0.0)
    if model.card.latents and request.threshold is not None:
        raise UserError("this model draws latents, which have no range to be kept in: leave --threshold out")
    if not 0 <= low <= high:
        raise UserError(f"no noise level lies between {low:g} and {high:g}: give --guidance-interval low high")
    if request.classifier:
        card = noisy.read_card(noisy.find(Path(request.classifier)))
        noisy.check(card, model.card)
        if cond.label is None or bool((cond.label >= len(card.classes)).any()):
            raise UserError(
                "a classifier guides to a class, and 'none' is no class: name one, and take --guidance 0 to tell the "
                "model itself nothing"
            )
