"""The papers' tables, over a model of one's own: many ways to draw from the same noise, and one measure for all.

    for at in compare(model, ask, ddim_ways(...), pictures, cache=folder): ...      # a Result closes each way

Table 1 of Song et al. 2020 is `ddim_ways`. Two samplers with the same seeds begin in the same noise, so what differs is
the samplers' doing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unnoise.codec import to_bytes
from unnoise.data import Dataset
from unnoise.evaluate import Drawn, Progress, find_judges, labels_for, measure
from unnoise.generate import Frame, check, generate, times_of
from unnoise.model import Model
from unnoise.settings import EvaluateConfig, Request


@dataclass(frozen=True)
class Way:
    """One cell of a table: where it stands, and how its pictures are drawn."""

    row: str
    column: str
    request: Request


Right = Callable[[Tensor, slice], Tensor]
"""(pictures (B, C, H, W) in [-1, 1], which of those asked for) -> (B,): whether each is what was asked for."""


class Result(NamedTuple):
    """What a way gave: its evaluation, the network calls and the seconds a picture, and some pictures as bytes."""

    way: Way
    report: Mapping[str, Any]
    calls: int
    seconds: float
    pictures: Tensor

    def figure(self, name: str = "frechet") -> float | None:
        """A figure of the report; None where it was not measured."""
        return next((float(entry["value"]) for entry in self.report["metrics"] if entry["id"] == name), None)


def ddim_ways(
    how: Request, *, steps: Sequence[int], etas: Sequence[float], sigma_hat: bool = True, grids: Sequence[str]
) -> list[Way]:
    """Steps by eta, and the larger variance of DDPM ("sigma-hat"), for every grid."""
    ways = []
    for grid in grids:
        where = f", {grid}" if len(grids) > 1 else ""
        for count in steps:
            base = replace(how, steps=count, grid=grid)
            ways += [Way(f"eta {eta:g}{where}", f"{count}", replace(base, sampler="ddim", eta=eta)) for eta in etas]
            if sigma_hat:
                ways.append(Way(f"sigma-hat{where}", f"{count}", replace(base, sampler="ddim-sigma-hat", eta=0.0)))
    return ways


def sampler_ways(how: Request, *, samplers: Sequence[str], steps: Sequence[int]) -> list[Way]:
    """Each sampler at each number of steps, on the grid it likes."""
    return [
        Way(sampler, f"{count}", replace(how, sampler=sampler, steps=count)) for sampler in samplers for count in steps
    ]


def guidance_ways(
    how: Request, *, scales: Sequence[float], classifier: str = "", classifier_scales: Sequence[float] = ()
) -> list[Way]:
    """Classifier-free guidance at each scale; and with a classifier the untold model guided by it alone.

    Where both are exact they are the same, scale by scale: a classifier's scale 1 is Bayes' rule. One that is learned
    is less sure than it should be, and takes larger ones.
    """
    ways = [Way("classifier-free", f"{scale:g}", replace(how, guidance=scale)) for scale in scales]
    base = replace(how, guidance=0.0, classifier=classifier)
    by_classifier = [
        Way("classifier", f"{scale:g}", replace(base, classifier_scale=scale)) for scale in classifier_scales
    ]
    return ways + (by_classifier if classifier else [])


def compare(
    model: Model,
    ask: EvaluateConfig,
    ways: Sequence[Way],
    pictures: Dataset,
    *,
    cache: Path | None,
    show: int = 4,
    right: Mapping[str, Right] | None = None,
) -> Iterator[Progress | Result]:
    """Draw and measure every way; the progress within each, and then its result. `ask.metrics` are the figures.

    `right` are further judges by the name of their figure: the share of pictures that are what was asked for. Raises
    UserError for a way that cannot be drawn, before the first one is.
    """
    seeds = tuple(range(ask.seed, ask.seed + ask.count))
    requests = []
    for way in ways:
        request = replace(way.request, seeds=seeds)
        request = replace(request, labels=labels_for(model.card.classes, ask.count, request, pictures))
        check(model, request)
        times_of(model, request)
        requests.append(request)
    judges = find_judges(ask, model.card.classes, pictures)
    for way, request in zip(ways, requests, strict=True):
        asked = None if "none" in request.labels else model.reader.rows(request.labels)
        seen = _Seen(min(show, ask.count), ask.count, right or {})
        for at in measure(
            seen.drawn(generate(model, request), asked),
            model.card.classes,
            ask,
            judges,
            pictures,
            cache=cache,
            about=_about(way.request),
        ):
            yield at if at.report is None else seen.result(way, at.report)


class _Seen:
    """What passes on its way to the measure: some pictures, evenly from all; the calls, the seconds; what is right."""

    def __init__(self, show: int, count: int, right: Mapping[str, Right]) -> None:
        self.wanted = {(2 * i + 1) * count // (2 * show) for i in range(show)}
        self.shown: list[Tensor] = []
        self.calls, self.count = 0, 0
        self.right = right
        self.found = dict.fromkeys(right, 0)

    def drawn(self, frames: Iterable[Frame], asked: Tensor | None) -> Iterator[Drawn]:
        for frame in frames:
            if frame.pictures is not None and frame.done:
                here = [i for i in range(len(frame.pictures)) if self.count + i in self.wanted]
                self.shown.append(to_bytes(frame.pictures[here]))
                self.count += len(frame.pictures)
                self.calls = frame.calls
                for name, judge in self.right.items():
                    self.found[name] += int(judge(frame.pictures, frame.rows).sum())
                yield Drawn(frame.pictures, None if asked is None else asked[frame.rows])

    def result(self, way: Way, report: Mapping[str, Any]) -> Result:
        seconds = report["seconds"]["drawing"] / self.count
        also = [
            {"id": name, "name": name, "better": "up", "value": found / self.count, "n": self.count}
            for name, found in self.found.items()
        ]
        report = {**report, "metrics": [*report["metrics"], *also]}
        return Result(way, report, self.calls, seconds, torch.cat(self.shown))


def _about(request: Request) -> dict[str, Any]:
    names = ("sampler", "steps", "grid", "eta", "guidance", "classifier", "classifier_scale", "clip", "precision")
    return {name: getattr(request, name) for name in names}


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
