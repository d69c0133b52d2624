"""Commands and options of other programs: the message names what to type here, and the exit code is 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from unnoise.cli.commands import COMMANDS
from unnoise.cli.main import main
from unnoise.config import synonyms


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("generate RUN", "`unnoise sample`"),
        ("txt2img RUN", "`unnoise sample`"),
        ("resume RUN", "`unnoise train RUN`"),
        ("LS", "`unnoise runs`"),
        ("list", "`unnoise runs`"),
        ("report RUN", "`unnoise info RUN`"),
        ("fashion", "it is a preset: unnoise train fashion"),
        ("sample RUN --scheduler ddim", "--sampler ddim?"),
        ("sample RUN --n 4", "for 4 pictures write --seeds 0-3"),
        ("sample RUN -n 16", "for 16 pictures write --seeds 0-15"),
        ("sample RUN --num_images=2", "for 2 pictures write --seeds 0-1"),
        ("sample RUN --width 64", "the size that the model was trained with"),
        ("sample RUN --cfg 3", "--guidance 3?"),
        ("sample --model RUN", "right after `unnoise sample`"),
        ("evaluate RUN --num-images 10", "--count 10?"),
        ("data RUN --resolution 32", "--size 32?"),
        ("train fashion --epochs 3", "--set fit.images=..., which counts pictures"),
        ("train fashion --lr 1e-4", "--set fit.lr=1e-4"),
        ("train fashion --learning_rate=1e-4", "--set fit.lr=1e-4"),
        ("train fashion --train-batch-size 8", "--set fit.batch=8"),
        ("train fashion --dropout 0.1", "--set net.dropout=0.1"),
        ("train fashion --resolution 64", "--set data.size=64"),
        ("train fashion --resume-from-checkpoint latest", "the same command resumes its newest run"),
        ("train --lr 1", "--set fit.lr=1"),
    ],
)
def test_words_of_other_programs(words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path) if word == "RUN" else word for word in words.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


def test_every_word_means_something_that_exists(capsys: pytest.CaptureFixture[str]) -> None:
    assert not set(synonyms.COMMANDS) & set(COMMANDS)
    for instead in synonyms.COMMANDS.values():
        assert instead.split()[1] in (*COMMANDS, "--help", "--version")
    listed = ""
    for command in ("sample", "evaluate", "compare", "train", "invert", "compress"):
        main([command, "--help"])
        listed += capsys.readouterr().out
    for options in synonyms.OPTIONS.values():
        assert any(f"{option} " in listed for option in options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("sample", "MODEL is missing: unnoise sample MODEL"),
        ("info", "PATH is missing: unnoise info PATH"),
        ("sample RUN a cat", "a cat: no such argument; a value with spaces needs quotes"),
        ("sample RUN --prompts cat", "for one prompt write --prompt cat"),
        ("sample RUN --prompts gone.txt", "no file of prompts at gone.txt"),
    ],
)
def test_arguments_that_are_missing_or_too_many(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.json").write_text("{}")
    assert main([str(tmp_path) if word == "RUN" else word for word in words.split()]) == 2
    assert message in capsys.readouterr().err


def test_a_run_without_a_checkpoint_is_refused_before_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checkpoints").mkdir()
    assert main(["sample", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "has no checkpoint yet: train until one is saved" in err
    assert "loading" not in err
