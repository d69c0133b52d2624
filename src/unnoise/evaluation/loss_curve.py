"""The loss curve of a report, as the numbers of an SVG: page.html draws it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unnoise.io.units import human

MOST_POINTS = 1500


@dataclass(frozen=True)
class LossCurve:
    """Two paths and the ticks of both axes, in the units of a `width` by `height` view box."""

    every: str  # the path of all points
    mean: str  # the path of their running mean
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    width: int = 860
    height: int = 280
    left: int = 56
    right: int = 848
    top: int = 12
    bottom: int = 246


def loss_curve(points: Sequence[tuple[float, float]]) -> LossCurve | None:
    """The curve of (pictures seen, loss), with a logarithmic axis of the loss; None for fewer than two points."""
    points = [(x, y) for x, y in points if y > 0 and math.isfinite(y)]
    if len(points) < 2:
        return None
    points = points[:: max(1, len(points) // MOST_POINTS)]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = math.log10(min(ys)), math.log10(max(ys))
    margin = max(0.03, 0.05 * (y_high - y_low))
    y_low, y_high = y_low - margin, y_high + margin
    left, right, top, bottom = LossCurve.left, LossCurve.right, LossCurve.top, LossCurve.bottom

    def across(x: float) -> float:
        return round(left + (x - x_low) / max(x_high - x_low, 1e-9) * (right - left), 1)

    def down(y: float) -> float:
        return round(top + (y_high - math.log10(y)) / (y_high - y_low) * (bottom - top), 1)

    def path(values: Sequence[float]) -> str:
        return "M" + "L".join(f"{across(x):.1f},{down(y):.1f}" for x, y in zip(xs, values, strict=True))

    return LossCurve(
        path(ys),
        path(smooth(ys)),
        [(across(tick), human(tick)) for tick in ticks(x_low, x_high)],
        [(down(tick), f"{tick:g}") for tick in log_ticks(10**y_low, 10**y_high)],
    )


def smooth(values: Sequence[float], decay: float = 0.95) -> list[float]:
    """The exponential moving average of `values`, corrected for its zero initial value (eq. 4 of Kingma & Ba 2015)."""
    mean, weight, out = 0.0, 0.0, []
    for value in values:
        mean, weight = decay * mean + (1 - decay) * value, decay * weight + (1 - decay)
        out.append(mean / weight)
    return out


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers between `low` and `high`, at most about `about` of them."""
    step = 10 ** math.floor(math.log10(max(high - low, 1e-12) / about))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (m * step) <= about)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between `low` and `high` for a logarithmic axis: 1, 2, 5, 10; more where the range is short."""
    for mantissas in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [m * 10.0**p for p in powers for m in mantissas if low <= m * 10.0**p <= high]
        if len(found) >= 3:
            return found
    return ticks(low, high, 4)
