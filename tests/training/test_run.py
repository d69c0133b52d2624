"""The run directory: the same settings find it again, one training holds it, and it says what was asked and changed."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys

import pytest

from tests.helpers.tiny_training import FACTS, TinyConfig, changed, ticks
from unnoise.config import files
from unnoise.errors import UserError
from unnoise.io import checkpoint
from unnoise.training import run

TAKEN = TinyConfig()


def made(root, config):
    path = run.choose(root, config)
    with run.open_run(path, config, command=("unnoise", "train")):
        return path


def take(path, config=TAKEN, facts=FACTS):
    with run.open_run(path, config) as held:
        held.record_data(facts)


# --- numbers and names ---


def test_runs_are_numbered_and_the_same_settings_find_theirs(tmp_path):
    tiny, other = TinyConfig(), changed(lr=0.01)
    assert made(tmp_path, tiny).name == "00001-tiny"
    assert made(tmp_path, other).name == "00002-tiny"
    assert made(tmp_path, changed(name="a b/c")).name == "00003-a-b-c"
    assert run.choose(tmp_path, tiny).name == "00001-tiny"
    assert run.choose(tmp_path, other).name == "00002-tiny"
    assert run.choose(tmp_path, tiny, resume=False).name == "00004-tiny"


def test_what_changes_nothing_of_what_is_learned_is_the_same_run(tmp_path):
    made(tmp_path, TinyConfig())
    assert run.choose(tmp_path, changed(log_every=77, checkpoint_every=3.0)).name == "00001-tiny"


def test_files_of_others_among_the_runs_are_harmless(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "00007-tiny").mkdir()  # no config.yaml
    (tmp_path / "00008-tiny").mkdir()
    (tmp_path / "00008-tiny" / "config.yaml").write_text("nonsense: [")
    assert run.choose(tmp_path, TinyConfig()).name == "00009-tiny"


def test_what_was_asked_is_written_down(tmp_path):
    config = changed(lr=0.0123)
    path = made(tmp_path, config)
    assert files.load(path / "config.yaml", TinyConfig) == config
    (leg,) = json.loads((path / "env.json").read_text())
    assert leg["command"] == ["unnoise", "train"]
    assert leg["process"] == os.getpid()
    assert "torch" in leg["versions"]
    assert run.status(path) == {"step": 0, "steps": 10, "images": 0, "seconds": 0.0, "finished": False}


# --- how far it is ---


def test_a_run_is_as_far_as_its_newest_published_checkpoint(tmp_path):
    """Folders without a manifest, and of other names, are not checkpoints, whatever their state.json says."""
    list(ticks(changed(images=40, checkpoint_steps=2), tmp_path))
    saved = tmp_path / "checkpoints"
    for name in ("step-00000009", "step-final", "step-final2", ".tmp-step-00000007.x.1"):
        (saved / name).mkdir()
        (saved / name / "state.json").write_text('{"step": 9, "images": 72, "seconds": 1.0}')
    shutil.copytree(saved / "step-00000005", saved / "step-last")
    assert run.status(tmp_path)["step"] == 5
    assert [tick.step for tick in ticks(TinyConfig(), tmp_path)] == [6, 7, 8, 9, 10]
    assert run.status(tmp_path)["step"] == 10


@pytest.mark.parametrize("file", ["state.json", "manifest.json", "model.safetensors"])
def test_one_flipped_bit_is_named_with_the_checkpoint_that_is_whole(file, tmp_path):
    """And once the damaged checkpoint is removed, the run goes on from that one."""
    list(ticks(changed(images=40, checkpoint_steps=2), tmp_path))
    damaged = tmp_path / "checkpoints" / "step-00000005"
    data = bytearray((damaged / file).read_bytes())
    data[len(data) // 2] ^= 1
    (damaged / file).write_bytes(data)
    message = rf"{file}.*remove .*step-00000005 to continue from .*step-00000004"
    with pytest.raises(UserError, match=message):
        run.status(tmp_path)
    with pytest.raises(UserError, match=message):
        list(ticks(TinyConfig(), tmp_path))
    shutil.rmtree(damaged)
    assert [tick.step for tick in ticks(TinyConfig(), tmp_path)] == [5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("content", [None, "[]", '{"step": "5"}'])
def test_a_checkpoint_without_a_state_is_named(content, tmp_path):
    """A model that was saved among the checkpoints is whole, and no training resumes from it."""
    list(ticks(changed(images=16), tmp_path))
    folder = tmp_path / "checkpoints" / "step-00000002"
    (folder / "state.json").unlink()
    if content is not None:
        (folder / "state.json").write_text(content)
    (folder / "manifest.json").unlink()
    checkpoint._seal(folder)
    for work in (run.status, lambda path: list(ticks(TinyConfig(), path))):
        with pytest.raises(UserError, match=r"step-00000002/state\.json: missing, or not the state of a training"):
            work(tmp_path)


# --- going on ---


def test_changed_settings_are_listed(tmp_path):
    path = made(tmp_path, TinyConfig())
    take(path, changed(lr=0.01, clip=None))
    assert "settings changed: fit.lr 0.05 -> 0.01, fit.clip 0.5 -> None" in (path / "log.txt").read_text()
    assert files.load(path / "config.yaml", TinyConfig) == changed(lr=0.01, clip=None)


@pytest.mark.parametrize("values", [{"batch": 16}, {"ema": (5,)}, {"optimizer": "adamw"}, {"seed": 1}], ids=str)
def test_settings_that_the_state_depends_on_are_refused(values, tmp_path):
    path = made(tmp_path, TinyConfig())
    (name,) = values
    with pytest.raises(UserError, match=rf"cannot be resumed with other settings.*fit\.{name} .* begin a new run"):
        take(path, changed(**values))
    assert files.load(path / "config.yaml", TinyConfig) == TinyConfig()


def test_other_pictures_are_refused_and_nothing_is_changed(tmp_path):
    take(tmp_path, facts={"fingerprint": "abc", "count": 10})
    take(tmp_path, facts={"fingerprint": "abc", "count": 10, "path": "moved"})
    with pytest.raises(UserError, match=r"the pictures are not those .*10 pictures then, 11 now.*begin a new run"):
        take(tmp_path, changed(lr=0.01), facts={"fingerprint": "abd", "count": 11})
    assert files.load(tmp_path / "config.yaml", TinyConfig) == TinyConfig()
    assert json.loads((tmp_path / "data.json").read_text()) == {"fingerprint": "abc", "count": 10, "path": "moved"}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"names": "1", "contents": "b", "times of modification": "t"}, r"changed: names, contents\): restore them"),
        ({"names": "0", "contents": "a", "times of modification": "u"}, r"changed: times of modification\): copy them"),
    ],
)
def test_what_changed_of_the_pictures_is_named(parts, message, tmp_path):
    take(tmp_path, facts=FACTS | {"parts": {"names": "0", "contents": "a", "times of modification": "t"}})
    now = FACTS | {"fingerprint": "other", "parts": parts}
    with pytest.raises(UserError, match=message) as refused:
        take(tmp_path, facts=now)
    if "remove" in str(refused.value):  # the fix of the message works
        (tmp_path / "data.json").unlink()
        take(tmp_path, facts=now)


# --- the lock ---


def test_a_second_training_refuses_and_says_who_holds_it(tmp_path):
    with run.open_run(tmp_path, TinyConfig()):
        held = rf"is being trained by process {os.getpid()} on \S+ since \d{{4}}-"
        with pytest.raises(UserError, match=held):
            take(tmp_path)
    take(tmp_path)


def test_another_process_refuses_too_and_a_dead_one_does_not_hold(tmp_path):
    code = (
        "import sys, pathlib; from tests.helpers.tiny_training import TinyConfig; from unnoise.training import run\n"
        "with run.open_run(pathlib.Path(sys.argv[1]), TinyConfig()):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
    )
    assert other.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match=f"is being trained by process {other.pid} on"):
        take(tmp_path)
    other.kill()
    other.wait()
    take(tmp_path)


def test_two_at_once_get_two_numbers(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        names = pool.starmap(run.choose, [(tmp_path, TinyConfig())] * 8)
    assert len(set(names)) == 8


def test_a_place_where_one_may_not_write_is_named(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(run.Path, "mkdir", refuse)
    with pytest.raises(UserError, match=r"cannot write in .*: Permission denied"):
        take(tmp_path / "a")


@pytest.mark.parametrize("file", ["lock", "env.json", "config.yaml", "data.json"])
def test_a_run_that_cannot_begin_on_a_full_disk_says_where(file, tmp_path, monkeypatch):
    def full(path, *args, **kwargs):
        if path.name == file:
            raise OSError(28, "No space left on device")
        return real(path, *args, **kwargs)

    where = "open" if file == "lock" else "write_text"
    real = getattr(run.Path if file == "lock" else run, where)
    monkeypatch.setattr(run.Path if file == "lock" else run, where, full)
    with pytest.raises(UserError, match=rf"cannot write in {tmp_path}: No space left on device"):
        take(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[", b"\xff", b"3", b"{}", b'{"fingerprint": "tiny"}'])
def test_a_damaged_record_of_the_pictures_is_named(content, tmp_path):
    take(tmp_path)
    (tmp_path / "data.json").write_bytes(content)
    with pytest.raises(UserError, match=r"data\.json is damaged, .* remove it if they are the same"):
        take(tmp_path)
    (tmp_path / "data.json").unlink()
    take(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[", b"\xff", b"3"])
def test_a_damaged_record_of_the_machine_begins_anew(content, tmp_path):
    take(tmp_path)
    (tmp_path / "env.json").write_bytes(content)
    take(tmp_path)
    assert len(json.loads((tmp_path / "env.json").read_text())) == 1
    assert "env.json was damaged" in (tmp_path / "log.txt").read_text()


# --- the log ---


@pytest.mark.parametrize("damage", [b"\xff\xfe\n", b"[1]\n", b'{"step": Infinity}\n', b"[" * 100_000 + b"\n", b"\0\n"])
def test_damaged_lines_of_the_log_are_skipped_and_removed(damage, tmp_path):
    with run.open_run(tmp_path, TinyConfig()) as held:
        held.record(1, {"loss": 1.0})
        with (tmp_path / "metrics.jsonl").open("ab") as f:
            f.write(damage)
        held.record(2, {"loss": 2.0})
        assert [line["step"] for line in run.metrics(tmp_path)] == [1, 2]
        held.rewind(1)
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": 1.0}


def test_rewinding_forgets_what_is_done_again(tmp_path):
    with run.open_run(tmp_path, TinyConfig()) as held:
        for step in (1, 2, 3):
            held.record(step, {"loss": step / 3})
        with (tmp_path / "metrics.jsonl").open("a") as f:
            f.write('{"step": 4, "lo')
        held.rewind(2)
        assert run.metrics(tmp_path) == [{"step": 1, "loss": 1 / 3}, {"step": 2, "loss": 2 / 3}]
        held.record(3, {"loss": 1.0})
    assert [line["step"] for line in run.metrics(tmp_path)] == [1, 2, 3]


def test_torch_is_not_needed_to_find_a_run():
    code = "import sys, unnoise.training.run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
