"""`unnoise data`, `evaluate` and `doctor`: they describe what exists and name what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise import nn
from unnoise.acceleration.placement import best
from unnoise.acceleration.speed import Speed
from unnoise.cli import doctor, machine
from unnoise.cli.main import main
from unnoise.config.cards import ModelCard
from unnoise.config.networks import UNetConfig
from unnoise.data.fashion import CLASSES
from unnoise.formats.directory import write_model

# --------------------------------------------------------------------------------------------------------- data


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of pictures in different sizes, one of them broken, one with a caption."""
    top = tmp_path_factory.mktemp("pets")
    rng = np.random.default_rng(0)
    for name, count, size in (("cat", 12, (20, 30)), ("dog", 5, (40, 40))):
        (top / name).mkdir()
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(top / name / f"{i}.png")
    (top / "dog" / "page.png").write_text("<html>")
    (top / "cat" / "0.txt").write_text("a \x1b[2J cat")
    return top


def test_data_says_what_is_there(pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.png"
    assert main(["data", str(pets), "--sheet", str(sheet), "--size", "16", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["count"] == 17
    assert about["classes"] == {"cat": 12, "dog": 5}
    assert about["sizes"]["width"] == {"min": 30, "median": 30.0, "max": 40}
    assert [b["path"] for b in about["broken"]["listed"]] == ["dog/page.png"]
    assert about["shape"] == [3, 16, 16]
    with Image.open(sheet) as picture:
        assert picture.width > 10 * 16  # ten a line, enlarged, names on the left
    assert main(["data", str(pets)]) == 0
    text = capsys.readouterr().out
    assert "dog/page.png" in text
    assert "a training would not start" in text
    assert "\x1b" not in text


def test_data_of_the_package_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "toy", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["count"], about["shape"]) == (1000, [1, 16, 16])


@pytest.mark.parametrize(("stored", "shown"), [((32, 32), 32), ((20, 24), 20), ((64, 90), 64), ((300, 200), 64)])
def test_data_in_files_is_shown_as_large_as_it_is_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stored: tuple[int, int], shown: int
) -> None:
    for i in range(3):
        Image.new("RGB", stored, (i, 0, 0)).save(tmp_path / f"{i}.png")
    assert main(["data", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert f"width         {stored[0]} to {stored[0]} pixels" in text
    assert f"read as       {shown}x{shown}, colour; a training reads at its data.size" in text
    assert main(["data", str(tmp_path), "--size", "48", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shape"] == [3, 48, 48]


def test_notes_about_data_are_printed_and_harmless(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(3):
        Image.new("RGBA", (8, 8), (i, 0, 0, 100 * i)).save(tmp_path / f"{i}.png")
    (tmp_path / "x.heic").write_text("x")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "gone\\u001b[2J.png"}')
    assert main(["data", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "note          1 .heic are not read: convert them to PNG or JPEG" in text
    assert "note          3 pictures have transparent pixels" in text
    assert "name a picture that does not exist (gone" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fashoin"], "did you mean 'fashion'"),
        (["no/such/folder"], "no folder no/such"),
        (["x", "--crop", "middle"], "center"),
    ],
)
def test_data_that_is_not_there(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", *words]) == 2
    assert said in capsys.readouterr().err


def test_an_empty_folder_is_said_to_be_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", str(tmp_path)]) == 2
    assert "empty folder" in capsys.readouterr().err


def test_data_says_why_pictures_are_broken_where_too_few_are_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.tif", "b.tif"):
        Image.new("F", (8, 8)).save(tmp_path / name)
    assert main(["data", str(tmp_path)]) == 2
    text = capsys.readouterr().err
    assert "has 0 readable pictures; give at least 2" in text
    for name in ("a.tif", "b.tif"):
        assert f"{name}: pixels of mode F (32 bits) have no known range" in text


# ---------------------------------------------------------------------------------------------------- evaluate


@pytest.fixture(scope="module")
def clothes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned nothing, of pictures as in `fashion`."""
    torch.manual_seed(0)
    net = nn.build(
        UNetConfig(
            size=28,
            in_channels=1,
            out_channels=1,
            channels=(8, 8, 8),
            blocks=1,
            attention=(False,) * 3,
            groups=4,
            classes=10,
        )
    )
    folder = tmp_path_factory.mktemp("clothes") / "model"
    folder.mkdir()
    card = ModelCard(net=net.config, size=(28, 28), channels=1, classes=CLASSES, info={"data": "fashion"})
    write_model(folder, net.state_dict(), card)
    return folder


def test_evaluate_says_figures_numbers_and_features(
    clothes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(clothes), "--count", "20", "--real", "200", "--steps", "2", "--cache", str(tmp_path)]
    assert main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    found = {entry["id"]: entry for entry in report["metrics"]}
    assert set(found) == {"frechet", "kernel", "precision", "recall", "density", "coverage", "accuracy"}
    assert found["frechet"]["value"] > 3 * found["frechet"]["real"]  # it has learned nothing
    assert report["n"] == 20
    assert any(tmp_path.iterdir())  # real features are kept
    assert main([*words, "--metrics", "kid,accuracy", "--data", "fashion:test"]) == 0
    text = capsys.readouterr().out
    assert "kernel distance" in text
    assert "classifier fashion" in text
    assert "Frechet" not in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--metrics", "fidd"], "did you mean 'fid'"),
        (["--label", "sneakers"], "did you mean 'sneaker'"),
        (["--count", "3"], "too few to measure"),
        (["--data", "fashoin"], "did you mean 'fashion'"),
        (["--features", "resnet", "--count", "10"], "no features 'resnet'"),
    ],
)
def test_evaluate_refuses_at_once(
    clothes: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(clothes), *words]) == 2
    assert said in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------- doctor


def test_doctor_reports_the_machine_and_missing_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--no-probe", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["torch"] == torch.__version__
    assert found["cpu"]["threads"] == torch.get_num_threads()
    assert set(found["packages"]) == set(machine.OPTIONAL)
    assert "fashion" in found["features"]["classifiers"]
    text = doctor.describe(found)
    assert all(name in text for name in machine.OPTIONAL)


def test_doctor_advises() -> None:
    fast = [vars(Speed("float32", "channels_last", 0.2)), vars(Speed("bfloat16", "channels_last", 1.5))]
    found = {
        "precision": "bfloat16",
        "cpu": {"threads": 1, "usable_cores": 8, "OMP_NUM_THREADS": "1"},
        "gpus": [],
        "speed": fast,
        "compiled": {"present": False, "why": "no compiler"},
        "disk_free_gb": 100.0,
    }
    text = " ".join(doctor.advice(found))
    assert "--precision auto uses bfloat16 here, and it is measured 7.5 times as fast as float32" in text
    assert "unset OMP_NUM_THREADS" in text
    assert "no compiler" in text


@pytest.mark.parametrize(
    ("chosen", "float32", "bfloat16", "end"),
    [
        ("bfloat16", 1.0, 2.0, "it is measured 2.0 times as fast as float32"),
        ("bfloat16", 2.0, 1.0, "float32 is measured 2.0 times as fast: try --precision float32"),
        ("float32", 1.0, 2.0, "bfloat16 is measured 2.0 times as fast: try --precision bfloat16"),
        ("float32", 2.0, 1.0, "it is measured 2.0 times as fast as bfloat16"),
        ("float32", 1.0, 1.1, "bfloat16 is measured about as fast"),
    ],
)
def test_doctor_says_what_auto_chooses_and_not_what_it_would_choose(
    chosen: str, float32: float, bfloat16: float, end: str
) -> None:
    advice = doctor.precision_advice(chosen, {"float32": float32, "bfloat16": bfloat16})
    assert advice == f"--precision auto uses {chosen} here, and {end}"
    assert doctor.examine(probe=False)["precision"] == best().precision
