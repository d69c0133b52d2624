"""Trains in a run's directory, from its last checkpoint to the end: what every recipe does around `fit`.

    resume -> fit, and meanwhile log, sample, save -> the end, a signal, or an update that is not finite

A checkpoint is a model directory, written by the recipe from the averaged weights, and beside it the state of the
training: see saved_state.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unnoise.config.training import LogConfig
from unnoise.errors import UserError
from unnoise.io import checkpoint
from unnoise.training import saved_state
from unnoise.training.distributed import ALONE, Processes
from unnoise.training.loop import Tick, fit, steps
from unnoise.training.player import Player, by_name, shared_fit
from unnoise.training.run import Run
from unnoise.training.saved_state import Tensors
from unnoise.training.signals import Received, Stopped, listening
from unnoise.training.train_metrics import TrainMetrics
from unnoise.training.train_state import TrainState
from unnoise.training.turn import NonFinite


@dataclass(frozen=True)
class Task:
    """What a recipe defines: its data, its players, and how its model is written and sampled.

    `write` and `sample` are given the average of the first player's weights that comes first in its `fit.ema`. `sample`
    writes a sheet of samples, in all processes together; its last argument becomes true when it should end without
    one, and it returns whether it has written it.
    """

    players: Player | Mapping[str, Player]
    log: LogConfig
    batches: Callable[[int], Iterator[Any]]  # step -> this process's batches from there on
    write: Callable[[Path, Tensors], None]  # writes model.safetensors and what else makes it a model
    sample: Callable[[Path, Tensors, Callable[[], bool]], bool] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)  # additional entries of state.json


def train(
    run: Run | None,
    task: Task,
    states: TrainState | Mapping[str, TrainState],
    *,
    processes: Processes = ALONE,
) -> Iterator[Tick]:
    """Trains from the run's newest checkpoint to the end; yields a tick per step, after the step is logged and saved.

    The first process passes the run, the others None. Yields nothing where the training is finished already. Raises
    Stopped (a SystemExit with the signal's code) after a signal, NonFinite, and CannotSave where the last checkpoint
    cannot be written; a failure to write an earlier one is logged, and the next one is tried.
    """
    trainer = _Trainer(run, task, by_name(states), processes)
    trainer.resume()
    with listening() as signal:
        trainer.sample_again(signal)
        while True:
            try:
                yield from trainer.fit(signal)
            except NonFinite as error:
                trainer.roll_back(error)
            else:
                return


class _Trainer:
    def __init__(self, run: Run | None, task: Task, states: Mapping[str, TrainState], processes: Processes) -> None:
        assert processes.first == (run is not None), "the first process holds the run"
        self.run, self.task, self.states, self.processes = run, task, states, processes
        self.players = by_name(task.players)
        self.config = shared_fit(self.players)
        self.metrics = TrainMetrics()
        self.total = steps(self.config)
        self.saved = -1  # the step of the newest checkpoint
        self.rollbacks = 0  # since the newest checkpoint
        self.due = 0.0  # time of the next checkpoint

    @property
    def step(self) -> int:
        return self.states[next(iter(self.players))].step

    def log(self, message: str) -> None:
        if self.run is not None:
            self.run.log(message)

    # --- from a checkpoint ---

    def resume(self) -> None:
        """Restores the newest checkpoint, if there is one."""
        found = ""
        with self.processes.together():
            if self.run is not None:
                for name in checkpoint.clean(self.run.checkpoints, alone=True):
                    self.log(f"removed {name}, left by a training that was killed")
                for name in checkpoint.stray(self.run.checkpoints):
                    self.log(f"checkpoints/{name} is not a checkpoint: ignored")
                newest = checkpoint.sound(self.run.checkpoints)
                found = str(newest.resolve()) if newest else ""
        found = self.processes.broadcast(found)
        if found:
            self.load(Path(found))
            self.log(f"resumed from {Path(found).name}, {self.step} of {self.total} steps")
        if self.run is not None:
            self.run.rewind(self.step)
        if self.step >= self.total:
            self.log("finished already")
        self.due = time.monotonic() + self.task.log.checkpoint_every

    def load(self, directory: Path) -> None:
        """Restores a checkpoint."""
        state = saved_state.load(directory, self.players, self.states)
        self.metrics = TrainMetrics(**state["log"])
        self.saved = state["step"]

    # --- steps ---

    def fit(self, signal: Received) -> Iterator[Tick]:
        """Trains from here to the end, or to an update that is not finite."""

        def flags() -> tuple[bool, bool]:
            return signal.number > 0, self.processes.first and time.monotonic() >= self.due

        batches = self.task.batches(self.step)
        for tick in fit(self.players, batches, states=self.states, processes=self.processes, flags=flags):
            stop, save = tick.flags
            event, stop = self.after(tick, signal, stop=stop, save=save)
            yield replace(tick, event=event)
            if stop:
                self.log(f"stopped by a signal after step {tick.step}, saved")
                raise Stopped(signal.number or 15)

    def after(self, tick: Tick, signal: Received, *, stop: bool, save: bool) -> tuple[str, bool]:
        """Logs, samples and saves, where that is due after this step; returns what happened, and whether to stop.

        Samples that a signal interrupts, or that are due when it is received, are written when the run is resumed.
        """
        log, last = self.task.log, tick.step >= self.total
        events = [tick.event] if tick.event else []
        self.metrics.add(tick)
        if tick.event:
            self.log(f"step {tick.step}: {tick.event}")
        if tick.step % log.log_every == 0 or last:
            line = self.metrics.line(tick, self.config.batch)
            if self.run is not None:
                self.run.record(tick.step, line)
        if self.is_sampled(tick.step) and not stop:
            stop = not self.sample(tick.step, signal)
            events.append("samples interrupted" if stop else "sampled")
        if stop or last or save or (log.checkpoint_steps and tick.step % log.checkpoint_steps == 0):
            events.append(self.save(must=stop or last))
        if last:
            self.log(f"finished: {tick.images} pictures in {self.metrics.seconds:.0f} seconds")
        events += self.run.warnings() if self.run is not None else ()
        return "; ".join(events), stop

    # --- samples ---

    def is_sampled(self, step: int) -> bool:
        """Whether samples belong to this step."""
        every = self.task.log.grid_every
        return self.task.sample is not None and every > 0 and step > 0 and (step % every == 0 or step >= self.total)

    def sample(self, step: int, signal: Received) -> bool:
        """Writes samples at fixed seeds; returns False where a signal ended it before."""
        assert self.task.sample is not None
        weights = self.states[next(iter(self.players))].average(self.config.ema[0])
        try:
            return self.task.sample(self.sheet(step), weights, lambda: signal.number > 0)
        except OSError as error:  # of the file, which is written last, in the first process: no other one waits
            if self.run is None:
                raise
            self.run.warn(self.run.samples, error)
            return True

    def sheet(self, step: int) -> Path:
        """The file of the samples of a step, in the first process."""
        return (self.run.samples if self.run is not None else Path()) / f"{checkpoint.name(step)}.png"

    def sample_again(self, signal: Received) -> None:
        """Writes the samples of the step that is resumed, where a signal kept them from being written."""
        missing = self.run is not None and not self.sheet(self.step).exists()
        if self.is_sampled(self.step) and self.processes.any(missing) and not self.sample(self.step, signal):
            raise Stopped(signal.number or 15)

    def save(self, *, must: bool) -> str:
        """Publishes a checkpoint and removes older ones; returns what happened."""
        files = saved_state.collect(self.players, self.states)  # in every process
        problem = None
        if self.run is not None:
            try:
                self._publish(self.run, files)
            except checkpoint.CannotSave as e:
                problem = e
        self.due = time.monotonic() + self.task.log.checkpoint_every
        if not self.processes.any(problem is not None):
            self.saved, self.rollbacks = self.step, 0
            return "saved"
        if must:
            raise problem or UserError("the first process could not save: see its message")
        self.log(f"step {self.step}: {problem}; the training continues and tries again")
        return f"not saved: {problem}"

    def _publish(self, run: Run, files: Mapping[str, Tensors]) -> None:
        state = {
            **saved_state.facts(self.players, self.states, self.metrics.seconds),
            "log": self.metrics.as_dict(),
            "processes": self.processes.world,
            **self.task.facts,
        }

        def write(directory: Path) -> None:
            self.task.write(directory, files[saved_state.MODEL])
            for file, tensors in files.items():
                if file != saved_state.MODEL:
                    checkpoint.save(tensors, directory / file)
            (directory / checkpoint.STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")

        checkpoint.publish(
            run.checkpoints / checkpoint.name(self.step), write, needed=sum(map(checkpoint.size, files.values()))
        )
        with run.optional(run.checkpoints):
            checkpoint.prune(run.checkpoints, self.task.log.keep)

    # --- an update that is not finite ---

    def roll_back(self, error: NonFinite) -> None:
        """Restores the newest checkpoint and continues with the samples after the bad step; or raises `error`."""
        self.log(str(error))
        self.rollbacks += 1
        if self.config.non_finite != "rollback" or self.saved < 0 or self.rollbacks > self.config.max_skips:
            raise error
        path = ""
        with self.processes.together():
            if self.run is not None:
                path = str(checkpoint.sound(self.run.checkpoints) or "")
        path, seconds = self.processes.broadcast(path), self.metrics.seconds
        self.load(Path(path))
        self.metrics = TrainMetrics(seconds)
        self.log(f"rolled back to step {self.step}; continues with the samples after step {error.step}")
        for state in self.states.values():
            state.step = error.step
