"""Pictures in a folder and its sub-folders. Links are followed; a folder that is reached twice is read once."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from unnoise.data.layout import hidden, is_picture, natural, tree_source
from unnoise.data.plain_text import escaped, some
from unnoise.data.source import FILE_BYTES, Source, Unreadable
from unnoise.data.unused import count_endings
from unnoise.errors import UserError
from unnoise.io.reading import read_bytes


class Files(NamedTuple):
    """The files below a folder, by their relative names with "/"; bytes that are not UTF-8 are escaped."""

    paths: dict[str, Path]
    sizes: dict[str, int]  # 0 for a broken link
    notes: list[str]  # about what cannot be read

    def pictures(self) -> bool:
        """Whether there are pictures among them."""
        return any(map(is_picture, self.paths))


def folder(path: Path, files: Files) -> Source:
    """The pictures among these files of the folder `path`, in natural order. Raises UserError if there are none."""
    if not files.pictures():
        raise UserError(_no_pictures(path, files))

    def read(name: str) -> bytes:
        try:
            return read_bytes(files.paths[name], FILE_BYTES)
        except UserError as error:  # a pipe, or larger than such a file may be
            raise Unreadable(str(error)) from None

    source = tree_source(files.sizes, read, str(path), notes=files.notes)
    return replace(source, file=lambda i: files.paths[source.names[i]])


def files_in(top: Path) -> Files:
    """Every file below `top`; pipes and devices are left out, and noted like folders that cannot be read."""
    found = Files({}, {}, [])
    visited: set[str] = set()
    closed: list[OSError] = []
    odd = []
    for here, below, names in os.walk(top, followlinks=True, onerror=closed.append):
        real = os.path.realpath(here)
        if real in visited:
            below.clear()
            continue
        visited.add(real)
        below.sort()  # the choice between two links to one folder must not depend on the file system
        relative = Path(here).relative_to(top)
        for name in names:
            full = os.path.join(here, name)
            shown = escaped((relative / name).as_posix())
            if os.path.isfile(full) or os.path.islink(full):
                found.paths[shown] = Path(full)
                found.sizes[shown] = os.path.getsize(full) if os.path.exists(full) else 0
            elif not hidden(shown):
                odd.append(shown)
    if odd:
        found.notes.append(f"{len(odd):,} pipes or devices are not read ({some(odd)})")
    if closed:
        shut = [f"{escaped(str(error.filename))}: {error.strerror}" for error in closed]
        found.notes.append(f"{len(shut):,} folders cannot be read ({some(shut)})")
    return found


def _no_pictures(path: Path, files: Files) -> str:
    seen = [name for name in files.paths if not hidden(name)]
    if files.notes and not seen:
        return f"no pictures in {path}: {'; '.join(files.notes)}"
    if not seen:
        return f"{path} is an empty folder; give a folder with pictures in it (.png, .jpg, .webp ...)"
    data = [
        name for name in sorted(seen, key=natural) if name.endswith((".npz", ".npy", ".zip", ".tar")) or "idx3" in name
    ]
    hint = f"; did you mean {path / data[0]}?" if data else "; give a folder with .png, .jpg, .webp ... files"
    return f"no pictures in {path}: it contains {count_endings(seen)}{hint}"
