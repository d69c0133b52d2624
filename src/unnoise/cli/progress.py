"""Progress for a person: one bar on a terminal, one plain line now and then anywhere else."""

from __future__ import annotations

import os
import sys
import time
from typing import TextIO

from unnoise.io.units import duration


class Progress:
    """How far `total` steps have come. A context manager; `step` says where we are, `note` is shown beside it.

    On a terminal this is a tqdm bar on stderr; elsewhere (a pipe, a log file, TERM=dumb) lines: at a multiple of
    `every` steps, but not sooner than `seconds` after the one before; and always the last.
    """

    def __init__(
        self,
        total: int,
        what: str,
        *,
        unit: str = "step",
        start: int = 0,
        every: int = 1,
        seconds: float = 10.0,
        silent: bool = False,
        out: TextIO | None = None,
    ) -> None:
        self.out = out or sys.stderr
        self.total, self.what, self.unit, self.every, self.seconds = total, what, unit, every, seconds
        self.done, self.first, self.began, self.said, self.said_at = start, start, time.monotonic(), 0.0, start
        self.silent = silent
        self.bar = None
        if not silent and animated(self.out):
            from tqdm import tqdm

            self.bar = tqdm(
                total=total, desc=what, unit=f" {unit}", initial=start, file=self.out, dynamic_ncols=True, smoothing=0.1
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def step(self, done: int, note: str = "") -> None:
        """We are at `done` of `total`; `note` says what a person wants to know besides."""
        if self.bar is not None:
            if note:
                self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(done - self.done)
        self.done = done
        if self.bar is None and not self.silent and self._due():
            self._line(note)

    def _due(self) -> bool:
        if self.done >= self.total:
            return self.said_at != self.done
        reached = self.done // self.every > self.said_at // self.every
        return reached and time.monotonic() - max(self.said, self.began) >= self.seconds

    def _line(self, note: str) -> None:
        self.said, self.said_at = time.monotonic(), self.done
        took = self.said - self.began
        left = took / max(self.done - self.first, 1) * (self.total - self.done)
        parts = [f"{self.what}: {self.unit} {self.done}/{self.total}", note, f"{duration(took)} gone"]
        if self.done < self.total:
            parts.append(f"{duration(left)} left")
        print(", ".join(part for part in parts if part), file=self.out, flush=True)

    def say(self, message: str) -> None:
        """A line that does not break the bar."""
        if self.silent:
            return
        if self.bar is not None:
            self.bar.write(message, file=self.out)
        else:
            print(message, file=self.out, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def animated(out: TextIO) -> bool:
    """Whether `out` is a terminal that moving things may be drawn on."""
    try:
        return out.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # closed
        return False
