"""The papers' tables, over a model of one's own: many ways to draw from the same noise, and one measure for all.

    for at in compare(model, ask, ddim_ways(...), pictures, cache=folder): ...      # a Result closes each way

Table 1 of Song et al. 2020 is `ddim_ways`. Two samplers with the same seeds begin in the same noise, so what differs is
the samplers' doing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unnoise.codec import to_bytes
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request
from unnoise.data import Dataset
from unnoise.errors import UserError
from unnoise.evaluation import alignment, validate
from unnoise.evaluation.alignment import ALIGNMENT, Right
from unnoise.evaluation.conditions import asked_of, by_lot, numbered, with_numbers
from unnoise.evaluation.evaluate import Drawn, Progress, measure, plain
from unnoise.evaluation.evaluators import find_evaluators
from unnoise.evaluation.report import how_drawn
from unnoise.evaluation.sample_metrics import metric_names
from unnoise.generate.frames import Frame, frames
from unnoise.generate.job import place, prepare
from unnoise.metrics import contrastive
from unnoise.model import Model


@dataclass(frozen=True)
class Variant:
    """One cell of a table: where it stands, and how its pictures are drawn."""

    row: str
    column: str
    request: Request


class Result(NamedTuple):
    """What a way gave: its evaluation, the network calls and the seconds a picture, some pictures as bytes, and the
    captions that these were told."""

    way: Variant
    report: Mapping[str, Any]
    calls: int
    seconds: float
    pictures: Tensor
    captions: tuple[str, ...] = ()

    def figure(self, name: str = "frechet") -> float | None:
        """A figure of the report; None where it was not measured."""
        return next((float(entry["value"]) for entry in self.report["metrics"] if entry["id"] == name), None)


def ddim_ways(
    how: Request, *, steps: Sequence[int], etas: Sequence[float], sigma_hat: bool = True, grids: Sequence[str]
) -> list[Variant]:
    """Steps by eta, and the larger variance of DDPM ("sigma-hat"), for every grid."""
    ways = []
    for grid in grids:
        where = f", {grid}" if len(grids) > 1 else ""
        for count in steps:
            base = replace(how, steps=count, spacing=grid)
            ways += [Variant(f"eta {eta:g}{where}", f"{count}", replace(base, sampler="ddim", eta=eta)) for eta in etas]
            if sigma_hat:
                ways.append(Variant(f"sigma-hat{where}", f"{count}", replace(base, sampler="ddim-sigma-hat", eta=0.0)))
    return ways


def sampler_ways(how: Request, *, samplers: Sequence[str], steps: Sequence[int]) -> list[Variant]:
    """Each sampler at each number of steps, on the grid it likes."""
    return [
        Variant(sampler, f"{count}", replace(how, sampler=sampler, steps=count))
        for sampler in samplers
        for count in steps
    ]


def guidance_ways(
    how: Request, *, scales: Sequence[float], classifier: str = "", classifier_scales: Sequence[float] = ()
) -> list[Variant]:
    """Classifier-free guidance at each scale; and with a classifier the untold model guided by it alone.

    Where both are exact they are the same, scale by scale: a classifier's scale 1 is Bayes' rule. One that is learned
    is less sure than it should be, and takes larger ones.
    """
    ways = [Variant("classifier-free", f"{scale:g}", replace(how, guidance=scale)) for scale in scales]
    base = replace(how, guidance=0.0, classifier=classifier)
    by_classifier = [
        Variant("classifier", f"{scale:g}", replace(base, classifier_scale=scale)) for scale in classifier_scales
    ]
    return ways + (by_classifier if classifier else [])


def guided_figures(model: Model, ask: EvaluateConfig, how: Request, pictures: Dataset) -> tuple[str, ...]:
    """What a table of guidance measures: fidelity, variety, and where it can be read, whether pictures are as told.

    Raises UserError for a model that is told nothing, which guidance leads nowhere.
    """
    words = model.text is not None and (pictures.captions or bool(how.prompts))
    if not words and not model.card.classes and not numbered(model, pictures):
        if model.text is None and not model.card.values:
            raise UserError("this model is told no classes, captions or numbers, so there is nothing to guide to")
        what = "captions" if model.text is not None else ", ".join(known.name for known in model.card.values)
        raise UserError(
            f"{pictures.config.path} has no {what}, so there is nothing to guide to: give --data of a set that has"
            f"{', or --prompts' if model.text is not None else ''}"
        )
    told = ["accuracy"] if model.card.classes else []
    if words and pictures.captions:
        told += ["caption"] if alignment.readable(pictures) else []
        told += ["retrieval"] if ask.evaluator != "auto" and contrastive.is_evaluator(ask.evaluator) else []
    return "frechet", "precision", "recall", *told


def compare(
    model: Model,
    ask: EvaluateConfig,
    ways: Sequence[Variant],
    pictures: Dataset,
    *,
    cache: Path | None,
    show: int = 4,
    right: Mapping[str, Right] | None = None,
) -> Iterator[Progress | Result]:
    """Draw and measure every way; the progress within each, and then its result. `ask.metrics` are the figures.

    Pictures are told classes, captions and numbers as `evaluate` tells them. `right` are further judges by the name of
    their figure: the share of pictures that are what was asked for. Raises UserError for a way that cannot be drawn,
    before the first one is.
    """
    for way in ways:
        validate.check(model, ask, way.request, pictures)
    requests = [asked_of(model, ask, way.request, pictures) for way in ways]
    placed = place(model, requests[0].device, requests[0].precision) if requests else model
    jobs = [prepare(placed, request, cond=with_numbers(model, request, pictures)) for request in requests]
    names = metric_names(ask.metrics)
    aligned = [name for name in names if name in ALIGNMENT]
    ask = replace(ask, metrics=tuple(name for name in names if name not in ALIGNMENT))
    judges = find_evaluators(ask, model.card.classes, pictures)
    hearing = {}
    for prompts in {request.prompts for request in requests}:
        judged = alignment.judged(aligned, model, ask, pictures, prompts)
        hearing[prompts] = judged, _of_real(judged, pictures, prompts)
    for way, request, job in zip(ways, requests, jobs, strict=True):
        asked = None if "none" in request.labels else model.conditioner.label_rows(request.labels)
        judged, real = hearing[request.prompts]
        seen = _Seen(min(show, ask.count), request, judged | dict(right or {}), real)
        for at in measure(
            seen.drawn(frames(job), asked),
            model.card.classes,
            ask,
            judges,
            pictures,
            cache=cache,
            about=how_drawn(model, way.request),
        ):
            yield at if at.report is None else seen.result(way, at.report)


def _of_real(judged: Mapping[str, Right], pictures: Dataset, prompts: Sequence[str]) -> dict[str, float]:
    """What each judge makes of the real pictures whose captions are told; nothing where other words are."""
    rows = by_lot(len(prompts), pictures)
    if not judged or any(pictures.caption(row) != text for row, text in zip(rows, prompts, strict=True)):
        return {}
    found: dict[str, list[Tensor]] = {name: [] for name in judged}
    for first in range(0, len(rows), 256):
        x = plain(pictures).batch(rows[first : first + 256]).x
        for name, judge in judged.items():
            found[name].append(judge(x, slice(first, first + len(x))).double())
    return {name: torch.cat(parts).mean().item() for name, parts in found.items()}


class _Seen:
    """What passes on its way to the measure: some pictures, evenly from all; the calls, the seconds; what is right.

    `real` is what judges make of real pictures.
    """

    def __init__(self, show: int, request: Request, right: Mapping[str, Right], real: Mapping[str, float]) -> None:
        count = len(request.seeds)
        self.wanted = sorted({(2 * i + 1) * count // (2 * show) for i in range(show)})
        self.captions = tuple(request.prompts[i] for i in self.wanted) if request.prompts else ()
        self.shown: list[Tensor] = []
        self.calls, self.count = 0, 0
        self.right, self.real = right, real
        self.found: dict[str, list[Tensor]] = {name: [] for name in right}

    def drawn(self, frames: Iterable[Frame], asked: Tensor | None) -> Iterator[Drawn]:
        for frame in frames:
            if frame.pictures is not None and frame.done:
                here = [i for i in range(len(frame.pictures)) if self.count + i in self.wanted]
                self.shown.append(to_bytes(frame.pictures[here]))
                self.count += len(frame.pictures)
                self.calls = frame.calls
                for name, judge in self.right.items():
                    self.found[name].append(judge(frame.pictures, frame.rows).double())
                yield Drawn(frame.pictures, None if asked is None else asked[frame.rows])

    def result(self, way: Variant, report: Mapping[str, Any]) -> Result:
        seconds = report["seconds"]["drawing"] / self.count
        also = []
        for name, parts in self.found.items():
            each = torch.cat(parts)
            entry = {"id": name, "name": ALIGNMENT.get(name, name), "better": "up", "value": each.mean().item()}
            entry |= {"error": each.std().item() / math.sqrt(len(each)), "n": len(each)}
            also.append(entry | ({"real": self.real[name]} if name in self.real else {}))
        report = {**report, "metrics": [*report["metrics"], *also]}
        return Result(way, report, self.calls, seconds, torch.cat(self.shown), self.captions)


def for_budget(results: Iterable[Result]) -> list[Result]:
    """The best way for each number of network calls that buys something: fewer calls before more, each one better."""
    chosen: list[Result] = []
    for result in sorted(results, key=lambda r: (r.calls, r.figure() or math.inf)):
        figure = result.figure()
        if figure is not None and (not chosen or figure < (chosen[-1].figure() or math.inf)):
            chosen.append(result)
    return chosen


def enough(results: Iterable[Result], slack: float = 0.05) -> Result | None:
    """The cheapest way whose Frechet distance is within `slack` of the best one's."""
    best_ones = for_budget(results)
    if not best_ones:
        return None
    limit = (best_ones[-1].figure() or math.inf) * (1 + slack)
    return next(result for result in best_ones if (result.figure() or math.inf) <= limit)
