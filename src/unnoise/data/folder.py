"""Pictures in a folder and its sub-folders. Links are followed; a folder that is reached twice is read once."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from unnoise.data.layout import count_suffixes, is_picture, natural, read_layout
from unnoise.data.source import FILE_BYTES, Source, Unreadable
from unnoise.errors import UserError

TEXT_BYTES = 64 * 2**20  # a metadata.jsonl or caption larger than this is not text


def folder(path: Path) -> Source:
    """The pictures below `path`, in natural order. Raises UserError if there are none."""
    files = _files(path)
    names = sorted((name for name in files if is_picture(name)), key=natural)
    if not names:
        raise UserError(_no_pictures(path, files))
    others = [name for name in files if name.endswith((".txt", "metadata.jsonl"))]
    layout = read_layout(names, others, lambda name: _text(path / name), str(path))

    def read(i: int) -> bytes:
        with open(path / names[i], "rb") as file:
            if os.fstat(file.fileno()).st_size > FILE_BYTES:
                raise Unreadable(f"larger than {FILE_BYTES >> 20} MiB")
            return file.read()

    return Source(
        where=str(path),
        names=tuple(names),
        sizes=np.array([files[name] for name in names], np.int64),
        read=read,
        classes=layout.classes,
        labels=layout.labels,
        captions=layout.captions,
        values=layout.values,
        notes=layout.notes,
        file=lambda i: path / names[i],
    )


def _files(top: Path) -> dict[str, int]:
    """The size of every file below `top` by its relative name (0 for a broken link)."""
    files: dict[str, int] = {}
    visited: set[str] = set()
    for here, below, names in os.walk(top, followlinks=True):
        real = os.path.realpath(here)
        if real in visited:
            below.clear()
            continue
        visited.add(real)
        below.sort()  # the choice between two links to one folder must not depend on the file system
        relative = Path(here).relative_to(top)
        for name in names:
            full = os.path.join(here, name)
            if os.path.isfile(full) or os.path.islink(full):  # no pipes, no devices
                files[(relative / name).as_posix()] = os.path.getsize(full) if os.path.exists(full) else 0
    return files


def _text(path: Path) -> str:
    if path.stat().st_size > TEXT_BYTES:
        raise UserError(f"{path} is larger than {TEXT_BYTES >> 20} MiB, too large for captions or metadata")
    return path.read_text(encoding="utf-8-sig", errors="replace")


def _no_pictures(path: Path, files: dict[str, int]) -> str:
    if not files:
        return f"{path} is an empty folder; give a folder with pictures in it (.png, .jpg, .webp ...)"
    data = [
        name for name in sorted(files, key=natural) if name.endswith((".npz", ".npy", ".zip", ".tar")) or "idx3" in name
    ]
    hint = f"; did you mean {path / data[0]}?" if data else "; give a folder with .png, .jpg, .webp ... files"
    return f"no pictures in {path}: it contains {count_suffixes(files)}{hint}"
