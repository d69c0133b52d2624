"""Settings of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class EvaluateConfig:
    """The metrics of sampled pictures, the real pictures and the features that they are compared in."""

    metrics: tuple[str, ...] = ("frechet", "kernel", "precision", "recall", "density", "coverage", "accuracy")
    count: int = 10_000  # pictures to sample, with the seeds from `seed` on
    seed: int = 0
    real: int = 50_000  # real pictures to compare with, at most; a random subset where there are more
    features: str = "auto"  # inception, a weight file of it, a shipped classifier, or a classifier's directory
    evaluator: str = "auto"  # for accuracy a shipped classifier or a directory; for retrieval a contrastive run
    subsets: int = 100  # subsets of the kernel distance as published
    subset_size: int = 1_000  # pictures in each subset
    bits_count: int = 100  # real pictures whose bits per dimension are computed
    bits_steps: int = 0  # steps of the bound, a sub-sequence of the model's; 0: all of them
    bits_times: int = 0  # steps evaluated for each picture, other ones for each: an estimate of the mean; 0: all
    bits_variance: str = "auto"  # variance of the reverse steps: small, large, learned; auto: learned, or else small
    bits_repeats: int = 1  # dequantisations of each picture for the flow, each with its own probe; their mean counts
    bits_trace: Literal["hutchinson", "exact"] = "hutchinson"  # the flow's divergence: by a probe, or exact (slow)
