"""A captioned world whose truth can be read: scenes, their pictures and words, sets of them, and an exact reader."""

from unnoise.data.shapes.captions import Claim, Told, caption, parse
from unnoise.data.shapes.judge import Count, caption_accuracy, caption_correct, centre_shift, mask_iou
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
    "Reading",
    "Scene",
    "Shape",
    "Told",
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
