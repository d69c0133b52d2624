"""Synthetic scenes of shapes with captions, and an exact reader that recovers the scene from a picture."""

from unnoise.data.shapes.accuracy import Count, caption_accuracy, caption_correct, centre_shift, mask_iou
from unnoise.data.shapes.captions import Claim, Mention, caption, parse
from unnoise.data.shapes.reader import Found, Reading, read
from unnoise.data.shapes.scene import (
    BACKGROUNDS,
    COLOURS,
    KINDS,
    RELATIONS,
    Scene,
    Shape,
    edges,
    mask,
    masks,
    relation,
    render,
    renders,
    segmentation,
)
from unnoise.data.shapes.source import held_out, scenes

__all__ = [
    "BACKGROUNDS",
    "COLOURS",
    "KINDS",
    "RELATIONS",
    "Claim",
    "Count",
    "Found",
    "Mention",
    "Reading",
    "Scene",
    "Shape",
    "caption",
    "caption_accuracy",
    "caption_correct",
    "centre_shift",
    "edges",
    "held_out",
    "mask",
    "mask_iou",
    "masks",
    "parse",
    "read",
    "relation",
    "render",
    "renders",
    "scenes",
    "segmentation",
]
