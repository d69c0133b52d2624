"""`compare` and `table` from the command line: their cells, files, and errors before the first step."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.helpers.toy_models import NET, TOY, save_toy_models
from unnoise import data, nn
from unnoise.cli.console import as_json
from unnoise.cli.main import main
from unnoise.config.cards import ModelCard, NoisyClassifierCard
from unnoise.config.diffusion import DiffusionConfig
from unnoise.denoiser import make_diffusion
from unnoise.guidance import noisy_classifier
from unnoise.model import Model
from unnoise.nn.noisy_classifier import EncoderClassifier
from unnoise.samplers import SAMPLERS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("tables")
    save_toy_models(base)
    return base


@pytest.fixture(autouse=True)
def _working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_guidance_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "guide").mkdir()
    card = NoisyClassifierCard(NET, DiffusionConfig(schedule="cosine"), data.open(TOY).classes)
    noisy_classifier.write(folder / "guide", EncoderClassifier(NET).state_dict(), card)
    words = "table guidance model --guidance 3,1 --classifier guide --classifier-scales 9,1 --steps 2 --count 20"
    words += " --features judge --real 60 --json"
    assert main([*words.split(), "--out", "guided", "--shown", "4"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(c["row"], c["column"]) for c in document["cells"]] == [
        ("classifier-free", "1"), ("classifier-free", "3"), ("classifier", "1"), ("classifier", "9")
    ]  # fmt: skip
    assert [m["id"] for m in document["cells"][0]["metrics"]] == ["frechet", "precision", "recall", "accuracy"]
    assert document["cells"][3]["request"]["classifier"] == "guide"
    text = (folder / "guided" / "table.md").read_text()
    assert text.startswith("| guidance | scale | Frechet | precision | recall | class accuracy | calls |")
    assert "The classifier is right on 90.0% of real pictures" in text
    assert (folder / "guided" / "pictures.png").exists()
    assert (folder / "guided" / "plot.png").exists()


def test_compare_ddim_and_inversion_tables(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--count", "12", "--real", "60", "--features", "judge", "--shown", "2"]
    assert main(["compare", "model", "--samplers", "ddim,heun", "--steps", "2,3", *few, "--out", "c", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [cell["calls"] for cell in document["cells"]] == [2, 3, 3, 5]
    assert {path.name for path in Path("c").iterdir()} >= {"pictures.png", "table.md", "table.json"}
    assert main(["table", "ddim", "model", "--steps", "2,4", "--eta", "1", *few, "--out", "d", "--markdown"]) == 0
    text = capsys.readouterr().out
    assert text.count("|\n") == 2 + 2 * 2  # eta 1 and sigma-hat, on two grids
    assert "eta 1, ddim-quadratic" in Path("d/table.md").read_text()
    assert main(["table", "inversion", "model", "--steps", "3", "--count", "2", "--guidance", "1,2", "--out", "e"]) == 0
    assert "exact" in capsys.readouterr().out
    assert len(json.loads(Path("e/table.json").read_text())["cells"]) == 6


def test_every_axis_of_compare_and_the_earlier_names_of_options(capsys: pytest.CaptureFixture[str]) -> None:
    """A table is a setting of `compare`: the same cells have the same numbers, under today's and earlier options."""
    few = ["--count", "12", "--real", "60", "--features", "judge", "--shown", "1", "--json"]

    def cells(*words: str) -> dict[tuple[str, ...], float]:
        assert main([*words, *few]) == 0
        found = json.loads(capsys.readouterr().out)["cells"]
        keys = ("sampler", "steps", "eta", "guidance", "spacing")
        return {tuple(f"{c['request'][key]}" for key in keys): c["metrics"][0]["value"] for c in found}

    lists = ["--steps", "2,3", "--eta", "0,1", "--timestep-spacing", "even,karras"]
    whole = cells("compare", "model", "--samplers", "ddim,ddim-sigma-hat", *lists, "--guidance", "1,2", "--out", "axes")
    assert len(whole) == 2 * 2 * 2 * 3
    earlier = ["--steps", "2,3", "--etas", "0,1", "--grids", "even,karras"]
    assert cells("table", "ddim", "model", *earlier, "--guidance", "1,2", "--out", "axes", "--overwrite") == whole
    scales = ["--scales", "2,1", "--sampler", "ddim", "--steps", "3", "--eta", "1", "--grid-spacing", "karras"]
    guided = cells("table", "guidance", "model", *scales, "--out", "axes-of-guidance")
    assert guided == {key: whole[key] for key in guided}
    assert len(guided) == 2


