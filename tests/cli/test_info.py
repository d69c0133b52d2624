"""`unnoise info`: pictures, runs, models and weights are described, other files named for what they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from unnoise import nn
from unnoise.cli.main import main
from unnoise.config.cards import ModelCard
from unnoise.config.networks import UNetConfig
from unnoise.io import images, png
from unnoise.io.hashing import sha256
from unnoise.model import write_model

RECIPE = {
    "model": {"path": "runs/00001-fashion", "weights": "", "sha256": "ab" * 32},
    "seed": 5,
    "label": "Ankle boot",
    "size": [28, 28],
    "request": {
        "sampler": "ddim",
        "mask": "",
        "steps": 20,
        "spacing": "trailing",
        "guidance": 2.0,
        "values": {"age": [30.0]},
    },
    "together": "0-7:Ankle boot",
    "versions": {"unnoise": "0.1.0", "torch": "2.13.0"},
}


def picture(path: Path, recipe: dict[str, object] | None = RECIPE) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    png.write_png(path, images.image(pixels), recipe)
    return str(path)


def test_info_prints_the_command_of_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = picture(tmp_path / "a.png")
    assert main(["info", path, "--command"]) == 0
    out, err = capsys.readouterr()
    command = (
        "unnoise sample runs/00001-fashion --seeds '0-7:Ankle boot' --value age=30.0 --sampler ddim --steps 20 "
        "--timestep-spacing trailing --guidance 2.0"
    )
    assert out.strip() == command
    assert "the model runs/00001-fashion does not exist here" in err
    assert main(["info", path]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not any(line.startswith("mask") for line in lines)  # a setting that is not set
    assert lines[-2:] == ["Make it again:", f"  {command}"]
    assert [line.split() for line in lines if line.startswith(("seed", "age"))] == [["seed", "5"], ["age", "30"]]


def test_info_as_json_contains_the_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", picture(tmp_path / "a.png"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["recipe"]) == ("picture", RECIPE)


def test_a_picture_without_a_recipe_has_no_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", picture(tmp_path / "a.png", None)]) == 1
    assert "contains no recipe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "model.safetensors", "is empty"),
        (b"<!DOCTYPE html><html>", "model.safetensors", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "model.safetensors", "git lfs pull"),
        (b"\x80\x04\x95\x00", "model.bin", "pickle"),
        (b"PK\x03\x04 zip", "model.ckpt", "pickle"),
        (b"hello", "model.txt", "neither"),
        ((1000).to_bytes(8, "little") + b'{"a":', "model.safetensors", "cut off"),
        ((8).to_bytes(8, "little") + b'{"a": 1}', "model.safetensors", "damaged"),
        ((2).to_bytes(8, "little") + b"{}x", "model.safetensors", "11 bytes long, but its header states 10"),
        (b"\x89PNG\r\n\x1a\nbroken", "a.png", "not a picture that can be read"),
    ],
)
def test_info_names_what_a_file_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, name: str, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert main(["info", str(tmp_path / name)]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_info_describes_weights_without_loading_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import save_file

    path = str(tmp_path / "m.safetensors")
    save_file({"a": np.zeros((3, 4), np.float32), "b": np.zeros(5, np.float32)}, path, {"k": "v"})
    assert main(["info", path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["tensors"], found["parameters"], found["metadata"]) == ("weights", 2, 17, {"k": "v"})
    assert main(["info", path, "--command"]) == 1
    assert "is not a picture" in capsys.readouterr().err


def test_a_description_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = RECIPE | {"model": {"path": "x\x1b[2J"}, "label": "y\x1b[2J", "versions": {"torch": "z\x1b[2J"}}
    assert main(["info", picture(tmp_path / "a.png", evil)]) == 0
    assert "\x1b" not in "".join(capsys.readouterr())


def test_info_describes_a_model_and_refuses_other_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = UNetConfig(
        size=8, in_channels=1, out_channels=1, channels=(8,), blocks=1, attention=(False,), groups=4, classes=2
    )
    net = nn.build(config)
    (tmp_path / "model").mkdir()
    card = ModelCard(net=config, size=(8, 8), channels=1, classes=("bag", "ankle-boot"))
    write_model(tmp_path / "model", net.state_dict(), card)
    assert main(["info", str(tmp_path / "model")]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["parameters"].startswith(f"{sum(p.numel() for p in net.parameters()):,} (")
    assert lines["sha256"] == sha256(tmp_path / "model" / "model.safetensors")
    assert lines["classes"] == "bag, ankle-boot"
    assert "--label (2 classes: bag, ankle-boot)" in lines["inputs"]
    assert main(["info", str(tmp_path)]) == 2
    assert "a folder with models in it, not a run or a model" in capsys.readouterr().err
