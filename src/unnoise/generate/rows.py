"""Which pictures a request samples: a row is a seed with its class or prompt.

`pairs` combines seeds with labels or prompts, `together` writes rows as one `--seeds` argument that gives them back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unnoise.config.request import Request

Row = tuple[int, str | None]
"""A picture: its seed, and its class by name, or its prompt; None for neither."""


def pairs(seeds: Sequence[Row], labels: Sequence[str]) -> list[Row]:
    """A row per label and seed, label by label; a seed that has a label of its own makes one row, after them."""
    own = [row for row in seeds if row[1] is not None]
    free = [seed for seed, label in seeds if label is None]
    return ([(seed, label) for label in labels for seed in free] if labels else [(seed, None) for seed in free]) + own


def compress(seeds: Sequence[int]) -> str:
    """The shortest text of seeds and ranges in this order: `0-7,12`."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)


def seeds_text(rows: Sequence[Row]) -> str:
    """Rows as one `--seeds` argument: `0-7:bag,0-3:shirt`."""
    parts: list[str] = []
    start = 0
    for i in range(1, len(rows) + 1):
        if i == len(rows) or rows[i][1] != rows[start][1]:
            label = rows[start][1]
            for run in compress([seed for seed, _ in rows[start:i]]).split(","):
                parts.append(run if label is None else f"{run}:{label}")
            start = i
    return ",".join(parts)


def together(rows: Sequence[Row], prompts: Sequence[str]) -> str:
    """Rows as one `--seeds` argument, with their classes or the numbers of their prompts after a colon."""
    if not prompts:
        return seeds_text(rows)
    number = {text: str(place) for place, text in reversed(list(enumerate(prompts)))}  # the first of equal ones
    return seeds_text([(seed, None if text is None else number[text]) for seed, text in rows])


def request_for(rows: Sequence[Row], settings: dict[str, Any], *, prompted: bool) -> Request:
    """The request for these rows. Where only some rows have a class, the others get the class that their seed has."""
    seeds = tuple(seed for seed, _ in rows)
    if prompted:
        return Request(seeds=seeds, prompts=tuple(prompt or "" for _, prompt in rows), **settings)
    named = any(label is not None for _, label in rows)
    return Request(seeds=seeds, labels=tuple(label or "" for _, label in rows) if named else (), **settings)
