"""Which measures, on how many pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class EvaluateConfig:
    """Which measures of drawn pictures, against which real ones, in which features."""

    metrics: tuple[str, ...] = ("frechet", "kernel", "precision", "recall", "density", "coverage", "accuracy")
    count: int = 10_000  # pictures drawn; their seeds are the next `count` from `seed` on
    seed: int = 0
    real: int = 50_000  # real pictures compared with, at most; drawn by lot where there are more
    features: str = "auto"  # inception, a weight file of it, a shipped classifier, or a classifier's directory
    evaluator: str = "auto"  # of class accuracy: a shipped classifier or a directory; of retrieval: a contrastive run
    subsets: int = 100  # of the kernel distance as published
    subset_size: int = 1_000  # pictures in each
    bits_count: int = 100  # real pictures whose bits are counted
    bits_steps: int = 0  # steps of the bound, out of the model's; 0: all of them
    bits_times: int = 0  # steps asked of each picture, other ones of each: an estimate of their mean; 0: all of them
    bits_variance: str = "auto"  # of reverse steps: small, large, learned; auto: learned where it was, else small
    bits_repeats: int = 1  # dequantisations of a picture, and probes, whose mean is its figure by the flow
    bits_trace: Literal["hutchinson", "exact"] = "hutchinson"  # the flow's: of a probe, or exact, for tiny pictures
