"""A captioned world whose truth can be read: scenes, their pictures and words, sets of them, and an exact reader."""

from unnoise.data.shapes.captions import Claim, Told, caption, parse
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
    "Scene",
    "Shape",
    "Told",
    "caption",
    "edges",
    "held_out",
    "mask",
    "masks",
    "parse",
    "relation",
    "render",
    "renders",
    "scenes",
    "segmentation",
]
