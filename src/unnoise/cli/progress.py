"""Progress of a command: one bar on a terminal, one line now and then elsewhere, on stderr.

    sampling ━━━━━━━━━━╺━━━━━━━━━━━━━━━━━━ 24% 12/50 0:00:03 < 0:00:09 4.1 step/s loss 0.123
    sampling: step 12/50, loss 0.123, 3.1 s elapsed, 9.4 s remaining

The library draws no bar: it yields, and commands report what it yields."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, TextIO

from unnoise.cli.console import animated
from unnoise.io.printable import visible
from unnoise.io.units import duration, human

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import Task

REDRAW = 0.1  # seconds: a bar is not redrawn sooner
NARROW = 80  # columns: a narrower terminal shows numbers and no bar


class Progress:
    """Reports how many of `total` steps are done. A context manager.

    On a pipe, in a log file or with TERM=dumb there are lines in place of the bar: one at a multiple of `every` steps
    that is at least `seconds` after the line before, and always one for the last step. `start` is the number of steps
    that were done before; `silent` reports nothing, as for all processes but the first.
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
        self.start, self.done, self.began = start, start, time.monotonic()
        self.line_at, self.line_time = start, self.began  # the step and the time of the last line
        self.drawn = 0.0  # when the bar was drawn last
        self.silent = silent
        self.bar: Bar | None = None
        if not silent and animated(self.out):
            self.bar = new_bar(self.out, unit)
            self.bar.add_task(what, total=total, completed=start, note="")
            self.bar.start()
            self.bar.console.show_cursor(True)  # rich hides it, and a command that is killed could not show it again

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def step(self, done: int, note: str = "") -> None:
        """Reports that `done` of `total` steps are done; `note` is shown beside it."""
        self.done = done
        if self.bar is not None:
            task = self.bar.tasks[0]
            self.bar.update(task.id, completed=done, total=self.total, note=note or task.fields["note"])
            if time.monotonic() - self.drawn >= REDRAW:
                self.bar.refresh()
                self.drawn = time.monotonic()
        elif not self.silent and self._line_is_due():
            self._print_line(note)

    def _line_is_due(self) -> bool:
        if self.done >= self.total:
            return self.line_at != self.done
        reached = self.done // self.every > self.line_at // self.every
        return reached and time.monotonic() - self.line_time >= self.seconds

    def _print_line(self, note: str) -> None:
        self.line_at, self.line_time = self.done, time.monotonic()
        elapsed = self.line_time - self.began
        remaining = elapsed / max(self.done - self.start, 1) * (self.total - self.done)
        parts = [f"{self.what}: {self.unit} {self.done}/{self.total}", note, f"{duration(elapsed)} elapsed"]
        parts += [f"{duration(remaining)} remaining"] if self.done < self.total else []
        self._print(", ".join(part for part in parts if part))

    def _print(self, line: str) -> None:
        with suppress(OSError):  # a log on a full disk, or a closed pipe, ends no work
            print(visible(line), file=self.out, flush=True)

    def say(self, message: str) -> None:
        """Prints a line above the bar."""
        if self.bar is not None:
            self.bar.console.print(visible(message), markup=False, highlight=False, soft_wrap=True)
        elif not self.silent:
            self._print(message)

    def close(self) -> None:
        """Draws the bar a last time and leaves it on the terminal."""
        if self.bar is not None:
            self.bar.stop()


def new_bar(out: TextIO, unit: str) -> Bar:
    """A bar that is not drawn yet, and beside it the numbers of `numbers`.

    No thread draws it: one that holds a lock would stop the processes that a data loader forks. stdout stays as it is:
    data may be piped from it while the bar is on stderr. Colours follow NO_COLOR and TERM.
    """
    from rich import progress
    from rich.console import Console
    from rich.table import Column
    from rich.text import Text

    class Numbers(progress.ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(numbers(task, unit))

    console = Console(file=out, force_terminal=True)
    bar = [progress.BarColumn(bar_width=None, complete_style="cyan", finished_style="green")]
    columns = [
        progress.TextColumn("{task.description}", markup=False),
        *(bar if console.width >= NARROW else []),
        Numbers(table_column=Column(no_wrap=True)),
    ]
    return progress.Progress(
        *columns, console=console, expand=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
    )


def numbers(task: Task, unit: str) -> str:
    """`24% 12/50 0:00:03 < 0:00:09 4.1 step/s`: done, elapsed < remaining, speed; then the note."""
    elapsed, steps = task.elapsed or 0.0, task.finished_speed or task.speed
    remaining = "-:--:--" if task.time_remaining is None else str(timedelta(seconds=round(task.time_remaining)))
    times = f"{timedelta(seconds=round(elapsed))} < {remaining}"
    parts = [f"{task.percentage:.0f}% {task.completed:.0f}/{task.total:.0f}", times, speed(steps, unit)]
    return " ".join(part for part in (*parts, task.fields["note"]) if part)


def speed(steps: float | None, unit: str) -> str:
    """`4.1 step/s`, or `2.5 s/step` for less than one step a second; empty where it is not known yet."""
    if not steps:
        return ""
    return f"{human(steps)} {unit}/s" if steps >= 1 else f"{human(1 / steps)} s/{unit}"
