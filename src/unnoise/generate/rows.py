"""Which pictures a request samples: a row is a seed with its class or prompt.

`pairs` combines seeds with labels or prompts, `seeds_text` writes rows as one `--seeds` argument that gives them back.
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


def seeds_text(rows: Sequence[Row], prompts: Sequence[str] = ()) -> str:
    """Rows as one `--seeds` argument: `0-7:bag,0-3:shirt`; with `prompts`, the number of each row's prompt: `0-7:1`.

    Of equal prompts the first is meant. `cli.options.parse_seeds` is the inverse.
    """
    if prompts:
        number = {text: str(place) for place, text in reversed(list(enumerate(prompts)))}
        rows = [(seed, None if text is None else number[text]) for seed, text in rows]
    parts: list[str] = []
    start = 0
    for i in range(1, len(rows) + 1):
        if i == len(rows) or rows[i][1] != rows[start][1]:
            label = rows[start][1]
            ranges = seed_ranges([seed for seed, _ in rows[start:i]])
            parts += [text if label is None else f"{text}:{label}" for text in ranges.split(",")]
            start = i
    return ",".join(parts)


def seed_ranges(seeds: Sequence[int]) -> str:
    """Seeds as ranges, in their order: `0-63,70`."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs)


def request_for(rows: Sequence[Row], settings: dict[str, Any], *, prompted: bool) -> Request:
    """The request for these rows. Where only some rows have a class, the others get the class that their seed has."""
    seeds = tuple(seed for seed, _ in rows)
    if prompted:
        return Request.of(seeds=seeds, prompts=tuple(prompt or "" for _, prompt in rows), **settings)
    named = any(label is not None for _, label in rows)
    return Request.of(seeds=seeds, labels=tuple(label or "" for _, label in rows) if named else (), **settings)
