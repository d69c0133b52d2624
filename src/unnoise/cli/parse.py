"""What is written in options: seeds and ranges, names, numbers."""

from __future__ import annotations

import math

from unnoise.cli.console import UsageError
from unnoise.config.request import SEEDS

MOST_PICTURES = 1_000_000  # one call draws no more: a slip like 0-10000000000 should not fill the memory first


def parse_seeds(text: str) -> list[tuple[int, str | None]]:
    """`0-63,70,5:bag` as [(0, None), ..., (70, None), (5, "bag")]: seeds, ranges, labels of their own."""
    found: list[tuple[int, str | None]] = []
    for part in text.split(","):
        item, _, label = part.strip().partition(":")
        first, dash, last = (piece.strip() for piece in item.partition("-"))
        if not first.isascii() or not first.isdigit() or (dash and not (last.isascii() and last.isdigit())):
            raise UsageError(
                f"--seeds: {part.strip()!r} in {text!r} is no seed: seeds are whole numbers from 0 on, and ranges of "
                "them. Write for example --seeds 0-63,70"
            )
        if any(len(piece.lstrip("0")) > len(str(SEEDS)) for piece in (first, last)):
            raise UsageError(f"--seeds: {part.strip()[:40]}... is too large; seeds are below 2^63")
        low, high = int(first.lstrip("0") or 0), int((last if dash else first).lstrip("0") or 0)
        if high < low:
            raise UsageError(f"--seeds: the range {item} runs backwards. Write {high}-{low}")
        if high >= SEEDS:
            raise UsageError(f"--seeds: {high} is too large; seeds are below 2^63")
        if len(found) + high - low + 1 > MOST_PICTURES:
            raise UsageError(f"--seeds: {item} asks for more than {MOST_PICTURES:,} pictures. Draw them in parts")
        found += [(seed, label.strip() or None) for seed in range(low, high + 1)]
    return found


def parse_names(text: str) -> tuple[str, ...]:
    """`sneaker, 3` as ("sneaker", "3")."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def parse_numbers(text: str, what: str, low: float, high: float, example: str) -> list[float]:
    """`0,0.5,1` as numbers between `low` and `high`, each once, in their order. Raises UsageError for any other."""
    found: dict[float, None] = {}
    for part in parse_names(text):
        try:
            number = float(part)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise UsageError(
                f"{what}: {part!r} is no number from {low:g} to {high:g}. Write for example {what} {example}"
            )
        found[number] = None
    if not found:
        raise UsageError(f"{what}: {text!r} names nothing. Write for example {what} {example}")
    return list(found)
