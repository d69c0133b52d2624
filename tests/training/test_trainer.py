"""The course of a training: stopped anywhere and resumed, it is bit for bit the one that was not (R1, R3 to R9).

The oracle is always the same training without the trouble: all weights, moments, averages, and the lines of its log.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.helpers.tiny_training import TinyConfig, changed, contents, launch, same, ticks, train
from unnoise.errors import UserError
from unnoise.io import checkpoint
from unnoise.io.checkpoint import CannotSave
from unnoise.training import run
from unnoise.training.turn import NonFinite


def finish(config: TinyConfig, path: Path, **kwargs) -> list:
    return list(ticks(config, path, **kwargs))


def lines(path: Path) -> list[dict]:
    """The log of numbers, without what the clock says."""
    clock = ("seconds", "images_per_second", "waiting")
    return [{k: v for k, v in line.items() if k not in clock} for line in run.metrics(path)]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The training without trouble."""
    path = tmp_path_factory.mktemp("straight")
    finish(TinyConfig(), path)
    return path


# --- R1: resume is exact ---


@pytest.mark.parametrize("stops", [(3,), (5,), (10,), (1, 2, 9), (4, 7)], ids=str)
def test_a_training_in_legs_is_the_training_in_one(straight, stops, tmp_path):
    """In the middle of an epoch (4, 7), at its boundary (5 steps are 2 epochs), at the last step (10)."""
    config = changed(checkpoint_steps=1)
    for stop in stops:
        leg = ticks(config, tmp_path)
        for tick in leg:
            if tick.step == stop:
                leg.close()
                break
        assert checkpoint.newest(tmp_path / "checkpoints").name == checkpoint.name(stop)
    rest = finish(config, tmp_path)
    assert [tick.step for tick in rest] == list(range(stops[-1] + 1, 11))
    assert same(contents(tmp_path), contents(straight))
    assert lines(tmp_path) == lines(straight)


def test_steps_after_the_last_checkpoint_are_done_again(straight, tmp_path):
    """Killed without saving: what was logged since the checkpoint is forgotten, not doubled."""
    config = changed(checkpoint_steps=4, log_every=3)
    for tick in ticks(config, tmp_path):
        if tick.step == 7:
            break
    assert [line["step"] for line in run.metrics(tmp_path)] == [3, 6]
    with (tmp_path / "metrics.jsonl").open("a") as f:
        f.write('{"step": 7, "lo')  # cut off
    assert [tick.step for tick in finish(config, tmp_path)] == [5, 6, 7, 8, 9, 10]
    assert lines(tmp_path) == lines(straight)
    assert same(contents(tmp_path), contents(straight))


def test_bfloat16_resumes_exactly(tmp_path):
    config = changed(checkpoint_steps=4)
    finish(config, tmp_path / "a", dtype=torch.bfloat16)
    for tick in ticks(config, tmp_path / "b", dtype=torch.bfloat16):
        if tick.step == 4:
            break
    finish(config, tmp_path / "b", dtype=torch.bfloat16)
    assert same(contents(tmp_path / "a"), contents(tmp_path / "b"))


def test_a_finished_training_says_so_and_does_nothing(straight):
    before = contents(straight)
    assert finish(TinyConfig(), straight) == []
    assert "finished already" in (straight / "log.txt").read_text()
    assert same(contents(straight), before)
    assert run.status(straight)["finished"]


def test_a_longer_training_goes_on_from_a_shorter_one(tmp_path):
    """A constant rate knows no end: 5 steps and 5 more are 10."""
    long = changed(decay="constant")
    finish(long, tmp_path / "a")
    finish(changed(long, images=40), tmp_path / "b")
    finish(long, tmp_path / "b")
    assert same(contents(tmp_path / "a"), contents(tmp_path / "b"))
    assert "settings changed: fit.images 40 -> 80" in (tmp_path / "b" / "log.txt").read_text()


# --- R3: kill -9 ---


def kill_and_verify(path: Path, kills: int, chance: random.Random) -> int:
    """Kill a training that saves at every step, at random instants; returns the step of the checkpoint that is left.

    After each kill the newest published checkpoint is whole, and the next start goes on from it.
    """
    config = {"images": "800000", "checkpoint_steps": "1", "log_every": "1", "decay": "constant"}
    reached = 0
    for _ in range(kills):
        (child,) = launch(path / "said", train, str(path / "run"), config)
        child.wait_for(reached + 1)
        time.sleep(chance.uniform(0.0, 0.1))
        child.process.kill()
        assert child.end() == -signal.SIGKILL
        newest = checkpoint.newest(path / "run" / "checkpoints")
        checkpoint.verify(newest)
        step = json.loads((newest / "state.json").read_text())["step"]
        assert step > reached
        reached = step
    return reached


