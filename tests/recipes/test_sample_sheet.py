"""The sheets of a training: the command in their recipe makes the same sheet, and a signal neither waits for one nor
loses it."""

from __future__ import annotations

import os
import shlex
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.tiny_training import contents, launch, same
from tests.recipes.test_conditions import WORDED
from tests.recipes.test_diffusion import SMALL
from unnoise.cli.main import main
from unnoise.config.convert import override
from unnoise.config.training import TrainConfig
from unnoise.generate import frames
from unnoise.generate.describe import describe
from unnoise.io import checkpoint
from unnoise.recipes import sample_sheet
from unnoise.recipes.diffusion import train
from unnoise.training.distributed import Processes

# a sheet and a checkpoint at steps 2 and 4
QUICK = {"images": "64", "grid_every": "2", "checkpoint_steps": "2", "keep": "9", "warmup": "0"}
KINDS = {
    "classes": override(SMALL, QUICK | {"grid_guidance": "2"}),
    "captions": override(replace(WORDED, data=replace(WORDED.data, path="shapes-one:test")), QUICK | {"batch": "16"}),
    "neither": override(SMALL, QUICK | {"net.classes": "0", "grid_labels": "3", "cond_dropout": "0"}),
}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_recipe_of_a_sheet_makes_the_same_sheet(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Classes by name, captions or neither; from the checkpoint of its step, with the names beside the pictures."""
    monkeypatch.chdir(tmp_path)
    if kind == "captions":
        pytest.importorskip("tokenizers")
    list(train(KINDS[kind], Path("run")))
    for step in (2, 4):
        file = Path(f"run/samples/step-0000000{step}.png")
        found = describe(file)
        assert found["warnings"] == []
        assert main([*shlex.split(found["command"])[1:], "--overwrite"]) == 0
        assert np.array_equal(pixels(file), pixels(Path("grid.png")))
        if kind == "classes":
            assert found["recipe"]["together"] == "0-1:disc,0-1:square,0-1:cross,0-1:ring"
    capsys.readouterr()
    assert main(["info", "run/samples/step-00000002.png"]) == 0
    out = capsys.readouterr().out
    assert "run/checkpoints/step-00000002" in out
    assert "None" not in out


def test_a_sheet_whose_checkpoint_is_removed_says_so(tmp_path: Path) -> None:
    list(train(override(KINDS["classes"], {"keep": "1"}), tmp_path))
    (warning,) = describe(tmp_path / "samples" / "step-00000002.png")["warnings"]
    assert "checkpoints/step-00000002 is not there any more" in warning


# --- signals ---


def stopped_in(config: TrainConfig, path: Path, step: int, monkeypatch: pytest.MonkeyPatch, *, before: bool) -> None:
    """Trains until a signal is received before a step's update ends, or between two steps of its sheet."""
    real = sample_sheet.generate

    def interrupted(*args, **kwargs):
        for at, frame in enumerate(real(*args, **kwargs)):
            if at == 1:
                os.kill(os.getpid(), signal.SIGINT)
            yield frame

    ticks = train(config, path)
    assert [next(ticks).step for _ in range(step - 1)] == list(range(1, step))
    if before:
        os.kill(os.getpid(), signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(sample_sheet, "generate", real if before else interrupted)
        with pytest.raises(SystemExit) as ended:
            list(ticks)
    assert ended.value.code == 130
    assert checkpoint.newest(path / "checkpoints").name == checkpoint.name(step)
    assert not (path / "samples" / f"{checkpoint.name(step)}.png").exists()


@pytest.mark.parametrize("before", [True, False], ids=["before the sheet", "in the sheet"])
@pytest.mark.parametrize("step", [2, 4], ids=["on the way", "at the end"])
def test_a_sheet_that_a_signal_drops_is_written_when_the_run_resumes(
    step: int, before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is then that of the training without the signal: its samples, and every tensor."""
    config = override(KINDS["classes"], {"grid_steps": "4"})
    list(train(config, tmp_path / "straight"))
    stopped_in(config, tmp_path / "run", step, monkeypatch, before=before)
    list(train(config, tmp_path / "run"))
    assert same(contents(tmp_path / "run"), contents(tmp_path / "straight"))
    names = {
        part: sorted(file.name for file in (tmp_path / part / "samples").iterdir()) for part in ("run", "straight")
    }
    assert names["run"] == names["straight"] == ["step-00000002.png", "step-00000004.png"]
    for name in names["run"]:
        assert np.array_equal(pixels(tmp_path / "run/samples" / name), pixels(tmp_path / "straight/samples" / name))


def test_a_run_without_a_missing_sheet_samples_nothing_when_it_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(train(KINDS["classes"], tmp_path))
    monkeypatch.setattr(sample_sheet, "generate", None)
    assert list(train(KINDS["classes"], tmp_path)) == []


@pytest.mark.parametrize("world", [1, 2])
def test_a_signal_does_not_wait_for_a_slow_sheet(world: int, tmp_path: Path) -> None:
    """Each of 1,000 sampling steps takes 0.1 s; the signal to one process ends all after a step or two."""
    children = launch(tmp_path / "said", slow_sheet, str(tmp_path / "run"), world=world)
    try:
        deadline = time.monotonic() + 240
        while not all(child.out.exists() and "sampling step 3" in child.out.read_text() for child in children):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        begin = time.monotonic()
        os.kill(children[-1].process.pid, signal.SIGTERM)
        assert [child.end(60) for child in children] == [143] * world, [child.said() for child in children]
        assert time.monotonic() - begin < 20  # most of it is the end of the processes; the sheet takes over 100 s
    finally:
        for child in children:
            child.process.kill()
    assert checkpoint.newest(tmp_path / "run" / "checkpoints").name == "step-00000002"
    assert list((tmp_path / "run" / "samples").iterdir()) == []
    assert "Traceback" not in "".join(child.said() for child in children)


def slow_sheet(who: Processes, path: str) -> None:
    real = frames.walk

    def slow(*args):
        for at, state in enumerate(real(*args), start=1):
            print("sampling step", at, flush=True)
            time.sleep(0.1)
            yield state

    frames.walk = slow
    config = override(KINDS["classes"], {"grid_steps": "1000", "checkpoint_steps": "none", "precision": "float32"})
    list(train(config, Path(path), processes=who))


def test_processes_end_their_steps_together() -> None:
    """Alone: all steps, or none once `stop` is true; it is asked before each step."""
    alone, asked = Processes(), []
    assert alone.run(iter("abc"), lambda: False) == ["a", "b", "c"]
    assert alone.run((), lambda: False) == []

    def third() -> bool:
        asked.append(1)
        return len(asked) == 3

    taken = iter("abcdef")
    assert alone.run(taken, third) is None
    assert "".join(taken) == "cdef"
