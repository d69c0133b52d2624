"""Edits: inversion of a picture to noise, and interpolation between pictures."""

from unnoise.editing.interpolation import linear, plane, preserving, slerp, strip
from unnoise.editing.inversion import exact, own_level, residual, target_level

__all__ = ["exact", "linear", "own_level", "plane", "preserving", "residual", "slerp", "strip", "target_level"]
