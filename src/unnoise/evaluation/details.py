"""Text for the entries of a report that need more than a number: bits per dimension, captions, masks, retrieval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

CURVE_HEAD = ("t", "bits/dim sent", "RMSE, grey levels")
TRACES = {"hutchinson": "estimated with a random probe", "exact": "exact"}


def details(entry: Mapping[str, Any]) -> str:
    """The sentences that belong to an entry: its parts, and how it was measured."""
    return {
        "bpd": _bound,
        "ode-bpd": _flow,
        "caption": _captions,
        "mask": lambda each: f"Masks: {each['n']} pictures, the union of all shapes of each.",
        "retrieval": _retrieval,
    }[entry["id"]](entry)


def with_error(entry: Mapping[str, Any]) -> str:
    """` ± ` and the standard error of an entry; empty where there is none, as for a single picture."""
    return f" ± {entry['error']:.1g}" if math.isfinite(entry.get("error", math.nan)) else ""


def counted(n: int, kind: str = "") -> str:
    """`1 picture`, `1,000 real pictures`."""
    return f"{n:,} {kind}picture{'' if n == 1 else 's'}"


def curve_rows(curve: Mapping[str, Sequence[float]], count: int = 10) -> list[tuple[str, str, str]]:
    """Rows of CURVE_HEAD from the curve of a `bpd` entry: where the error falls to each of `count` even ratios."""
    points = list(zip(curve["t"], curve["rate"], curve["rmse"], strict=True))
    first, last = points[0][2], min(error for _, _, error in points)
    levels = [first * (last / first) ** (k / (count - 1)) for k in range(count)] if last > 0 else [first, 0.0]
    places = [next(i for i, point in enumerate(points) if point[2] <= level * (1 + 1e-9)) for level in levels]
    found = [points[i] for i in dict.fromkeys(places)]
    return [(f"{t:.3g}", f"{rate:.3g}", f"{error:.3g}") for t, rate, error in found]


def _bound(entry: Mapping[str, Any]) -> str:
    prior, middle, decoder = (entry["parts"][part] for part in ("L_T", "L_t", "L_0"))
    clipped = "clipped" if entry["clip"] else "not clipped"
    estimate = (
        f", each evaluated at {entry['times']:g} of the steps: an estimate of the mean" if entry["estimate"] else ""
    )
    return (
        f"Bound: L_T {prior['value']:.3g}, sum of L_t-1 {_pair(middle)}, L_0 {_pair(decoder)} bits/dim; "
        f"{entry['steps']} steps, variance {entry['variance']}, estimates {clipped}, "
        f"{counted(entry['n'])}, {_conditions(entry)}, in {entry['precision']}{estimate}."
    )


def _flow(entry: Mapping[str, Any]) -> str:
    repeats = entry["repeats"]
    dequantised = "dequantised once" if repeats == 1 else f"the mean of {repeats} dequantisations"
    return (
        f"Flow: {counted(entry['n'])}, {dequantised}, {_conditions(entry)}, from t = {entry['begin']:g}, "
        f"divergence {TRACES[entry['trace']]}; {entry['evaluations']:.0f} evaluations each."
    )


def _captions(entry: Mapping[str, Any]) -> str:
    parts = ", ".join(f"{name} {part['value']:.1%}" for name, part in entry["parts"].items() if name != "all")
    return f"Captions: {entry['n']} pictures; {parts}; {entry['real']:.1%} of the real pictures are correct."


def _retrieval(entry: Mapping[str, Any]) -> str:
    run = entry["judge"]
    trained = "on these real pictures" if entry["known"] else f"on {run['data']}, not on these real pictures"
    return (
        f"Retrieval: of {entry['n']} sampled pictures the own caption is {_ranks(entry['drawn_found'])}; of the real "
        f"ones {_ranks(entry['real_found'])}. Chance is 1 in that number. {run['name']} was trained {trained}."
    )


def _ranks(entries: Sequence[Mapping[str, Any]]) -> str:
    """How often the own caption is the nearest, and among the five nearest, for each number of captions."""
    return ", ".join(
        f"{each['first']['value']:.1%} ± {each['first']['error']:.1%} first of {each['among']:,} "
        f"({each['fifth']['value']:.1%} in the first five)"
        for each in entries
    )


def _conditions(entry: Mapping[str, Any]) -> str:
    names = {"classes": "classes", "captions": "captions", "numbers": "values"}
    known = [name for key, name in names.items() if entry.get(key)]
    return f"conditioned on their {' and '.join(known)}" if known else "unconditional"


def _pair(part: Mapping[str, Any]) -> str:
    return f"{part['value']:.4g}{with_error(part)}"
