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
import fcntl
import json
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from unnoise.config import convert, files
from unnoise.config.data import DataConfig
from unnoise.config.training import Fit, LogConfig
from unnoise.errors import UserError
from unnoise.io.atomic import write_text
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
INCIDENTAL = ("about", "device", "log.", "data.workers", "data.cache_bytes")
# settings that the state of a training depends on: a training that resumes must have the same
FIXED = (
    "net.",
    "width",
    "features",
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


def status(path: Path) -> dict[str, Any]:
    """Returns {"step", "steps", "images", "seconds", "finished"} of a run; step 0 before its first checkpoint."""
    fit = convert.from_dict(Fit, files.read(path / "config.yaml")[0]["fit"], str(path))
    total = -(-fit.images // fit.batch)
    states = sorted(path.glob("checkpoints/step-*/state.json"))
    state = json.loads(states[-1].read_text()) if states else {"step": 0, "images": 0, "seconds": 0.0}
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

    def log(self, message: str) -> None:
        """Appends a line to log.txt, with the time."""
        with (self.path / "log.txt").open("a", encoding="utf-8") as f:
            f.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")

    def record(self, step: int, values: Mapping[str, float | str]) -> None:
        """Appends a line to metrics.jsonl, and its numbers to the TensorBoard log."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as f:
            f.write(json.dumps({"step": step, **values}) + "\n")
        if self._events is None:
            self._events = _events(self.path / "tensorboard", step)
        if self._events:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self._events.add_scalar(name, value, step)
            self._events.flush()

    def rewind(self, step: int) -> None:
        """Removes the lines of metrics.jsonl after this step, and a truncated line."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        lines = path.read_text(encoding="utf-8").splitlines()
        valid = [line for line in lines if 0 <= _step(line) <= step]
        if valid != lines:
            write_text(path, "".join(line + "\n" for line in valid))

    def record_data(self, facts: Mapping[str, Any]) -> None:
        """Writes data.json and config.yaml; `facts` describes the data set, by "fingerprint", "count" and others.

        Raises UserError, before writing, where the data set is another than the one that the run began with.
        """
        file = self.path / "data.json"
        if file.exists():
            old = json.loads(file.read_text(encoding="utf-8"))
            if old["fingerprint"] != facts["fingerprint"]:
                changed, fix = _changed_parts(old, facts), "restore them, or begin a new run"
                if changed == ["times of modification"]:
                    fix = f"copy them with cp -a or rsync -a, or, if you are sure of them, remove {file} and resume"
                raise UserError(
                    f"{self.path}: the pictures are not those that this run began with ({old['count']} pictures then, "
                    f"{facts['count']} now{'; changed: ' if changed else ''}{', '.join(changed)}): {fix}"
                )
        write_text(file, json.dumps(facts, indent=1, ensure_ascii=False))
        if self._changes:
            self.log(f"settings changed: {_listed(self._changes)}")
        write_text(self.path / "config.yaml", files.dumps(self._config))

    def metrics(self) -> list[dict[str, Any]]:
        """Returns the lines of metrics.jsonl."""
        return metrics(self.path)


def _changed_parts(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The parts of a data set's fingerprint that differ; empty where an earlier version did not store them."""
    before, now = old.get("parts", {}), new.get("parts", {})
    return [name for name in now if before and before.get(name) != now[name]]


def metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's metrics.jsonl, without truncated ones."""
    file = path / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [json.loads(line) for line in lines if _step(line) >= 0]


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return -1


def _events(directory: Path, step: int) -> Any:
    """A TensorBoard writer that removes entries from `step` on; False where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return False
    return SummaryWriter(str(directory), purge_step=step)


@contextmanager
def open_run(path: Path, config: Config, *, command: Sequence[str] = ()) -> Iterator[Run]:
    """Opens the run at `path`, a new or an earlier one, and locks it until the block ends.

    Changed settings are written once the data set is known to be the same (`Run.record_data`). Raises UserError where
    another training has locked the run, and where a setting of FIXED changed.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with _lock(path):
            run = Run(path, config, _allowed(path, config))
            if not (path / "config.yaml").exists():
                write_text(path / "config.yaml", files.dumps(config))
            run.checkpoints.mkdir(exist_ok=True)
            run.samples.mkdir(exist_ok=True)
            _note_machine(run, command)
            yield run
    except PermissionError as e:
        raise UserError(f"cannot write in {path}: {e.strerror}; choose another folder for runs") from e


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


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """A lock of the operating system, which is released when the process ends, however it ends."""
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


def _note_machine(run: Run, command: Sequence[str]) -> None:
    file = run.path / "env.json"
    starts = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    starts.append(machine() | {"started": time.strftime("%Y-%m-%d %H:%M:%S"), "command": list(command)})
    write_text(file, json.dumps(starts, indent=1))
