"""Drawing from the command line: pictures that say how they were made, and are made again from what they say."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise import nn
from unnoise.cli.main import main
from unnoise.cli.requests import rows_for
from unnoise.config.cards import ModelCard, ValueRange
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import ControlConfig, UNetConfig
from unnoise.formats.directory import write_model
from unnoise.generate.output import file_name
from unnoise.generate.recipe import reproducibility_warnings
from unnoise.generate.sheets import columns_for, line_names
from unnoise.io.fonts import boxes
from unnoise.io.png import read_recipe

CLASSES = ("T-shirt/top", "Sneaker", "Ankle boot")


def small(classes: int) -> UNetConfig:
    return UNetConfig(
        size=8,
        in_channels=1,
        out_channels=1,
        channels=(8, 16),
        blocks=1,
        attention=(False, True),
        groups=4,
        classes=classes,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights, and another without classes."""
    torch.manual_seed(0)
    base = tmp_path_factory.mktemp("models")
    for name, classes in (("toy", CLASSES), ("bare", ())):
        net = nn.build(small(len(classes)))
        for p in net.parameters():  # zero at birth would draw the same for every class
            torch.nn.init.normal_(p, std=0.1)
        (base / name).mkdir()
        process = DiffusionConfig(predicts="x0")  # at random weights the other predictions end in black and white
        card = ModelCard(net=net.config, process=process, size=(8, 8), channels=1, classes=classes)
        write_model(base / name, net.state_dict(), card)
    return base


@pytest.fixture(autouse=True)
def at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def pixels(path: Path | str) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_one_picture_a_seed_and_class_with_its_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", "toy", "--seeds", "3,0-1", "--labels", "Sneaker,2", "--steps", "3", "--out", str(tmp_path)]
    assert main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [(p["seed"], p["label"]) for p in said["pictures"]] == [
        (seed, label) for label in ("Sneaker", "Ankle boot") for seed in (3, 0, 1)
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        f"seed-00000{seed}-{label}.png" for label in ("sneaker", "ankle-boot") for seed in (0, 1, 3)
    )
    recipe = read_recipe(tmp_path / "seed-000003-ankle-boot.png")
    assert recipe is not None
    assert (recipe["seed"], recipe["label"], recipe["size"]) == (3, "Ankle boot", [8, 8])
    assert recipe["request"]["steps"] == 3
    assert len({pixels(path).tobytes() for path in tmp_path.iterdir()}) == 6


@pytest.mark.parametrize(
    "asked",
    [
        "--seeds 0-4 --steps 4 --batch 2",
        "--seeds 7,2:Sneaker,3:none --labels 0,2 --sampler ddpm --steps 3 --guidance 2.5 --batch 3 --no-clip",
        "--seeds 1-3 --steps 3 --eta 0.5 --grid-spacing trailing --precision bfloat16",
    ],
)
def test_info_makes_it_again_bit_for_bit(asked: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "toy", *shlex.split(asked), "--out", str(tmp_path / "a")]) == 0
    for picture in sorted((tmp_path / "a").iterdir()):
        capsys.readouterr()
        assert main(["info", str(picture), "--command"]) == 0
        out, err = capsys.readouterr()
        command = shlex.split(out)
        assert err == ""  # nothing in doubt
        assert command[0] == "unnoise"
        again = tmp_path / "again" / picture.stem
        assert main([*command[1:], "--out", str(again)]) == 0
        assert np.array_equal(pixels(again / picture.name), pixels(picture))


def test_a_picture_is_the_same_drawn_alone(tmp_path: Path) -> None:
    main(["sample", "toy", "--seeds", "0-5", "--labels", "1", "--steps", "4", "--out", str(tmp_path / "many")])
    main(["sample", "toy", "--seeds", "4", "--labels", "Sneaker", "--steps", "4", "--out", str(tmp_path / "one")])
    name = "seed-000004-sneaker.png"
    many, one = pixels(tmp_path / "many" / name).astype(int), pixels(tmp_path / "one" / name).astype(int)
    assert abs(many - one).max() <= 1  # sums may be taken in another order


