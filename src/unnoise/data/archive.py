"""A zip or tar of pictures, read in place: nothing is ever written to the disk.

Members are regular files; links, devices, and names that are absolute or climb out ("..") are refused by name. A plain
tar is read at its members' offsets; a compressed one cannot be, and is held in memory if it is small enough.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from unnoise.data.layout import hidden, is_picture, natural, seen, tell
from unnoise.data.source import FILE_BYTES, MEMBERS, Broken, Source, Unreadable, is_bomb
from unnoise.errors import UserError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
STREAM_BYTES = 2 * 2**30  # a compressed tar with more than this in it must be repacked

Read = Callable[[str], bytes]


def archive(path: Path) -> Source:
    """The pictures in a zip or tar. Raises UserError where it cannot be opened, or holds none."""
    try:
        sizes, refused, read = _zip(path) if path.name.lower().endswith(".zip") else _tar(path)
    except (zipfile.BadZipFile, tarfile.TarError, OSError, EOFError, ValueError, NotImplementedError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path} cannot be opened as an archive ({error}); make it again, or download it again"
        ) from error
    names = sorted((name for name in sizes if is_picture(name)), key=natural)
    if not names and not refused:
        raise UserError(
            f"no pictures in {path}: it holds {seen(sizes)}; give an archive of .png, .jpg, .webp ... files"
        )
    others = [name for name in sizes if name.endswith((".txt", "metadata.jsonl"))]
    told = tell(names, others, lambda name: _decoded(read, name, path), str(path))
    return Source(
        where=str(path),
        names=tuple(names),
        sizes=np.array([sizes[name] for name in names], np.int64),
        read=lambda i: read(names[i]),
        classes=told.classes,
        labels=told.labels,
        captions=told.captions,
        values=told.values,
        refused=tuple(sorted(refused, key=lambda broken: natural(broken.path))),
        notes=told.notes,
    )


def escapes(name: str) -> bool:
    """Whether a member's name would lead out of the folder it were unpacked to, on any system."""
    parts = name.replace("\\", "/").split("/")
    return "\0" in name or ".." in parts or PurePosixPath(name).is_absolute() or bool(PureWindowsPath(name).anchor)


def _judge(name: str, *, regular: bool, size: int, packed: int) -> str:
    """Why a member is refused; nothing where it is not."""
    if escapes(name):
        return "the name leads out of the archive"
    if not regular:
        return "a link or device, not a file"
    if size > FILE_BYTES:
        return f"larger than {FILE_BYTES >> 20} MiB"
    if is_bomb(size, packed):
        return f"{size:,} bytes out of {packed:,}: a zip bomb"
    return ""


def _zip(path: Path) -> tuple[dict[str, int], list[Broken], Read]:
    file = zipfile.ZipFile(path)
    infos = [info for info in file.infolist() if not info.is_dir()]
    _count(len(infos), path)
    members: dict[str, zipfile.ZipInfo] = {}
    refused = []
    for info in infos:
        name = info.filename
        kind = info.external_attr >> 16 & 0o170000  # of a Unix mode; 0 where another system packed it
        why = _judge(name, regular=kind in (0, 0o100000), size=info.file_size, packed=info.compress_size)
        if info.flag_bits & 1:
            why = "encrypted"
        if why and (is_picture(name) or escapes(name)):
            refused.append(Broken(name, why))
        elif not why and not hidden(name):
            members[name] = info

    def read(name: str) -> bytes:
        try:
            with file.open(members[name]) as member:
                return member.read(members[name].file_size + 1)
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
            raise Unreadable(str(error) or "damaged in the archive") from error
        except Exception as error:  # zlib.error, lzma.LZMAError
            raise Unreadable(f"damaged in the archive: {error}") from error

    return {name: info.file_size for name, info in members.items()}, refused, read


def _tar(path: Path) -> tuple[dict[str, int], list[Broken], Read]:
    plain = path.name.lower().endswith(".tar")
    members: dict[str, tuple[int, int]] = {}  # offset and size
    held: dict[str, bytes] = {}
    refused = []
    total = count = 0
    with tarfile.open(path, "r:" if plain else "r|*") as file:
        for member in file:
            count += 1
            _count(count, path)
            if member.isdir():
                continue
            name = member.name.removeprefix("./")
            regular = member.isreg() and not member.issparse()
            why = _judge(name, regular=regular, size=member.size, packed=member.size)
            if why:
                if is_picture(name) or escapes(name):
                    refused.append(Broken(name, why))
            elif not hidden(name):
                members[name] = (member.offset_data, member.size)
                if not plain:
                    total += member.size
                    if total > STREAM_BYTES:
                        raise UserError(
                            f"{path} holds more than {STREAM_BYTES >> 30} GiB and, being compressed, cannot be "
                            "read in place; repack it as a plain .tar or a .zip"
                        )
                    reader = file.extractfile(member)
                    held[name] = reader.read() if reader else b""

    def read(name: str) -> bytes:
        offset, size = members[name]
        if not plain:
            return held[name]
        with open(path, "rb") as source:  # of its own: a shared position would not stand two threads
            source.seek(offset)
            data = source.read(size)
        if len(data) < size:
            raise Unreadable("the archive ends before it does")
        return data

    return {name: size for name, (_, size) in members.items()}, refused, read


def _count(count: int, path: Path) -> None:
    if count > MEMBERS:
        raise UserError(f"{path} holds more than {MEMBERS:,} files; split it")


def _decoded(read: Read, name: str, path: Path) -> str:
    try:
        return read(name).decode("utf-8-sig", errors="replace")
    except Unreadable as error:
        raise UserError(f"{name} in {path}: {error}; make the archive again") from error
