"""Evaluation of a model: samples pictures, rounds them to bytes, computes features, and compares them with real ones.

    for progress in evaluate(model, config, request, pictures, cache=folder): ...       # the last one holds the report

validate.py checks the request, conditions.py gives sampled pictures the labels, captions and values of real ones,
evaluators.py and sample_metrics.py compute the metrics, report.py makes the report.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unnoise import data
from unnoise.codec import from_bytes, to_bytes
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request
from unnoise.data import Dataset
from unnoise.errors import UserError
from unnoise.evaluation import alignment, bits_per_dim, validate
from unnoise.evaluation.alignment import ALIGNMENT
from unnoise.evaluation.bits_per_dim import BITS
from unnoise.evaluation.conditions import conditions_with_values, request_for_count
from unnoise.evaluation.evaluators import Evaluators, find_evaluators
from unnoise.evaluation.progress import Progress
from unnoise.evaluation.report import report_of, report_of_separate, sampling_settings
from unnoise.evaluation.sample_metrics import (
    LEAST,
    SEPARATE,
    Sets,
    class_accuracy,
    distance_entry,
    metric_names,
    weak_classifier,
)
from unnoise.generate.captions import encode_captions
from unnoise.generate.frames import frames
from unnoise.generate.job import place, prepare
from unnoise.metrics import cache as feature_cache
from unnoise.metrics.features import Features
from unnoise.model import Model
from unnoise.training.distributed import ALONE, Processes


class Sampled(NamedTuple):
    """Some sampled pictures (B, C, H, W), float in [-1, 1] or bytes, and the rows (B,) of their requested classes."""

    x: Tensor
    label: Tensor | None


def evaluate(
    model: Model,
    config: EvaluateConfig,
    request: Request,
    pictures: Dataset,
    *,
    cache: Path | None,
    processes: Processes = ALONE,
) -> Iterator[Progress]:
    """Samples `config.count` pictures for `request`, whose seeds are ignored, and measures them against `pictures`.

    Each class is sampled with its frequency among the real pictures, unless `request.labels` names one for all. `cache`
    is a folder for real features. The work is divided among `processes`; all get the report. Raises UserError before
    the first picture where the evaluation is impossible. Nothing is sampled where all metrics are of BITS.
    """
    validate.check(model, config, request, pictures)
    warnings = [
        *validate.missing_values(model, pictures),
        *validate.truncated_captions(model, config, request, pictures),
    ]
    for progress in _all_metrics(model, config, request, pictures, cache=cache, processes=processes):
        if progress.report is None:
            yield progress
        else:
            report = progress.report | {"warnings": [*progress.report["warnings"], *warnings]}
            yield progress._replace(report=report)


def _all_metrics(
    model: Model,
    config: EvaluateConfig,
    request: Request,
    pictures: Dataset,
    *,
    cache: Path | None,
    processes: Processes,
) -> Iterator[Progress]:
    """The metrics between sets of pictures, then those of SEPARATE."""
    names = metric_names(config.metrics)
    separate = [name for name in names if name in SEPARATE]
    if any(name in BITS for name in separate):
        bits_per_dim.check(separate, model, config)
    if any(name in ALIGNMENT for name in separate):
        alignment.check([name for name in separate if name in ALIGNMENT], model, config, pictures)
    others = replace(config, metrics=tuple(name for name in names if name not in SEPARATE))
    report = None
    if others.metrics:
        for progress in _sample_and_measure(model, others, request, pictures, cache=cache, processes=processes):
            report = progress.report
            if report is None or not separate:
                yield progress
    if separate:
        yield from _separate_metrics(separate, report, model, config, request, pictures, processes)


def _sample_and_measure(
    model: Model,
    config: EvaluateConfig,
    request: Request,
    pictures: Dataset,
    *,
    cache: Path | None,
    processes: Processes,
) -> Iterator[Progress]:
    whole = request_for_count(model, config, request, pictures)
    placed = place(model, request.device, request.precision)
    evaluators = find_evaluators(config, model.card.classes, pictures, placed.placement.device)
    encode_captions(model.text, whole.prompt.prompts, device=placed.placement.device, processes=processes)
    cond = conditions_with_values(model, whole, pictures)
    job = prepare(placed, whole, cond=cond)[processes.split(range(config.count))]
    labels = (
        None if "none" in whole.prompt.labels else model.conditioner.label_rows(processes.split(whole.prompt.labels))
    )

    def sampled() -> Iterator[Sampled]:
        for frame in frames(job):
            if frame.pictures is not None and frame.done:
                yield Sampled(frame.pictures, None if labels is None else labels[frame.rows])

    yield from measure(
        sampled(),
        model.card.classes,
        config,
        evaluators,
        pictures,
        cache=cache,
        processes=processes,
        about=sampling_settings(model, request),
    )


def measure(
    sampled: Iterable[Sampled],
    classes: tuple[str, ...],
    config: EvaluateConfig,
    evaluators: Evaluators,
    pictures: Dataset,
    *,
    cache: Path | None,
    processes: Processes = ALONE,
    about: Mapping[str, Any],
) -> Iterator[Progress]:
    """Measures pictures from any source: `sampled` is this process's part, in the order of ranks.

    `classes` are the names of the labels' rows. `about` is copied to the report. Raises UserError for too few pictures.
    """
    clock = Clock()
    real = yield from _real_features(evaluators.features, unaugmented(pictures), config, cache, processes)
    clock.lap("real")
    found, predicted, requested = [], [], []
    done, total = 0, len(processes.split(range(config.count)))
    for part in sampled:
        clock.lap("drawing")
        x = from_bytes(part.x if part.x.dtype == torch.uint8 else to_bytes(part.x))
        found.append(evaluators.features(x))
        if evaluators.classifier is not None and part.label is not None:
            predicted.append(evaluators.classifier(x)[0])
            requested.append(part.label)
        done += len(x)
        clock.lap("features")
        yield Progress("drawing", done, total)
    features = processes.gather(torch.cat(found) if found else torch.zeros(0, evaluators.features.dim))
    if len(features) < LEAST:
        raise UserError(f"{len(features)} sampled pictures are too few to measure: use --count {LEAST} or more")
    clock.lap("drawing")
    distances = [name for name in metric_names(config.metrics) if name != "accuracy"]
    sets, entries = Sets(real, features), []
    for at, name in enumerate(distances):
        yield Progress("measuring", at, len(distances))
        entries.append(distance_entry(name, sets, config, evaluators.features))
    report = report_of(entries, len(real), len(features), evaluators.features, pictures, about)
    if "accuracy" in metric_names(config.metrics):
        labels = _gather(predicted, processes), _gather(requested, processes)
        report |= class_accuracy(evaluators.classifier, *labels, classes, report)
    report["warnings"] = [*report["warnings"], *weak_classifier(evaluators.classifier)]
    clock.lap("measuring")
    report["seconds"] = clock.seconds
    report["pictures_per_second"] = len(features) / max(clock.seconds.get("drawing", 0.0), 1e-9)
    yield Progress("measuring", len(distances), len(distances), report)


def _separate_metrics(
    names: list[str],
    report: Mapping[str, Any] | None,
    model: Model,
    config: EvaluateConfig,
    request: Request,
    pictures: Dataset,
    processes: Processes,
) -> Iterator[Progress]:
    """The metrics of SEPARATE, as further entries of `report` or as a report of their own."""
    clock, found, plain = Clock(), [], unaugmented(pictures)
    bits = [name for name in names if name in BITS]
    for name in bits:
        found.append((yield from bits_per_dim.measure(name, model, config, request, plain, processes)))
        clock.lap(name)
    aligned = [name for name in names if name in ALIGNMENT]
    if aligned:
        found += yield from alignment.measure(aligned, model, config, request, plain, processes)
        clock.lap("alignment")
    warnings, path = [], pictures.config.path
    if path == model.card.info.get("data"):
        what = " and ".join([*(["bits"] if bits else []), *(["captions"] if aligned else [])])
        warnings.append(f"{what} of {path}, which the model was trained on; use held-out pictures (--data)")
    if bits and request.guidance.scale != 1:
        warnings.append("bits are those of the model without guidance")
    whole = dict(report or report_of_separate(found, clock.seconds, model, request, pictures))
    whole["metrics"] = [*whole["metrics"], *found]
    whole["seconds"] = whole["seconds"] | clock.seconds
    whole["warnings"] = [*whole["warnings"], *warnings]
    total = found[-1]["n"]
    yield Progress("alignment" if aligned else names[-1], total, total, whole)


def _real_features(
    features: Features, pictures: Dataset, config: EvaluateConfig, cache: Path | None, processes: Processes
) -> Generator[Progress, None, Tensor]:
    """Returns features (n, D) of real pictures in a fixed random order, from the cache where they are stored."""
    rows = torch.from_numpy(data.order(0, 0, len(pictures)).copy())[: config.real]
    key = feature_cache.key(pictures.fingerprint, features.fingerprint, features.name, str(len(rows)))
    found = None if cache is None else feature_cache.load(cache, key, (len(rows), features.dim))
    missing = processes.any(found is None)  # called by all: the others may not have the file
    if found is not None and not missing:
        return found
    mine = processes.split(range(len(rows)))
    parts = []
    for first in range(0, len(mine), 256):
        some = rows[mine[0] + first : mine[0] + min(first + 256, len(mine))]
        x = pictures.batch(some.tolist()).x
        parts.append(features(x))
        yield Progress("real", first + len(x), len(mine))
    found = processes.gather(torch.cat(parts) if parts else torch.zeros(0, features.dim))
    if cache is not None and processes.first:
        feature_cache.save(cache, key, found)
    return found


def _gather(parts: list[Tensor], processes: Processes) -> Tensor:
    return processes.gather(torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64))


def unaugmented(pictures: Dataset) -> Dataset:
    """The same pictures without augmentation: not mirrored, and cropped at the centre."""
    config = replace(pictures.config, flip=False, crop="center")
    return pictures if config == pictures.config else data.Dataset(pictures.source, config)


class Clock:
    """Seconds spent on each part of the work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        """Adds the time since the last lap to `name`."""
        now = time.monotonic()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now