def test_killed_at_any_instant_the_newest_checkpoint_is_whole(tmp_path):
    """Eight kills here; fifty by hand, tools/kill_loop.py. The end is the training that nobody killed."""
    reached = kill_and_verify(tmp_path, 8, random.Random())
    config = changed(images=(reached + 2) * 8, checkpoint_steps=1, log_every=1, decay="constant", keep=3)
    finish(config, tmp_path / "run")
    finish(config, tmp_path / "straight")
    assert same(contents(tmp_path / "run"), contents(tmp_path / "straight"))
    assert lines(tmp_path / "run") == lines(tmp_path / "straight")
    assert checkpoint.stray(tmp_path / "run" / "checkpoints") == []


# --- R4: disks ---


def test_a_full_disk_on_the_way_is_said_and_tried_again(straight, tmp_path, monkeypatch):
    real, calls = checkpoint._seal, itertools.count()

    def sometimes(directory):
        if next(calls) in (1, 2):
            raise OSError(28, "No space left on device")
        real(directory)

    monkeypatch.setattr(checkpoint, "_seal", sometimes)
    events = [tick.event for tick in finish(changed(checkpoint_steps=2), tmp_path)]
    assert "the disk is full" in events[3]
    assert "step-00000002 is unchanged" in events[3]
    assert events[7] == "saved"
    assert "the training continues and tries again" in (tmp_path / "log.txt").read_text()
    assert same(contents(tmp_path), contents(straight))


def test_a_full_disk_at_the_end_is_an_error(tmp_path, monkeypatch):
    def never(directory):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_seal", never)
    with pytest.raises(CannotSave, match="disk is full"):
        finish(TinyConfig(), tmp_path)


FULL = Path("/dev/full")  # every write to it fails with "No space left on device"
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")


@needs_full
@pytest.mark.parametrize("files", [("log.txt",), ("metrics.jsonl",), ("log.txt", "metrics.jsonl")], ids=str)
def test_a_log_on_a_full_disk_is_one_warning_and_the_training_goes_on(files, straight, tmp_path):
    config, warned = changed(log_every=1, checkpoint_steps=2), []
    for tick in ticks(config, tmp_path):
        if tick.step == 3:
            for file in files:
                (tmp_path / file).unlink(missing_ok=True)
                (tmp_path / file).symlink_to(FULL)
        warned += [(tick.step, tick.event)] if "cannot be written" in tick.event else []
    ((step, event),) = warned
    assert step == (10 if files == ("log.txt",) else 4)  # the next step that writes
    for file in files:
        assert event.count(f"{tmp_path / file} cannot be written: No space left on device; the training continues") == 1
    assert same(contents(tmp_path), contents(straight))


@needs_full
def test_the_steps_of_a_log_that_is_full_again_and_again_are_whole_lines(tmp_path, monkeypatch):
    """A line of which a part was written is removed: the next one does not continue it."""
    real, calls = Path.open, itertools.count()

    class Half:
        """A file of which the disk has room for ten bytes."""

        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, text):
            self.file.write(text[:10])
            self.file.flush()
            raise OSError(28, "No space left on device")

    def sometimes(path, mode="r", **how):
        file = real(path, mode, **how)
        return Half(file) if path.name == "metrics.jsonl" and mode == "a" and next(calls) % 2 else file

    monkeypatch.setattr(Path, "open", sometimes)
    list(ticks(changed(log_every=1), tmp_path))
    text = (tmp_path / "metrics.jsonl").read_text()
    assert [json.loads(line)["step"] for line in text.splitlines()] == [1, 3, 5, 7, 9]


def test_samples_on_a_full_disk_are_a_warning(straight, tmp_path):
    def full(file, weights, stop):
        raise OSError(28, "No space left on device")

    events = [tick.event for tick in ticks(changed(grid_every=2), tmp_path, sample=full)]
    assert "samples cannot be written: No space left on device" in events[1]
    assert sum("cannot be written" in event for event in events) == 1
    assert same(contents(tmp_path), contents(straight))


def test_older_checkpoints_that_cannot_be_removed_are_a_warning(straight, tmp_path, monkeypatch):
    def busy(folder, keep):
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(checkpoint, "prune", busy)
    events = [tick.event for tick in ticks(changed(checkpoint_steps=2), tmp_path)]
    assert [number for number, event in enumerate(events, start=1) if "resource busy" in event] == [2]
    assert same(contents(tmp_path), contents(straight))


# --- R5: signals ---


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_leaves_with_its_code(number, code, tmp_path):
    config = {"images": "800000", "slow": "0.05", "decay": "constant"}
    (child,) = launch(tmp_path, train, str(tmp_path / "a"), config)
    child.wait_for(2)
    os.kill(child.process.pid, number)
    assert child.end(30) == code
    steps = [int(line.split()[0]) for line in child.said().splitlines()]  # numbers alone: no traceback
    newest = checkpoint.newest(tmp_path / "a" / "checkpoints")
    checkpoint.verify(newest)
    assert newest.name == checkpoint.name(steps[-1])  # the step that was going on is in it
    finish(changed(images=steps[-1] * 8, decay="constant"), tmp_path / "b")
    assert same(contents(tmp_path / "a"), contents(tmp_path / "b"))


