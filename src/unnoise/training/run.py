"""The directory of one training: its settings, measurements and checkpoints.

    runs/00001-name/
        config.yaml     every setting, resolved              log.txt         messages with their times
        metrics.jsonl   a line of numbers every few steps    tensorboard/    the same, where it is installed
        samples/        pictures at fixed seeds over time    checkpoints/    see io/checkpoint.py
        env.json        machine and versions, per start      data.json       the data set, by fingerprint
        lock            locked by the process that trains

The same settings lead to the same directory, so that the same command resumes. Two trainings never use one directory at
once: the second fails with the name of the process that has the lock, and the lock of a process that died is free. No
torch is imported here.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from unnoise.config import convert, files
from unnoise.config.data import DataConfig
from unnoise.config.training import Fit, LogConfig
from unnoise.errors import UserError
from unnoise.io import checkpoint
from unnoise.io.atomic import write_text
from unnoise.io.json_files import read_json
from unnoise.training import metrics_file
from unnoise.training.data_record import check_same
from unnoise.training.lock import lock
from unnoise.training.machine import machine


class Config(Protocol):
    """The settings that every training has."""

    @property
    def name(self) -> str: ...
    @property
    def data(self) -> DataConfig: ...
    @property
    def fit(self) -> Fit: ...
    @property
    def log(self) -> LogConfig: ...


# settings without influence on what is learned: another value still means the same run
INCIDENTAL = ("about", "device", "log.", "data.workers", "data.cache_bytes", "latent_cache", "measured")
# settings that the state of a training depends on: a training that resumes must have the same
FIXED = (
    "autoencoder",
    "net.",
    "width",
    "features",
    "discriminator.width",
    "discriminator.layers",
    "discriminator.norm",
    "process.schedule",
    "process.steps",
    "process.zero_snr",
    "process.predicts",
    "process.learned_variance",
    "data.size",
    "data.channels",
    "fit.batch",
    "fit.optimizer",
    "fit.ema",
    "fit.seed",
)


def choose(root: Path, config: Config, *, resume: bool = True) -> Path:
    """Returns the directory of this training: the newest run with the same settings, or a new one, which is created."""
    if resume:
        for path in reversed(_named(root, config.name)):
            if not _without(_changes(path, config), INCIDENTAL):
                return path
    root.mkdir(parents=True, exist_ok=True)
    while True:
        numbers = [int(path.name[:5]) for path in root.iterdir() if re.match(r"\d{5}-", path.name)]
        path = root / f"{max(numbers, default=0) + 1:05d}-{_slug(config.name)}"
        with contextlib.suppress(FileExistsError):  # another training took this number just now
            path.mkdir()
            return path


def find(root: Path, text: str) -> Path | None:
    """Returns the run in `root` with this name (00001-fashion) or number (1); None where there is none."""
    if not text or not root.is_dir():
        return None
    paths = [path for path in sorted(root.iterdir()) if (path / "config.yaml").is_file()]
    numbers = {int(match[1]): path for path in paths if (match := re.match(r"(\d{5,})-", path.name))}
    named = next((path for path in paths if path.name == text), None)
    return named or (numbers.get(int(text)) if re.fullmatch(r"[0-9]{1,9}", text) else None)


def status(path: Path, *, largest: float = math.inf) -> dict[str, Any]:
    """Returns {"step", "steps", "images", "seconds", "finished"} of a run; step 0 before its first checkpoint.

    They are those of the newest published checkpoint, which is verified; other files among the checkpoints do not
    count. Of files of more than `largest` bytes only the size is compared. Raises UserError, with the newest whole
    checkpoint, where it is damaged, and where config.yaml is.
    """
    settings: Any = files.read(path / "config.yaml")[0].get("fit", {})
    fit = convert.from_dict(Fit, settings, str(path / "config.yaml"))
    if fit.batch < 1:
        raise UserError(f"{path / 'config.yaml'}: fit.batch {fit.batch} is not a number of pictures")
    total = -(-fit.images // fit.batch)
    newest = checkpoint.sound(path / "checkpoints", largest=largest)
    state = checkpoint.read_state(newest) if newest else {"step": 0, "images": 0, "seconds": 0.0}
    return {
        "step": state["step"],
        "steps": total,
        "images": state["images"],
        "seconds": state["seconds"],
        "finished": state["step"] >= total,
    }


def _named(root: Path, name: str) -> list[Path]:
    pattern = re.compile(r"\d{5,}-" + re.escape(_slug(name)))
    found = root.iterdir() if root.is_dir() else iter(())
    return sorted(path for path in found if pattern.fullmatch(path.name) and (path / "config.yaml").is_file())


def _slug(name: str) -> str:
    """Replaces the characters that are not safe in a path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "run"


