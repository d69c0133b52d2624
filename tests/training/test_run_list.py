"""A list of runs: each is as far as its verified checkpoint or, while it runs, its log; no damage ends the list."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.tiny_training import TinyConfig, changed, ticks
from unnoise.errors import UserError
from unnoise.io import checkpoint
from unnoise.training import run
from unnoise.training.lock import is_running
from unnoise.training.run_list import runs_in, summary


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run whose newest checkpoint is that of step 8 of 10, and whose log goes on to step 9."""
    path = tmp_path_factory.mktemp("runs") / "00001-tiny"
    for tick in ticks(changed(checkpoint_steps=4, log_every=1, keep=3), path):
        if tick.step == 9:
            break
    return path


@pytest.fixture
def copied(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / stopped.name)


def test_a_stopped_run_is_as_far_as_its_checkpoint(stopped):
    found = summary(stopped)
    assert (found.name, found.preset, found.status, found.step, found.steps) == ("00001-tiny", "tiny", "stopped", 8, 10)
    assert found.loss == run.metrics(stopped)[-1]["loss"]
    assert found.seconds > 0
    assert found.bytes == sum(file.stat().st_size for file in stopped.rglob("*") if file.is_file())


def test_a_running_one_is_as_far_as_its_log(copied):
    with run.open_run(copied, changed(checkpoint_steps=4, log_every=1, keep=3)):
        assert is_running(copied)
        found = summary(copied)
    assert (found.status, found.step) == ("running", 9)
    assert summary(copied).status == "stopped"
    assert not is_running(copied)


def test_a_finished_one_says_so(copied):
    list(ticks(changed(checkpoint_steps=4, log_every=1, keep=3), copied))
    assert (summary(copied).status, summary(copied).step) == ("finished", 10)


def test_the_preset_is_that_of_the_first_start(copied):
    (copied / "env.json").write_text(json.dumps([{"command": ["unnoise", "train", "fashion-edm", "--name", "x"]}]))
    assert summary(copied).preset == "fashion-edm"


NEWEST = "checkpoints/step-00000008/"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.yaml", b"fit: ["),
        ("config.yaml", b"\xff\xfe"),
        ("config.yaml", b"fit: 3"),
        ("config.yaml", b"fit: {images: many}"),
        ("config.yaml", b"fit: {images: 8, batch: 0}"),
        (NEWEST + "state.json", b'{"step": 9}'),
        (NEWEST + "manifest.json", b"{}"),
        (NEWEST + "manifest.json", b"[]"),
        (NEWEST + "weights.safetensors", b""),
    ],
)
def test_a_damaged_one_is_in_the_list_with_its_reason(file, content, copied):
    (copied / file).write_bytes(content)
    (found,) = runs_in(copied.parent)
    assert found.status == "damaged"
    assert Path(file).name in found.problem


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[1]", b'{"step": Infinity, "loss": NaN}', b"[" * 100_000, b"{}"])
@pytest.mark.parametrize("file", ["metrics.jsonl", "env.json", "lock", "data.json", "log.txt"])
def test_damage_beside_the_checkpoints_hides_no_run(file, content, copied):
    (copied / file).write_bytes(content)
    found = summary(copied)
    assert (found.status, found.step) == ("stopped", 8)


def test_other_files_are_no_runs_and_a_run_without_settings_is_one(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "00006-toy").mkdir()  # empty: its training was interrupted before it began
    (tmp_path / "00007-toy" / "checkpoints").mkdir(parents=True)
    assert [(found.name, found.status) for found in runs_in(tmp_path)] == [("00007-toy", "damaged")]
    with pytest.raises(UserError, match="there is no folder"):
        runs_in(tmp_path / "none")


def test_large_weights_are_compared_by_their_size(copied, monkeypatch):
    """A list of a hundred runs must not read a hundred models; a training that resumes reads every byte."""
    file = copied / NEWEST / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 16
    file.write_bytes(data)
    monkeypatch.setattr("unnoise.training.run_list.SMALL", file.stat().st_size - 1)
    assert summary(copied).status == "stopped"
    with pytest.raises(UserError, match="SHA-256 differs"):
        checkpoint.sound(copied / "checkpoints")


def test_torch_is_not_needed_to_list_runs():
    code = "import sys, unnoise.training.run_list; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_run_is_found_by_its_name_and_its_number(tmp_path):
    paths = []
    for config in (TinyConfig(), changed(name="other")):
        paths.append(run.choose(tmp_path, config))
        with run.open_run(paths[-1], config):
            pass
    assert [run.find(tmp_path, text) for text in ("00001-tiny", "1", "00002", "2")] == [*paths[:1] * 2, *paths[1:] * 2]
    assert [run.find(tmp_path, text) for text in ("3", "tiny", "", "..", "-1", "1" * 5000)] == [None] * 6
    assert run.find(tmp_path / "none", "1") is None
