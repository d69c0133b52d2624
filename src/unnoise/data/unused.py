"""Notes about the files of a folder or archive that are not used: how many of which ending, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from os.path import splitext

from unnoise.data.captions import ENDINGS

SHOWN = 8  # endings in a note

# pictures in formats that are not decoded
FOREIGN = frozenset(
    (
        *(".heic", ".heif", ".hif", ".jxl", ".jxr", ".svg", ".psd", ".psb", ".eps", ".pdf", ".ai", ".tga", ".exr"),
        *(".hdr", ".ico", ".xcf", ".pcx", ".qoi", ".dds", ".fits", ".dcm", ".nii"),
        *(".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".orf", ".rw2", ".raf", ".raw", ".pef", ".srw"),
    )
)


def count_endings(names: Iterable[str], shown: int = SHOWN) -> str:
    """`12 .svg, 3 .txt`: how many of these files have which ending."""
    kinds = Counter(splitext(name)[1].lower() or "without an ending" for name in names)
    listed = sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))
    rest = sum(count for _, count in listed[shown:])
    parts = [f"{count:,} {kind}" for kind, count in listed[:shown]] + ([f"{rest:,} others"] if rest else [])
    return ", ".join(parts) or "nothing"


def unused_notes(names: Iterable[str], reasons: Mapping[str, str]) -> list[str]:
    """Notes about these files, which are not used; `reasons` are known for some of them."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(reasons.get(name) or _reason(splitext(name)[1].lower()), []).append(name)
    return [f"{count_endings(group)} are not read: {why}" for why, group in kinds.items()]


def _reason(ending: str) -> str:
    if ending in FOREIGN:
        return "convert them to PNG or JPEG"
    return "no picture has their names" if ending in ENDINGS else "they are neither pictures nor captions"


def unused_columns(unread: Sequence[str], pictures: Sequence[str]) -> list[str]:
    """Notes about the columns of a table that are not read, and about those with other `pictures`."""
    notes = [f"columns that are not read: {', '.join(unread)}"] if unread else []
    return notes + [
        f"column {name} is not trained on: data.control={name} conditions a ControlNet on it, if it has pictures"
        for name in pictures
    ]