def test_a_second_signal_leaves_at_once(tmp_path):
    """The first one finds a step that takes long; the second does not wait for it."""
    (child,) = launch(tmp_path, train, str(tmp_path / "a"), {"images": "800000", "slow": "3"})
    child.wait_for(1)
    begin = time.monotonic()
    os.kill(child.process.pid, signal.SIGTERM)
    time.sleep(0.1)
    os.kill(child.process.pid, signal.SIGTERM)
    assert child.end() == 143
    assert time.monotonic() - begin < 2
    assert checkpoint.newest(tmp_path / "a" / "checkpoints") is None


# --- R6: what is not finite ---


def test_a_bad_step_stops_and_the_last_checkpoint_is_finite(tmp_path):
    config = changed(poison=tuple(range(20)), poison_step=6, checkpoint_steps=1)
    with pytest.raises(NonFinite, match="step 7"):
        finish(config, tmp_path)
    assert "step 7: the loss is not finite" in (tmp_path / "log.txt").read_text()
    assert checkpoint.newest(tmp_path / "checkpoints").name == "step-00000006"
    assert all(torch.isfinite(value).all() for value in contents(tmp_path).values())


def test_skipping_is_logged_and_resumes_exactly(tmp_path):
    config = changed(poison=(13,), non_finite="skip", checkpoint_steps=1)
    finish(config, tmp_path / "a")
    assert "skipped: the loss is not finite for samples 13" in (tmp_path / "a" / "log.txt").read_text()
    for tick in ticks(config, tmp_path / "b"):
        if tick.event.startswith("skipped"):
            break
    finish(config, tmp_path / "b")
    assert same(contents(tmp_path / "a"), contents(tmp_path / "b"))
    assert all(line["loss"] == line["loss"] for line in run.metrics(tmp_path / "a"))


def test_rolling_back_goes_on_behind_the_bad_step(tmp_path):
    """Checkpoint at 4, bad at 7: the weights of step 4 go on with the samples of step 8."""
    config = changed(poison=tuple(range(20)), poison_step=6, non_finite="rollback", checkpoint_steps=4)
    seen = [tick.step for tick in finish(config, tmp_path)]
    assert seen == [1, 2, 3, 4, 5, 6, 8, 9, 10]
    log = (tmp_path / "log.txt").read_text()
    assert "rolled back to step 4; continues with the samples after step 7" in log
    moments = contents(tmp_path)["optimizer.safetensors:first.weight/step"]
    assert moments.item() == 4 + 3


def test_rolling_back_without_a_checkpoint_stops(tmp_path):
    config = changed(poison=tuple(range(20)), non_finite="rollback")
    with pytest.raises(NonFinite):
        finish(config, tmp_path)


def test_rolling_back_again_and_again_stops(tmp_path):
    config = changed(checkpoint_steps=2, images=24)
    finish(config, tmp_path)
    config = changed(config, poison=tuple(range(20)), non_finite="rollback", max_skips=2, images=80)
    with pytest.raises(NonFinite, match="step 6"):
        finish(config, tmp_path)


# --- R8: damage ---


def test_a_damaged_newest_checkpoint_is_refused_by_name_and_the_older_one_offered(straight, tmp_path):
    config = changed(checkpoint_steps=4)
    for tick in ticks(config, tmp_path):
        if tick.step == 9:
            break
    file = tmp_path / "checkpoints" / "step-00000008" / "optimizer.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 16
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"optimizer\.safetensors.*remove .*00000008 to continue from .*00000004"):
        finish(config, tmp_path)
    checkpoint.shutil.rmtree(file.parent)
    finish(config, tmp_path)
    assert same(contents(tmp_path), contents(straight))


def test_what_lies_among_the_checkpoints_is_mentioned(tmp_path):
    (tmp_path / "checkpoints" / "step-final").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-00000099").mkdir()
    (tmp_path / "checkpoints" / ".tmp-step-00000004.some-machine.1").mkdir()
    finish(TinyConfig(), tmp_path)
    log = (tmp_path / "log.txt").read_text()
    assert "checkpoints/step-final is not a checkpoint: ignored" in log
    assert "checkpoints/step-00000099 is not a checkpoint: ignored" in log
    assert "removed .tmp-step-00000004.some-machine.1" in log


def test_only_the_newest_are_kept(tmp_path):
    finish(changed(checkpoint_steps=1, keep=2), tmp_path)
    assert list(checkpoint.steps(tmp_path / "checkpoints")) == [10, 9]


def test_checkpoints_come_by_the_clock(tmp_path):
    events = [tick.event for tick in finish(changed(checkpoint_every=1e-6), tmp_path)]
    assert events == ["saved"] * 10
