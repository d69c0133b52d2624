"""Ranges of the settings that decide how much memory and time it takes to build a network or a process from a file.

A number outside is a mistake or an attack, and is refused before anything is built: `steps: 1000000000` in a model's
card would fill a table of that length. The ranges are wide: they hold every published network. What a network needs
besides (heads that divide a width) is checked where it is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unnoise.config.place import Place

WIDTH = 2**17  # channels, features and tokens
SIDE = 2**16  # pixels along a side
LEVELS, LAYERS = 16, 1024  # resolutions of a network; blocks in a row
ROWS = 2**24  # rows of an embedding: classes and tokens
STEPS = 10**6  # entries of a table of betas

Range = tuple[float, float]  # smallest and largest

_width: Range = (1, WIDTH)
_side: Range = (1, SIDE)
_text: dict[str, Range] = {
    "vocabulary": (1, ROWS),
    "length": (1, SIDE),
    "width": _width,
    "depth": (0, LAYERS),
    "heads": _width,
}
_net: dict[str, Range] = {
    "size": _side,
    "in_channels": _width,
    "out_channels": _width,
    "classes": (0, ROWS),
    "context": (0, WIDTH),
}
_autoencoder: dict[str, Range] = {
    "size": _side,
    "in_channels": (1, 4),
    "latent_channels": (1, 4096),
    "channels": _width,
    "blocks": (1, 64),
    "groups": _width,
}
# dataclass: {field: smallest and largest}; of each entry of a list
RANGES: dict[str, dict[str, Range]] = {
    "TextConfig": _text,
    "EncoderConfig": {"length": (1, SIDE), "layer": (-LAYERS, -1)},
    "ControlConfig": {"channels": _width, "hint": _width, "scale": (1, 1024)},
    "UNetConfig": _net
    | {"patch": _side, "channels": _width, "blocks": (1, 64), "heads": _width, "head_width": _width, "groups": _width}
    | {"values": (0, 4096), "vector": (0, WIDTH), "value_width": (0, WIDTH), "concat_channels": (0, WIDTH)}
    | {"transformers": (1, 64), "frequency_shift": (-1e6, 1e6)},
    "DiTConfig": _net | {"patch": _side, "width": _width, "depth": (0, LAYERS), "heads": _width, "mlp_ratio": (0, 64)},
    "ContrastiveNet": {"size": _side, "in_channels": _width, "width": _width, "features": _width, "embedding": _width},
    "KLConfig": _autoencoder,
    "VQConfig": _autoencoder | {"z_channels": (1, 4096), "codes": (1, ROWS)},
    "TinyConfig": {"in_channels": (1, 4), "latent_channels": (1, 4096), "width": _width}
    | {"encoder_blocks": (0, 64), "decoder_blocks": (0, 64)},
    "DiffusionConfig": {"steps": (1, STEPS), "concat_factor": (1, 1024)},
    "LatentsConfig": {"factor": (1, 1024), "picture_channels": (1, 4)},
    "ModelCard": {"size": _side, "channels": _width},
    "Shape": {"size": _side, "channels": _width, "width": _width, "features": _width, "classes": (1, ROWS)},
}
LENGTHS: dict[str, dict[str, int]] = {  # dataclass: {field: most entries}
    "ControlConfig": {"hint": LEVELS},
    "UNetConfig": {"channels": LEVELS, "attention": LEVELS, "heads": LEVELS, "transformers": LEVELS, "controls": 64},
    "KLConfig": {"channels": LEVELS, "attention": LEVELS},
    "VQConfig": {"channels": LEVELS, "attention": LEVELS},
    "TinyConfig": {"encoder_blocks": LEVELS, "decoder_blocks": LEVELS},
    "DiffusionConfig": {"schedule_options": 64, "weight_options": 64, "time_sampler_options": 64},
    "ModelCard": {"values": 4096, "classes": ROWS},
}


def check(kind: str, name: str, value: Any, place: Place) -> None:
    """Raises UserError, with the place, for a field of the dataclass called `kind` that is out of its range."""
    most = LENGTHS.get(kind, {}).get(name)
    if most is not None and isinstance(value, tuple | Mapping) and len(value) > most:
        raise place.error(f"has {len(value):,} entries, of at most {most:,}")
    if name in RANGES.get(kind, {}):
        low, high = RANGES[kind][name]
        for number in value if isinstance(value, tuple) else (value,):
            if number is not None and not low <= number <= high:
                raise place.error(f"should be from {low:,} to {high:,}, not {_short(number)}")


def _short(number: float) -> str:
    """A number as text; one of thousands of digits, which Python does not write, as its sign."""
    return f"{number:,}" if abs(number) < 1e30 else "a number beyond 10^30"
