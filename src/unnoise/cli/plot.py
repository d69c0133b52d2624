"""Curves as a PNG or an SVG, drawn by matplotlib, which is an extra: pip install 'unnoise[plot]'."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unnoise.cli.console import UsageError, writable
from unnoise.io.atomic import publish


@dataclass(frozen=True)
class Curves:
    """One panel: (x, y) points by the name of their curve, and what the axes are."""

    lines: Mapping[str, Sequence[tuple[float, float]]]
    x: str
    y: str
    title: str = ""
    log_x: bool = False
    log_y: bool = False
    marks: bool = True  # a dot at each point


def plottable(path: Path) -> Path:
    """`path`, where a plot is to be written: checked before the work. UsageError where it cannot be drawn."""
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UsageError(f"--plot {path.name}: a plot is a .png, a .svg or a .pdf")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(
            "--plot needs the package matplotlib, which is not installed. Run: pip install 'unnoise[plot]'"
        )
    return writable(path, "the plot")


def readable(at: Sequence[float], share: float = 0.05) -> list[float]:
    """Of rising numbers on a logarithmic axis those that are that share of it apart, so that none is written over
    another; of two too near the larger one."""
    least = share * math.log(at[-1] / at[0])
    shown = [at[-1]]
    for x in reversed(at[:-1]):
        if math.log(shown[0] / x) >= least:
            shown.insert(0, x)
    return shown


def plot(path: Path, panels: Sequence[Curves]) -> None:
    """Write the panels side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2 * len(panels), 4.2), layout="constrained", dpi=120)
    for place, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), place)
        for name, points in panel.lines.items():
            xs, ys = zip(*points, strict=True) if points else ((), ())
            axes.plot(xs, ys, marker="o" if panel.marks else None, markersize=3.5, linewidth=1.4, label=name)
        axes.set(xlabel=panel.x, ylabel=panel.y, title=panel.title)
        if panel.log_x:
            axes.set_xscale("log")
            at = sorted({x for points in panel.lines.values() for x, _ in points})
            if 0 < len(at) <= 12:  # each number that was asked for, as it is
                shown = readable(at)
                axes.set_xticks(shown, [f"{x:g}" for x in shown], fontsize=8)
                axes.minorticks_off()
        if panel.log_y:
            axes.set_yscale("log")
            heights = [y for points in panel.lines.values() for _, y in points if y > 0]
            if heights and max(heights) < 100 * min(heights):  # plain numbers, also between the powers of ten
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter("{x:g}")
        axes.grid(alpha=0.25)
        if len(panel.lines) > 1:
            axes.legend(fontsize=8, frameon=False)
    publish(path, lambda beside: figure.savefig(beside))
