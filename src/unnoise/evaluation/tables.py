"""Tables of a comparison: its results as rows, notes, a sheet of pictures, curves, and a JSON document.

sampler_table      a row for each variant: network calls, distances, time; which sampler to use for a budget
ddim_table         the Frechet distance by eta and number of steps: table 1 of Song et al. 2020
guidance_table     fidelity against diversity: a row for each scale
ablation_table     the six trainings of table 2 of Ho et al. 2020
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request
from unnoise.data import Dataset
from unnoise.errors import UserError
from unnoise.evaluation import alignment
from unnoise.evaluation.conditions import has_values
from unnoise.evaluation.curves import Panel, calls_panel, guidance_panels
from unnoise.evaluation.details import with_error
from unnoise.evaluation.sweep import Result
from unnoise.evaluation.variants import Variant
from unnoise.metrics import contrastive
from unnoise.model import Model

Cells = Mapping[tuple[str, str], Tensor]
"""(row, column): pictures (B, C, H, W) as bytes."""
CORRECT = {"accuracy": "class accuracy", "caption": "caption right", "retrieval": "caption retrieval"}
TITLES = {"frechet": "Frechet", **CORRECT}
OF_REAL = {  # what the evaluators find in real pictures
    "accuracy": "The classifier is right on {:.1%} of real pictures.",
    "caption": "The exact reader finds {:.1%} of real pictures correct for their captions.",
    "retrieval": "{:.1%} of real pictures are nearest to their own caption, among 100 captions or all there are.",
}
GUIDED = ("frechet", "precision", "recall", *CORRECT)


@dataclass(frozen=True)
class Grid:
    """A head and rows of text."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@dataclass(frozen=True)
class Table:
    """All that a comparison writes."""

    main: Grid
    pictures: Cells
    document: Mapping[str, Any]
    notes: Sequence[str] = ()
    second: Grid | None = None
    across: int = 2  # pictures on a line of a cell
    below: Sequence[str] = ()  # a caption below each picture of a line
    panels: Sequence[Panel] = field(default=())

    def markdown(self) -> str:
        """The contents of table.md."""
        grids = [self.main, *([self.second] if self.second else [])]
        return "\n\n".join([*(grid.markdown() for grid in grids), *(note for note in self.notes if note)]) + "\n"


def sampler_table(results: Sequence[Result], config: EvaluateConfig) -> Table:
    """A row for each variant, and which of them to use for a budget of network calls."""
    head = ("sampler", "steps", "calls", "Frechet", "kernel", "ms a picture")
    rows = [
        (
            *(r.variant.row, r.variant.column, f"{r.calls}"),
            *(metric_text(r, "frechet"), metric_text(r, "kernel"), f"{1e3 * r.seconds:.3g}"),
        )
        for r in results
    ]
    best, chosen = pareto_front(results), cheapest_within(results)
    notes = [f"up to {r.calls} calls: {r.variant.row} in {r.variant.column} steps ({metric_text(r)})" for r in best]
    if chosen is not None:
        notes.append(f"The cheapest within 5 % of the best: {_options(chosen.variant.request)}")
    return Table(
        Grid(head, rows),
        _cells(results),
        document(results) | {"best": [_place(r.variant) for r in best]},
        notes,
        panels=[calls_panel(results, f"Frechet distance ({config.count:,} pictures)")],
    )


def ddim_table(results: Sequence[Result], config: EvaluateConfig, notes: Sequence[str] = ()) -> Table:
    """The Frechet distance, and below it the kernel distance, by row and number of steps."""
    names = list(dict.fromkeys(r.variant.row for r in results))
    columns = [f"S = {column}" for column in dict.fromkeys(r.variant.column for r in results)]

    def grid(title: str, metric: str) -> Grid:
        rows = [(name, *(metric_text(r, metric) for r in results if r.variant.row == name)) for name in names]
        return Grid((title, *columns), rows)

    how = results[0].variant.request
    scales = " and ".join(dict.fromkeys(f"{r.variant.request.guidance.scale:g}" for r in results))
    note = f"{_counted(config)}; guidance {scales}, {'clipped' if how.sampling.clip else 'not clipped'}."
    return Table(
        grid("Frechet distance", "frechet"),
        _cells(results),
        document(results),
        [note, *notes],
        second=grid("kernel distance", "kernel"),
        panels=[calls_panel(results, "Frechet distance")],
    )


def guidance_table(results: Sequence[Result], config: EvaluateConfig) -> Table:
    """A row for each kind of guidance and scale. On the sheet a row is a scale and a column a kind of guidance."""
    others = [name for name in results[0].metrics() if name not in GUIDED]
    names = [*(name for name in GUIDED if results[0].metric(name) is not None), *others]
    head = ("guidance", "scale", *(TITLES.get(name, name) for name in names), "calls")
    rows = [(r.variant.row, r.variant.column, *(metric_text(r, name) for name in names), f"{r.calls}") for r in results]
    best = min(results, key=distance)
    real = {entry["id"]: entry["real"] for entry in best.report["metrics"] if "real" in entry}
    note = (
        f"{_counted(config)}. The smallest Frechet distance: {best.variant.row}, scale {best.variant.column}.",
        *(text.format(real[name]) for name, text in OF_REAL.items() if name in real),
    )
    ordered = sorted(results, key=lambda r: float(r.variant.column))
    return Table(
        Grid(head, rows),
        {(r.variant.column, r.variant.row): r.pictures for r in ordered},
        document(results),
        [" ".join(note)],
        across=max(len(r.pictures) for r in results),
        below=results[0].prompts,
        panels=guidance_panels(results, CORRECT),
    )


