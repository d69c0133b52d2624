"""The figures of an evaluation: two sets of features in, an entry of the report out.

Beside every figure stand the number of pictures, the features, and what two halves of the real set give: the floor.
A Frechet distance is called FID in Inception-v3's features only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from unnoise import noise
from unnoise.config.evaluation import EvaluateConfig
from unnoise.errors import unknown
from unnoise.evaluation.alignment import ALIGNMENT
from unnoise.evaluation.bits_per_dim import BITS
from unnoise.metrics.classifier import ClassifierEvaluator, accuracy
from unnoise.metrics.features import Features
from unnoise.metrics.frechet import extrapolated, frechet, moments, too_few
from unnoise.metrics.kernel import kernel, kernel_of_subsets
from unnoise.metrics.precision_recall import DensityCoverage, PrecisionRecall, density_coverage, precision_recall

METRICS = ("frechet", "kernel", "precision", "recall", "density", "coverage", "accuracy", *BITS, *ALIGNMENT)
ALIASES = {"fid": "frechet", "kid": "kernel"}
APART = {**BITS, **ALIGNMENT}  # measured each by itself, beside the distances between drawn and real pictures
NEIGHBOURS = {"precision": 3, "recall": 3, "density": 5, "coverage": 5}  # as in the papers that name them
LEAST = 10  # pictures, real or drawn, below which nothing is measured


def metric_names(names: Iterable[str]) -> tuple[str, ...]:
    """The metrics by their own names, each once. Raises UserError for one that is unknown."""
    found = [ALIASES.get(name, name) for name in names]
    for name in found:
        if name not in METRICS:
            raise unknown("metric", name, (*METRICS, *ALIASES))
    return tuple(dict.fromkeys(found))


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


def compare(name: str, sets: Sets, ask: EvaluateConfig, features: Features) -> dict[str, Any]:
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


def class_accuracy(
    judge: ClassifierEvaluator | None, seen: Tensor, asked: Tensor, classes: tuple[str, ...], report: Mapping[str, Any]
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
