"""The HTML report of `unnoise demo`: one file with everything inside, readable offline, light and dark.

`page(report, pictures)` depends on the numbers (report.json) and the pictures alone; page.html is its template.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from unnoise.evaluation.loss_curve import loss_curve
from unnoise.io.units import duration, human

TEMPLATE = Path(__file__).with_name("page.html")


@dataclass(frozen=True)
class Gallery:
    """The pictures of a report."""

    drawn: Mapping[str, Sequence[Image.Image]]  # class: sampled pictures, one for each seed
    real: Mapping[str, Sequence[Image.Image]] = field(default_factory=dict)  # class: held-out pictures
    over_time: Sequence[tuple[str, Image.Image]] = ()  # (when, a grid)
    walk: Sequence[tuple[str, Image.Image]] = ()  # (step, a row of pictures), from noise to picture


def page(report: Mapping[str, Any], gallery: Gallery) -> str:
    """The whole page. All text is escaped; all pictures are data URIs."""
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "data_uri": data_uri,
        "duration": duration,
        "human": human,
        "number": number,
        "percent": percent,
        "percent_width": lambda fraction: f"{100 * fraction:.1f}%",
        "row": row,
    }
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(report=report, gallery=gallery, curve=loss_curve(report.get("curve", ())))


def data_uri(picture: Image.Image) -> str:
    """The picture as a PNG inside a URI."""
    memory = io.BytesIO()
    picture.save(memory, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(memory.getvalue()).decode()}"


def row(pictures: Sequence[Image.Image], gap: int = 2) -> Image.Image:
    """The pictures in one row with transparent gaps: one image instead of many."""
    width, height = max(p.width for p in pictures), max(p.height for p in pictures)
    line = Image.new("RGBA", (len(pictures) * (width + gap) - gap, height))
    for i, picture in enumerate(pictures):
        line.paste(picture.convert("RGB"), (i * (width + gap), 0))
    return line


def percent(fraction: object) -> str:
    """`87.1 %`; "not measured" for anything but a number."""
    return f"{100 * fraction:.1f} %" if isinstance(fraction, (int, float)) else "not measured"


def number(value: object) -> str:
    """Four significant digits; a dash for a missing value."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value) if isinstance(value, (int, str)) else "\N{EN DASH}"
