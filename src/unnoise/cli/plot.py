"""Curves as a PNG, SVG or PDF by matplotlib, which is an extra: pip install 'unnoise[plot]'."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unnoise.cli.console import UsageError
from unnoise.cli.paths import new_file
from unnoise.evaluation.curves import Panel
from unnoise.io.atomic import publish

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_TICKS = 12  # with no more x values than these, each has a tick


def plottable(path: Path, *, overwrite: bool) -> Path:
    """Returns `path`, checked before the work. Raises UsageError where a plot cannot be written there."""
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UsageError(f"--plot {path.name}: use a file name that ends in .png, .svg or .pdf")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(
            "--plot needs the package matplotlib, which is not installed. Run: pip install 'unnoise[plot]'"
        )
    return new_file(path, "the plot", overwrite)


def separate_ticks(at: Sequence[float], least: float = 0.05) -> list[float]:
    """Those of rising numbers whose labels do not overlap on a logarithmic axis, the largest first.

    Neighbours are at least the fraction `least` of the axis apart; of two that are closer the larger is kept.
    """
    distance = least * math.log(at[-1] / at[0])
    shown = [at[-1]]
    for x in reversed(at[:-1]):
        if math.log(shown[0] / x) >= distance:
            shown.insert(0, x)
    return shown


def plot(path: Path, panels: Sequence[Panel]) -> None:
    """Writes the panels side by side."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(6.2 * len(panels), 4.2), layout="constrained", dpi=120)
    for place, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), place)
        for name, points in panel.lines.items():
            xs, ys = zip(*points, strict=True) if points else ((), ())
            axes.plot(xs, ys, marker="o" if panel.marks else None, markersize=3.5, linewidth=1.4, label=name)
        axes.set(xlabel=panel.x, ylabel=panel.y, title=panel.title)
        _scale(axes, panel)
        axes.grid(alpha=0.25)
        if len(panel.lines) > 1:
            axes.legend(fontsize=8, frameon=False)
    publish(path, lambda file: figure.savefig(file))


def _scale(axes: Axes, panel: Panel) -> None:
    """Logarithmic scales, with plain numbers as ticks where there are few."""
    if panel.log_x:
        axes.set_xscale("log")
        at = sorted({x for points in panel.lines.values() for x, _ in points})
        if 0 < len(at) <= MOST_TICKS:
            shown = separate_ticks(at)
            axes.set_xticks(shown, [f"{x:g}" for x in shown], fontsize=8)
            axes.minorticks_off()
    if panel.log_y:
        axes.set_yscale("log")
        heights = [y for points in panel.lines.values() for _, y in points if y > 0]
        if heights and max(heights) < 100 * min(heights):  # plain numbers, also between the powers of ten
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:g}")
