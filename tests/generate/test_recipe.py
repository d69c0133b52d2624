"""Recipes: the command is exact, safe to paste and understands earlier names; every change since is listed."""

from __future__ import annotations

import shlex
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from unnoise import nn
from unnoise.cli.main import main
from unnoise.cli.parse import parse_seeds
from unnoise.config.cards import ModelCard
from unnoise.config.networks import UNetConfig
from unnoise.config.request import Request, RequestOptions
from unnoise.errors import UserError
from unnoise.generate.recipe import (
    build_recipe,
    grid_recipe,
    option_words,
    picture_recipe,
    reproducibility_warnings,
    sample_command,
    seeds_text,
    weights_file,
)
from unnoise.io.hashing import sha256
from unnoise.io.png import read_recipe
from unnoise.model import load, write_model

RECIPE: dict[str, Any] = {
    "model": {"path": "runs/00001-fashion", "weights": "", "sha256": "ab" * 32},
    "request": {"sampler": "ddim", "steps": 20, "spacing": "trailing", "eta": 0.25, "guidance": 2.0, "clip": False},
    "together": "0-7:Ankle boot",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with random weights of three classes."""
    torch.manual_seed(0)
    config = UNetConfig(
        size=8, in_channels=1, out_channels=1, channels=(8,), blocks=1, attention=(False,), groups=4, classes=3
    )
    (tmp_path / "toy").mkdir()
    card = ModelCard(net=config, size=(8, 8), channels=1, classes=("bag", "boot", "coat"))
    write_model(tmp_path / "toy", nn.build(config).state_dict(), card)
    return tmp_path / "toy"


# ------------------------------------------------------------------------------------------------------ building


def test_the_library_builds_the_recipes_that_the_command_line_writes(folder: Path) -> None:
    """Two ways to one recipe: `unnoise sample`, and three functions over a model and a request."""
    out, grid = folder.parent / "out", folder.parent / "grid.png"
    words = ["--seeds", "3-5", "--labels", "boot,coat", "--steps", "1", "--batch", "4", "--guidance", "2"]
    assert main(["sample", str(folder), *words, "--out", str(out), "--grid", str(grid)]) == 0
    rows = [(seed, label) for label in ("boot", "coat") for seed in (3, 4, 5)]
    seeds, labels = zip(*rows, strict=True)
    request = Request.of(seeds=seeds, labels=labels, steps=1, batch=4, guidance=2.0)
    recipe = build_recipe(folder, load(folder), request)
    batches = [rows[:4]] * 4 + [rows[4:]] * 2
    for row, batch in zip(rows, batches, strict=True):
        own = picture_recipe(recipe, row, batch, size=(8, 8), prompted=False)
        written = read_recipe(out / f"seed-00000{row[0]}-{row[1]}.png")
        assert written == own | {"request": written["request"]}  # tuples are lists in JSON
        assert sample_command(written) == sample_command(own)
    written = read_recipe(grid)
    assert sample_command(written) == sample_command(grid_recipe(recipe, rows, columns=3, size=(8, 8)))
    assert written["columns"] == 3
    assert "labels" not in recipe["request"]  # they are in the seeds


def test_a_recipe_names_the_weights_and_their_hash(folder: Path) -> None:
    recipe = build_recipe(folder, load(folder), Request.of(sampler="auto"))
    file = folder / "model.safetensors"
    assert recipe["model"] == {"path": str(folder), "weights": str(file), "sha256": sha256(file)}
    assert recipe["request"]["sampler"] == "ddim"  # what `auto` means for this model


def test_the_weights_of_a_folder_are_those_of_its_network(tmp_path: Path) -> None:
    """Each in turn is the one that counts among those before it: any, a file of unet/, model.safetensors."""
    for name in ("a/text.safetensors", "unet/diffusion.safetensors", "model.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
        assert weights_file(tmp_path) == tmp_path / name
    (tmp_path / "alphabetically-first.safetensors").write_bytes(b"")
    assert weights_file(tmp_path) == tmp_path / "model.safetensors"


def test_a_prompted_picture_names_the_prompts_of_its_batch() -> None:
    rows = [(0, "a cat"), (1, "a cat"), (0, "a dog")]
    recipe = picture_recipe(RECIPE, rows[2], rows, size=(8, 4), prompted=True)
    assert recipe["prompts"] == ["a cat", "a dog"]
    assert (recipe["seed"], recipe["prompt"], recipe["size"], recipe["together"]) == (0, "a dog", [8, 4], "0-1:0,0:1")
    assert "label" not in recipe


def test_a_folder_without_weights_has_no_recipe(folder: Path) -> None:
    model = load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="contains no safetensors file"):
        build_recipe(folder, model, Request())


# ------------------------------------------------------------------------------------------------- the command


def test_the_command_sets_what_is_not_a_default() -> None:
    assert sample_command(RECIPE) == (
        "unnoise sample runs/00001-fashion --seeds '0-7:Ankle boot' --sampler ddim --steps 20 "
        "--timestep-spacing trailing --eta 0.25 --no-clip --guidance 2.0"
    )


def test_a_recipe_with_earlier_names_gives_the_same_command() -> None:
    earlier = {"grid": "even-log-snr", "threshold": 0.9}
    today = {"spacing": "log-snr", "dynamic_threshold": 0.9}
    assert sample_command(RECIPE | {"request": earlier}) == sample_command(RECIPE | {"request": today})


def test_every_part_of_a_recipe_comes_back_in_the_command() -> None:
    request = {
        "values": {"age": [30.0]},
        "controls": ["edges.png"],
        "control_scale": [0.5],
        "guidance_interval": [0.1, 2.0],
        "previews": 4,
        "classifier_scale": -2.0,
    }
    more = {"prompts": ["a cat", "--help"], "control_models": ["runs/c"], "columns": 2, "request": request}
    words = shlex.split(sample_command(RECIPE | more))
    assert words[5:] == [
        "--prompt", "a cat", "--prompt=--help", "--control-model", "runs/c", "--value", "age=30.0",
        "--control", "edges.png", "--control-scale", "0.5", "--guidance-interval", "0.1", "2.0",
        "--classifier-scale=-2.0", "--grid", "grid.png", "--columns", "2",
    ]  # fmt: skip


def test_a_recipe_of_another_origin_cannot_steer_shell_or_terminal() -> None:
    command = sample_command(RECIPE | {"model": {"path": "x; rm -rf ~ \x1b[2J"}, "together": "0 $(reboot)"})
    assert r"$'x; rm -rf ~ \033[2J'" in command
    assert "'0 $(reboot)'" in command
    assert "\x1b" not in command


@pytest.mark.parametrize("missing", ["model", "request", "together"])
def test_a_damaged_recipe_is_refused(missing: str) -> None:
    with pytest.raises(UserError, match=f"damaged: it lacks '{missing}'"):
        sample_command({key: value for key, value in RECIPE.items() if key != missing})


def test_rows_with_prompts_are_numbered_by_the_first_of_equal_prompts() -> None:
    prompts = ("a cat", "a dog", "a cat")
    rows = [(0, "a cat"), (1, "a cat"), (2, "a dog"), (3, None)]
    assert seeds_text(rows, prompts) == "0-1:0,2:1,3"
    assert parse_seeds(seeds_text(rows, prompts)) == [(0, "0"), (1, "0"), (2, "1"), (3, None)]


def test_options_of_default_values_are_left_out() -> None:
    assert option_words(Request().flat(), RequestOptions) == []
    assert option_words({"steps": 7}, RequestOptions, {"steps": "num-inference-steps"}) == [
        "--num-inference-steps",
        "7",
    ]


# ---------------------------------------------------------------------------------------------------- warnings


def test_each_change_since_a_picture_was_made_is_one_warning(folder: Path) -> None:
    image, edges, control = (folder.parent / name for name in ("image.png", "edges.png", "control"))
    image.write_bytes(b"first")
    edges.write_bytes(b"edges")
    control.mkdir()
    request = Request.of(image=str(image), controls=(str(edges),))
    recipe = build_recipe(folder, load(folder), request) | {"control_models": [str(control)]}
    assert reproducibility_warnings(recipe) == []
    changes = [
        (lambda: control.rmdir(), "control model"),
        (lambda: image.write_bytes(b"second"), "image.png has changed"),
        (lambda: edges.write_bytes(b"other"), "edges.png has changed"),
        (lambda: recipe["versions"].update(torch="1.0.0"), "made with torch 1.0.0"),
        (lambda: recipe["versions"].update(unnoise="0.0.1"), "made with unnoise 0.0.1"),
        (lambda: (folder / "model.safetensors").write_bytes(b"x"), "model.safetensors have changed"),
    ]
    for number, (change, message) in enumerate(changes, start=1):
        change()
        found = reproducibility_warnings(recipe)
        assert len(found) == number
        assert any(message in warning for warning in found)
    image.unlink()
    assert any("image.png does not exist" in warning for warning in reproducibility_warnings(recipe))


def test_builds_of_one_version_are_one_version() -> None:
    here = metadata.version("torch").split("+")[0]
    recipe = {"model": {"path": "."}, "versions": {"torch": f"{here}+cu130"}}
    assert reproducibility_warnings(recipe) == []


def words_of(command: str) -> list[str]:
    """The arguments that bash makes of a command."""
    shell = ["bash", "-c", command.replace("unnoise", "printf '%s\\0'", 1)]
    return subprocess.run(shell, capture_output=True, check=True).stdout.decode("utf-8", "surrogateescape").split("\0")


def test_a_command_is_read_back_by_a_shell_as_it_was() -> None:
    """Newlines, quotes, escape sequences and names that begin with a dash: each is the argument that it was."""
    odd = ["a\nb", "it's", "\x1b[31m", "-x", "--help", "$(reboot)", "\u202eabc", "back\\slash", "\udcff"]
    request = RECIPE["request"] | {"controls": ["-c.png"], "negative_prompt": "-n"}
    words = words_of(sample_command(RECIPE | {"prompts": odd, "request": request}))
    for text in odd:
        assert text in words or f"--prompt={text}" in words
    assert {"--prompt=-x", "--prompt=--help", "--control=-c.png", "--negative-prompt=-n"} <= set(words)


@pytest.mark.parametrize("path", ["-m", "--help", "-"])
def test_a_model_whose_path_begins_with_a_dash_is_no_option(path: str) -> None:
    command = sample_command(RECIPE | {"model": {"path": path}})
    assert command.endswith(f" -- {path}")
    assert command.index(" --seeds") < command.index(" -- ")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("model", "runs"), ("model", {}), ("request", []), ("versions", ["1"]), ("files", 3), ("prompts", "a cat"),
        ("control_models", {}), ("size", 8), ("request", {"values": []}), ("request", {"values": {"age": []}}),
        ("request", {"values": {"age": ["x"]}}), ("request", {"controls": "a.png"}),
    ],
)  # fmt: skip
def test_a_recipe_with_a_part_of_another_type_is_refused(part: str, value: object) -> None:
    with pytest.raises(UserError, match="the recipe in this picture is damaged"):
        sample_command(RECIPE | {part: value})


def test_a_recipe_may_name_paths_that_cannot_exist() -> None:
    odd = {"path": "x" * 5000, "weights": "\0", "sha256": "ab"}
    assert len(reproducibility_warnings(RECIPE | {"model": odd, "files": {"\0": "a", "y" * 5000: "b"}})) == 3
