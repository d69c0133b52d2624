"""Guidance: a denoiser goes in, a denoiser comes out."""

from unnoise.guidance.clamp import clip, dynamic_threshold
from unnoise.guidance.classifier_free import classifier_free

__all__ = ["classifier_free", "clip", "dynamic_threshold"]
