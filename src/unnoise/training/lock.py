"""The lock of a run: one process trains in it at a time. It is released when that process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unnoise.errors import UserError


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Locks the run in this folder until the block ends. Raises UserError where another process has locked it."""
    with (path / "lock").open("a+", encoding="utf-8") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            f.seek(0)
            holder = f.read().strip() or "another process"
            raise UserError(f"{path} is being trained by {holder}: wait for it, stop it, or begin a new run") from None
        f.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        f.write(f"process {os.getpid()} on {socket.gethostname()} since {since}\n")
        f.flush()
        try:
            yield
        finally:
            f.truncate(0)


def is_running(path: Path) -> bool:
    """Returns whether a process has locked the run."""
    try:
        with (path / "lock").open("rb") as f:
            if not f.read(1):  # nobody's: not locked here, so that a training that starts now can lock it
                return False
            fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
