"""Pictures in a zip or tar archive, read in place: nothing is extracted to the disk.

Only regular files are read. Links, devices, and names that are absolute or lead out of the archive ("..") are refused
and listed. A plain tar is read at its members' offsets; a compressed one is decompressed into memory if it is small
enough.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import posixpath
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any, BinaryIO, NamedTuple, cast

from unnoise.data.captions import ENDINGS
from unnoise.data.layout import Read, hidden, is_picture, tree_source
from unnoise.data.metadata import FILES, LABELS
from unnoise.data.plain_text import escaped
from unnoise.data.source import BOMB_BYTES, BOMB_RATIO, FILE_BYTES, MEMBERS, Broken, Source, Unreadable, is_bomb
from unnoise.data.unused import count_endings
from unnoise.errors import UserError
from unnoise.io.reading import MOST_TEXT, open_regular

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
STREAM_BYTES = 2 * 2**30  # a compressed tar with larger contents has to be repacked

DAMAGED = (  # what zipfile, tarfile and the decompressors raise for a damaged archive
    *(zipfile.BadZipFile, tarfile.TarError, OSError, EOFError, ValueError, NotImplementedError, RuntimeError),
    *(IndexError, KeyError, TypeError, OverflowError, MemoryError, struct.error, zlib.error, lzma.LZMAError),
)


class Members(NamedTuple):
    """The files of an archive that may be read, by name; those that are refused, with the reasons."""

    sizes: dict[str, int]
    broken: list[Broken]  # pictures, and names that lead out of the archive
    reasons: dict[str, str]  # of other files

    def add(self, stored: str, size: int, refusal: str) -> str:
        """Adds a member by its name in the archive; returns the name that it has here, empty if it is not read."""
        if escapes(stored):
            self.broken.append(Broken(escaped(stored), refusal))
            return ""
        name = escaped(posixpath.normpath(stored.replace("\\", "/")))  # "/", whatever system wrote it
        if refusal and is_picture(name):
            self.broken.append(Broken(name, refusal))
        elif refusal:
            self.reasons[name] = refusal
        elif not hidden(name):
            self.sizes[name] = size
            return name
        return ""


def archive(path: Path) -> Source:
    """The pictures in a zip or tar archive. Raises UserError if it cannot be opened, or contains none."""
    try:
        members, read = _zip(path) if path.name.lower().endswith(".zip") else _tar(path)
    except UserError:
        raise
    except DAMAGED as error:
        raise UserError(
            f"{path} cannot be opened as an archive ({error}); make it again, or download it again"
        ) from error
    if not any(map(is_picture, members.sizes)) and not members.broken:
        raise UserError(
            f"no pictures in {path}: it contains {count_endings(members.sizes)}; "
            "give an archive of .png, .jpg, .webp ... files"
        )
    texts = (*ENDINGS, *FILES, LABELS)
    _check_texts([size for name, size in members.sizes.items() if name.endswith(texts)], path)
    source = tree_source(members.sizes, read, str(path), refused=members.broken, reasons=members.reasons)
    return replace(source, file=lambda i: path)


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


def _zip(path: Path) -> tuple[Members, Read]:
    file = zipfile.ZipFile(open_regular(path))
    infos = [info for info in file.infolist() if not info.filename.endswith(("/", "\\"))]
    _check_count(len(infos), path)
    members: dict[str, zipfile.ZipInfo] = {}
    found = Members({}, [], {})
    for info in infos:
        kind = info.external_attr >> 16 & 0o170000  # file type of a Unix mode; 0 if another system made the archive
        why = _refusal(
            info.filename, regular=kind in (0, 0o100000), size=info.file_size, packed=info.compress_size
        ) or ("encrypted" if info.flag_bits & 1 else "")
        name = found.add(_zip_name(info), info.file_size, why)
        if name:
            members[name] = info

    def read(name: str) -> bytes:
        try:
            with file.open(members[name]) as member:
                return member.read(members[name].file_size + 1)
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
            raise Unreadable(str(error) or "damaged in the archive") from error
        except Exception as error:  # zlib.error, lzma.LZMAError
            raise Unreadable(f"damaged in the archive: {error}") from error

    return found, read


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The name of a member. Many programs write UTF-8 without the flag that says so, and zipfile reads it as cp437."""
    try:
        return info.filename if info.flag_bits & 0x800 else info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _tar(path: Path) -> tuple[Members, Read]:
    plain = path.name.lower().endswith(".tar")
    members: dict[str, tuple[int, int]] = {}  # offset and size
    contents: dict[str, bytes] = {}
    found = Members({}, [], {})
    count = 0
    with open_regular(path) as opened, _opened_tar(opened, path, plain) as file:
        for member in file:
            count += 1
            _check_count(count, path)
            if member.isdir():
                continue
            regular = member.isreg() and not member.issparse()
            stored = member.name.removeprefix("./")
            why = _refusal(stored, regular=regular, size=member.size, packed=member.size)
            name = found.add(stored, member.size, why)
            if name:
                members[name] = (member.offset_data, member.size)
                if not plain:
                    reader = file.extractfile(member)
                    contents[name] = reader.read() if reader else b""

    def read(name: str) -> bytes:
        offset, size = members[name]
        if not plain:
            return contents[name]
        with open_regular(path) as source:  # opened anew: two threads must not share a file position
            source.seek(offset)
            data = source.read(size)
        if len(data) < size:
            raise Unreadable("the archive is truncated")
        return data

    return found, read


def _opened_tar(file: BinaryIO, path: Path, plain: bool) -> tarfile.TarFile:
    if plain:
        return tarfile.open(fileobj=file, mode="r:")
    kinds: dict[bytes, Callable[[BinaryIO], Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
    start = file.read(2)
    file.seek(0)
    unpacked = kinds[start](file) if start in kinds else file
    most = max(BOMB_BYTES, BOMB_RATIO * os.fstat(file.fileno()).st_size)
    limited = cast(BinaryIO, _Limited(unpacked, min(most, STREAM_BYTES), path))  # tarfile calls only `read`
    return tarfile.open(fileobj=limited, mode="r|")


class _Limited:
    """A stream of which no more than a number of bytes are read, whether they are of pictures or of anything else."""

    def __init__(self, file: IO[bytes], most: int, path: Path) -> None:
        self._file, self._most, self._path, self._count = file, most, path, 0

    def read(self, size: int) -> bytes:
        """At most `size` bytes. Raises UserError beyond the limit."""
        data = self._file.read(size)
        self._count += len(data)
        if self._count > self._most:
            if self._most == STREAM_BYTES:
                raise UserError(
                    f"{self._path} contains more than {STREAM_BYTES >> 30} GiB and, being compressed, cannot be read "
                    "in place; repack it as a plain .tar or a .zip"
                )
            raise UserError(
                f"{self._path} expands to more than {self._most:,} bytes, {BOMB_RATIO} times its size: a decompression "
                "bomb; pictures hardly compress"
            )
        return data


def _check_texts(sizes: Sequence[int], path: Path) -> None:
    if max(sizes, default=0) > MOST_TEXT or sum(sizes) > STREAM_BYTES:
        raise UserError(
            f"{path} contains text files of {sum(sizes):,} bytes, too large for captions or metadata: "
            f"leave out those over {MOST_TEXT >> 20} MiB"
        )


def _check_count(count: int, path: Path) -> None:
    if count > MEMBERS:
        raise UserError(f"{path} contains more than {MEMBERS:,} files; split it")
