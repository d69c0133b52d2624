"""A comparison on the command line: loads the model, and runs the variants with one progress bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unnoise.cli.console import asking, say, started
from unnoise.cli.measuring import data_for
from unnoise.cli.progress import Progress
from unnoise.cli.tables.options import TableOptions
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request
from unnoise.io.cache import home

if TYPE_CHECKING:
    from unnoise.data import Dataset
    from unnoise.evaluation.sweep import Result
    from unnoise.evaluation.variants import Variant
    from unnoise.model import Model

METRICS = ("frechet", "kernel")


@dataclass(frozen=True)
class Comparison:
    """A model and real pictures, and what their table is made with."""

    model: Model
    pictures: Dataset
    config: EvaluateConfig
    request: Request
    options: TableOptions


def prepare(path: Path, values: Mapping[str, Any]) -> Comparison:
    """Loads the model and opens the real pictures; `values` are those of all options but a command's own."""
    own = {field.name for field in fields(TableOptions)}
    measured = {field.name for field in fields(EvaluateConfig)} - {"count"}
    options = TableOptions(**{key: value for key, value in values.items() if key in own})
    config = {key: value for key, value in values.items() if key in measured}
    request = Request.of(**{key: value for key, value in values.items() if key not in own | measured})
    model, pictures = load(path, options.data)
    return Comparison(model, pictures, EvaluateConfig(metrics=METRICS, count=options.count, **config), request, options)


def load(path: Path, data: str | None) -> tuple[Model, Dataset]:
    """The model at `path`, and the real pictures that it is compared with."""
    say(f"loading {path} ...")
    from unnoise import data as pictures
    from unnoise import model as models

    model = models.load(path)
    with asking():
        model.require_pictures()
        config = data_for(model, data)
    return model, pictures.open(config)


def run(comparison: Comparison, variants: Sequence[Variant]) -> list[Result]:
    """The result of each variant."""
    from unnoise.evaluation.sweep import Result, compare
    from unnoise.evaluation.tables import metric_text

    config, results = comparison.config, list[Result]()
    steps = compare(
        comparison.model,
        config,
        variants,
        comparison.pictures,
        cache=home() / "features",
        show=comparison.options.shown,
    )
    with Progress(len(variants) * config.count, "sampling", unit="picture") as bar:
        for step in started(steps):
            if isinstance(step, Result):
                results.append(step)
                note = f"{step.variant.row}, {step.variant.column}: {metric_text(step)}"
                bar.step(len(results) * config.count, note)
            elif step.stage == "drawing":
                bar.step(len(results) * config.count + step.done)
    return results
