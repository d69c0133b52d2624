"""The directory of one training: what was asked, measured, learned.

    runs/00001-name/
        config.yaml     every setting, resolved              log.txt         what happened, for people
        metrics.jsonl   a line of numbers every few steps    tensorboard/    the same, where it is installed
        samples/        pictures at fixed seeds over time    checkpoints/    see io/checkpoint.py
        env.json        machine and versions, a leg each     data.json       which pictures, by fingerprint
        lock            held by the process that trains

The same settings again find the same directory, so the same command again goes on. Two trainings never share one: the
second is told who holds it; the lock of a process that died is free. No torch here.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import json
import os
import platform
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


class Config(Protocol):
    """What every training's configuration has."""

    @property
    def name(self) -> str: ...
    @property
    def data(self) -> DataConfig: ...
    @property
    def fit(self) -> Fit: ...
    @property
    def log(self) -> LogConfig: ...


# settings that change nothing of what is learned: another value is still the same run
INCIDENTAL = ("about", "device", "log.", "data.workers", "data.cache_bytes")
# settings that the state of a training cannot be carried over: a training that goes on keeps them
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
    """The directory for this training: the newest run of the same settings, else a new one, made with its number."""
    if resume:
        for path in reversed(_named(root, config.name)):
            if not _but(_changes(path, config), INCIDENTAL):
                return path
    root.mkdir(parents=True, exist_ok=True)
    while True:
        numbers = [int(path.name[:5]) for path in root.iterdir() if re.match(r"\d{5}-", path.name)]
        path = root / f"{max(numbers, default=0) + 1:05d}-{_slug(config.name)}"
        with contextlib.suppress(FileExistsError):  # another training took this number just now
            path.mkdir()
            return path


def status(path: Path) -> dict[str, Any]:
    """How far a run is: {"step", "steps", "images", "seconds", "finished"}; step 0 before its first checkpoint."""
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
    """A name that is a safe part of a path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "run"


def _changes(path: Path, config: Config) -> dict[str, tuple[Any, Any]]:
    """What the run's own settings are and what is asked now, where they differ; unreadable settings differ."""
    try:
        old: Any = files.load(path / "config.yaml", type(config))
    except UserError as e:
        return {"config.yaml": (str(e), "")}
    return convert.differences(old, config)


def _but(changes: Mapping[str, Any], prefixes: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in changes.items() if not key.startswith(tuple(prefixes))}


class Run:
    """A run directory that this process holds. Made by `hold`."""

    def __init__(self, path: Path, config: Config, changes: Mapping[str, tuple[Any, Any]]) -> None:
        self._config, self._changes = config, changes
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self._events: Any = None

    def log(self, message: str) -> None:
        """A line in log.txt, with the time."""
        with (self.path / "log.txt").open("a", encoding="utf-8") as f:
            f.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")

    def record(self, step: int, values: Mapping[str, float | str]) -> None:
        """A line in metrics.jsonl, and the numbers for TensorBoard."""
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
        """Forget the lines of metrics.jsonl after this step, and a line that was cut off."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if 0 <= _step(line) <= step]
        if kept != lines:
            write_text(path, "".join(line + "\n" for line in kept))

    def same_data(self, facts: Mapping[str, Any]) -> None:
        """Note which pictures are trained on (`facts` has "fingerprint" and "count"), and with which settings.

        Raises UserError, with nothing noted, where the pictures are others than those the run began with.
        """
        file = self.path / "data.json"
        if file.exists():
            old = json.loads(file.read_text(encoding="utf-8"))
            if old["fingerprint"] != facts["fingerprint"]:
                raise UserError(
                    f"{self.path}: the pictures are not those that this run began with ({old['count']} pictures then, "
                    f"{facts['count']} now): bring them back, or begin a new run"
                )
        write_text(file, json.dumps(facts, indent=1, ensure_ascii=False))
        if self._changes:
            self.log(f"settings changed: {_listed(self._changes)}")
        write_text(self.path / "config.yaml", files.dumps(self._config))

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return metrics(self.path)


def metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; those that were cut off are left out."""
    file = path / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [json.loads(line) for line in lines if _step(line) >= 0]


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return -1


def _events(directory: Path, step: int) -> Any:
    """A TensorBoard writer that forgets what is there from `step` on; False where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return False
    return SummaryWriter(str(directory), purge_step=step)


@contextmanager
def hold(path: Path, config: Config, *, command: Sequence[str] = ()) -> Iterator[Run]:
    """The run at `path`, new or to go on with, held until the block ends.

    Settings that changed are noted once the pictures are known to be the same (`Run.same_data`). Raises UserError where
    another training holds the run, and where a setting changed that a training cannot change on its way.
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
    """The settings that are not what they were; UserError where one of them has to be."""
    if not (path / "config.yaml").exists():
        return {}
    changes = _changes(path, config)
    if "config.yaml" in changes:
        raise UserError(changes["config.yaml"][0])
    fixed = {key: pair for key, pair in changes.items() if key.startswith(FIXED)}
    if fixed:
        raise UserError(
            f"{path} cannot go on with other settings of what is learned: {_listed(fixed)}; "
            f"begin a new run, or set them back"
        )
    return changes


def _listed(changes: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{key} {old} -> {new}" for key, (old, new) in changes.items())


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """The kernel's own lock, which ends with the process, however that ends."""
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
    legs = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    legs.append(machine() | {"started": time.strftime("%Y-%m-%d %H:%M:%S"), "command": list(command)})
    write_text(file, json.dumps(legs, indent=1))


def machine() -> dict[str, Any]:
    """Versions and machine, as far as they can be told without torch."""
    versions = {}
    for package in ("unnoise", "torch", "numpy", "pillow", "safetensors"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "versions": versions,
    }


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as f:
        for line in f:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
