"""The configuration of an evaluation: which metrics are computed, over how many pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unnoise.config.field import setting


@dataclass(frozen=True)
class EvaluateConfig:
    """Which metrics of generated pictures are computed, against which real pictures, in which features."""

    metrics: tuple[str, ...] = ("frechet", "kernel", "precision", "recall", "density", "coverage", "accuracy")
    count: int = setting(10_000, "generated pictures; their seeds are the next `count` from `seed` on")
    seed: int = 0
    real: int = setting(50_000, "real pictures to compare with, at most; a random subset if there are more")
    features: str = setting(
        "auto", "inception, a weight file of it, efficientnet, a shipped classifier, or a directory"
    )
    evaluator: str = setting(
        "auto", "for class accuracy: a shipped classifier or a directory; for retrieval: a contrastive run"
    )
    subsets: int = setting(100, "subsets of the kernel distance, as published")
    subset_size: int = setting(1_000, "pictures in each subset")
    bits_count: int = setting(100, "real pictures whose bits per dimension are computed")
    bits_steps: int = setting(0, "steps of the variational bound, out of the model's; 0: all of them")
    bits_times: int = setting(
        0, "terms of the bound computed for each picture, at steps of its own, to estimate their mean; 0: all"
    )
    bits_variance: str = setting(
        "auto", "variance of reverse steps: small, large, learned; auto: learned if the model has it, otherwise small"
    )
    bits_repeats: int = setting(1, "dequantisations and probes averaged for each picture, in the likelihood by the ODE")
    bits_trace: Literal["hutchinson", "exact"] = setting(
        "hutchinson", "trace of the Jacobian in the ODE: estimated with a random probe, or exact, for tiny pictures"
    )
