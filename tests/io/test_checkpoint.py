"""A checkpoint is whole or not there; what is damaged is found and named; what was there before is never touched."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unnoise.errors import UserError
from unnoise.io import checkpoint

TENSORS = {"a": torch.arange(600.0), "b": torch.ones(3, 4)}


def write(directory: Path) -> None:
    checkpoint.save(TENSORS, directory / "model.safetensors")
    checkpoint.save({"c": torch.zeros(5)}, directory / "optimizer.safetensors")
    (directory / "state.json").write_text('{"step": 1}')


@pytest.fixture
def folder(tmp_path):
    for step in (100, 200):
        checkpoint.publish(tmp_path / checkpoint.name(step), write)
    return tmp_path


def bytes_of(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


FILES = ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]


def test_a_published_checkpoint_is_whole_and_readable(folder):
    newest = checkpoint.newest(folder)
    assert newest == folder / "step-00000200"
    assert sorted(bytes_of(newest)) == sorted(FILES)
    checkpoint.verify(newest)
    assert checkpoint.sound(folder) == newest
    assert all(torch.equal(checkpoint.read(newest / "model.safetensors")[k], v) for k, v in TENSORS.items())


def test_the_mode_of_files_follows_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        checkpoint.publish(tmp_path / "step-00000001", write)
    finally:
        os.umask(old)
    assert {(tmp_path / "step-00000001" / f).stat().st_mode & 0o777 for f in FILES} == {0o640}


# --- damage ---


@pytest.mark.parametrize("file", FILES)
def test_a_flipped_bit_is_detected_and_its_file_named(folder, file):
    path = folder / "step-00000200" / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(checkpoint.Damaged, match=file) as caught:
        checkpoint.verify(path.parent)
    assert caught.value.file == file
    with pytest.raises(UserError, match=rf"{file}: .*remove .*200 to continue from .*step-00000100, which is whole"):
        checkpoint.sound(folder)


def test_a_change_of_any_bit_of_the_manifest_is_detected(folder):
    path = folder / "step-00000200" / "manifest.json"
    data = path.read_bytes()
    spaces = {i for i, c in enumerate(data) if c in b" \n"}  # between values: the same manifest
    for i in range(0, len(data), 7):
        if i in spaces:
            continue
        path.write_bytes(data[:i] + bytes([data[i] ^ 2]) + data[i + 1 :])
        assert checkpoint.problems(path.parent), i
    path.write_bytes(data)
    assert not checkpoint.problems(path.parent)


@pytest.mark.parametrize("file", FILES[:3])
def test_a_missing_and_a_short_file_are_named(folder, file):
    path = folder / "step-00000200" / file
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{file}: has" in checkpoint.problems(path.parent)
    path.unlink()
    assert f"{file}: missing" in checkpoint.problems(path.parent)


def test_swapped_files_of_two_steps_are_detected(tmp_path):
    for step in (1, 2):
        checkpoint.publish(
            tmp_path / checkpoint.name(step),
            lambda d, step=step: checkpoint.save({"a": torch.tensor([float(step)])}, d / "model.safetensors"),
        )
    one, two = (tmp_path / checkpoint.name(step) / "model.safetensors" for step in (1, 2))
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    assert "model.safetensors: not what was written" in checkpoint.problems(two.parent)
    assert "model.safetensors: not what was written" in checkpoint.problems(one.parent)
    with pytest.raises(UserError, match="no older checkpoint is whole"):
        checkpoint.sound(tmp_path)


# --- what else lies there ---


def test_foreign_files_are_listed_and_ignored(folder):
    (folder / "step-final").mkdir()
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "step-00000300").mkdir()  # empty: newer, but never finished
    (folder / "step-00000400").write_text("a file")
    (folder / "step-").mkdir()
    assert checkpoint.sound(folder) == folder / "step-00000200"
    assert checkpoint.stray(folder) == [".DS_Store", "step-", "step-00000300", "step-00000400", "step-final"]
    checkpoint.prune(folder, 1)
    assert (folder / "step-final").is_dir()
    assert list(checkpoint.steps(folder)) == [200]


def test_a_folder_without_checkpoints_has_none(tmp_path):
    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.sound(tmp_path / "missing") is None
    assert checkpoint.stray(tmp_path / "missing") == []


def test_the_newest_checkpoint_is_chosen_by_number(tmp_path):
    for step in (99_999_999, 100_000_000, 5):
        checkpoint.publish(tmp_path / checkpoint.name(step), write)
    assert list(checkpoint.steps(tmp_path)) == [100_000_000, 99_999_999, 5]
    checkpoint.prune(tmp_path, 2)
    assert list(checkpoint.steps(tmp_path)) == [100_000_000, 99_999_999]


def test_clean_removes_the_files_of_terminated_processes_only(folder):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = folder / f".tmp-step-00000300.{checkpoint._writer(ended.pid)}"
    gone = folder / f".del-step-00000050.{checkpoint._writer(ended.pid)}"
    living = folder / f".tmp-step-00000400.{checkpoint._writer(os.getpid())}"
    other = folder / ".tmp-step-00000500.another-machine.1"
    for path in (dead, gone, living, other):
        path.mkdir()
    assert checkpoint.clean(folder) == sorted([dead.name, gone.name])
    assert living.is_dir()
    assert other.is_dir()
    assert checkpoint.clean(folder, alone=True) == sorted([living.name, other.name])
    assert list(checkpoint.steps(folder)) == [200, 100]


def test_publishing_a_step_again_replaces_only_a_damaged_one(folder):
    path = folder / "step-00000200"
    before = path.stat().st_ino

    def never(directory):
        raise AssertionError("written again")

    checkpoint.publish(path, never)
    assert path.stat().st_ino == before
    (path / "state.json").write_text("{}")
    checkpoint.publish(path, write)
    checkpoint.verify(path)


# --- disks ---


def test_a_full_disk_changes_nothing_and_the_error_names_the_bytes_needed(folder, monkeypatch):
    before = {path: bytes_of(path) for path in checkpoint.steps(folder).values()}

    def full(directory):
        (directory / "some").write_bytes(b"x" * 10_000)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(checkpoint.CannotSave) as caught:
        checkpoint.publish(folder / "step-00000300", full)
    message = str(caught.value)
    assert "step-00000300: the disk is full" in message
    assert "at least 10kB needed" in message
    assert " free" in message
    assert "step-00000200 is unchanged" in message
    assert {path: bytes_of(path) for path in checkpoint.steps(folder).values()} == before
    assert sorted(p.name for p in folder.iterdir()) == ["step-00000100", "step-00000200"]
    checkpoint.publish(folder / "step-00000300", write)  # space is there again


def test_too_little_space_is_an_error_before_anything_is_written(folder):
    def never(directory):
        raise AssertionError("began to write")

    with pytest.raises(checkpoint.CannotSave, match=r"disk is full; at least 1e\+06TB needed"):
        checkpoint.publish(folder / "step-00000300", never, needed=10**18)


def test_a_write_that_the_kernel_stops_is_an_error(folder):
    """The kernel refuses the bytes, in the middle of the file that safetensors writes."""
    before = {path: bytes_of(path) for path in checkpoint.steps(folder).values()}
    big = {"a": torch.zeros(100_000)}
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
    try:
        with pytest.raises(checkpoint.CannotSave, match=r"step-00000300: a file may not become this large"):
            checkpoint.publish(
                folder / "step-00000300",
                lambda d: checkpoint.save(big, d / "model.safetensors"),
                needed=checkpoint.size(big),
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert {path: bytes_of(path) for path in checkpoint.steps(folder).values()} == before
    assert sorted(p.name for p in folder.iterdir()) == ["step-00000100", "step-00000200"]


@pytest.mark.skipif(os.geteuid() != 0 or not sys.platform.startswith("linux"), reason="needs to mount")
def test_a_disk_of_three_megabytes(tmp_path):
    """A small tmpfs: full, then with space again."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("may not mount here")
    try:
        tensors = {"a": torch.zeros(500_000)}  # 2 MB

        def write(directory):
            checkpoint.save(tensors, directory / "model.safetensors")

        checkpoint.publish(disk / "step-00000001", write)
        for needed in (checkpoint.size(tensors), 0):  # found before, and while writing
            with pytest.raises(checkpoint.CannotSave, match=r"the disk is full.*step-00000001 is unchanged"):
                checkpoint.publish(disk / "step-00000002", write, needed=needed)
            checkpoint.verify(disk / "step-00000001")
        checkpoint.prune(disk, 0)
        checkpoint.publish(disk / "step-00000002", write)
        checkpoint.verify(disk / "step-00000002")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_removed_directory_is_named(tmp_path):
    def vanish(directory):
        checkpoint.shutil.rmtree(directory.parent)
        (directory / "x").write_bytes(b"x")

    with pytest.raises(checkpoint.CannotSave, match="the directory has vanished"):
        checkpoint.publish(tmp_path / "checkpoints" / "step-00000001", vanish)


