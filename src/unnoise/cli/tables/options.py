"""What tables are asked: the options that they share, how lists are read, and the model and pictures that are named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from unnoise.cli.console import UsageError, asking, say
from unnoise.cli.evaluate import data_for
from unnoise.cli.options import flag, option, parse_names, parse_numbers, within
from unnoise.cli.sampling_options import ALL, FOR_ALL
from unnoise.config import renamed
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request
from unnoise.errors import unknown

if TYPE_CHECKING:
    from unnoise.data import Dataset
    from unnoise.model import Model

MEASURED = {"metrics": None, "count": None, "seed": Parameter(help="the first seed"), "evaluator": None}
DRAWN = {**ALL, **FOR_ALL, **dict.fromkeys(("seeds", "labels", "previews", "steps", "sampler", "eta", "spacing"))}
MODEL = Annotated[Path, option("a run, a model directory, a checkpoint, or a diffusers folder")]
DATA = Annotated[str | None, option("the real pictures; otherwise those that the model was trained on")]
OUT = Annotated[Path, option("a folder for the table, the pictures and the plot")]
EACH = Annotated[
    int, option("pictures drawn in each way", "--num", "-n", validator=within(10, 10_000_000, "fewer say nothing"))
]
SHOW = Annotated[int, option("pictures shown of each way", validator=within(1, 64, "pictures in a cell"))]
AS_JSON = Annotated[bool, flag("one JSON document on stdout")]
AS_MARKDOWN = Annotated[bool, flag("a Markdown table on stdout")]
FIGURES = ("frechet", "kernel")


def numbers(text: str, what: str) -> list[int]:
    """`5,10,20` as numbers of steps."""
    found = parse_numbers(text, what, 1, 100_000, "5,10,20,50")
    for number in found:
        if number != int(number):
            raise UsageError(f"{what}: {number:g} is no number of steps. Write for example {what} 5,10,20,50")
    return [int(number) for number in found]


def scales_of(text: str, what: str = "--scales") -> list[float]:
    """`1,1.5,2` as strengths of guidance, rising."""
    return sorted(parse_numbers(text, what, 0, 1000, "1,1.5,2,3,5"))


def chosen_from(text: str, valid: Sequence[str], what: str) -> tuple[str, ...]:
    earlier = renamed.SAMPLERS | renamed.SPACINGS
    names = tuple(dict.fromkeys(earlier.get(name, name) for name in parse_names(text)))
    for name in names:
        if name not in valid:
            raise unknown(what, name, valid)
    if not names:
        raise UsageError(f"no {what} was named; valid: {', '.join(valid)}")
    return names


def settings(asked: Mapping[str, Any], figures: tuple[str, ...] = FIGURES) -> tuple[EvaluateConfig, Request]:
    """What is measured and how pictures are drawn, out of one set of options."""
    own = {key: value for key, value in asked.items() if key in EvaluateConfig.__dataclass_fields__}
    return EvaluateConfig(metrics=figures, **own), Request(**{k: v for k, v in asked.items() if k not in own})


def opened(path: Path, data: str | None) -> tuple[Model, Dataset]:
    """The model, and the real pictures that it is compared with."""
    say(f"loading {path} ...")
    from unnoise import data as pictures
    from unnoise import model as models

    loaded = models.load(path)
    with asking():
        loaded.require_pictures()
        config = data_for(loaded, data)
    return loaded, pictures.open(config)