def ablation_table(found: Mapping[tuple[str, str], Mapping[str, Any]], pictures: Cells, note: str) -> Table:
    """The metrics `found` of trainings by (objective, prediction): a row for each objective."""
    names = list(dict.fromkeys(column for _, column in found))
    metrics = {"frechet": "Frechet", "kernel": "kernel", "bpd": "bits"}
    head = ("objective", *(f"{name}: {title}" for name in names for title in metrics.values()))
    rows = [
        (row, *(f"{found[row, name][key]:.3g}" for name in names for key in metrics))
        for row in dict.fromkeys(row for row, _ in found)
    ]
    document = {"cells": [{"row": row, "column": column, **cell} for (row, column), cell in found.items()]}
    return Table(Grid(head, rows), pictures, document, [note])


def guidance_metrics(model: Model, config: EvaluateConfig, request: Request, pictures: Dataset) -> tuple[str, ...]:
    """The metrics of a guidance table: fidelity, diversity, and agreement with the condition where it can be evaluated.

    Raises UserError for a model without conditions, which guidance does not change.
    """
    captioned = model.text is not None and (pictures.captions or bool(request.prompt.prompts))
    if not captioned and not model.card.classes and not has_values(model, pictures):
        if model.text is None and not model.card.values:
            raise UserError(
                "this model is unconditional (no classes, captions or values), so there is nothing to guide to"
            )
        what = "captions" if model.text is not None else ", ".join(value.name for value in model.card.values)
        raise UserError(
            f"{pictures.config.path} has no {what}, so there is nothing to guide to: add --data with a set that has"
            f"{', or --prompts' if model.text is not None else ''}"
        )
    agreement = ["accuracy"] if model.card.classes else []
    if captioned and pictures.captions:
        agreement += ["caption"] if alignment.readable(pictures) else []
        agreement += ["retrieval"] if config.evaluator != "auto" and contrastive.is_evaluator(config.evaluator) else []
    return "frechet", "precision", "recall", *agreement


def pareto_front(results: Iterable[Result]) -> list[Result]:
    """The best result for each budget of network calls: rising in calls, falling in Frechet distance."""
    front: list[Result] = []
    for result in sorted(results, key=lambda r: (r.calls, distance(r, math.inf))):
        value = result.metric()
        if value is not None and (not front or value < distance(front[-1])):
            front.append(result)
    return front


def cheapest_within(results: Iterable[Result], slack: float = 0.05) -> Result | None:
    """The result with the fewest calls whose Frechet distance is within the fraction `slack` of the best one's."""
    front = pareto_front(results)
    limit = distance(front[-1]) * (1 + slack) if front else math.nan
    return next((result for result in front if distance(result) <= limit), None)


def distance(result: Result, missing: float = math.nan) -> float:
    """The Frechet distance; `missing` where it was not measured."""
    found = result.metric()
    return missing if found is None else found


def metric_text(result: Result, name: str = "frechet") -> str:
    """A metric with its standard error, as text; empty where it was not measured."""
    entries = {entry["id"]: entry for entry in result.report["metrics"]}
    return f"{entries[name]['value']:.3g}{with_error(entries[name])}" if name in entries else ""


def document(results: Iterable[Result]) -> dict[str, Any]:
    """The results as JSON: `cells`, one for each variant."""
    return {
        "cells": [
            {**_place(r.variant), "calls": r.calls, "seconds": r.seconds, "metrics": r.report["metrics"]}
            for r in results
        ]
    }


def _place(variant: Variant) -> dict[str, Any]:
    return {"row": variant.row, "column": variant.column, "request": variant.request.flat()}


def _cells(results: Iterable[Result]) -> Cells:
    return {(r.variant.row, r.variant.column): r.pictures for r in results}


def _counted(config: EvaluateConfig) -> str:
    return f"{config.count:,} pictures each, seeds {config.seed} to {config.seed + config.count - 1}"


def _options(request: Request) -> str:
    """The options of `unnoise sample` that a variant stands for."""
    text = f"--sampler {request.sampling.sampler} --steps {request.sampling.steps}"
    settings, defaults = request.flat(), Request().flat()
    for name, option in {"eta": "--eta", "guidance": "--guidance", "spacing": "--timestep-spacing"}.items():
        value = settings[name]
        if value != defaults[name]:
            text += f" {option} {value:g}" if isinstance(value, float) else f" {option} {value}"
    return text