@pytest.mark.parametrize("words", ["compare shown --steps 2", "table ddim shown --steps 2", "table inversion shown"])
def test_a_model_with_a_concatenated_picture_is_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No picture belongs to a real one: refused at once, without naming an option that does not exist."""
    net = replace(NET, concat_channels=1)
    process = DiffusionConfig(schedule="cosine", concat="low_res")
    card = ModelCard(net, process, size=(16, 16), channels=1, classes=data.open(TOY).classes, info={"data": "toy"})
    if not Path("shown").exists():
        Model(make_diffusion(nn.build(net).eval(), process).eval(), card).save(Path("shown"))
    assert main([*words.split(), "--count", "10", "--out", "shown-table"]) == 2
    error = capsys.readouterr().err
    assert "needs a picture concatenated to the noise, and the pictures of an evaluation have none" in error
    assert not Path("shown-table").exists()


def test_repeated_values_are_one_row_or_column(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--count", "12", "--real", "60", "--features", "judge", "--shown", "1", "--out", "twice", "--json"]
    words = ["--steps", "2,2", "--etas", "1,0,1.0", "--grids", "even,even", "--no-sigma-hat"]
    assert main(["table", "ddim", "model", *words, *few]) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert [(cell["row"], cell["column"]) for cell in cells] == [("eta 1", "2"), ("eta 0", "2")]
    assert "| Frechet distance | S = 2 |\n| --- | --- |\n" in Path("twice/table.md").read_text()


def test_nan_is_null_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One picture has no standard error, and JSON has no NaN."""

    def none(name: str) -> float:
        raise AssertionError(name)

    words = ["table", "inversion", "model", "--steps", "2", "--conventions", "own", "--count", "1", "--out", "one"]
    assert main([*words, "--json"]) == 0
    for text in (capsys.readouterr().out, Path("one/table.json").read_text()):
        (cell,) = json.loads(text, parse_constant=none)["cells"]
        assert cell["standard_error"] is None
        assert cell["error"] > 0
    assert json.loads(as_json({"a": [torch.tensor(math.inf), (1, Path("b"))]})) == {"a": [None, [1, "b"]]}


