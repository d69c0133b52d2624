"""Guidance: a denoiser goes in, a denoiser comes out."""

from unnoise.guidance.classifier import LogProb, classifier, gradient
from unnoise.guidance.classifier_free import autoguidance, chain, classifier_free, from_w, rescaled
from unnoise.guidance.interval import within
from unnoise.guidance.thresholding import clip, dynamic_threshold

__all__ = [
    "LogProb",
    "autoguidance",
    "chain",
    "classifier",
    "classifier_free",
    "clip",
    "dynamic_threshold",
    "from_w",
    "gradient",
    "rescaled",
    "within",
]
