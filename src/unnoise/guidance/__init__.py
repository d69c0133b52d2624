"""Guidance: a denoiser goes in, a denoiser comes out."""

from unnoise.guidance.classifier import LogProb, classifier, gradient
from unnoise.guidance.classifier_free import autoguidance, chain, classifier_free, rescaled, scale_from_w
from unnoise.guidance.interval import guidance_interval
from unnoise.guidance.thresholding import clip_denoised, dynamic_threshold

__all__ = [
    "LogProb",
    "autoguidance",
    "chain",
    "classifier",
    "classifier_free",
    "clip_denoised",
    "dynamic_threshold",
    "gradient",
    "guidance_interval",
    "rescaled",
    "scale_from_w",
]
