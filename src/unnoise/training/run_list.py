"""The runs in a folder: how far each one is, and what is wrong with a damaged one. No torch is imported.

A run that a process trains is `running`, and its numbers are those of its log; any other run is as far as its newest
checkpoint, from which it would resume. Nothing is written.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unnoise.config import files
from unnoise.errors import UserError
from unnoise.io.json_files import last_metrics, read_json
from unnoise.training import run
from unnoise.training.lock import is_running

SMALL = 1_000_000  # bytes: larger files of a checkpoint are compared by their size, so that a list is quick
ERRORS = (UserError, OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError)


@dataclass(frozen=True)
class Summary:
    """One run of a list; None where a number is not known."""

    name: str  # of its folder
    preset: str
    status: str  # running, stopped, finished or damaged
    step: int | None
    steps: int | None
    loss: float | None  # of the last line of its log
    seconds: float | None  # of training, over all its interruptions
    bytes: int  # of all its files
    problem: str = ""  # what is damaged


def runs_in(folder: Path) -> list[Summary]:
    """Returns the runs in a folder, by name. Raises UserError where there is no such folder."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give the folder that contains the runs, for example runs")
    return [summary(path) for path in sorted(folder.iterdir()) if is_run(path)]


def is_run(path: Path) -> bool:
    """Returns whether a path is the folder of a run, whole or not: it has a config.yaml, or the name of a run."""
    numbered = re.match(r"\d{5,}-", path.name) is not None
    return path.is_dir() and (numbered or (path / "config.yaml").is_file())


def summary(path: Path) -> Summary:
    """Returns how far a run is. Raises nothing: a run that cannot be read is `damaged`."""
    last = _numbers(path)
    running, problem = is_running(path), ""
    state: dict[str, Any] = {}
    try:
        state = run.status(path, largest=SMALL)
    except UserError as error:
        problem = str(error)
    except ERRORS as error:
        problem = f"config.yaml cannot be read: {error or type(error).__name__}"
    step = last.get("step", state.get("step")) if running else state.get("step")
    seconds = last.get("seconds", state.get("seconds")) if running else state.get("seconds")
    status = "running" if running else "damaged" if problem else "finished" if state["finished"] else "stopped"
    steps, size = state.get("steps"), _size(path)
    return Summary(path.name, _preset(path), status, step, steps, last.get("loss"), seconds, size, problem)


def _numbers(path: Path) -> dict[str, Any]:
    """The numbers in the last line of a run's log; empty where there is none."""
    try:
        last = last_metrics(path / "metrics.jsonl")
        return {name: x for name, x in last.items() if isinstance(x, (int, float)) and math.isfinite(x)}
    except ERRORS:
        return {}


def _preset(path: Path) -> str:
    """The preset or the file that the run was started with; the name in its settings where that is not recorded."""
    try:
        words = [str(word) for word in read_json(path / "env.json")[0]["command"]]
        source = words[words.index("train") + 1]
        if not source.startswith("-"):
            return source
    except (*ERRORS, IndexError):
        pass
    try:
        settings: Mapping[str, Any] = files.read(path / "config.yaml")[0]
        return str(settings.get("name", ""))
    except ERRORS:
        return ""


def _size(path: Path) -> int:
    """The bytes of all files in a folder; of a file that vanishes meanwhile, none."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue
    return total
