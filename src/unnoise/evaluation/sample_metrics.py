"""Metrics of sampled pictures: computes an entry of the report from two sets of features.

Each entry has the number of pictures, the features, and the floor: the same metric between two halves of the real set.
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
from unnoise.metrics.precision_recall import (
    DensityCoverage,
    PrecisionRecall,
    density_coverage,
    expected_coverage,
    precision_recall,
)

METRICS = ("frechet", "kernel", "precision", "recall", "density", "coverage", "accuracy", *BITS, *ALIGNMENT)
ALIASES = {"fid": "frechet", "kid": "kernel", "bits": "bpd", "ode-bits": "ode-bpd"}
SEPARATE = {**BITS, **ALIGNMENT}  # measured each on its own, not between sets of sampled and real pictures
NEIGHBOURS = {"precision": 3, "recall": 3, "density": 5, "coverage": 5}  # as in the papers that name them
RELIABLE = 0.8  # accuracy on real pictures, at 95 % confidence, below which a classifier has a warning
LEAST = 10  # pictures, real or sampled, below which nothing is measured


def metric_names(names: Iterable[str]) -> tuple[str, ...]:
    """The metrics by their names in METRICS, each once. Raises UserError for an unknown one."""
    found = [ALIASES.get(name, name) for name in names]
    for name in found:
        if name not in METRICS:
            raise unknown("metric", name, (*METRICS, *ALIASES))
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Sets:
    """Features of real (n, D) and sampled (m, D) pictures; what several metrics use is computed once, at first use."""

    real: Tensor
    sampled: Tensor

    @property
    def halves(self) -> tuple[Tensor, Tensor]:
        """The real features in two parts."""
        return self.real[: len(self.real) // 2], self.real[len(self.real) // 2 :]

    @cached_property
    def precision_recall(self) -> tuple[PrecisionRecall, PrecisionRecall]:
        """Of the sampled set, and of half of the real one."""
        k = NEIGHBOURS["precision"]
        return precision_recall(self.real, self.sampled, k=k), precision_recall(*self.halves, k=k)

    @cached_property
    def density_coverage(self) -> tuple[DensityCoverage, DensityCoverage]:
        """Of the sampled set, and of half of the real one."""
        k = NEIGHBOURS["density"]
        return density_coverage(self.real, self.sampled, k=k), density_coverage(*self.halves, k=k)


def distance_entry(name: str, sets: Sets, config: EvaluateConfig, features: Features) -> dict[str, Any]:
    """The entry of one metric between two sets. "real" is the floor, between the halves of the real set."""
    real, sampled = sets.real, sets.sampled
    entry: dict[str, Any] = {"id": name, "n": len(sampled), "n_real": len(real), "features": features.name}
    entry["n_floor"] = len(sets.halves[0])
    match name:
        case "frechet":
            entry |= {"name": "FID" if features.fid else "Frechet distance", "better": "down"}
            entry |= {"value": frechet(moments(real), moments(sampled)), "real": frechet(*map(moments, sets.halves))}
            line = extrapolated(moments(real), sampled, generator=noise.generator("frechet", len(sampled)))
            entry |= {"unbiased": line.value, "warning": too_few(len(sampled), features.dim)}
        case "kernel":
            entry |= {"name": "KID" if features.fid else "kernel distance", "better": "down"}
            whole = kernel(real, sampled)
            entry |= {"value": whole.value, "error": whole.error, "real": kernel(*sets.halves).value}
            if min(len(real), len(sampled)) >= config.subset_size:
                generator = noise.generator("kernel", len(sampled))
                part = kernel_of_subsets(
                    real, sampled, subsets=config.subsets, size=config.subset_size, generator=generator
                )
                entry["subsets"] = {"value": part.value, "spread": part.spread, "error": part.error}
                entry["subsets"] |= {"subsets": config.subsets, "size": config.subset_size}
        case "precision" | "recall" | "density" | "coverage":
            found = sets.precision_recall if name in ("precision", "recall") else sets.density_coverage
            value, floor = (each._asdict()[name] for each in found)
            entry |= {"name": name, "better": "up", "neighbours": NEIGHBOURS[name], "value": value, "real": floor}
            entry["warning"] = low_coverage(value, len(real), len(sampled)) if name == "coverage" else None
    return {k: v for k, v in entry.items() if v is not None}


def low_coverage(value: float, real: int, sampled: int) -> str | None:
    """A warning where less than half of what equal distributions would cover is covered; otherwise None."""
    expected = expected_coverage(real, sampled, k=NEIGHBOURS["coverage"])
    if value >= expected / 2:
        return None
    return (
        f"coverage {value:.2f} is low, where pictures as varied as the real ones reach {expected:.2f}: most kinds of "
        "real pictures are missing, whatever precision and class accuracy are"
    )


def weak_classifier(classifier: ClassifierEvaluator | None) -> list[str]:
    """A warning about a classifier that is often wrong on real pictures, or was tested on few; none for others."""
    if classifier is None or classifier.accuracy.at_least >= RELIABLE:
        return []
    return [
        f"the classifier {classifier.name!r} is right on {classifier.accuracy.value:.0%} of {classifier.accuracy.n:,} "
        "held-out real pictures, too few to rely on: class accuracy and measures in its features say little; train it "
        "on more pictures, or longer"
    ]


def class_accuracy(
    classifier: ClassifierEvaluator | None,
    predicted: Tensor,
    requested: Tensor,
    classes: tuple[str, ...],
    report: Mapping[str, Any],
) -> dict[str, Any]:
    """The fraction of sampled pictures that a classifier assigns to the requested class, beside that of held-out real
    pictures. `predicted` and `requested` (n,) are rows of the classifier's classes and of `classes`.

    Returns the keys of `report` that change; a warning where the accuracy cannot be computed.
    """
    why = None
    if classifier is None:
        why = "no class accuracy: the features are not a classifier's; add one with --evaluator"
    elif not set(classes) <= set(classifier.classes):
        why = f"no class accuracy: the classifier {classifier.name!r} has other classes than the model"
    elif len(predicted) == 0:
        why = "no class accuracy: no class was requested"
    if why is not None or classifier is None:
        return {"warnings": [*report["warnings"], why]}
    rows = torch.tensor([classifier.classes.index(name) for name in classes])
    sampled, real = accuracy(predicted, rows[requested], classifier.classes), classifier.accuracy
    entry = {
        "id": "accuracy",
        "name": "class accuracy",
        "better": "up",
        "value": sampled.value,
        "real": real.value,
        "n": sampled.n,
        "n_floor": real.n,
        "features": f"classifier {classifier.name}",
        "real_data": real.data,
    }
    return {
        "metrics": [*report["metrics"], entry],
        "class_accuracy": sampled.value,
        "class_accuracy_real": real.value,
        "class_accuracy_each": sampled.each,
        "class_accuracy_real_each": real.each,
    }
