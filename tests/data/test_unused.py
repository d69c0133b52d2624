"""Whatever lies in a folder or archive and is not used is reported, with a count and the reason."""

from __future__ import annotations

import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.trees import Put, png, to_folder, write
from unnoise.data.registry import find
from unnoise.data.unused import FOREIGN, count_endings


def test_what_is_not_used_is_counted_by_ending_with_the_reason(put: Put) -> None:
    other = {**{f"{i}.HEIC": b"x" for i in range(6)}, "a.jxl": b"x", "README.md": "x", "b.json": "{}", "9.txt": "nine"}
    hidden = {".DS_Store": b"x", "__MACOSX/0.heic": b"x", ".git/config": "x", "Thumbs.db": b"x"}
    found = find(put({"1.png": png(1), "2.png": png(2), "2.txt": "two", **other, **hidden}))
    assert found.names == ("1.png", "2.png")
    assert set(found.notes) == {
        "6 .heic, 1 .jxl are not read: convert them to PNG or JPEG",
        "1 .json, 1 .md are not read: they are neither pictures nor captions",
        "1 .txt are not read: no picture has their names",
        "1 of 2 pictures have no caption",
    }


@pytest.mark.parametrize("ending", sorted(FOREIGN))
def test_pictures_of_other_formats_are_said_to_need_conversion(tmp_path: Path, ending: str) -> None:
    found = find(str(to_folder(tmp_path, {"1.png": png(1), f"2{ending}": b"x"})))
    assert found.notes == (f"1 {ending} are not read: convert them to PNG or JPEG",)


def test_many_endings_are_cut_short() -> None:
    names = [f"{i}.e{k}" for k in range(10) for i in range(10 - k)]
    assert count_endings(names, 2) == "10 .e0, 9 .e1, 36 others"
    assert count_endings(["a", "b"]) == "2 without an ending"
    assert count_endings([]) == "nothing"


@pytest.mark.parametrize("ending", [".jpe", ".jif", ".jfif", ".mpo", ".JPG", ".apng", ".dib"])
def test_other_endings_of_a_format_are_read(put: Put, ending: str) -> None:
    assert find(put({f"1{ending}": png(1), "2.png": png(2)})).notes == ()


def test_pipes_and_closed_folders_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"1.png": png(1), "shut/2.png": png(2)})
    os.mkfifo(tmp_path / "pipe.png")
    assert find(str(tmp_path)).notes[-1] == "1 pipes or devices are not read (pipe.png)"
    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    notes = find(str(tmp_path)).notes
    assert [note for note in notes if note.startswith("1 folders cannot be read") and "Permission denied" in note]


def test_members_of_an_archive_that_may_not_be_read_are_noted(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for name in ("1.png", "2.png"):
            (tmp_path / name).write_bytes(png(1))
            file.add(tmp_path / name, name)
        link = tarfile.TarInfo("1.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    assert find(str(tmp_path / "a.tar")).notes == ("1 .txt are not read: a link or device, not a file",)
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("1.png", png(1))
        zipped.writestr("bomb.txt", bytes(65 * 2**20))
    assert [note for note in find(str(tmp_path / "b.zip")).notes if "1 .txt are not read" in note and "bomb" in note]


def test_arrays_that_are_not_read_are_noted(tmp_path: Path) -> None:
    pixels = np.zeros((3, 4, 4), np.uint8)
    np.savez(tmp_path / "a.npz", x_train=pixels, y_train=[0, 1, 0], x_test=pixels, y_test=[0, 1, 0])
    assert find(str(tmp_path / "a.npz")).notes == ("arrays that are not read: x_test, y_test",)


def test_files_beside_parquet_tables_and_columns_are_noted(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    import pyarrow.parquet as pq

    files = [png(i) for i in range(3)]
    table = pa.table({"image": files, "hint": files[::-1], "caption": ["a", "b", "c"], "url": ["x"] * 3})
    write(tmp_path, {"README.md": "x", "card.png": png(9), ".cache/x.parquet": b"no table"})
    pq.write_table(table, tmp_path / "train-0.parquet")
    found = find(str(tmp_path))
    assert [found.read(i) for i in range(3)] == files
    assert [found.control_columns["hint"].read(i) for i in range(3)] == files[::-1]
    assert set(found.notes) == {
        "columns that are not read: url",
        "column hint is not trained on: data.control=hint conditions a ControlNet on it, if it has pictures",
        "1 .md, 1 .png are not read: the pictures are those of the tables",
    }


def test_a_parquet_without_pictures_beside_pictures_is_noted(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    import pyarrow.parquet as pq

    write(tmp_path, {"1.png": png(1), "2.png": png(2)})
    pq.write_table(pa.table({"file": ["1.png"], "words": ["a"]}), tmp_path / "captions.parquet")
    found = find(str(tmp_path))
    assert found.names == ("1.png", "2.png")
    assert found.notes == ("1 .parquet are not read: they are neither pictures nor captions",)