def test_a_grid_has_a_line_a_class_and_says_how_it_was_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = tmp_path / "grid.png"
    assert main(["sample", "toy", "--seeds", "0-4", "--labels", "all", "--steps", "2", "--grid", str(grid)]) == 0
    first = pixels(grid)
    recipe = read_recipe(grid)
    assert recipe is not None
    assert recipe["columns"] == 5
    assert [p.name for p in tmp_path.iterdir()] == ["grid.png"]  # asked for a grid, got a grid
    capsys.readouterr()
    assert main(["info", str(grid), "--command"]) == 0
    command = shlex.split(capsys.readouterr().out)
    command[command.index("--grid") + 1] = str(tmp_path / "again.png")
    assert main(command[1:]) == 0
    assert np.array_equal(pixels(tmp_path / "again.png"), first)


def test_animation_and_previews(tmp_path: Path) -> None:
    gif = tmp_path / "walk.gif"
    words = ["sample", "toy", "--seeds", "0-2", "--labels", "0", "--steps", "6", "--previews", "2"]
    assert main([*words, "--animation", str(gif), "--out", str(tmp_path / "out")]) == 0
    with Image.open(gif) as walk:
        assert walk.n_frames == 7  # the noise, five estimates, the picture
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert [name for name in names if "000001" in name] == [
        "seed-000001-t-shirt-top-step-0002.png",
        "seed-000001-t-shirt-top-step-0004.png",
        "seed-000001-t-shirt-top.png",
    ]


