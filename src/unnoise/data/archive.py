"""Pictures in a zip or tar archive, read in place: nothing is extracted to the disk.

Only regular files are read. Links, devices, and names that are absolute or lead out of the archive ("..") are refused
and listed. A plain tar is read at its members' offsets; a compressed one is decompressed into memory if it is small
enough.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from unnoise.data.layout import count_suffixes, hidden, is_picture, natural, read_layout
from unnoise.data.source import FILE_BYTES, MEMBERS, Broken, Source, Unreadable, is_bomb
from unnoise.errors import UserError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
STREAM_BYTES = 2 * 2**30  # a compressed tar with larger contents has to be repacked

Read = Callable[[str], bytes]


def archive(path: Path) -> Source:
    """The pictures in a zip or tar archive. Raises UserError if it cannot be opened, or contains none."""
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
            f"no pictures in {path}: it contains {count_suffixes(sizes)}; "
            "give an archive of .png, .jpg, .webp ... files"
        )
    others = [name for name in sizes if name.endswith((".txt", "metadata.jsonl"))]
    layout = read_layout(names, others, lambda name: _decoded(read, name, path), str(path))
    return Source(
        where=str(path),
        names=tuple(names),
        sizes=np.array([sizes[name] for name in names], np.int64),
        read=lambda i: read(names[i]),
        classes=layout.classes,
        labels=layout.labels,
        captions=layout.captions,
        values=layout.values,
        refused=tuple(sorted(refused, key=lambda broken: natural(broken.path))),
        notes=layout.notes,
        file=lambda i: path,
    )


def escapes(name: str) -> bool:
    """Whether a member of this name would be extracted outside the target folder, on any operating system."""
    parts = name.replace("\\", "/").split("/")
    return "\0" in name or ".." in parts or PurePosixPath(name).is_absolute() or bool(PureWindowsPath(name).anchor)


def _refusal(name: str, *, regular: bool, size: int, packed: int) -> str:
    """The reason why a member is refused; empty if it is accepted."""
    if escapes(name):
        return "the name leads out of the archive"
    if not regular:
        return "a link or device, not a file"
    if size > FILE_BYTES:
        return f"larger than {FILE_BYTES >> 20} MiB"
    if is_bomb(size, packed):
        return f"{packed:,} bytes that expand to {size:,}: a zip bomb"
    return ""


def _zip(path: Path) -> tuple[dict[str, int], list[Broken], Read]:
    file = zipfile.ZipFile(path)
    infos = [info for info in file.infolist() if not info.is_dir()]
    _check_count(len(infos), path)
    members: dict[str, zipfile.ZipInfo] = {}
    refused = []
    for info in infos:
        name = info.filename
        kind = info.external_attr >> 16 & 0o170000  # file type of a Unix mode; 0 if another system made the archive
        why = _refusal(name, regular=kind in (0, 0o100000), size=info.file_size, packed=info.compress_size)
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
    contents: dict[str, bytes] = {}
    refused = []
    total = count = 0
    with tarfile.open(path, "r:" if plain else "r|*") as file:
        for member in file:
            count += 1
            _check_count(count, path)
            if member.isdir():
                continue
            name = member.name.removeprefix("./")
            regular = member.isreg() and not member.issparse()
            why = _refusal(name, regular=regular, size=member.size, packed=member.size)
            if why:
                if is_picture(name) or escapes(name):
                    refused.append(Broken(name, why))
            elif not hidden(name):
                members[name] = (member.offset_data, member.size)
                if not plain:
                    total += member.size
                    _check_stream(total, path)
                    reader = file.extractfile(member)
                    contents[name] = reader.read() if reader else b""

    def read(name: str) -> bytes:
        offset, size = members[name]
        if not plain:
            return contents[name]
        with open(path, "rb") as source:  # opened anew: two threads must not share a file position
            source.seek(offset)
            data = source.read(size)
        if len(data) < size:
            raise Unreadable("the archive is truncated")
        return data

    return {name: size for name, (_, size) in members.items()}, refused, read


def _check_stream(total: int, path: Path) -> None:
    if total > STREAM_BYTES:
        raise UserError(
            f"{path} contains more than {STREAM_BYTES >> 30} GiB and, being compressed, cannot be read in place; "
            "repack it as a plain .tar or a .zip"
        )


def _check_count(count: int, path: Path) -> None:
    if count > MEMBERS:
        raise UserError(f"{path} contains more than {MEMBERS:,} files; split it")


def _decoded(read: Read, name: str, path: Path) -> str:
    try:
        return read(name).decode("utf-8-sig", errors="replace")
    except Unreadable as error:
        raise UserError(f"{name} in {path}: {error}; make the archive again") from error
