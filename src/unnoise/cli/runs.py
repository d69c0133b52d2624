"""`unnoise runs`: the trainings in a folder, how far each is, and which are damaged."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from unnoise.cli.console import UsageError, asking, emit, say, show, table
from unnoise.cli.options import flag, option
from unnoise.io.printable import printable
from unnoise.io.units import duration, human

if TYPE_CHECKING:
    from unnoise.training.run_list import Summary

HEAD = ("run", "preset", "status", "step", "loss", "time", "size")


def runs(
    folder: Annotated[Path, option("The folder of runs.")] = Path("runs"),
    /,
    *,
    json: Annotated[bool, flag("Print one JSON document to stdout.")] = False,
) -> None:
    """List the runs in a folder: preset, status, step, the last loss, the time trained and the size on disk."""
    from unnoise.training.run_list import is_run, runs_in

    if is_run(folder):
        raise UsageError(f"{folder} is one run: describe it with unnoise info, or list those in {folder.parent}")
    with asking():
        found = runs_in(folder)
    if json:
        emit({"kind": "runs", "path": folder, "runs": [dataclasses.asdict(each) for each in found]})
        return
    if not found:
        say(f"no runs in {folder}. Start one: unnoise train fashion --out {folder}")
        return
    show(table([list(map(printable, row(each))) for each in found], head=HEAD, ragged=True))
    for each in found:
        if each.problem:
            say(f"note: {printable(each.name)}: {printable(each.problem)}")
    say("\nResume one: unnoise train RUN. Describe it: unnoise info RUN")


def row(run: Summary) -> tuple[str, ...]:
    """The cells of a run in the table; a number that is not known is empty."""
    step = "" if run.step is None else f"{run.step:,}"
    return (
        run.name,
        run.preset,
        run.status,
        f"{step} of {run.steps:,}" if run.steps is not None else step,
        "" if run.loss is None else f"{run.loss:.4g}",
        "" if run.seconds is None else duration(run.seconds),
        human(run.bytes, "B"),
    )
