"""How good drawn pictures are: draw, round to bytes, take features, compare with real ones, and say what was compared.

    for progress in evaluate(model, ask, how, pictures, cache=folder): ...      # the last one holds the report

Beside every figure stand the number of pictures, the features, and what two halves of the real set give: the floor. A
Frechet distance is called FID in Inception-v3's features only. The report is plain data (JSON).
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from unnoise import alignment, code_length, data, noise
from unnoise.acceleration.placement import best
from unnoise.alignment import ALIGNMENT
from unnoise.code_length import BITS
from unnoise.codec import from_bytes, to_bytes
from unnoise.conditions import Cond
from unnoise.data import Dataset
from unnoise.errors import UserError, unknown
from unnoise.generate import check, follow, generate
from unnoise.metrics import cache as kept
from unnoise.metrics import contrastive
from unnoise.metrics.classifier import Judge, accuracy, check_pictures, load_classifier, shipped
from unnoise.metrics.features import Features, classifier_features, find_features
from unnoise.metrics.frechet import extrapolated, frechet, moments, too_few
from unnoise.metrics.inception import find_weights
from unnoise.metrics.kernel import kernel, kernel_of_subsets
from unnoise.metrics.precision_recall import DensityCoverage, PrecisionRecall, density_coverage, precision_recall
from unnoise.model import Model
from unnoise.settings import EvaluateConfig, Request
from unnoise.training.distributed import ALONE, Processes
from unnoise.words import cut

T = TypeVar("T")

METRICS = ("frechet", "kernel", "precision", "recall", "density", "coverage", "accuracy", *BITS, *ALIGNMENT)
ALIASES = {"fid": "frechet", "kid": "kernel"}
APART = {**BITS, **ALIGNMENT}  # measured each by itself, beside the distances between drawn and real pictures
NEIGHBOURS = {"precision": 3, "recall": 3, "density": 5, "coverage": 5}  # as in the papers that name them
LEAST = 10  # pictures, real or drawn, below which nothing is measured


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


@dataclass(frozen=True)
class Judges:
    """What looks at the pictures: features for the distances; a classifier for the accuracy, where there is one."""

    features: Features
    judge: Judge | None


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
    _check(model, pictures)
    _check_told(model, metric_names(ask.metrics), how)
    warnings = [*untold(model, pictures), *unheard(model, ask, how, pictures)]
    for progress in _figures(model, ask, how, pictures, cache=cache, processes=processes):
        if progress.report is None:
            yield progress
        else:
            report = progress.report | {"warnings": [*progress.report["warnings"], *warnings]}
            yield progress._replace(report=report)


def _check(model: Model, pictures: Dataset) -> None:
    """Raises UserError for pictures of another size, and a model that cannot be told what it has to be."""
    if pictures.shape != model.shape:
        raise UserError(
            f"the model draws pictures of {_size(model.shape)}, those of {pictures.config.path} are "
            f"{_size(pictures.shape)}; give data of the model's size and channels"
        )
    if model.card.process.joined:
        raise UserError(
            "this model is shown a picture beside the noise, and none goes with those that are evaluated: draw with "
            "`unnoise sample --image`, and compare the two with your eyes or a measure of your own"
        )
    if model.card.values and not model.reader.null_value:
        known = int(np.isfinite(pictures.values()).all(1).sum()) if code_length.numbered(model, pictures) else 0
        if known < len(pictures):
            says = f"says it of {known:,} of {len(pictures):,} pictures" if known else "does not say it"
            raise UserError(
                f"this model has to be told {_numbers_of(model)}, and {pictures.config.path} {says}: give --data with "
                "these numbers beside the pictures"
            )


def _check_told(model: Model, names: Sequence[str], how: Request) -> None:
    """Raises UserError for what `how` says and nobody would be told."""
    if len(how.prompts) > 1:
        raise UserError(
            f"{len(how.prompts)} prompts to evaluate; give one for all pictures, or none for the captions of real ones"
        )
    _one_label(how)
    if how.prompts and model.words is None:
        raise UserError(f"this model hears no words and takes no prompt: leave --prompts out; {model.reader.takes}")
    asked = {"--label": how.labels, "--prompts": how.prompts, "--controls": how.controls}
    told = " and ".join(option for option, said in asked.items() if said)
    aligned, bits = ([name for name in names if name in kind] for kind in (ALIGNMENT, BITS))
    if aligned and told:
        raise UserError(
            f"for {', '.join(aligned)} pictures are drawn from the captions, and along the drawings, of real ones: "
            f"leave {told} out"
        )
    if bits and how.controls:
        raise UserError(f"for {', '.join(bits)} no drawings are followed: leave --controls out")


def untold(model: Model, pictures: Dataset) -> list[str]:
    """In words, which numbers the model is not told, for the pictures have none of them."""
    if not model.card.values or code_length.numbered(model, pictures):
        return []
    return [f"the model was not told {_numbers_of(model)}: {pictures.config.path} does not say it"]


def unheard(model: Model, ask: EvaluateConfig, how: Request, pictures: Dataset) -> list[str]:
    """In words, how many captions that the model is told are too long for it."""
    if how.prompts:
        note = cut(model.words, how.prompts[:1])
    else:
        counted = all(name in BITS for name in metric_names(ask.metrics))
        told = pictures.captions and not (counted and how.labels)  # bits of one label are told no caption
        rows = data.order(0, 0, len(pictures))[: ask.bits_count if counted else ask.count].tolist()
        note = cut(model.words, map(pictures.caption, rows)) if told else ""
    return [note] if note else []


def _numbers_of(model: Model) -> str:
    return ", ".join(known.name for known in model.card.values)


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
        code_length.check(counted, model, ask)
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
    judges = find_judges(ask, model.card.classes, pictures)
    request = replace(
        whole,
        seeds=tuple(processes.share(whole.seeds)),
        labels=tuple(processes.share(whole.labels)),
        prompts=tuple(processes.share(whole.prompts)),
    )
    cond = with_numbers(model, whole, pictures)
    check(model, whole, cond)
    if cond is not None:
        cond = cond[torch.tensor(processes.share(range(ask.count)), dtype=torch.int64)]
    asked = None if "none" in whole.labels else model.reader.rows(request.labels)

    def drawn() -> Iterator[Drawn]:
        for frame in generate(model, request, cond=cond) if request.seeds else ():
            if frame.pictures is not None and frame.done:
                yield Drawn(frame.pictures, None if asked is None else asked[frame.rows])

    yield from measure(
        drawn(), model.card.classes, ask, judges, pictures, cache=cache, processes=processes, about=_about(model, how)
    )


def measure(
    drawn: Iterable[Drawn],
    classes: tuple[str, ...],
    ask: EvaluateConfig,
    judges: Judges,
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
    done, total = 0, len(processes.share(range(ask.count)))
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
        compared.append(_compare(name, sets, ask, judges.features))
    report = _report(compared, len(real), len(features), judges.features, pictures, about)
    if "accuracy" in names:
        report |= _accuracy(judges.judge, _gather(seen, processes), _gather(asked, processes), classes, report)
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
        found.append((yield from _passed_on(code_length.measure(name, model, ask, how, plain(pictures), processes))))
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
    about = dict(report or _alone(found, clock, model, how, pictures))
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


def _alone(found: list[dict[str, Any]], clock: Clock, model: Model, how: Request, pictures: Dataset) -> dict[str, Any]:
    n = max(entry["n"] for entry in found)
    told = f"Bits a number of {code_length.pictures(n, 'real ')} ({pictures.config.path}); nothing was drawn."
    drawn = [entry["n"] for entry in found if entry["id"] in ALIGNMENT]
    if drawn:
        told = f"{max(drawn):,} pictures drawn for the captions of as many real ones ({pictures.config.path})."
    return {
        "kind": "evaluation",
        "n": max(drawn, default=0),
        "n_real": n,
        "data": {"path": pictures.config.path, "fingerprint": pictures.fingerprint},
        "drawn": _about(model, how) if drawn else {"precision": found[0]["precision"]},
        "quality_note": told,
        "metrics": [],
        "warnings": [],
        "seconds": {},
        "pictures_per_second": n / max(sum(clock.seconds.values()), 1e-9),
    }


def metric_names(names: Iterable[str]) -> tuple[str, ...]:
    """The metrics by their own names, each once. Raises UserError for one that is unknown."""
    found = [ALIASES.get(name, name) for name in names]
    for name in found:
        if name not in METRICS:
            raise unknown("metric", name, (*METRICS, *ALIASES))
    return tuple(dict.fromkeys(found))


def find_judges(ask: EvaluateConfig, classes: tuple[str, ...], pictures: Dataset) -> Judges:
    """What `ask` names, loaded and checked against the pictures; "auto" is the set's own shipped classifier, else
    Inception-v3 if its weights are here, else the contrastive judge that is named. Raises UserError where there is
    none, or it takes other pictures."""
    metric_names(ask.metrics)
    if ask.count < LEAST:
        raise UserError(f"{ask.count} pictures say nothing about a model; draw at least {LEAST}")
    if ask.real < 2 * LEAST or len(pictures) < 2 * LEAST:
        raise UserError(f"{min(ask.real, len(pictures))} real pictures are too few; give at least {2 * LEAST}")
    hears = ask.judge != "auto" and contrastive.is_judge(ask.judge)  # then it judges captions, and no classes
    name = ask.features if ask.features != "auto" else _own(pictures, ask.judge if hears else "")
    judge = None
    if name in shipped() or (Path(name).is_dir() and name != "inception" and not contrastive.is_judge(name)):
        judge = load_classifier(name)
        check_pictures(torch.empty(0, *pictures.shape), judge.net.shape, judge.name)
    features = classifier_features(judge) if judge is not None else find_features(name)
    features(torch.empty(0, *pictures.shape))  # refused here where it takes others
    own = "auto" if hears else ask.judge
    named = own if own != "auto" else pictures.config.path.partition(":")[0]
    if own != "auto" or (judge is None and named in shipped()):
        judge = load_classifier(named)
        check_pictures(torch.empty(0, *pictures.shape), judge.net.shape, judge.name)
        if "accuracy" in metric_names(ask.metrics) and not set(classes) <= set(judge.classes):
            missing = ", ".join(sorted(set(classes) - set(judge.classes)))
            raise UserError(f"the judge {judge.name!r} knows no {missing}; train one on these classes")
    return Judges(features, judge)


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


# --- real pictures ---


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
    mine = processes.share(range(len(rows)))
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


# --- figures ---


@dataclass(frozen=True)
class Sets:
    """Features of real (n, D) and drawn (m, D) pictures; and what several figures share, made when it is asked for."""

    real: Tensor
    drawn: Tensor

    @property
    def halves(self) -> tuple[Tensor, Tensor]:
        """The real ones, in two parts."""
        return self.real[: len(self.real) // 2], self.real[len(self.real) // 2 :]

    @cached_property
    def inside(self) -> tuple[PrecisionRecall, PrecisionRecall]:
        """Of the drawn set, and of half of the real one."""
        k = NEIGHBOURS["precision"]
        return precision_recall(self.real, self.drawn, k=k), precision_recall(*self.halves, k=k)

    @cached_property
    def held(self) -> tuple[DensityCoverage, DensityCoverage]:
        """Of the drawn set, and of half of the real one."""
        k = NEIGHBOURS["density"]
        return density_coverage(self.real, self.drawn, k=k), density_coverage(*self.halves, k=k)


def _compare(name: str, sets: Sets, ask: EvaluateConfig, features: Features) -> dict[str, Any]:
    """One figure with everything that must stand beside it. "real" is half of the real pictures against the others."""
    real, drawn = sets.real, sets.drawn
    entry: dict[str, Any] = {"id": name, "n": len(drawn), "n_real": len(real), "features": features.name}
    entry["n_floor"] = len(sets.halves[0])
    match name:
        case "frechet":
            entry |= {"name": "FID" if features.fid else "Frechet distance", "better": "down"}
            entry |= {"value": frechet(moments(real), moments(drawn)), "real": frechet(*map(moments, sets.halves))}
            line = extrapolated(moments(real), drawn, generator=noise.generator("frechet", len(drawn)))
            entry |= {"unbiased": line.value, "warning": too_few(len(drawn), features.dim)}
        case "kernel":
            entry |= {"name": "KID" if features.fid else "kernel distance", "better": "down"}
            whole = kernel(real, drawn)
            entry |= {"value": whole.value, "error": whole.error, "real": kernel(*sets.halves).value}
            if min(len(real), len(drawn)) >= ask.subset_size:
                generator = noise.generator("kernel", len(drawn))
                part = kernel_of_subsets(real, drawn, subsets=ask.subsets, size=ask.subset_size, generator=generator)
                entry["subsets"] = {"value": part.value, "spread": part.spread, "error": part.error}
                entry["subsets"] |= {"subsets": ask.subsets, "size": ask.subset_size}
        case "precision" | "recall" | "density" | "coverage":
            found = sets.inside if name in ("precision", "recall") else sets.held
            value, floor = (each._asdict()[name] for each in found)
            entry |= {"name": name, "better": "up", "neighbours": NEIGHBOURS[name], "value": value, "real": floor}
    return {k: v for k, v in entry.items() if v is not None}


def _accuracy(
    judge: Judge | None, seen: Tensor, asked: Tensor, classes: tuple[str, ...], report: Mapping[str, Any]
) -> dict[str, Any]:
    """The share of drawn pictures that a classifier takes for what was asked, beside that of held-out real ones."""
    why = None
    if judge is None:
        why = "no class accuracy: the features are no classifier; name one as judge"
    elif not set(classes) <= set(judge.classes):
        why = f"no class accuracy: the classifier {judge.name!r} knows other classes than the model"
    elif len(seen) == 0:
        why = "no class accuracy: no class was asked for"
    if why is not None or judge is None:
        return {"warnings": [*report["warnings"], why]}
    rows = torch.tensor([judge.classes.index(name) for name in classes])
    drawn, real = accuracy(seen, rows[asked], judge.classes), judge.accuracy
    entry = {
        "id": "accuracy",
        "name": "class accuracy",
        "better": "up",
        "value": drawn.value,
        "real": real.value,
        "n": drawn.n,
        "n_floor": real.n,
        "features": f"classifier {judge.name}",
        "real_data": real.data,
    }
    return {
        "metrics": [*report["metrics"], entry],
        "class_accuracy": drawn.value,
        "class_accuracy_real": real.value,
        "class_accuracy_each": drawn.each,
        "class_accuracy_real_each": real.each,
    }


def _report(
    compared: list[dict[str, Any]], n_real: int, n: int, features: Features, pictures: Dataset, about: Mapping[str, Any]
) -> dict[str, Any]:
    note = (
        f"{n:,} drawn pictures against {n_real:,} real ones ({pictures.config.path}), in {features.dim} features of "
        f"{features.name}. 'Real' is one half of the real ones against the other."
    )
    return {
        "kind": "evaluation",
        "n": n,
        "n_real": n_real,
        "data": {"path": pictures.config.path, "fingerprint": pictures.fingerprint},
        "features": {"name": features.name, "dim": features.dim, "fingerprint": features.fingerprint},
        "drawn": dict(about),
        "quality_note": note,
        "metrics": compared,
        "warnings": [entry["warning"] for entry in compared if "warning" in entry],
    }


def said(entry: dict[str, Any]) -> str:
    """What must be said beside a figure that is measured by itself."""
    return code_length.said(entry) if entry["id"] in BITS else alignment.said(entry)


def within(entry: Mapping[str, Any]) -> str:
    """± the standard error of a figure, where there is one: of a single picture there is none."""
    return f" ± {entry['error']:.1g}" if math.isfinite(entry.get("error", math.nan)) else ""


def markdown(report: Mapping[str, Any]) -> str:
    """A report as a table for a person, Markdown."""
    lines = [report["quality_note"], "", "| measure | drawn | real | pictures | features |", "|---|---|---|---|---|"]
    for entry in report["metrics"]:
        value = f"{entry['value']:.4g}" + within(entry)
        if "unbiased" in entry:
            value += f" (unbiased {entry['unbiased']:.4g})"
        real = f"{entry['real']:.4g} (n = {entry.get('n_floor', entry['n']):,})" if "real" in entry else ""
        lines.append(f"| {entry['name']} | {value} | {real} | {entry['n']:,} | {entry.get('features', '')} |")
    lines += [f"\n{said(entry)}" for entry in report["metrics"] if entry["id"] in APART]
    for entry in (entry for entry in report["metrics"] if "curve" in entry):
        lines += ["", f"| {' | '.join(code_length.ROWS)} |", "|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in code_length.rows(entry["curve"])]
    spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in report["seconds"].items())
    lines += ["", f"{report['pictures_per_second']:.3g} pictures a second; {spent}."]
    lines += [f"\nWarning: {warning}." for warning in report["warnings"]]
    return "\n".join(lines) + "\n"


# --- what is asked ---


def asked_of(model: Model, ask: EvaluateConfig, how: Request, pictures: Dataset) -> Request:
    """`how` for `ask.count` pictures: a seed, a label and a prompt each, as far as the model hears them."""
    labels = labels_for(model.card.classes, ask.count, how, pictures)
    prompts = prompts_for(model, ask.count, how, pictures)
    captioned = pictures.captions and model.words is not None and not how.prompts
    if labels and not how.labels and (captioned or code_length.numbered(model, pictures)):
        labels = labels_beside(model.card.classes, ask.count, pictures)
    return replace(how, seeds=tuple(range(ask.seed, ask.seed + ask.count)), labels=labels, prompts=prompts)


def labels_for(classes: tuple[str, ...], count: int, how: Request, pictures: Dataset) -> tuple[str, ...]:
    """A label for each picture: the one that was named, else each class as often as it is among the real pictures."""
    if how.labels:
        _one_label(how)
        return how.labels * count
    if not classes:
        return ()
    share = torch.ones(len(classes), dtype=torch.float64)
    labels = pictures.labels()
    if labels is not None and pictures.classes == classes:
        share = torch.bincount(torch.from_numpy(labels), minlength=len(classes)).double()
    edges = share.cumsum(0) / share.sum()
    places = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return tuple(classes[row] for row in torch.bucketize(places, edges, right=True).tolist())


def _one_label(how: Request) -> None:
    """Raises UserError for labels of which nobody says which picture is told which."""
    if len(how.labels) > 1:
        raise UserError(f"{len(how.labels)} labels to evaluate; name one for all pictures, or none for all classes")


def prompts_for(model: Model, count: int, how: Request, pictures: Dataset) -> tuple[str, ...]:
    """A prompt for each picture: the one that was given, else the captions of real pictures, drawn by lot."""
    if model.words is None:
        return ()
    if how.prompts or not pictures.captions:
        return (how.prompts[0] if how.prompts else "",) * count
    return tuple(pictures.caption(row) for row in by_lot(count, pictures))


def with_numbers(model: Model, request: Request, pictures: Dataset) -> Cond | None:
    """What the model is told, with the numbers of real pictures drawn by lot; None where it, or they, have none."""
    if not code_length.numbered(model, pictures):
        return None
    label = model.reader.rows(request.labels)
    value = torch.from_numpy(pictures.values()[by_lot(len(request.seeds), pictures)])
    return follow(model, model.reader.told(label, request.prompts or None, value), request)


def labels_beside(classes: tuple[str, ...], count: int, pictures: Dataset) -> tuple[str, ...]:
    """The classes of the real pictures whose captions and numbers are told. Raises UserError where they are others."""
    labels = pictures.labels()
    if labels is None or pictures.classes != classes:
        raise UserError(
            f"{pictures.config.path} has not the model's classes beside its captions or numbers: name one, --label"
        )
    return tuple(classes[labels[row]] for row in by_lot(count, pictures))


def by_lot(count: int, pictures: Dataset) -> list[int]:
    """Rows of real pictures in a random order that is always the same, again from its beginning where they run out."""
    rows: list[int] = data.order(0, 0, len(pictures)).tolist()
    return [rows[i % len(rows)] for i in range(count)]


def _own(pictures: Dataset, hears: str) -> str:
    """The features for these pictures, where nobody named any; `hears` is a contrastive judge, or nothing."""
    name = pictures.config.path.partition(":")[0]
    if name in shipped():
        return name
    if find_weights() is not None:
        return "inception"
    if hears:
        return hears
    path, size = pictures.config.path, pictures.shape[1]
    if pictures.captions and not pictures.classes:
        raise UserError(
            f"no features to compare {path} in: train a judge of its pictures and captions (unnoise train "
            f"emoji-contrastive --data {path} --set data.size={size}) and give its run as --features, or as --judge "
            "where captions are judged too; or give Inception-v3's weight file as --features"
        )
    raise UserError(
        f"no features to compare {path} in: train a classifier on it (unnoise train classifier --data {path}) and give "
        "its directory as --features, or give Inception-v3's weight file"
    )


def _about(model: Model, how: Request) -> dict[str, Any]:
    sampler = model.card.sampler if how.sampler == "auto" else how.sampler
    return {
        "sampler": sampler,
        "steps": how.steps,
        "grid": how.grid,
        "eta": how.eta,
        "guidance": how.guidance,
        "precision": best(how.device, how.precision).precision,
    }


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}x{shape[1]} pixels with {shape[0]} channel{'s' if shape[0] > 1 else ''}"


def _gather(parts: list[Tensor], processes: Processes) -> Tensor:
    return processes.gather(torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64))
