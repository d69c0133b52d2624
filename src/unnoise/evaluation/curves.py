"""Curves of a report: the points of each panel, without the program that plots them.

bound_panels        the variational bound: its terms over t, rate and distortion
calls_panel         the Frechet distance over network calls, one curve for each row of a table
guidance_panels     the Frechet distance, precision and recall over the guidance scale
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unnoise.evaluation.sweep import Result

Points = Sequence[tuple[float, float]]
LEAST_RATE = 1e-3  # bits/dim: below it nothing can be seen, and the axis would span ten decades


@dataclass(frozen=True)
class Panel:
    """One panel of a plot: (x, y) points by the name of their curve, and the labels of its axes."""

    lines: Mapping[str, Points]
    x: str
    y: str
    title: str = ""
    log_x: bool = False
    log_y: bool = False
    marks: bool = True  # a dot at each point


def bound_panels(curve: Mapping[str, Sequence[float]]) -> list[Panel]:
    """The `curve` of a report's `bpd` entry: each term over t, the distortion over the rate, both over reverse time."""
    terms = [(t, bits) for t, bits in zip(curve["t"], curve["bits"], strict=True) if bits > 0]
    coding = list(zip(curve["rate"], curve["rmse"], strict=True))
    rate, error = (list(zip(curve["way"], curve[name], strict=True)) for name in ("rate", "rmse"))
    rate = [(time, bits) for time, bits in rate if bits > LEAST_RATE]
    return [
        Panel({"": terms}, "t", "bits/dim", "cost of each step", log_x=True, log_y=True, marks=False),
        Panel({"": coding}, "rate, bits/dim", "RMSE, grey levels", "progressive coding", marks=False),
        Panel(
            {"RMSE, grey levels": error, "sent, bits/dim": rate},
            "reverse time, fraction of the steps",
            "",
            "rate and distortion",
            log_y=True,
            marks=False,
        ),
    ]


def calls_panel(results: Sequence[Result], y: str) -> Panel:
    """The Frechet distance over network calls; a result without a distance is left out."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for result in results:
        distance = result.metric()
        if distance is not None:
            lines.setdefault(result.variant.row, []).append((float(result.calls), distance))
    return Panel(lines, "network calls per picture", y, log_x=True, log_y=True)


def guidance_panels(results: Sequence[Result], titles: Mapping[str, str]) -> list[Panel]:
    """The distance over the scale, precision and recall over the scale, and the distance over each metric in `titles`.

    `titles` maps the id of a metric that evaluates each picture against its condition to its name. Panels without a
    point are left out.
    """
    guides = list(dict.fromkeys(result.variant.row for result in results))
    values = [
        (result.variant.row, {"scale": float(result.variant.column)} | dict(result.metrics())) for result in results
    ]

    def line(guide: str, x: str, y: str) -> list[tuple[float, float]]:
        return [(of[x], of[y]) for row, of in values if row == guide and x in of and y in of]

    def lines(x: str, *ys: str) -> dict[str, list[tuple[float, float]]]:
        return {f"{y}, {guide}" if len(ys) > 1 else guide: line(guide, x, y) for y in ys for guide in guides}

    panels = [
        Panel(lines("scale", "frechet"), "scale", "Frechet distance", log_x=True),
        Panel(lines("scale", "precision", "recall"), "scale", "fraction of pictures", log_x=True),
        *(Panel(lines(name, "frechet"), title, "Frechet distance") for name, title in titles.items()),
    ]
    return [panel for panel in panels if any(panel.lines.values())]
