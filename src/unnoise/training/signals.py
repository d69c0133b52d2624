"""Stopping a training by a signal: the first SIGTERM or SIGINT ends it after the current step and a checkpoint.

A second signal ends the process at once. Exit codes are 128 + the signal's number: 130 for SIGINT (Ctrl-C), 143 for
SIGTERM.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(SystemExit):
    """Raised after a training was stopped by a signal and has saved; exits with the signal's code."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class Received:
    """The number of the signal that was received; 0 before."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            os._exit(128 + number)  # a half-written checkpoint is not visible: it is published by a rename
        self.number = number


@contextmanager
def listening() -> Iterator[Received]:
    """Handles SIGINT and SIGTERM inside the block, and restores the earlier handlers at its end.

    Python allows signal handlers in the main thread only; in another thread no signal is received.
    """
    received = Received()
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, received) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