def test_without_classes_and_without_metadata(tmp_path: Path) -> None:
    words = ["sample", "bare", "--num-inference-steps", "2", "--seed", "5", "--output-dir", str(tmp_path)]
    assert main([*words, "--no-metadata"]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["seed-000005.png"]
    assert read_recipe(tmp_path / "seed-000005.png") is None


def test_changed_weights_are_reported(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    shutil.copytree(folder / "toy", tmp_path / "toy")
    assert main(["sample", str(tmp_path / "toy"), "--steps", "1", "--out", str(tmp_path / "out")]) == 0
    picture = next((tmp_path / "out").iterdir())
    write_model(tmp_path / "toy", nn.build(small(3)).state_dict(), ModelCard(net=small(3), classes=CLASSES))
    capsys.readouterr()
    assert main(["info", str(picture)]) == 0
    assert "have changed since" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "no model at nowhere; the folder . has: bare, toy"),
        (["toy", "--labels", "sneakers"], "did you mean 'Sneaker'"),
        (["toy", "--labels", "3"], "no class '3'"),
        (["bare", "--labels", "1"], "without classes"),
        (["bare", "--guidance", "2"], "cannot be guided"),
        (["toy", "--seeds", "0-3", "--animation", "walk.avi"], "ends in .gif or .mp4"),
        (["toy", "--sampler", "heun", "--eta", "0.5"], "eta"),
        (["toy", "--grid", "toy/model.json/grid.png"], "is a file, not a folder"),
        (["toy", "--grid", "bare"], "cannot write the grid to bare: it is a folder"),
        (["toy", "--out", "toy/model.json"], "cannot write pictures to toy/model.json: it is a file"),
        (["toy", "--latents", "out.safetensors"], "generates pictures, not latents"),
        (["toy", "--seeds", "0-999999", "--labels", "0,1"], "limit is 1,000,000"),
    ],
)
def test_what_cannot_be_drawn_is_said_at_once(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    assert main(["sample", *words]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""
    assert "Traceback" not in err
    assert sorted(p.name for p in folder.iterdir()) == ["bare", "toy"]


@pytest.mark.parametrize("kind", ["nothing", "classes", "words", "numbers", "drawings", "holes"])
def test_info_lists_the_inputs_of_a_model(kind: str, kinds: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = run("info", str(kinds / kind))
    assert code == 0
    (line,) = [line for line in out.splitlines() if line.startswith("inputs ")]
    assert line.removeprefix("inputs").strip() == TAKES[kind]


@pytest.fixture(scope="module")
def kinds(worded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models with random weights, by what each is conditioned on; the last one is on a picture."""
    torch.manual_seed(3)
    base = tmp_path_factory.mktemp("kinds")
    (base / "words").symlink_to(worded)
    plain = small(0)
    nets = {
        "nothing": (plain, {}),
        "classes": (small(3), {"classes": CLASSES}),
        "numbers": (dataclasses.replace(plain, values=1), {"values": (ValueRange("age", 20, 70),)}),
        "drawings": (dataclasses.replace(plain, controls=(ControlConfig(hint=(4,), scale=1),)), {}),
        "holes": (dataclasses.replace(plain, concat_channels=2), {}),
    }
    for name, (config, told) in nets.items():
        net = nn.build(config)
        (base / name).mkdir()
        process = DiffusionConfig(predicts="x0", concat="masked" if name == "holes" else "")
        card = ModelCard(net=config, process=process, size=(8, 8), channels=1, **told)
        write_model(base / name, net.state_dict(), card)
    Image.new("L", (8, 8)).save(base / "picture.png")
    return base


TAKES = {  # each kind of model, and what it is said to take
    "nothing": "it is unconditional",
    "classes": "it supports --label (3 classes: T-shirt/top, Sneaker, Ankle boot)",
    "words": "it supports --prompt",
    "numbers": "it supports --value age=... (20 to 70)",
    "drawings": "it supports --control",
    "holes": "it supports --image with --mask",
}
REFUSED = {  # the option, the kind that supports it, and the message of the others
    "--label x": ("classes", "trained without classes: remove the label 'x'"),
    "--label all": ("classes", "trained without classes"),
    "--prompt x": ("words", "not conditioned on text: leave prompt 'x' out"),
    "--negative-prompt x": ("words", "not conditioned on text: leave the negative prompt out"),
    "--value age=30": ("numbers", "is not conditioned on values: leave 'age' out"),
    "--control picture.png": ("drawings", "has no ControlNet: remove --control"),
    "--control-scale 0.5": ("drawings", "has no ControlNet: remove --guess and --control-scale"),
    "--image picture.png": ("holes", "has no image input beside x_t"),
}


PAIRS = [(words, kind) for words, (right, _) in REFUSED.items() for kind in TAKES if kind != right]


@pytest.mark.parametrize(("words", "kind"), [pair for pair in PAIRS if "control" not in pair[0] or pair[1] != "holes"])
def test_an_input_that_is_not_supported_is_answered_with_those_that_are(
    words: str, kind: str, kinds: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., tuple[int, str, str]]
) -> None:
    monkeypatch.chdir(kinds)
    _, why = REFUSED[words]
    code, _, err = run("sample", kind, *words.split(), "--steps", "1", "--out", "never")
    assert code == 2
    assert why in err
    assert err.rstrip().endswith(f"; {TAKES[kind]}")
    assert not Path("never").exists()


def test_labels_are_checked_against_the_card_before_torch_is_loaded() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from unnoise.cli.main import main; assert main(['sample', 'toy', '--labels', 'x']) == 2\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_damaged_weights_are_named(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    shutil.copytree(folder / "toy", tmp_path / "toy")
    (tmp_path / "toy" / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert main(["sample", str(tmp_path / "toy"), "--out", str(tmp_path / "out")]) == 1
    assert "git" in capsys.readouterr().err


def test_rows_and_lines() -> None:
    assert rows_for([(0, None)], ("all",), ModelCard(classes=CLASSES)) == [(0, name) for name in CLASSES]
    assert rows_for([(0, None)], ("whatever",), None) == [(0, "whatever")]
    rows = [(s, c) for c in ("a", "b") for s in (4, 5, 6)]
    assert columns_for(rows) == 3
    assert line_names(rows, 3) == ["a", "b"]
    plain = [(s, None) for s in range(7)]
    assert columns_for(plain) == 3
    assert line_names(plain, 3) == ["0-2", "3-5", "6"]
    assert file_name("T-shirt/top") == "t-shirt-top"
    assert file_name("../../etc") == "etc"


def test_a_strip_shows_what_the_model_thought(folder: Path) -> None:
    """A line a picture: noise, estimates, and at its end the picture itself."""
    assert (
        main(["sample", "toy", "--seeds", "0-1", "--labels", "1", "--steps", "20", "--strip", "s.png", "--out", "o"])
        == 0
    )
    picture = pixels("o/seed-000000-sneaker.png")
    with Image.open("s.png") as strip:
        width, height = strip.size
        enlarged = np.repeat(np.repeat(picture, 7, 0), 7, 1)  # 8 pixels are shown as 56
        last = np.asarray(strip.convert("L"))[3 : 3 + 56, width - 3 - 56 : width - 3]
    assert (last == enlarged).all()
    assert height == 2 * (56 + 3) + 3
    assert width > 9 * (56 + 3)


# ------------------------------------------------------------------------------------------------------- prompts


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command: its exit code, what it says, what it warns of."""

    def call(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([*words])
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def worded(folder: Path) -> Path:
    """A model of captions with random weights, large enough that its pictures depend on the caption."""
    pytest.importorskip("tokenizers")
    from unnoise.config.networks import TextConfig
    from unnoise.text.tokenizer import Tokenizer

    torch.manual_seed(1)
    config = dataclasses.replace(small(0), text=TextConfig(vocabulary=280, length=8, width=16, depth=1, heads=2))
    net = nn.build(config)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3)
    card = ModelCard(net=config, process=DiffusionConfig(predicts="x0"), size=(8, 8), channels=1)
    (folder / "worded").mkdir()
    words = Tokenizer.learn(["a red bag", "a blue shoe"], vocabulary=280, length=8)
    write_model(folder / "worded", net.state_dict(), card, words)
    return folder / "worded"


def test_every_prompt_is_drawn_with_every_seed(worded: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    words = ("--prompt", "a red bag", "--prompt", "a blue, old shoe: left")
    code, out, _ = run("sample", str(worded), "--seeds", "0-1", *words, "--steps", "3", "--out", "sampled", "--json")
    assert code == 0
    names = sorted(path.name for path in Path("sampled").iterdir())
    assert names == [
        "seed-000000-a-blue-old-shoe-left.png", "seed-000000-a-red-bag.png",
        "seed-000001-a-blue-old-shoe-left.png", "seed-000001-a-red-bag.png",
    ]  # fmt: skip
    said = [(entry["seed"], entry["prompt"]) for entry in json.loads(out)["pictures"]]
    assert said == [(seed, prompt) for prompt in words[1::2] for seed in (0, 1)]
    assert not np.array_equal(pixels("sampled/seed-000000-a-red-bag.png"), pixels(f"sampled/{names[0]}"))


def test_a_prompted_picture_is_made_again_from_what_it_says(worded: Path, run: Callable[..., Any]) -> None:
    words = ("--prompt", "a red bag", "--prompt", "a blue, old shoe: left", "--negative-prompt", "a bag")
    how = ("--guidance", "2", "--steps", "3", "--batch", "3")
    assert run("sample", str(worded), "--seeds", "0-1,7:1", *words, *how, "--out", "first")[0] == 0
    made = sorted(Path("first").iterdir())
    assert len(made) == 5
    for path in made:
        recipe = read_recipe(path)
        assert recipe is not None
        assert recipe["request"]["negative_prompt"] == "a bag"
        code, out, _ = run("info", str(path), "--command")
        assert code == 0
        again = shlex.split(out)
        assert run(*again[1:], "--out", f"again/{path.stem}")[0] == 0
        assert np.array_equal(pixels(path), pixels(Path("again") / path.stem / path.name))
        with Image.open(path) as picture:
            lines = picture.info["parameters"].splitlines()
        assert lines[0] == recipe["prompt"]
        assert lines[1] == "Negative prompt: a bag"


def test_prompts_come_from_a_file_too_and_stand_below_the_grid(worded: Path, run: Callable[..., Any]) -> None:
    Path("prompts.txt").write_text("a red bag\n\n  a blue shoe \n", encoding="utf-8")
    ask = ("sample", str(worded), "--prompts", "prompts.txt", "--steps", "2", "--grid", "words.png", "--scale", "12")
    assert run(*ask, "--seeds", "0-3")[0] == 0
    with Image.open("words.png") as lines:
        assert lines.width == 2 * 8 + 4 * (8 * 12 + 2) - 2  # four pictures a line, a line a prompt
        assert np.asarray(lines)[8 + 96 + 4 : 8 + 96 + 18].min() < 100  # words below the first line
    assert run(*ask, "--seeds", "0", "--overwrite")[0] == 0
    recipe = read_recipe(Path("words.png"))
    assert recipe is not None
    assert recipe["prompts"] == ["a red bag", "a blue shoe"]


def test_what_is_wrong_with_prompts_is_said(worded: Path, run: Callable[..., Any]) -> None:
    Path("empty.txt").write_text("\n \n")
    Path("binary.txt").write_bytes(b"\xff\xfe\x00\x81")
    cases = [
        (("--prompts", "empty.txt"), "the file has no prompts"),
        (("--prompts", "binary.txt"), "not a text file in UTF-8"),
        (("--prompts", "gone.txt"), "gone.txt"),
        (("--prompt", "a", "--seeds", "0:3"), "a prompt's number, 0 to 0"),
        (("--prompt", "a", "--labels", "bag,shoe"), "at most one label"),
        (("--prompt", "a", "--labels", "bag"), "leave label 'bag' out"),
        (("--prompt", "a", "--negative-prompt", "b"), "add for example --guidance"),
        (("--prompt", "a", "--control", "gone.png"), "gone.png"),
    ]
    for words, why in cases:
        code, _, err = run("sample", str(worded), *words, "--steps", "2")
        assert code == 2, words
        assert why in err
        assert "Traceback" not in err
    code, _, err = run("sample", str(worded.parent / "toy"), "--prompt", "a bag", "--steps", "2")
    assert code == 2
    assert "leave prompt 'a bag' out; it supports --label (3 classes: T-shirt/top" in err


def test_words_beyond_the_length_are_reported_as_ignored(worded: Path, run: Callable[..., Any]) -> None:
    code, _, err = run("sample", str(worded), "--prompt", "a red bag with a blue shoe", "--steps", "1")
    assert code == 0
    assert "the prompt 'a red bag with a blue shoe' is too long" in err
    code, _, err = run("sample", str(worded), "--prompt", "a red bag", "--steps", "1")
    assert "hears only" not in err


def test_controls_of_other_runs_are_added(worded: Path, run: Callable[..., Any]) -> None:
    """Two of one at half strength are one, and the picture says which models made it."""
    from unnoise import model as models
    from unnoise.config.networks import ControlConfig
    from unnoise.nn.controlnet import copy_base

    base = models.load(worded)
    config = dataclasses.replace(base.card.net, controls=(ControlConfig(hint=(4,), scale=1),))
    torch.manual_seed(2)
    net = nn.build(config)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    net.load_state_dict(net.state_dict() | base.diffusion.net.state_dict())
    copy_base(net)
    Path("controlled").mkdir()
    write_model(Path("controlled"), net.state_dict(), dataclasses.replace(base.card, net=config), base.text)
    Image.effect_noise((8, 8), 90).convert("RGB").save("drawing.png")
    ask = ("--prompt", "a red bag", "--steps", "2", "--control", "drawing.png")
    assert run("sample", "controlled", *ask, "--control-scale", "2", "--out", "one")[0] == 0
    beside = ("--control-model", "controlled", "--control-model", "controlled", "--control", "drawing.png")
    assert run("sample", str(worded), *beside, *ask, "--control-scale", "1", "--out", "two")[0] == 0
    name = "seed-000000-a-red-bag.png"
    assert np.abs(pixels(f"one/{name}").astype(int) - pixels(f"two/{name}")).max() <= 1
    assert run("sample", str(worded), "--prompt", "a red bag", "--steps", "2", "--out", "none")[0] == 0
    assert not np.array_equal(pixels(f"one/{name}"), pixels(f"none/{name}"))
    again = shlex.split(run("info", f"two/{name}", "--command")[1])
    assert run(*again[1:], "--out", "three")[0] == 0
    assert np.array_equal(pixels(f"two/{name}"), pixels(f"three/{name}"))
    recipe = read_recipe(Path(f"two/{name}"))
    assert recipe is not None
    assert reproducibility_warnings(recipe) == []
    Image.new("RGB", (8, 8)).save("drawing.png")
    assert "drawing.png has changed since" in " ".join(reproducibility_warnings(recipe))
    Path("controlled").rename("elsewhere")
    assert "controlled does not exist here" in " ".join(reproducibility_warnings(recipe))
    Path("elsewhere").rename("controlled")
    code, _, err = run("sample", str(worded), *beside, "--prompt", "a", "--steps", "2")
    assert code == 2
    assert "1 control image for a model that needs 2 control images" in err


def test_prompts_without_a_letter_are_named_as_prompts(worded: Path, run: Callable[..., Any]) -> None:
    words = ("--prompt", "", "--prompt", "🦩!", "--prompt", "円 on white")
    code, _, err = run("sample", str(worded), *words, "--steps", "1", "--out", "odd", "--grid", "odd.png")
    assert code == 0
    names = [f"seed-000000-{name}.png" for name in ("no-prompt", "prompt", "円-on-white")]
    assert sorted(path.name for path in Path("odd").iterdir()) == sorted(names)
    assert err.count("boxes replace") == (boxes(["🦩円"]) != "")
    again = shlex.split(run("info", f"odd/{names[0]}", "--command")[1])
    assert run(*again[1:], "--out", "odd-again")[0] == 0
    assert np.array_equal(pixels(f"odd/{names[0]}"), pixels(f"odd-again/{names[0]}"))


@pytest.mark.parametrize(
    ("option", "number"), [("--control-scale", "nan"), ("--control-scale", "inf"), ("--guidance", "nan")]
)
def test_a_scale_that_is_no_number_is_refused(option: str, number: str, run: Callable[..., Any]) -> None:
    code, _, err = run("sample", "toy", option, number)
    assert code == 2
    assert f"{number} is not between" in err


def test_prompts_with_the_same_beginning_are_kept_apart(worded: Path, run: Callable[..., Any]) -> None:
    long = "a red bag " * 8
    words = ("--prompt", long + "left", "--prompt", long + "right", "--prompt", "-5 bags")
    code, out, _ = run(
        "sample", str(worded), "--prompt=-5 bags", *words[:4], "--steps", "1", "--out", "alike", "--json"
    )
    assert code == 0
    paths = [entry["path"] for entry in json.loads(out)["pictures"]]
    assert len(set(paths)) == len(list(Path("alike").iterdir())) == 3
    again = shlex.split(run("info", paths[0], "--command")[1])
    assert run(*again[1:], "--out", "minus")[0] == 0  # a prompt that looks like an option
