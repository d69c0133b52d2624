"""Atomic writes: a file or a directory appears under its name with its whole contents, or it does not appear.

    write beside the path   rename over it

A reader sees the old contents or the new ones, and a failed write leaves the old ones. Nothing is forced to the disk:
checkpoints, which have to survive a power cut, are written by io/checkpoint.py.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

DISK_ERRORS = {  # why a write failed
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of this user is used up",
    errno.EFBIG: "a file may not become this large here",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "writing is not allowed there",
    errno.EPERM: "writing is not allowed there",
    errno.ENOENT: "the directory has vanished",
    errno.EIO: "the disk reports an input/output error",
}


def publish(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path in the same folder, then rename that file to `path`, replacing what is there.

    The temporary name has the suffix of `path`. It is removed if `write` raises.
    """
    beside = _beside(path)
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def publish_directory(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with an empty temporary directory, then rename it to `path`; a directory that is there is replaced.

    The temporary directory is removed if `write` raises.
    """
    beside = _beside(path)
    try:
        beside.mkdir()
        write(beside)
        if path.exists():
            shutil.rmtree(path)
        os.replace(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to `path`, as `publish` does."""
    publish(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def _beside(path: Path) -> Path:
    """A hidden name in the folder of `path`, of this process and thread alone; makes that folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.stem}.{os.getpid()}-{threading.get_ident()}{path.suffix}")
