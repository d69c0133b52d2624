"""The options that tables have in common, and how their lists are parsed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from unnoise.cli.console import UsageError
from unnoise.cli.options import keys_of, option, within
from unnoise.cli.parse import parse_names, parse_numbers
from unnoise.cli.sampling_options import ALL, FOR_ALL
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.field import setting
from unnoise.config.synonyms import check_sampler, check_spacing
from unnoise.errors import unknown
from unnoise.evaluation.variants import ETA, Axes

AXES = ("sampler", "steps", "eta", "guidance", "spacing")  # fields of a Request that a comparison varies
BITS = [name for name in EvaluateConfig.__dataclass_fields__ if name.startswith("bits_")]
MEASURED = {
    "metrics": None,
    "count": None,
    "evaluator": None,
    "seed": Parameter(help="the first seed"),
    **dict.fromkeys(BITS, Parameter(show=False)),  # accepted as by `evaluate`; tables have no bits
}
SAMPLED = {**ALL, **FOR_ALL, **dict.fromkeys(("seeds", "labels", "previews", *AXES))}
COUNT = option(
    "pictures sampled for each variant",
    "--num",
    "-n",
    validator=within(10, 10_000_000, "fewer pictures are too few to measure"),
)
SHOWN_HELP = option("pictures of each variant on the sheet", validator=within(1, 64, "pictures in a cell"))
FLAG = Parameter(negative="", show_default=False)
COMMON: dict[str, Parameter | None] = {
    "count": COUNT,
    "shown": SHOWN_HELP,
    "markdown": FLAG,
    "json": FLAG,
    "overwrite": FLAG,
}


@dataclass(frozen=True)
class TableOptions:
    """What a table is compared with, and how it is printed."""

    data: str | None = setting(None, "the real pictures; by default those that the model was trained on")
    count: int = 1000
    shown: int = 4
    markdown: bool = setting(False, "print a Markdown table")
    json: bool = setting(False, "print one JSON document")
    overwrite: bool = setting(False, "replace files that exist")


MODEL = Annotated[Path, option("a run, a model directory, a checkpoint, or a diffusers folder")]
SHOWN = Annotated[int, SHOWN_HELP]
OUT = Annotated[Path, option("a folder for the table, the pictures and the plot")]
SAMPLERS = Annotated[
    str, option("samplers, separated by commas; 'all': all that the model supports; 'auto': its own", "--sampler")
]
STEPS = Annotated[str, option("numbers of steps, separated by commas")]
ETAS = Annotated[str, option("values of eta in [0, 1] for the sampler ddim, separated by commas")]
GUIDANCE = Annotated[
    str,
    option("guidance scales, separated by commas; 1 is no guidance", "--guidance-scale", "--cfg-scale"),
]
SPACINGS = Annotated[
    str,
    Parameter(
        name="--timestep-spacing",
        help="spacings of the times, separated by commas; auto: the default of each sampler",
    ),
]


def axes_of(samplers: str, steps: str, eta: str, guidance: str, spacing: str) -> Axes:
    """The axes of a comparison from comma-separated lists. Raises UsageError for a value that is unknown or unused."""
    valid, grids = keys_of("samplers/__init__.py", "SAMPLERS"), ("auto", *keys_of("samplers/timesteps.py", "SPACINGS"))
    axes = Axes(
        valid if samplers == "all" else chosen(samplers, lambda name: check_sampler(name, ("auto", *valid), grids)),
        tuple(numbers(steps, "--steps")),
        tuple(parse_numbers(eta, "--eta", 0, 1, "0,0.5,1")),
        tuple(parse_numbers(guidance, "--guidance", -100, 1000, "1,1.5,2,3,5")),
        chosen(spacing, lambda name: check_spacing(name, grids)),
    )
    if axes.eta != (0,) and not set(axes.samplers) & set(ETA):
        raise UsageError(f"--eta applies to the sampler ddim alone, and --samplers is {samplers}: add ddim to it")
    return axes


def numbers(text: str, what: str) -> list[int]:
    """`5,10,20` as numbers of steps."""
    found = parse_numbers(text, what, 1, 100_000, "5,10,20,50")
    for number in found:
        if number != int(number):
            raise UsageError(f"{what}: {number:g} is not a whole number of steps. Write for example {what} 5,10,20,50")
    return [int(number) for number in found]


def scales_of(text: str, what: str) -> tuple[float, ...]:
    """`1,1.5,2` as guidance scales in rising order."""
    return tuple(sorted(parse_numbers(text, what, 0, 1000, "1,1.5,2,3,5")))


def chosen(text: str, check: Callable[[str], str]) -> tuple[str, ...]:
    """The names in a list, each once, as `check` returns them. Raises UserError for a name that it refuses."""
    return tuple(dict.fromkeys(map(check, parse_names(text) or ("",))))


def one_of(valid: Sequence[str], what: str) -> Callable[[str], str]:
    """A check for `chosen`: the name is among the valid ones."""

    def check(name: str) -> str:
        if name not in valid:
            raise unknown(what, name, valid)
        return name

    return check
