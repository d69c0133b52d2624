"""Outputs: no command replaces a file unasked, writes PNG under another ending, or finds a bad path late."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.toy_models import save_toy_models
from unnoise.cli.console import UsageError
from unnoise.cli.main import main
from unnoise.cli.paths import new_file, writable
from unnoise.compression.format import Header, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("outputs")
    save_toy_models(base)
    Image.new("L", (16, 16)).save(base / "picture.png")
    Image.new("L", (20, 16)).save(base / "wide.png")
    Image.new("RGB", (16, 16), (200, 0, 0)).save(base / "red.png")
    return base


@pytest.fixture(autouse=True)
def _working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


WRITERS = [  # a command up to the name of its output
    "sample plain --grid",
    "sample plain --strip",
    "invert plain picture.png --sheet",
    "interpolate plain -o",
    "vary plain -o",
    "nearest pictures --data toy --grid",
    "data toy --sheet",
    "decompress picture.un --model plain -o",
]


@pytest.mark.parametrize("words", [*WRITERS, "compress picture.png --model plain -o", "sample plain --animation"])
def test_a_file_that_exists_is_kept(words: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pictures").mkdir(exist_ok=True)
    Path("picture.un").write_text("")
    name = "kept.gif" if "animation" in words else "kept.png"
    Path(name).write_text("mine")
    assert main([*words.split(), name]) == 2
    assert f"{name} exists already: give another name, or add --overwrite" in capsys.readouterr().err
    assert Path(name).read_text() == "mine"


@pytest.mark.parametrize("words", WRITERS)
@pytest.mark.parametrize("name", ["sheet.jpg", "sheet", "sheet.gif"])
def test_a_png_is_written_under_no_other_ending(words: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pictures").mkdir(exist_ok=True)
    Path("picture.un").write_text("")
    assert main([*words.split(), name]) == 2
    err = capsys.readouterr().err
    assert f"{name}: " in err
    assert "is written as PNG: give a name that ends in .png" in err
    assert not Path(name).exists()


def test_pictures_of_a_folder_are_kept_and_replaced_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", "plain", "--steps", "1", "--out", "many"]
    assert main([*words, "--seeds", "0-1"]) == 0
    before = Path("many/seed-000001.png").read_bytes()
    assert main([*words, "--seeds", "1-2", "--sampler", "heun"]) == 2
    assert "seed-000001.png exists already: give another --out, or add --overwrite" in capsys.readouterr().err
    assert sorted(path.name for path in Path("many").iterdir()) == ["seed-000000.png", "seed-000001.png"]
    assert Path("many/seed-000001.png").read_bytes() == before
    assert main([*words, "--seeds", "2"]) == 0  # beside them
    assert main([*words, "--seeds", "1", "--sampler", "heun", "--overwrite"]) == 0
    assert Path("many/seed-000001.png").read_bytes() != before


def test_two_outputs_have_two_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "plain", "--grid", "one.png", "--strip", "one.png"]) == 2
    assert "one.png is named for two outputs" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["/proc/nowhere/grid.png", "/dev/null/grid.png", f"{'n' * 300}/grid.png"])
def test_a_path_that_cannot_be_made_is_found_before_the_work(path: str) -> None:
    with pytest.raises(UsageError, match="cannot write the grid to"):
        writable(Path(path), "the grid")


def test_checking_a_path_leaves_nothing(tmp_path: Path) -> None:
    new_file(tmp_path / "new" / "grid.png", "the grid", overwrite=False, suffix=".png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("picture", "message"), [("wide.png", "is 20x16, and this model's are 16x16"), ("red.png", "is in colour")]
)
def test_a_picture_to_invert_is_not_changed_silently(
    picture: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["invert", "plain", picture], ["interpolate", "plain", "picture.png", picture, "-o", "never.png"]):
        assert main(words) == 2
        assert message in capsys.readouterr().err


def test_info_describes_a_compressed_picture(capsys: pytest.CaptureFixture[str]) -> None:
    data = write(Header(b"abcd", 7, 16, False, 2, (1, 16, 16), 3), b"payload")
    Path("whole.un").write_bytes(data)
    Path("part.un").write_bytes(data[:-4])
    Path("wrong.un").write_bytes(data[:5] + b"X" + data[6:])
    assert main(["info", "whole.un"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if "height" not in line)
    assert (lines["kind"], lines["whole"], lines["seed"], lines["class"]) == ("compressed picture", "yes", "7", "2")
    assert b"abcd".hex() in lines["model"]
    assert main(["info", "part.un"]) == 0
    assert "no: 5 of 7 bytes" in capsys.readouterr().out
    assert main(["info", "wrong.un"]) == 1
    assert "wrong.un" in capsys.readouterr().err