def _changes(path: Path, config: Config) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, as (the run's, the given ones); settings that cannot be read differ."""
    try:
        old: Any = files.load(path / "config.yaml", type(config))
    except UserError as e:
        return {"config.yaml": (str(e), "")}
    return convert.differences(old, config)


def _without(changes: Mapping[str, Any], prefixes: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in changes.items() if not key.startswith(tuple(prefixes))}


class Run:
    """A run directory that this process has locked. Made by `open_run`."""

    def __init__(self, path: Path, config: Config, changes: Mapping[str, tuple[Any, Any]]) -> None:
        self._config, self._changes = config, changes
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self._events: Any = None
        self._failed: set[Path] = set()  # files that could not be written
        self._warnings: list[str] = []

    @contextmanager
    def optional(self, file: Path) -> Iterator[None]:
        """Writes inside the block a file that a training can do without: a failure is a warning, once for each file."""
        try:
            yield
        except OSError as error:
            self.warn(file, error)

    def warn(self, file: Path, error: OSError) -> None:
        """Adds the warning that a file cannot be written, once for each file."""
        if file not in self._failed:
            self._failed.add(file)
            why = error.strerror or str(error)
            self._warnings.append(f"{file} cannot be written: {why}; the training continues without it")
            self.log(self._warnings[-1])

    def warnings(self) -> list[str]:
        """Returns the warnings since the last call."""
        found, self._warnings = self._warnings, []
        return found

    def log(self, message: str) -> None:
        """Appends a line to log.txt, with the time."""
        file = self.path / "log.txt"
        with self.optional(file):
            metrics_file.append(file, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}")

    def record(self, step: int, values: Mapping[str, float | str]) -> None:
        """Appends a line to metrics.jsonl, and its numbers to the TensorBoard log."""
        with self.optional(self.path / "metrics.jsonl"):
            metrics_file.append(self.path / "metrics.jsonl", json.dumps({"step": step, **values}))
        with self.optional(self.path / "tensorboard"):
            if self._events is None:
                self._events = metrics_file.tensorboard(self.path / "tensorboard", step)
            if self._events:
                for name, value in values.items():
                    if isinstance(value, (int, float)):
                        self._events.add_scalar(name, value, step)
                self._events.flush()

    def rewind(self, step: int) -> None:
        """Removes the lines of metrics.jsonl after this step, and a truncated line."""
        with self.optional(self.path / "metrics.jsonl"):
            metrics_file.rewind(self.path / "metrics.jsonl", step)

    def record_data(self, facts: Mapping[str, Any]) -> None:
        """Writes data.json and config.yaml; `facts` describes the data set, by "fingerprint", "count" and others.

        Raises UserError, before writing, where the data set is another than the one that the run began with.
        """
        file = self.path / "data.json"
        if file.exists():
            check_same(file, facts)
        with _writing(self.path):
            write_text(file, json.dumps(facts, indent=1, ensure_ascii=False))
            write_text(self.path / "config.yaml", files.dumps(self._config))
        if self._changes:
            self.log(f"settings changed: {_listed(self._changes)}")


def metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's metrics.jsonl, without truncated ones."""
    return metrics_file.read(path / "metrics.jsonl")


@contextmanager
def open_run(path: Path, config: Config, *, command: Sequence[str] = ()) -> Iterator[Run]:
    """Opens the run at `path`, a new or an earlier one, and locks it until the block ends.

    Changed settings are written once the data set is known to be the same (`Run.record_data`). Raises UserError where
    another training has locked the run, and where a setting of FIXED changed.
    """
    with ExitStack() as stack:
        with _writing(path):
            path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock(path))
            run = Run(path, config, _allowed(path, config))
            if not (path / "config.yaml").exists():
                write_text(path / "config.yaml", files.dumps(config))
            run.checkpoints.mkdir(exist_ok=True)
            run.samples.mkdir(exist_ok=True)
            _note_machine(run, command)
        yield run


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns an OSError inside the block, before the training starts, into an error for the user."""
    try:
        yield
    except OSError as e:
        why = e.strerror or str(e)
        raise UserError(f"cannot write in {path}: {why}; correct that, or choose another folder for runs") from e


def _allowed(path: Path, config: Config) -> dict[str, tuple[Any, Any]]:
    """The changed settings. Raises UserError where one of them is of FIXED."""
    if not (path / "config.yaml").exists():
        return {}
    changes = _changes(path, config)
    if "config.yaml" in changes:
        raise UserError(changes["config.yaml"][0])
    fixed = {key: pair for key, pair in changes.items() if key.startswith(FIXED)}
    if fixed:
        raise UserError(
            f"{path} cannot be resumed with other settings of what is learned: {_listed(fixed)}; "
            f"begin a new run, or set them back"
        )
    return changes


def _listed(changes: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{key} {old} -> {new}" for key, (old, new) in changes.items())


def _note_machine(run: Run, command: Sequence[str]) -> None:
    file = run.path / "env.json"
    starts: Any = []
    if file.exists():
        with contextlib.suppress(UserError):
            starts = read_json(file)
        if not isinstance(starts, list) or not starts:
            starts = []
            run.log("env.json was damaged and begins anew")
    starts.append(machine() | {"started": time.strftime("%Y-%m-%d %H:%M:%S"), "command": list(command)})
    write_text(file, json.dumps(starts, indent=1))
