"""A path that is no model: the error says what it is, and what to give or to run instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from unnoise.cli.main import main
from unnoise.io.whatis import is_checkpoint, is_model, not_a
from unnoise.model import load


def world(root: Path) -> None:
    """Folders and files of every kind; the names alone matter."""
    for name in (
        "runs/00001-a/config.yaml",
        "runs/00002-b/config.yaml",
        "here/runs/00001-c/config.yaml",
        "my pictures/cat/1.PNG",
        "my pictures/dog/2.jpg",
        "my pictures/notes.txt",
        "judge/classifier.json",
        "judged/checkpoints/step-00000001/classifier.json",
        "several/one/model.json",
        "runs/notes/notes.txt",
        "picture.png",
        "model.safetensors",
        "old.ckpt",
        "small.un",
        "other",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    (root / "empty").mkdir()


KINDS = [
    ("runs", "is a folder of runs", "runs/00001-a"),
    ("runs", "is a folder of runs", "runs/00002-b"),
    ("here", "is a folder with runs/ in it", "here/runs/00001-c"),
    ("my pictures", "is a folder of pictures (1 .jpg, 1 .png)", "--data '"),
    ("judge", "is a classifier", "generates none"),
    ("judged", "is a classifier", "generates none"),
    ("several", "is a folder with models in it", "several/one"),
    ("runs/notes", "is a folder with notes.txt", "the nearest runs are"),
    ("empty", "is an empty folder", "config.json"),
    ("picture.png", "is a picture", "unnoise info"),
    ("model.safetensors", "is a file of weights", "give the folder"),
    ("old.ckpt", "is a pickle", "safetensors"),
    ("small.un", "is a compressed picture", "unnoise decompress"),
    ("other", "is a file", "give the folder"),
]


@pytest.mark.parametrize(("path", "kind", "fix"), KINDS)
def test_the_error_says_what_a_path_is(path: str, kind: str, fix: str, tmp_path: Path) -> None:
    world(tmp_path)
    message = str(not_a("a model", tmp_path / path))
    assert message.startswith(f"{tmp_path / path} {kind}")
    assert fix in message.split("not a model: ")[1]
    assert not is_model(tmp_path / path)
    with pytest.raises(ValueError, match="is empty|is a pickle" if is_checkpoint(tmp_path / path) else "not a model"):
        load(tmp_path / path)


@pytest.mark.parametrize("command", ["sample", "evaluate", "compare", "export", "invert", "vary", "info"])
def test_every_command_refuses_it_before_work(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world(tmp_path)
    more = {"export": [str(tmp_path / "out")], "invert": [str(tmp_path / "picture.png")]}.get(command, [])
    assert main([command, str(tmp_path / "runs"), *more]) == 2
    err = capsys.readouterr().err
    assert "is a folder of runs" in err
    assert "loading" not in err
