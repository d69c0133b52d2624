"""Numbers and durations as short text."""

from __future__ import annotations


def human(number: float, unit: str = "") -> str:
    """A number with three digits and a letter: `35.7M`, `1.2k`."""
    for letter, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}{unit}"
    return f"{number:.3g}{unit}"


def duration(seconds: float) -> str:
    """A duration in its two largest units: `3 s`, `4 min 05 s`, `2 h 10 min`, `3 d 4 h`."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"
