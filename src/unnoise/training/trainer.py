"""The course of a training, from its last checkpoint to its end: what every recipe does around `fit`.

    resume -> fit, and on the way log, draw, save -> the end, a signal, or a step that is not finite

A checkpoint is a model directory (the average that is drawn from, written by the recipe) and beside it all that a
training remembers:

    weights.safetensors   ema-<half-life>.safetensors   optimizer.safetensors   state.json   manifest.json

and `memory.safetensors` where the loss remembers something.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from unnoise.config.training import Fit, LogConfig
from unnoise.errors import UserError
from unnoise.io import checkpoint
from unnoise.training.distributed import ALONE, Processes
from unnoise.training.loop import Memory, NonFinite, SampleRNG, Tick, fit, steps
from unnoise.training.run import Run
from unnoise.training.signals import Asked, Stopped, asked
from unnoise.training.train_state import TrainState

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Plan:
    """What a recipe brings: its pictures, its objective, and how its model is written and drawn from."""

    fit: Fit
    log: LogConfig
    batches: Callable[[int], Iterator[Any]]  # step -> this process's batches from there on
    loss: Callable[[Any, SampleRNG], Tensor]
    write: Callable[[Path, Weights], None]  # model.safetensors and whatever else makes it a model
    draw: Callable[[Path, Weights], None]  # a sheet of samples from an average; every process is asked
    facts: Mapping[str, Any] = field(default_factory=dict)  # what state.json says besides
    memory: Memory | None = None  # of the loss


@dataclass
class _Log:
    """What has been gathered since the last line, and the time that the training took, over all its legs."""

    seconds: float = 0.0
    loss: float = 0.0
    count: int = 0
    waited: float = 0.0
    took: float = 0.0

    def add(self, tick: Tick) -> None:
        self.seconds += tick.seconds
        self.took += tick.seconds
        self.waited += tick.waiting * tick.seconds
        if not tick.event:
            self.loss += tick.loss
            self.count += 1

    def line(self, tick: Tick, batch: int) -> dict[str, float]:
        """The numbers of a line; begins the next one."""
        ticks = max(1, self.count)
        line = {
            "images": tick.images,
            "loss": self.loss / ticks,
            "lr": tick.lr,
            "grad_norm": tick.grad_norm,
            "images_per_second": batch * ticks / max(self.took, 1e-9),
            "waiting": self.waited / max(self.took, 1e-9),
            "seconds": self.seconds,
        }
        self.loss, self.count, self.waited, self.took = 0.0, 0, 0.0, 0.0
        return line


def follow(run: Run | None, learner: TrainState, plan: Plan, *, processes: Processes = ALONE) -> Iterator[Tick]:
    """Train to the end, from the newest checkpoint of the run; a tick a step, after what it asked for is done.

    `run` is held by the first process alone. Ends without a tick where the training is finished already. Raises
    Stopped (a SystemExit with the signal's code) after a signal, NonFinite, and CannotSave where the last checkpoint
    cannot be written; one on the way that cannot is logged, and tried again the next time.
    """
    course = _Course(run, learner, plan, processes)
    course.resume()
    with asked() as signal:
        while True:
            try:
                yield from course.leg(signal)
            except NonFinite as error:
                course.roll_back(error)
            else:
                return


class _Course:
    def __init__(self, run: Run | None, learner: TrainState, plan: Plan, processes: Processes) -> None:
        assert processes.first == (run is not None), "the first process holds the run"
        self.run, self.learner, self.plan, self.processes = run, learner, plan, processes
        self.log = _Log()
        self.total = steps(plan.fit)
        self.saved = -1  # the step of the newest checkpoint
        self.rollbacks = 0  # since the newest checkpoint
        self.due = 0.0  # when the next checkpoint is

    def say(self, message: str) -> None:
        if self.run is not None:
            self.run.log(message)

    # --- from a checkpoint ---

    def resume(self) -> None:
        """Be where the newest checkpoint is; at the beginning where there is none."""
        found = ""
        with self.processes.together():
            if self.run is not None:
                for name in checkpoint.clean(self.run.checkpoints, alone=True):
                    self.say(f"removed {name}, left by a training that was killed")
                for name in checkpoint.stray(self.run.checkpoints):
                    self.say(f"checkpoints/{name} is no checkpoint: ignored")
                newest = checkpoint.sound(self.run.checkpoints)
                found = str(newest.resolve()) if newest else ""
        found = self.processes.tell(found)
        if found:
            self.load(Path(found))
            self.say(f"goes on from {Path(found).name}, {self.learner.step} of {self.total} steps")
        if self.run is not None:
            self.run.rewind(self.learner.step)
        if self.learner.step >= self.total:
            self.say("finished already")
        self.due = time.monotonic() + self.plan.log.checkpoint_every

    def load(self, directory: Path) -> None:
        """Be what a checkpoint holds."""
        state = json.loads((directory / "state.json").read_text(encoding="utf-8"))
        self.learner.load(
            state["step"],
            checkpoint.read(directory / "weights.safetensors"),
            {h: checkpoint.read(directory / file) for h, file in _averages(self.plan.fit).items()},
            checkpoint.read(directory / "optimizer.safetensors"),
            state["skips"],
        )
        remembered = directory / "memory.safetensors"
        if self.plan.memory is not None and remembered.is_file():
            self.plan.memory.load(checkpoint.read(remembered))
        self.log = _Log(**state["log"])
        self.saved = state["step"]

    # --- on the way ---

    def leg(self, signal: Asked) -> Iterator[Tick]:
        """From here to the end, or to a step that is not finite."""

        def wishes() -> tuple[bool, bool]:
            return signal.number > 0, self.processes.first and time.monotonic() >= self.due

        plan, learner = self.plan, self.learner
        batches = plan.batches(learner.step)
        ticks = fit(
            learner.net,
            batches,
            plan.loss,
            plan.fit,
            learner=learner,
            memory=plan.memory,
            processes=self.processes,
            wishes=wishes,
        )
        for tick in ticks:
            stop, save = tick.wishes
            yield replace(tick, event=self.after(tick, stop=stop, save=save))
            if stop and tick.step < self.total:
                self.say(f"stopped by a signal after step {tick.step}, saved")
                raise Stopped(signal.number or 15)

    def after(self, tick: Tick, *, stop: bool, save: bool) -> str:
        """Log, draw, save, as far as it is time to; returns what happened, in words."""
        log, last = self.plan.log, tick.step >= self.total
        events = [tick.event] if tick.event else []
        self.log.add(tick)
        if tick.event:
            self.say(f"step {tick.step}: {tick.event}")
        if self.run is not None and (tick.step % log.log_every == 0 or last):
            self.run.record(tick.step, self.log.line(tick, self.plan.fit.batch))
        elif tick.step % log.log_every == 0 or last:
            self.log.line(tick, self.plan.fit.batch)
        if log.grid_every and not stop and (tick.step % log.grid_every == 0 or last):
            self.draw(tick.step)
            events.append("drew samples")
        if stop or last or save or (log.checkpoint_steps and tick.step % log.checkpoint_steps == 0):
            events.append(self.save(must=stop or last))
        if last:
            self.say(f"finished: {tick.images} pictures in {self.log.seconds:.0f} seconds")
        return "; ".join(events)

    def draw(self, step: int) -> None:
        """Samples at fixed seeds."""
        folder = self.run.samples if self.run is not None else Path()
        self.plan.draw(folder / f"step-{step:08d}.png", self.learner.average(self.plan.fit.ema[0]))

    def save(self, *, must: bool) -> str:
        """Publish a checkpoint and remove older ones; returns what happened, in words."""
        learner, names = self.learner, _averages(self.plan.fit)
        weights, moments = learner.state(), learner.moments()  # every process has a part in these
        averages = {h: learner.average(h) for h in names}
        problem = None
        if self.run is not None:
            try:
                self._publish(weights, averages, moments)
            except checkpoint.CannotSave as e:
                problem = e
        self.due = time.monotonic() + self.plan.log.checkpoint_every
        if not self.processes.any(problem is not None):
            self.saved, self.rollbacks = learner.step, 0
            return "saved"
        if must:
            raise problem or UserError("the first process could not save; its message says why")
        self.say(f"step {learner.step}: {problem}; the training goes on and tries again")
        return f"not saved: {problem}"

    def _publish(self, weights: Weights, averages: Mapping[int, Weights], moments: Weights) -> None:
        assert self.run is not None
        names = _averages(self.plan.fit)
        state = {
            "step": self.learner.step,
            "images": self.learner.step * self.plan.fit.batch,
            "seconds": self.log.seconds,
            "skips": self.learner.skips,
            "log": vars(self.log),
            "processes": self.processes.world,
            **self.plan.facts,
        }

        def write(directory: Path) -> None:
            self.plan.write(directory, averages[self.plan.fit.ema[0]])
            checkpoint.save(weights, directory / "weights.safetensors")
            checkpoint.save(moments, directory / "optimizer.safetensors")
            if self.plan.memory is not None:
                checkpoint.save(self.plan.memory.state(), directory / "memory.safetensors")
            for half_life in self.plan.fit.ema[1:]:
                checkpoint.save(averages[half_life], directory / names[half_life])
            (directory / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")

        needed = sum(map(checkpoint.size, (weights, moments, *averages.values())))
        checkpoint.publish(self.run.checkpoints / checkpoint.name(self.learner.step), write, needed=needed)
        checkpoint.prune(self.run.checkpoints, self.plan.log.keep)

    # --- a step that is not finite ---

    def roll_back(self, error: NonFinite) -> None:
        """Back to the newest checkpoint, and on with the samples after the bad step; or raises `error`."""
        self.say(str(error))
        self.rollbacks += 1
        if self.plan.fit.non_finite != "rollback" or self.saved < 0 or self.rollbacks > self.plan.fit.max_skips:
            raise error
        path = ""
        with self.processes.together():
            if self.run is not None:
                path = str(checkpoint.sound(self.run.checkpoints) or "")
        path, seconds = self.processes.tell(path), self.log.seconds
        self.load(Path(path))
        self.log = _Log(seconds)
        self.say(f"rolled back to step {self.learner.step}; goes on with the samples after step {error.step}")
        self.learner.step = error.step


def _averages(how: Fit) -> dict[int, str]:
    """Where each average is kept; the first one is the model itself."""
    others = {half_life: f"ema-{half_life}.safetensors" for half_life in how.ema}
    return others | {how.ema[0]: "model.safetensors"}
