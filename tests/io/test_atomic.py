"""A file or directory appears whole or not at all, and what was there stays if writing fails."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from unnoise.io.atomic import publish, publish_directory, write_text
from unnoise.io.hashing import sha256


def fail(beside: Path) -> None:
    if beside.is_dir():
        (beside / "half").write_text("half")
    else:
        beside.write_text("half")
    raise OSError("the disk is full")


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    for text in ("old", "neu: ä"):
        write_text(path, text)
        assert path.read_bytes() == text.encode()
        assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(OSError, match="full"):
        publish(tmp_path / "a.txt", fail)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("old")

    def write(beside: Path) -> None:
        assert beside.suffix == ".png", "libraries choose the format by the suffix"
        beside.write_text("new")
        assert path.read_text() == "old"

    publish(path, write)
    assert path.read_text() == "new"


def test_a_directory_is_replaced_with_all_of_its_files(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder.d"
    for name in ("a", "b"):
        publish_directory(path, lambda beside, name=name: (beside / name).write_text(name))
        assert [p.name for p in path.iterdir()] == [name]
        assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_directory(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    publish_directory(path, lambda beside: (beside / "a").write_text("old"))
    with pytest.raises(OSError, match="full"):
        publish_directory(path, fail)
    assert list(tmp_path.iterdir()) == [path]
    assert [p.name for p in path.iterdir()] == ["a"]


def test_two_threads_write_the_same_file_at_once(tmp_path: Path) -> None:
    path, both = tmp_path / "a", threading.Barrier(2, timeout=10)

    def write(beside: Path, text: str) -> None:
        beside.write_text(text)
        both.wait()  # both temporary files are there
        assert beside.read_text() == text

    failures: list[BaseException] = []

    def run(text: str) -> None:
        try:
            publish(path, lambda beside: write(beside, text))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(text,)) for text in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert path.read_text() in ("one", "two")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_the_digest_of_a_file_is_that_of_its_bytes(size: int, tmp_path: Path) -> None:
    data = (b"unnoise " * (size // 8 + 1))[:size]
    (tmp_path / "file").write_bytes(data)
    assert sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()
