"""Trees of pictures, as a folder and as archives of several kinds."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image


def png(value: int, size: int = 4) -> bytes:
    file = io.BytesIO()
    Image.new("L", (size, size), value).save(file, "PNG")
    return file.getvalue()


def write(top: Path, files: dict[str, bytes | str]) -> Path:
    for name, data in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return top


def to_folder(path: Path, files: dict[str, bytes | str]) -> Path:
    return write(path / "set", files)


def to_zip(path: Path, files: dict[str, bytes | str]) -> Path:
    with zipfile.ZipFile(path / "set.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path / "set.zip"


def to_tar(path: Path, files: dict[str, bytes | str], suffix: str = ".tar") -> Path:
    mode = {".tar": "w", ".tar.gz": "w:gz", ".tar.xz": "w:xz"}[suffix]
    with tarfile.open(path / f"set{suffix}", mode) as file:
        for name, data in files.items():
            raw = data if isinstance(data, bytes) else data.encode()
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(raw)
            file.addfile(member, io.BytesIO(raw))
    return path / f"set{suffix}"


PLACES: dict[str, Callable[[Path, dict[str, bytes | str]], Path]] = {
    "folder": to_folder,
    "zip": to_zip,
    "tar": to_tar,
    "tar.gz": lambda path, files: to_tar(path, files, ".tar.gz"),
    "tar.xz": lambda path, files: to_tar(path, files, ".tar.xz"),
}


Put = Callable[[dict[str, bytes | str]], str]  # files -> the path of the tree