def test_all_samplers_are_those_that_the_model_supports(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a learned variance the sampler that needs one is left out of "all", and refused by name."""
    few = ["--steps", "1", "--count", "10", "--real", "60", "--features", "judge", "--shown", "1", "--out", "all"]
    assert main(["compare", "model", "--samplers", "all", *few, "--json"]) == 0
    names = [cell["row"] for cell in json.loads(capsys.readouterr().out)["cells"]]
    assert names == [name for name in SAMPLERS if name != "ddpm-learned"]
    assert main(["compare", "model", "--samplers", "ddim,ddpm-learned", *few, "--overwrite"]) != 0
    assert "no learned variance" in capsys.readouterr().err


def test_ddpm_table_trains_and_measures_six_models_and_resumes(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["images=16", "fit.batch=8", "net.channels=4,8", "net.groups=4", "process.steps=50", "grid_every=0"]
    words = ["table", "ddpm", "toy", *(word for text in small for word in ("--set", text)), "--features", "judge"]
    words += ["--steps", "2", "--count", "12", "--bits", "2", "--held", "toy:test", "--out", "f", "--json"]
    assert main(words) == 0, capsys.readouterr().err
    found = json.loads(capsys.readouterr().out)["cells"]
    assert [(cell["row"], cell["column"]) for cell in found] == [
        (row, column)
        for row in ("L, learned variance", "L, fixed variance", "unweighted squared error")
        for column in ("posterior mean", "eps")
    ]
    assert len({cell["bpd"] for cell in found}) == 6
    assert len(list(Path("runs").iterdir())) == 6
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["cells"] == found
    assert len(list(Path("runs").iterdir())) == 6


FEW = ["--count", "10", "--real", "60", "--features", "judge"]
COMMANDS = [
    ["sample", "plain", "--out", "new"],
    ["evaluate", "plain", "--metrics", "frechet", *FEW],
    ["compare", "plain", "--samplers", "ddim", *FEW, "--out", "new"],
    ["table", "ddim", "plain", *FEW, "--out", "new"],
    ["table", "guidance", "model", *FEW, "--out", "new"],
    ["table", "inversion", "plain", "--count", "2", "--out", "new"],
    ["invert", "plain", "picture.png", "--noise", "new.safetensors"],
    ["interpolate", "plain", "-n", "2", "--grid", "new.png"],
    ["vary", "plain", "-n", "2", "--grid", "new.png"],
]
WRONG = [  # options that only the model, or the machine, shows to be wrong
    (["--steps", "2000", "--grid-spacing", "leading"], "2000 steps do not fit a network of 1000"),
    (["--guidance", "2"], "cannot be guided"),
    (["--device", "gpu"], "no device 'gpu'"),
    (["--device", "cuda:99"], "use cpu or auto"),
]
SUPPORTED = {("guidance", "--guidance")}  # this table has a model with classes


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: "-".join(command[:2]))
def test_errors_before_the_first_step_are_usage_errors(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 from every command, and nothing is written, also where the model must be loaded to find the error."""
    Image.new("L", (16, 16)).save("picture.png")
    for words, error in WRONG:
        if (command[1], words[0]) in SUPPORTED:
            continue
        assert main([*command, *words]) == 2, words
        assert error in capsys.readouterr().err
        assert not list(Path().glob("new*"))


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["compare", "model", "--samplers", "dimm"], "ddim"),
        (["compare", "model", "--steps", "5,x"], "'x'"),
        (["table", "ddim", "model", "--etas", "2"], "'2'"),
        (["compare", "model", "--eta", "2"], "'2'"),
        (["compare", "model", "--samplers", "heun", "--eta", "0,1"], "--eta applies to the sampler ddim alone"),
        (["compare", "model", "--guidance", "1,x"], "'x'"),
        (["compare", "model", "--timestep-spacing", "evn"], "even"),
        (["table", "ddim", "model", "--grids", "evn"], "even"),
        (
            ["table", "ddim", "model", "--steps", "2000", "--features", "judge"],
            "2000 steps do not fit a network of 1000",
        ),
        (["table", "inversion", "model", "--conventions", "exakt"], "exact"),
        (["table", "ddim", "model", "--etas", ","], "','"),
        (["table", "ddim", "model", "--steps", "2.5"], "2.5"),
        (["table", "guidance", "model", "--scales", "1,x"], "'x'"),
        (["table", "guidance", "model", "--scales", "1,nan"], "'nan'"),
        (["table", "inversion", "model", "--guidance", "1,x"], "'x'"),
        (["table", "inversion", "model", "--guidance", ","], "','"),
        (["table", "inversion", "model", "--grid-spacing", "even,karras"], "timestep spacing"),
        (["vary", "model", "--shared", ","], "','"),
        (["vary", "model", "--shared", "1,0"], "'0'"),
        (["table", "ddim", "modl"], "did you mean model"),
    ],
)
def test_wrong_options_are_refused_at_once(words: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert error in capsys.readouterr().err
