"""`unnoise info`: pictures, runs, models and weights are described, other files named for what they are."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.tiny_training import changed, ticks
from unnoise import nn
from unnoise.cli.main import app, main
from unnoise.config.cards import ModelCard, ValueRange
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import ControlConfig, TextConfig, UNetConfig
from unnoise.generate.describe import first_command
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


NET = UNetConfig(size=8, in_channels=1, out_channels=1, channels=(8,), blocks=1, attention=(False,), groups=4)


def modelled(path: Path, **settings: object) -> Path:
    """A model directory with this card."""
    path.mkdir(parents=True)
    net = settings.pop("net", NET)
    write_model(path, nn.build(net).state_dict(), ModelCard(net=net, size=(8, 8), channels=1, **settings))
    return path


MANY = tuple(f"class-{i}" for i in range(30))
KINDS: dict[str, tuple[dict[str, object], str]] = {  # a card, and what its first command has between path and seeds
    "unconditional": ({}, ""),
    "few classes": ({"net": replace(NET, classes=2), "classes": ("bag", "boot")}, " --labels all"),
    "many classes": ({"net": replace(NET, classes=30), "classes": MANY}, " --label class-0"),
    "captions": (
        {"net": replace(NET, text=TextConfig(vocabulary=300, length=8, width=8, depth=1, heads=2)),
         "captions": ("a dog's house", "a cat")},
        """ --prompt 'a dog'"'"'s house'""",
    ),
    "no caption": (
        {"net": replace(NET, text=TextConfig(vocabulary=300, length=8, width=8, depth=1, heads=2))},
        " --prompt 'a description'",
    ),
    "values": ({"net": replace(NET, values=1), "values": (ValueRange("age", 10.0, 50.0),)}, " --value age=30"),
    "low_res": (
        {"net": replace(NET, concat_channels=1), "process": DiffusionConfig(concat="low_res")},
        " --image FILE",
    ),
    "masked": (
        {"net": replace(NET, concat_channels=2), "process": DiffusionConfig(concat="masked")},
        " --image FILE --mask FILE",
    ),
    "control": ({"net": replace(NET, controls=(ControlConfig(hint=(4, 8), scale=1),))}, " --control FILE"),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_first_command_has_what_the_network_is_conditioned_on(kind: str, tmp_path: Path) -> None:
    """And the command line reads it as one of `unnoise sample`."""
    card, words = KINDS[kind]
    path = modelled(tmp_path / "a model", **card)
    command = first_command(path)
    seeds = "0-7" if kind == "few classes" else "0-15"
    assert command == f"unnoise sample '{path}'{words} --seeds {seeds} --grid grid.png"
    app.parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_model_is_described_by_what_it_has(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No line of what it lacks, no setting at its default, and no list that ends without its number."""
    card, _ = KINDS[kind]
    assert main(["info", str(modelled(tmp_path / "m", **card))]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert ("classes" in lines) == ("classes" in kind)
    assert ("captions" in lines) == (kind == "captions")
    assert "net" in lines
    assert "channels 8" in lines["net"]
    assert "dropout" not in lines["net"]
    if kind == "many classes":
        assert lines["classes"].endswith("class-18, class-19, ... and 10 more")
        assert "class-3, ... and 26 more" in lines["inputs"]


def test_a_run_is_described_by_its_status_and_its_next_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies among its checkpoints is not one of them, and a damaged checkpoint is named."""
    monkeypatch.chdir(tmp_path)
    run = Path("runs/00001-tiny")
    for tick in ticks(changed(checkpoint_steps=4, log_every=1), run):
        if tick.step == 5:
            break
    newest = run / "checkpoints" / "step-00000004"
    modelled(run / "checkpoints" / "step-final", net=replace(NET, classes=2), classes=("bag", "boot"))
    write_card = modelled(tmp_path / "m", net=replace(NET, classes=2), classes=("bag", "boot")) / "model.json"
    (newest / "model.json").write_bytes(write_card.read_bytes())
    assert main(["info", str(run)]) == 0
    out, err = capsys.readouterr()
    lines = dict(line.split(maxsplit=1) for line in out.splitlines() if len(line.split()) > 1)
    assert (lines["status"], lines["step"]) == ("stopped", "4 of 10 (40.0 %)")
    assert lines["checkpoints"] == "step-00000004"
    assert out.splitlines()[-1] == f"  unnoise sample {run} --labels all --seeds 0-7 --grid grid.png"
    assert "checkpoints/step-final is not a finished checkpoint" in err
    (newest / "state.json").write_bytes(b"{}")
    assert main(["info", str(run)]) == 0
    out, err = capsys.readouterr()
    assert "damaged" in out
    assert "state.json" in err


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
