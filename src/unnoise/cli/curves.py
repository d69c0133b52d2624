"""The curves of a bound as one SVG: what each step costs over t, and the distortion over the rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from unnoise.cli.report import log_ticks, ticks

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 34, 46


def curves(found: Mapping[str, Sequence[float]]) -> str:
    """From the `curve` of a report's entry: t, bits, rate, rmse."""
    terms = panel(
        list(zip(found["t"], found["bits"], strict=True)),
        title="what each step costs",
        across="t",
        up="bits/dim",
        log=True,
    )
    distortion = panel(
        list(zip(found["rate"], found["rmse"], strict=True)),
        title="progressive coding",
        across="rate, bits/dim",
        up="RMSE, grey levels",
        log=False,
    )
    style = (
        "text{font:12px sans-serif;fill:#444}.title{font-size:14px;fill:#111}"
        ".grid{stroke:#ddd}.line{fill:none;stroke:#2563a8;stroke-width:2}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {2 * WIDTH} {HEIGHT}"><style>{style}</style><rect width="100%" height="100%" fill="#fff"/>'
        f'{terms}<g transform="translate({WIDTH} 0)">{distortion}</g></svg>\n'
    )


def panel(points: Sequence[tuple[float, float]], *, title: str, across: str, up: str, log: bool) -> str:
    """Points joined by a line between two axes; `log` makes both logarithmic and leaves out what is not above 0."""
    if log:
        points = [(x, y) for x, y in points if x > 0 and y > 0]
    if len(points) < 2:
        return ""
    scale = math.log10 if log else float
    low = [min(scale(p[axis]) for p in points) for axis in (0, 1)]
    high = [max(scale(p[axis]) for p in points) for axis in (0, 1)]
    high = [h if h > at else at + 1 for at, h in zip(low, high)]

    def right(x: float) -> float:
        return LEFT + (scale(x) - low[0]) / (high[0] - low[0]) * (WIDTH - LEFT - RIGHT)

    def down(y: float) -> float:
        return HEIGHT - BOTTOM - (scale(y) - low[1]) / (high[1] - low[1]) * (HEIGHT - TOP - BOTTOM)

    def marks(axis: int) -> list[float]:
        return log_ticks(10 ** low[axis], 10 ** high[axis]) if log else ticks(low[axis], high[axis])

    parts = [f'<text class="title" x="{LEFT}" y="20">{title}</text>']
    for x in marks(0):
        parts.append(f'<path class="grid" d="M{right(x):.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{right(x):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x:g}</text>')
    for y in marks(1):
        parts.append(f'<path class="grid" d="M{LEFT} {down(y):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{down(y) + 4:.1f}" text-anchor="end">{y:g}</text>')
    line = "L".join(f"{right(x):.1f} {down(y):.1f}" for x, y in points)
    parts.append(f'<path class="line" d="M{line}"/>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{across}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text transform="translate(13 {middle}) rotate(-90)" text-anchor="middle">{up}</text>')
    return "".join(parts)