def test_an_exception_in_write_leaves_nothing(folder):
    def fails(directory):
        (directory / "half").write_bytes(b"x")
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        checkpoint.publish(folder / "step-00000300", fails)
    assert sorted(p.name for p in folder.iterdir()) == ["step-00000100", "step-00000200"]


# --- security ---


def test_reading_cannot_run_code(tmp_path):
    """A pickle instead of tensors is refused, and the error does not suggest to trust it."""

    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    torch.save({"a": Payload()}, tmp_path / "weights.safetensors")
    with pytest.raises(checkpoint.Damaged, match=r"weights\.safetensors: cannot be read"):
        checkpoint.read(tmp_path / "weights.safetensors")
    assert not (tmp_path / "ran").exists()


def test_the_package_never_unpickles_or_evaluates():
    """Pickles of other programs are read with `weights_only`, which builds tensors and nothing else."""
    source = Path(checkpoint.__file__).parents[1]
    words = ("torch.load(", "import pickle", "import dill", "allow_pickle=True", "yaml.load(", "yaml.unsafe", " eval(")
    guilty = [
        f"{path.relative_to(source)}: {line.strip()}"
        for path in source.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if any(word in line for word in words) and "weights_only=True" not in line
    ]
    assert guilty == []


def test_the_manifest_is_plain_json(folder):
    manifest = json.loads((folder / "step-00000200" / "manifest.json").read_text())
    assert set(manifest["files"]) == set(FILES[:3])


@pytest.mark.parametrize("file", ["../secret", "/etc/hostname", "a/../../b"])
def test_a_manifest_names_files_of_its_own_directory_only(file: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    directory = tmp_path / "step-00000001"
    directory.mkdir()
    entries = {file: {"bytes": 1, "sha256": "0" * 64}}
    whole = {"files": entries, "sha256": checkpoint._digest_of(entries)}
    (directory / checkpoint.MANIFEST).write_text(json.dumps(whole))
    with pytest.raises(checkpoint.Damaged, match="not what was written"):
        checkpoint.verify(directory)
