"""Comparisons: every variant of a request is sampled from the same noise and measured in the same way.

    for step in compare(model, config, variants(...), pictures, cache=folder): ...       # a Result ends each variant

variants.py makes the variants, tables.py lays the results out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unnoise.codec import to_bytes
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request
from unnoise.data import Dataset
from unnoise.evaluation import alignment, validate
from unnoise.evaluation.alignment import ALIGNMENT, Correct
from unnoise.evaluation.conditions import conditions_with_values, random_subset, request_for_count
from unnoise.evaluation.evaluate import Sampled, measure, unaugmented
from unnoise.evaluation.evaluators import find_evaluators
from unnoise.evaluation.progress import Progress
from unnoise.evaluation.report import sampling_settings
from unnoise.evaluation.sample_metrics import metric_names
from unnoise.evaluation.variants import Variant
from unnoise.generate.frames import Frame, frames
from unnoise.generate.job import Placed, place, prepare
from unnoise.model import Model


class Result(NamedTuple):
    """A measured variant: its report, network calls and seconds per picture, some pictures (B, C, H, W) as bytes, and
    the prompts of these pictures."""

    variant: Variant
    report: Mapping[str, Any]
    calls: int
    seconds: float
    pictures: Tensor
    prompts: tuple[str, ...] = ()

    def metric(self, name: str = "frechet") -> float | None:
        """The value of a metric of the report; None where it was not measured."""
        return self.metrics().get(name)

    def metrics(self) -> dict[str, float]:
        """The values of all metrics of the report, by id."""
        return {entry["id"]: float(entry["value"]) for entry in self.report["metrics"]}


def compare(
    model: Model,
    config: EvaluateConfig,
    variants: Sequence[Variant],
    pictures: Dataset,
    *,
    cache: Path | None,
    show: int = 4,
    evaluators: Mapping[str, Correct] | None = None,
) -> Iterator[Progress | Result]:
    """Samples and measures every variant: yields the progress within each, and then its result.

    `config.metrics` are the metrics; classes, captions and values are chosen as by `evaluate`. `evaluators` are further
    metrics by name: the fraction of pictures that they find correct. Raises UserError for a variant that cannot be
    sampled, before the first one is.
    """
    for variant in variants:
        validate.check(model, config, variant.request, pictures)
    requests = [request_for_count(model, config, variant.request, pictures) for variant in variants]
    placed = place(model, requests[0].device, requests[0].precision) if requests else model
    jobs = [prepare(placed, request, cond=conditions_with_values(model, request, pictures)) for request in requests]
    names = metric_names(config.metrics)
    aligned = [name for name in names if name in ALIGNMENT]
    others = replace(config, metrics=tuple(name for name in names if name not in ALIGNMENT))
    device = placed.placement.device if isinstance(placed, Placed) else "cpu"
    found = find_evaluators(others, model.card.classes, pictures, device)
    by_prompts = {}
    for prompts in {request.prompt.prompts for request in requests}:
        correct = alignment.evaluators_of(aligned, model, others, pictures, prompts, device)
        by_prompts[prompts] = correct, _of_real(correct, pictures, prompts)
    for variant, request, job in zip(variants, requests, jobs, strict=True):
        labels = None if "none" in request.prompt.labels else model.conditioner.label_rows(request.prompt.labels)
        correct, real = by_prompts[request.prompt.prompts]
        collector = _Collector(min(show, config.count), request, correct | dict(evaluators or {}), real)
        about = sampling_settings(model, variant.request)
        sampled = collector.collect(frames(job), labels)
        for step in measure(sampled, model.card.classes, others, found, pictures, cache=cache, about=about):
            yield step if step.report is None else collector.result(variant, step.report)


def _of_real(evaluators: Mapping[str, Correct], pictures: Dataset, prompts: Sequence[str]) -> dict[str, float]:
    """The fraction of real pictures that each evaluator finds correct, where the prompts are the captions of these."""
    rows = random_subset(len(prompts), pictures)
    if not evaluators or any(pictures.caption(row) != text for row, text in zip(rows, prompts, strict=True)):
        return {}
    found: dict[str, list[Tensor]] = {name: [] for name in evaluators}
    for first in range(0, len(rows), 256):
        x = unaugmented(pictures).batch(rows[first : first + 256]).x
        for name, correct in evaluators.items():
            found[name].append(correct(x, slice(first, first + len(x))).double())
    return {name: torch.cat(parts).mean().item() for name, parts in found.items()}


class _Collector:
    """Collects, while the pictures of a variant pass to `measure`: `show` of them, evenly spaced; the network calls;
    and what each evaluator finds. `real` holds the same of real pictures."""

    def __init__(
        self, show: int, request: Request, evaluators: Mapping[str, Correct], real: Mapping[str, float]
    ) -> None:
        count = len(request.seeds)
        self.places = sorted({(2 * i + 1) * count // (2 * show) for i in range(show)})
        self.prompts = tuple(request.prompt.prompts[i] for i in self.places) if request.prompt.prompts else ()
        self.shown: list[Tensor] = []
        self.calls, self.count = 0, 0
        self.evaluators, self.real = evaluators, real
        self.found: dict[str, list[Tensor]] = {name: [] for name in evaluators}

    def collect(self, steps: Iterable[Frame], labels: Tensor | None) -> Iterator[Sampled]:
        for frame in steps:
            if frame.pictures is not None and frame.done:
                here = [i for i in range(len(frame.pictures)) if self.count + i in self.places]
                self.shown.append(to_bytes(frame.pictures[here]))
                self.count += len(frame.pictures)
                self.calls = frame.calls
                for name, correct in self.evaluators.items():
                    self.found[name].append(correct(frame.pictures, frame.rows).double())
                yield Sampled(frame.pictures, None if labels is None else labels[frame.rows])

    def result(self, variant: Variant, report: Mapping[str, Any]) -> Result:
        seconds = report["seconds"]["drawing"] / self.count
        further = []
        for name, parts in self.found.items():
            each = torch.cat(parts)
            entry = {"id": name, "name": ALIGNMENT.get(name, name), "better": "up", "value": each.mean().item()}
            entry |= {"error": each.std().item() / math.sqrt(len(each)), "n": len(each)}
            further.append(entry | ({"real": self.real[name]} if name in self.real else {}))
        report = {**report, "metrics": [*report["metrics"], *further]}
        return Result(variant, report, self.calls, seconds, torch.cat(self.shown), self.prompts)
