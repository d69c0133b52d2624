"""A polite end: the first SIGTERM or SIGINT asks the training to finish its step and save; the second ends it at once.

Exit codes are 128 + the signal's number: 130 for SIGINT (Ctrl-C), 143 for SIGTERM.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(SystemExit):
    """The training was asked to stop, has saved, and leaves with the signal's exit code."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class Asked:
    """Whether a signal has come, and which."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            os._exit(128 + number)  # whatever is half written is invisible: a checkpoint is published by a rename
        self.number = number


@contextmanager
def asked() -> Iterator[Asked]:
    """Listens while the block runs; signals mean again what they meant before at its end.

    Outside the main thread Python does not let anyone listen: there the answer stays no.
    """
    listener = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield listener
        return
    before = {number: signal.signal(number, listener) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield listener
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
