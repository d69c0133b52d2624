"""How good drawn pictures are: draw, round to bytes, take features, compare with real ones, and say what was compared.

    for progress in evaluate(model, ask, how, pictures, cache=folder): ...      # the last one holds the report

validate.py checks the request, conditions.py gives drawn pictures the labels, captions and values of real ones,
evaluators.py and sample_metrics.py compute the figures, report.py says what was compared.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

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
from unnoise.evaluation.conditions import asked_of, with_numbers
from unnoise.evaluation.evaluators import Evaluators, find_evaluators
from unnoise.evaluation.report import how_drawn, report_apart, report_of
from unnoise.evaluation.sample_metrics import APART, LEAST, Sets, class_accuracy, compare, metric_names
from unnoise.generate.frames import frames
from unnoise.generate.job import prepare
from unnoise.metrics import cache as kept
from unnoise.metrics.features import Features
from unnoise.model import Model
from unnoise.training.distributed import ALONE, Processes

T = TypeVar("T")


class Drawn(NamedTuple):
    """Some drawn pictures: (B, C, H, W), float in [-1, 1] or bytes; what was asked for, (B,) rows of the classes."""

    x: Tensor
    label: Tensor | None


class Progress(NamedTuple):
    """How far it is: `done` of `total` in a stage ("real", "drawing", "measuring", "alignment", or one of BITS); the
    report at the very end."""

    stage: str
    done: int
    total: int
    report: dict[str, Any] | None = None


def evaluate(
    model: Model,
    ask: EvaluateConfig,
    how: Request,
    pictures: Dataset,
    *,
    cache: Path | None,
    processes: Processes = ALONE,
) -> Iterator[Progress]:
    """Draw `ask.count` pictures as `how` says (its seeds are not read) and measure them against `pictures`.

    Classes are asked for as often as they are among the real pictures, unless `how.labels` names one for all. `cache`
    is a folder for real features. The work is shared by `processes`; all get the report. Raises UserError before
    anything is drawn where the question cannot be answered. Where only bits are asked for (BITS), nothing is drawn.
    """
    validate.check(model, ask, how, pictures)
    warnings = [*validate.untold(model, pictures), *validate.unheard(model, ask, how, pictures)]
    for progress in _figures(model, ask, how, pictures, cache=cache, processes=processes):
        if progress.report is None:
            yield progress
        else:
            report = progress.report | {"warnings": [*progress.report["warnings"], *warnings]}
            yield progress._replace(report=report)


def _figures(
    model: Model,
    ask: EvaluateConfig,
    how: Request,
    pictures: Dataset,
    *,
    cache: Path | None,
    processes: Processes,
) -> Iterator[Progress]:
    """All that is asked for, one after the other."""
    names = metric_names(ask.metrics)
    counted = [name for name in names if name in APART]
    if any(name in BITS for name in counted):
        bits_per_dim.check(counted, model, ask)
    if any(name in ALIGNMENT for name in counted):
        alignment.check([name for name in counted if name in ALIGNMENT], model, ask, pictures)
    others = replace(ask, metrics=tuple(name for name in names if name not in APART))
    report = None
    if others.metrics:
        for progress in _draw_and_measure(model, others, how, pictures, cache=cache, processes=processes):
            report = progress.report
            if report is None or not counted:
                yield progress
    if counted:
        yield from _count(counted, report, model, ask, how, pictures, processes)


def _draw_and_measure(
    model: Model,
    ask: EvaluateConfig,
    how: Request,
    pictures: Dataset,
    *,
    cache: Path | None,
    processes: Processes,
) -> Iterator[Progress]:
    whole = asked_of(model, ask, how, pictures)
    judges = find_evaluators(ask, model.card.classes, pictures)
    job = prepare(model, whole, cond=with_numbers(model, whole, pictures))[processes.split(range(ask.count))]
    asked = None if "none" in whole.labels else model.conditioner.label_rows(processes.split(whole.labels))

    def drawn() -> Iterator[Drawn]:
        for frame in frames(job):
            if frame.pictures is not None and frame.done:
                yield Drawn(frame.pictures, None if asked is None else asked[frame.rows])

    yield from measure(
        drawn(),
        model.card.classes,
        ask,
        judges,
        pictures,
        cache=cache,
        processes=processes,
        about=how_drawn(model, how),
    )


def measure(
    drawn: Iterable[Drawn],
    classes: tuple[str, ...],
    ask: EvaluateConfig,
    judges: Evaluators,
    pictures: Dataset,
    *,
    cache: Path | None,
    processes: Processes = ALONE,
    about: Mapping[str, Any],
) -> Iterator[Progress]:
    """Measure pictures from anywhere: `drawn` is this process's share, in the order of ranks; `classes` names labels.

    `about` goes into the report as it is. Raises UserError where too few pictures come.
    """
    names = metric_names(ask.metrics)
    clock = Clock()
    real = yield from _real(judges.features, plain(pictures), ask, cache, processes)
    clock.lap("real")
    found, seen, asked = [], [], []
    done, total = 0, len(processes.split(range(ask.count)))
    for part in drawn:
        clock.lap("drawing")
        x = from_bytes(part.x if part.x.dtype == torch.uint8 else to_bytes(part.x))
        found.append(judges.features(x))
        if judges.judge is not None and part.label is not None:
            seen.append(judges.judge(x)[0])
            asked.append(part.label)
        done += len(x)
        clock.lap("features")
        yield Progress("drawing", done, total)
    mine = torch.cat(found) if found else torch.zeros(0, judges.features.dim)
    features = processes.gather(mine)
    if len(features) < LEAST:
        raise UserError(f"{len(features)} pictures say nothing about a model; draw at least {LEAST}")
    clock.lap("drawing")
    sets, compared = Sets(real, features), []
    distances = [name for name in names if name != "accuracy"]
    for at, name in enumerate(distances):
        yield Progress("measuring", at, len(distances))
        compared.append(compare(name, sets, ask, judges.features))
    report = report_of(compared, len(real), len(features), judges.features, pictures, about)
    if "accuracy" in names:
        report |= class_accuracy(judges.judge, _gather(seen, processes), _gather(asked, processes), classes, report)
    clock.lap("measuring")
    report["seconds"] = clock.seconds
    report["pictures_per_second"] = len(features) / max(clock.seconds.get("drawing", 0.0), 1e-9)
    yield Progress("measuring", len(distances), len(distances), report)


def _count(
    names: list[str],
    report: Mapping[str, Any] | None,
    model: Model,
    ask: EvaluateConfig,
    how: Request,
    pictures: Dataset,
    processes: Processes,
) -> Iterator[Progress]:
    """Bits of real pictures, as further entries of a report, or a report of their own."""
    clock, found = Clock(), []
    for name in (name for name in names if name in BITS):
        found.append((yield from _passed_on(bits_per_dim.measure(name, model, ask, how, plain(pictures), processes))))
        clock.lap(name)
    bits = bool(found)
    aligned = [name for name in names if name in ALIGNMENT]
    if aligned:
        found += yield from _passed_on(alignment.measure(aligned, model, ask, how, plain(pictures), processes))
        clock.lap("alignment")
    path, warnings = pictures.config.path, []
    if path == model.card.info.get("data"):
        what = ("bits" if bits else "captions") if not (bits and aligned) else "bits and captions"
        warnings.append(f"{what} of {path}, which the model was trained on; held-out pictures say more (--data)")
    if bits and how.guidance != 1:
        warnings.append("bits are those of the model without guidance")
    about = dict(report or report_apart(found, clock.seconds, model, how, pictures))
    about["metrics"] = [*about["metrics"], *found]
    about["seconds"] = about["seconds"] | clock.seconds
    about["warnings"] = [*about["warnings"], *warnings]
    total = found[-1]["n"]
    yield Progress("alignment" if aligned else names[-1], total, total, about)


def _passed_on(steps: Generator[tuple[str, int, int], None, T]) -> Generator[Progress, None, T]:
    """What a measure says of how far it is, as ours; what it returns."""
    while True:
        try:
            yield Progress(*next(steps))
        except StopIteration as end:
            found: T = end.value
            return found


def _real(
    features: Features, pictures: Dataset, ask: EvaluateConfig, cache: Path | None, processes: Processes
) -> Generator[Progress, None, Tensor]:
    """Features (n, D) of real pictures in a random order that is always the same, from the cache if they are there."""
    rows = torch.from_numpy(data.order(0, 0, len(pictures)).copy())[: ask.real]
    key = kept.key(pictures.fingerprint, features.fingerprint, features.name, str(len(rows)))
    found = None if cache is None else kept.load(cache, key, (len(rows), features.dim))
    missing = processes.any(found is None)  # asked by all, for the others may have lost theirs
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
        kept.save(cache, key, found)
    return found


def _gather(parts: list[Tensor], processes: Processes) -> Tensor:
    return processes.gather(torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64))


def plain(pictures: Dataset) -> Dataset:
    """The same pictures as they are: not mirrored, cropped in the middle."""
    config = replace(pictures.config, flip=False, crop="center")
    return pictures if config == pictures.config else data.Dataset(pictures.source, config)


class Clock:
    """Seconds spent on each thing."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        """What passed since the last lap was spent on `name`."""
        now = time.monotonic()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now
