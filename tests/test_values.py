"""Numbers told beside pictures: from a file to the network, dropped on the way, and from a person to a drawing."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unnoise import data
from unnoise.data.source import numbers
from unnoise.data.sources import find
from unnoise.errors import UserError
from unnoise.settings import DataConfig

LINES = [
    {"file_name": "a.png", "age": 30, "score": 0.5, "name": "x"},
    {"file_name": "b.png", "age": 4.5, "smiles": True},
    {"file_name": "c.png", "age": None, "score": "much", "smiles": False},
]
DATA = DataConfig(size=4, channels=1, values=("score", "age"))
AGES, SCORES = [30, 4.5, np.nan, np.nan], [0.5, np.nan, np.nan, np.nan]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures, of three of which something is told; as a folder, an archive, and a table in two row groups."""
    base = tmp_path_factory.mktemp("told")
    (base / "folder").mkdir()
    for i, name in enumerate("abcd"):
        Image.new("L", (4, 4), 10 * i).save(base / "folder" / f"{name}.png")
    (base / "folder" / "metadata.jsonl").write_text("\n".join(map(json.dumps, LINES)))
    with zipfile.ZipFile(base / "archive.zip", "w") as archive:
        for file in (base / "folder").iterdir():
            archive.write(file, file.name)
    return base


@pytest.mark.parametrize("kind", ["folder", "archive.zip"])
def test_a_tree_tells_numbers(kind: str, told: Path) -> None:
    source = find(str(told / kind))
    assert set(source.values) == {"age", "score", "smiles"}  # not the words, not the file names
    assert np.array_equal(source.values["age"], AGES, equal_nan=True)
    assert np.array_equal(source.values["score"], SCORES, equal_nan=True)
    assert np.array_equal(source.values["smiles"], [np.nan, 1, 0, np.nan], equal_nan=True)
    assert any("score is no number for 1 of 4 pictures" in note for note in source.notes)
    assert np.array_equal(source.only(np.array([False, True, False, True])).values["age"], [4.5, np.nan], equal_nan=True)


def test_a_table_tells_numbers(told: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    pictures = [(told / "folder" / f"{name}.png").read_bytes() for name in "abcd"]
    columns = {
        "image": pictures,
        "age": [30, 4, None, 7],
        "score": [0.5, float("nan"), float("inf"), -1.0],
        "text": ["1", "2", "3", "4"],
        "split": ["train", "test", "test", "test"],
    }
    parquet.write_table(pa.table(columns), told / "table.parquet", row_group_size=2)
    source = find(f"{told / 'table.parquet'}:test")
    assert set(source.values) == {"age", "score"}
    assert np.array_equal(source.values["age"], [4, np.nan, 7], equal_nan=True)
    assert np.array_equal(source.values["score"], [np.nan, np.nan, -1], equal_nan=True)


def test_what_is_no_finite_number_is_not_told() -> None:
    found, notes = numbers({"a": [1, 10**400, float("inf"), None, "2"], "b": ["x", None, [1], {}, ()]}, "here")
    assert np.array_equal(found["a"], [1, np.nan, np.nan, np.nan, np.nan], equal_nan=True)
    assert set(found) == {"a"}
    assert notes == ["a is no number for 3 of 5 pictures in here: not told there"]


def test_a_batch_has_the_numbers_asked_for_in_their_order(told: Path) -> None:
    pictures = data.open(replace(DATA, path=str(told / "folder")))
    expected = np.stack([SCORES, AGES], axis=1)
    assert np.array_equal(pictures.values(), expected, equal_nan=True)
    batch = pictures.batch([2, 0, 1])
    assert np.array_equal(batch.value, expected[[2, 0, 1]], equal_nan=True)
    plain = data.open(replace(DATA, path=str(told / "folder"), values=()))
    assert plain.batch([0]).value is None
    assert pictures.describe()["numbers"]["age"] == {"count": 2, "min": 4.5, "max": 30.0}


def test_numbers_are_of_the_pictures_that_can_be_read(told: Path, tmp_path: Path) -> None:
    for file in (told / "folder").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "a.png").write_bytes(b"spoilt")
    pictures = data.open(replace(DATA, path=str(tmp_path), max_broken=1.0))
    assert np.array_equal(pictures.values()[:, 1], AGES[1:], equal_nan=True)


def test_other_numbers_are_other_data(told: Path, tmp_path: Path) -> None:
    folder = str(told / "folder")
    plain, age, score = (data.open(replace(DATA, path=folder, values=v)) for v in ((), ("age",), ("score",)))
    assert len({plain.fingerprint, age.fingerprint, score.fingerprint}) == 3
    for file in (told / "folder").iterdir():
        text = file.read_bytes()
        (tmp_path / file.name).write_bytes(text.replace(b"30", b"31") if file.suffix == ".jsonl" else text)
    assert data.open(replace(DATA, path=str(tmp_path), values=("age",))).fingerprint != age.fingerprint
    assert data.open(replace(DATA, path=str(tmp_path), values=())).fingerprint == plain.fingerprint


def test_names_that_are_not_there_are_told(told: Path) -> None:
    with pytest.raises(UserError, match="no number told of the pictures in .* 'aeg'; did you mean 'age'"):
        data.open(replace(DATA, path=str(told / "folder"), values=("aeg",)))
    with pytest.raises(UserError, match="no numbers are told of the pictures in .*: write them into its metadata"):
        data.open(replace(DATA, path="toy", size=8))
    with pytest.raises(UserError, match="names a number twice"):
        data.open(replace(DATA, path=str(told / "folder"), values=("age", "age")))
