"""Reading files that may come from anyone: only regular files are opened, and no more of one is read than a limit.

A pipe, a socket or a device may have any name (`picture.png`), and to open or to read one may wait forever. So every
file is opened without waiting, and the open file itself is checked: a check of the name before may be out of date.
"""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path

from unnoise.errors import UserError

MOST_TEXT = 64 * 2**20  # bytes of a text file: a larger one is no list of prompts or captions

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


class NotRegular(UserError, OSError):
    """A path is a pipe, a socket, a device or a folder. An OSError too, so that one picture of many is skipped."""


def open_regular(path: str | Path) -> BufferedReader:
    """The file opened for reading, in bytes.

    Raises NotRegular for what is no regular file, at once, and OSError as `open` does.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        check_regular(path)  # a socket cannot be opened at all
        raise
    try:
        _check(path, os.fstat(handle).st_mode)
        return open(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_regular(path: str | Path) -> None:
    """Raises NotRegular for what is no regular file, OSError if it is missing: for libraries that open by name."""
    _check(path, os.stat(path).st_mode)


def _check(path: str | Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise NotRegular(f"{path} is {kind}, not a file: give the path of a file")


def read_bytes(path: str | Path, most: int) -> bytes:
    """The bytes of a file. Raises UserError for more than `most`, NotRegular, and OSError as `open` does."""
    with open_regular(path) as file:
        data = file.read(most + 1) if os.fstat(file.fileno()).st_size <= most else None
    if data is None or len(data) > most:
        raise UserError(f"{path} is larger than the {most:,} bytes that such a file may have: check that it is one")
    return data


def read_text(path: str | Path, most: int = MOST_TEXT) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises UserError for another encoding and for more than `most` bytes, NotRegular, and OSError as `open` does.
    """
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wrong = f"byte {error.start} is {error.object[error.start]:#04x}"
        raise UserError(f"{path} is not a text file in UTF-8 ({wrong}): save it in UTF-8") from None


def is_inside(name: str) -> bool:
    """Whether a name in a list of files, relative to a directory, is of a file in it and not of one elsewhere."""
    return not Path(name).is_absolute() and ".." not in Path(name).parts and "\0" not in name
