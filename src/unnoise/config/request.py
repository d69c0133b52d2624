"""The configuration of sampling: which pictures are generated, and how.

A request has parts, by what they configure. Their fields also have flat names, under which the command line, keywords
in Python and reports know them: `Request.of(steps=20, guidance=2.0)`, `request.but(steps=50)`, `request.flat()`.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

from unnoise.config.field import setting
from unnoise.config.synonyms import instead, spelled
from unnoise.errors import UserError

SEEDS = 2**63  # seeds lie below


@dataclass(frozen=True)
class Prompt:
    """What the pictures are conditioned on: one value of a kind for all pictures, or one for each."""

    labels: tuple[str, ...] = setting(
        (), 'class names or numbers; one for all, or one for each picture; "none": no class; empty: chosen by the seed'
    )
    prompts: tuple[str, ...] = setting((), "one prompt for all pictures, or one for each; empty: no prompt")
    negative_prompt: str = setting("", "prompt to guide away from, instead of the empty one")
    values: dict[str, tuple[float, ...]] = setting({}, "numbers by name; one for all pictures, or one for each")
    image: str = setting("", "an image file: the picture to upscale, or the one in which a mask is filled")
    mask: str = setting("", "an image file of that picture's size; white pixels are generated anew")
    controls: tuple[str, ...] = setting((), "files of control images, one for each control network of the model")
    control_scale: tuple[float, ...] = setting(
        (1.0,), "strength of the control images, one for all or one for each; 0: none"
    )
    guess: bool = setting(
        False, "apply the control images without a prompt: guidance of about 3 then guides towards them"
    )


@dataclass(frozen=True)
class Sampling:
    """How sampling goes from noise to a picture: the sampler, its steps and their spacing."""

    sampler: str = setting("auto", "a name in samplers.SAMPLERS; auto: the model's own default")
    steps: int = setting(50, "number of sampling steps")
    spacing: str = setting("auto", "spacing of the timesteps: a name in samplers.timesteps.SPACINGS")
    eta: float = setting(0.0, "DDIM: 0 is deterministic, 1 is ancestral")
    clip: bool = setting(True, "clip each estimate of the picture to [-1, 1], if the model allows it")
    dynamic_threshold: float | None = setting(
        None, "a quantile, for example 0.995: estimates are divided by it instead of clipped"
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "sampler", spelled(self.sampler))


@dataclass(frozen=True)
class Guidance:
    """By what, and how strongly, estimates are guided."""

    scale: float = setting(1.0, "guidance scale; 1 is no guidance, 1.5 to 4 is usual, 0 is unconditional")
    rescale: float = setting(
        0.0, "fraction of the unguided contrast to restore; 0.7 against oversaturated colours; 0: none"
    )
    interval: tuple[float, float] | None = setting(
        None, "guide only where the noise, sigma / alpha, lies between these two"
    )
    classifier: str = setting(
        "", "a run of a noisy classifier, for classifier guidance; with guidance 0 it is the only guidance"
    )
    classifier_scale: float = setting(1.0, "scale of classifier guidance; 1 is Bayes' rule")


@dataclass(frozen=True)
class Request:
    """Which pictures a model generates, and how."""

    seeds: tuple[int, ...] = setting((0,), "one picture for each seed (and label)")
    prompt: Prompt = Prompt()
    sampling: Sampling = Sampling()
    guidance: Guidance = Guidance()
    batch: int = setting(64, "pictures per batch; fewer need less memory")
    precision: Literal["auto", "float32", "exact", "tf32", "bfloat16"] = "auto"
    device: str = "auto"
    previews: int = setting(0, "number of pictures of the estimate during sampling; 0: none")

    @classmethod
    def of(cls, **settings: Any) -> Request:
        """The request with these settings, by flat names. Raises TypeError for an unknown name."""
        return cls().but(**settings)

    def but(self, **settings: Any) -> Request:
        """This request with other values of some settings, by flat names. Raises TypeError for an unknown name."""
        parts: dict[str, dict[str, Any]] = {}
        for name, value in settings.items():
            if name not in FLAT:
                raise TypeError(f"Request has no setting {name!r}{instead(name, value, FLAT)}")
            part, field = FLAT[name]
            parts.setdefault(part, {})[field] = value
        own = parts.pop("", {})
        changed = {part: dataclasses.replace(getattr(self, part), **values) for part, values in parts.items()}
        return dataclasses.replace(self, **own, **changed)

    def flat(self) -> dict[str, Any]:
        """All settings by their flat names."""
        return {name: getattr(getattr(self, part) if part else self, field) for name, (part, field) in FLAT.items()}


def check_seed(seed: object, what: str = "seed") -> None:
    """Raises UserError unless `seed` is a whole number from 0 to 2^63 - 1; the message begins with `what`."""
    try:
        number = operator.index(seed)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if not 0 <= number < SEEDS:
        shown = str(seed) if number.bit_length() <= 128 else f"of {number.bit_length()} bits"
        raise UserError(f"{what} {shown}: seeds are whole numbers from 0 to 2^63 - 1")


def _flat(kind: type = Request, part: str = "") -> Iterator[tuple[str, tuple[str, str]]]:
    for name, hint in get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from _flat(hint, name)  # type: ignore[arg-type]
        else:
            yield GUIDANCE.get(name, name) if part == "guidance" else name, (part, name)


GUIDANCE = {"scale": "guidance", "rescale": "guidance_rescale", "interval": "guidance_interval"}
FLAT: dict[str, tuple[str, str]] = dict(_flat())
"""Flat name of a setting: (the part of a request that it belongs to, "" for the request itself; its name there)."""


def _options() -> type:
    """A dataclass of all settings under their flat names, with their types, defaults and help texts."""
    kinds = {part: type(getattr(Request(), part)) if part else Request for part, _ in FLAT.values()}
    fields = []
    for name, (part, own) in FLAT.items():
        field = kinds[part].__dataclass_fields__[own]
        default: Any = dataclasses.field(default=field.default, metadata=field.metadata)
        if field.default is dataclasses.MISSING:
            default = dataclasses.field(default_factory=field.default_factory, metadata=field.metadata)
        fields.append((name, get_type_hints(kinds[part])[own], default))
    return dataclasses.make_dataclass("RequestOptions", fields, frozen=True)


RequestOptions = _options()
"""The settings of a request as options of a command."""
