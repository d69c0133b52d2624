"""Tables over a model: the same seeds in every cell, each cell what an evaluation alone gives."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.evaluation.test_evaluate import TOY
from unnoise import data, losses, nn
from unnoise.cli.console import as_json
from unnoise.cli.main import main
from unnoise.config import presets
from unnoise.config.cards import ModelCard, NoisyClassifierCard
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.networks import UNetConfig
from unnoise.config.request import Request
from unnoise.denoiser import make_diffusion
from unnoise.errors import UserError
from unnoise.evaluation.evaluate import evaluate
from unnoise.evaluation.sweep import (
    Result,
    Variant,
    compare,
    ddim_ways,
    enough,
    for_budget,
    guidance_ways,
    sampler_ways,
)
from unnoise.guidance import noisy_classifier
from unnoise.metrics.classifier import Accuracy, ClassifierEvaluator, save_classifier
from unnoise.model import Model
from unnoise.nn.classifier import Classifier, Shape
from unnoise.nn.noisy_classifier import EncoderClassifier
from unnoise.recipes import ablation
from unnoise.samplers import SAMPLERS

NET = UNetConfig(
    size=16, in_channels=1, out_channels=1, channels=(8, 16), blocks=1, attention=(False, False), groups=4, classes=4
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the toy set and a classifier of it, both with random weights."""
    base = tmp_path_factory.mktemp("tables")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.build(NET)
        for p in net.parameters():
            torch.nn.init.normal_(p, std=0.1)
        judge = Classifier(Shape(16, 1, 4, 8, 16)).eval()
        for p in judge.parameters():
            p.data.normal_(0, 0.3)
    classes = data.open(TOY).classes
    process = DiffusionConfig(schedule="cosine", predicts="x0")
    card = ModelCard(net=NET, process=process, size=(16, 16), channels=1, classes=classes, info={"data": "toy"})
    Model(make_diffusion(net.eval(), process).eval(), card).save(base / "model")
    plain = replace(NET, classes=0)
    Model(make_diffusion(nn.build(plain).eval(), process).eval(), replace(card, net=plain, classes=())).save(
        base / "plain"
    )
    known = ClassifierEvaluator(
        judge.requires_grad_(False), classes, "toys", Accuracy(0.9, 200, "toy:test", dict.fromkeys(classes, 0.9))
    )
    save_classifier(base / "judge", known)
    return base


@pytest.fixture(autouse=True)
def at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def ask() -> EvaluateConfig:
    return EvaluateConfig(metrics=("frechet", "kernel"), count=20, real=60, features="judge")


def test_a_cell_is_an_evaluation(folder: Path) -> None:
    model, real = Model.load("model"), data.open(TOY)
    how = Request(precision="float32", batch=8)
    ways = sampler_ways(how, samplers=("ddim", "heun"), steps=(2, 3))
    found = [at for at in compare(model, ask(), ways, real, cache=None, show=3) if isinstance(at, Result)]
    assert [(r.way.row, r.way.column, r.calls) for r in found] == [
        ("ddim", "2", 2), ("ddim", "3", 3), ("heun", "2", 3), ("heun", "3", 5)
    ]  # fmt: skip
    alone = list(evaluate(model, ask(), replace(how, sampler="heun", steps=3), real, cache=None))[-1].report
    assert alone is not None
    assert found[3].figure() == alone["metrics"][0]["value"]
    assert found[3].figure("kernel") == alone["metrics"][1]["value"]
    assert found[3].figure("recall") is None
    assert found[0].pictures.shape == (3, 1, 16, 16)


def test_an_impossible_way_is_refused_before_the_first_is_drawn() -> None:
    model, real = Model.load("model"), data.open(TOY)
    ways = [
        *sampler_ways(Request(), samplers=("ddim",), steps=(2,)),
        Variant("x", "y", Request(sampler="ddpm-learned")),
    ]
    with pytest.raises(UserError, match="did not learn its variance"):
        next(compare(model, ask(), ways, real, cache=None))
    too_many = [Variant("x", "y", Request(spacing="leading", steps=2000))]
    with pytest.raises(UserError, match="2000 steps"):
        next(compare(model, ask(), too_many, real, cache=None))


def test_the_cells_of_the_ddim_table() -> None:
    ways = ddim_ways(Request(), steps=(10, 20), etas=(0, 0.5), grids=("ddim-uniform", "even"))
    assert len(ways) == 2 * 2 * 3
    assert {(w.request.sampler, w.request.eta) for w in ways} == {
        ("ddim", 0), ("ddim", 0.5), ("ddim-sigma-hat", 0.0)
    }  # fmt: skip
    assert {w.row for w in ways} == {
        f"{name}, {grid}" for name in ("eta 0", "eta 0.5", "sigma-hat") for grid in ("ddim-uniform", "even")
    }
    assert [w.row for w in ddim_ways(Request(), steps=(5,), etas=(0,), grids=("even",))] == ["eta 0", "sigma-hat"]


def result(name: str, calls: int, frechet: float) -> Result:
    report: dict[str, Any] = {"metrics": [{"id": "frechet", "value": frechet}]}
    return Result(Variant(name, "", Request()), report, calls, 0.0, torch.zeros(0))


def test_what_to_take_for_a_budget() -> None:
    results = [
        result("a", 10, 5.0),
        result("b", 20, 3.02),
        result("c", 20, 4.0),
        result("d", 40, 3.5),
        result("e", 80, 3.0),
    ]
    assert [r.way.row for r in for_budget(results)] == ["a", "b", "e"]
    best = enough(results)
    assert best is not None
    assert best.way.row == "b"
    assert enough([]) is None


def test_the_ways_of_the_guidance_table() -> None:
    ways = guidance_ways(Request(steps=7, guidance=9.0), scales=(1, 2.5), classifier="guide", classifier_scales=(1, 9))
    found = [(w.row, w.column, w.request.guidance, w.request.classifier, w.request.classifier_scale) for w in ways]
    assert found == [
        ("classifier-free", "1", 1, "", 1.0), ("classifier-free", "2.5", 2.5, "", 1.0),
        ("classifier", "1", 0, "guide", 1), ("classifier", "9", 0, "guide", 9),
    ]  # fmt: skip
    assert {w.request.steps for w in ways} == {7}
    assert len(guidance_ways(Request(), scales=(1,), classifier_scales=(1,))) == 1  # none without a classifier


def test_further_judges_see_every_picture_and_where_it_stands(folder: Path) -> None:
    model, real = Model.load("model"), data.open(TOY)
    places: list[int] = []

    def bright(x: torch.Tensor, rows: slice) -> torch.Tensor:
        places.extend(range(rows.start, rows.stop))
        assert x.shape == (rows.stop - rows.start, 1, 16, 16)
        return torch.arange(rows.start, rows.stop) % 4 == 0

    ways = guidance_ways(Request(precision="float32", batch=8, steps=2), scales=(1, 2))
    found = [
        at for at in compare(model, ask(), ways, real, cache=None, right={"captions": bright}) if isinstance(at, Result)
    ]
    assert [r.figure("captions") for r in found] == [5 / 20, 5 / 20]
    assert places == list(range(20)) * 2
    assert [e["n"] for e in found[0].report["metrics"] if e["id"] == "captions"] == [20]


def test_the_table_of_guidance_from_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "guide").mkdir()
    card = NoisyClassifierCard(NET, DiffusionConfig(schedule="cosine"), data.open(TOY).classes)
    noisy_classifier.write(folder / "guide", EncoderClassifier(NET).state_dict(), card)
    words = "table guidance model --scales 3,1 --classifier guide --classifier-scales 9,1 --steps 2 --count 20"
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
    assert "The judge is right on 90.0% of real pictures" in text
    assert (folder / "guided" / "pictures.png").exists()
    assert (folder / "guided" / "plot.png").exists()


def test_compare_and_table_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--count", "12", "--real", "60", "--features", "judge", "--shown", "2"]
    assert main(["compare", "model", "--samplers", "ddim,heun", "--steps", "2,3", *few, "--out", "c", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [cell["calls"] for cell in said["cells"]] == [2, 3, 3, 5]
    assert {path.name for path in Path("c").iterdir()} >= {"pictures.png", "table.md", "table.json"}
    assert main(["table", "ddim", "model", "--steps", "2,4", "--etas", "1", *few, "--out", "d", "--markdown"]) == 0
    text = capsys.readouterr().out
    assert text.count("|\n") == 2 + 2 * 2  # eta 1 and sigma-hat, on two grids
    assert "eta 1, ddim-quadratic" in Path("d/table.md").read_text()
    assert main(["table", "inversion", "model", "--steps", "3", "--count", "2", "--guidance", "1,2", "--out", "e"]) == 0
    assert "exact" in capsys.readouterr().out
    assert len(json.loads(Path("e/table.json").read_text())["cells"]) == 6


@pytest.mark.parametrize("words", ["compare shown --steps 2", "table ddim shown --steps 2", "table inversion shown"])
def test_a_model_that_is_shown_a_picture_has_no_table(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing says which picture goes beside a real one: said at once, and with no option that is not there."""
    net = replace(NET, concat_channels=1)
    process = DiffusionConfig(schedule="cosine", concat="low_res")
    card = ModelCard(net, process, size=(16, 16), channels=1, classes=data.open(TOY).classes, info={"data": "toy"})
    if not Path("shown").exists():
        Model(make_diffusion(nn.build(net).eval(), process).eval(), card).save(Path("shown"))
    assert main([*words.split(), "--count", "10", "--out", "shown-table"]) == 2
    said = capsys.readouterr().err
    assert "shown a picture beside the noise, and none goes with those" in said
    assert not Path("shown-table").exists()


def test_what_is_named_twice_is_one_line_or_column(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--count", "12", "--real", "60", "--features", "judge", "--shown", "1", "--out", "twice", "--json"]
    words = ["--steps", "2,2", "--etas", "1,0,1.0", "--grids", "even,even", "--no-sigma-hat"]
    assert main(["table", "ddim", "model", *words, *few]) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert [(cell["row"], cell["column"]) for cell in cells] == [("eta 1", "2"), ("eta 0", "2")]
    assert "| Frechet distance | S = 2 |\n| --- | --- |\n" in Path("twice/table.md").read_text()


def test_what_is_no_number_is_null_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One picture has no spread; JSON has no NaN, and other programs do not read it."""

    def none(name: str) -> float:
        raise AssertionError(name)

    words = ["table", "inversion", "model", "--steps", "2", "--conventions", "own", "--count", "1", "--out", "one"]
    assert main([*words, "--json"]) == 0
    for text in (capsys.readouterr().out, Path("one/table.json").read_text()):
        (cell,) = json.loads(text, parse_constant=none)["cells"]
        assert cell["spread"] is None
        assert cell["error"] > 0
    assert json.loads(as_json({"a": [torch.tensor(math.inf), (1, Path("b"))]})) == {"a": [None, [1, "b"]]}


def test_all_samplers_are_all_that_the_model_can_use(capsys: pytest.CaptureFixture[str]) -> None:
    """This model learned no variance: the sampler that takes one is left out, and refused where it is named."""
    few = ["--steps", "1", "--count", "10", "--real", "60", "--features", "judge", "--shown", "1", "--out", "all"]
    assert main(["compare", "model", "--samplers", "all", *few, "--json"]) == 0
    names = [cell["row"] for cell in json.loads(capsys.readouterr().out)["cells"]]
    assert names == [name for name in SAMPLERS if name != "ddpm-learned"]
    assert main(["compare", "model", "--samplers", "ddim,ddpm-learned", *few]) != 0
    assert "did not learn its variance" in capsys.readouterr().err


def test_the_six_trainings_are_trained_and_measured_and_go_on(capsys: pytest.CaptureFixture[str]) -> None:
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
    assert len({cell["bits"] for cell in found}) == 6
    assert len(list(Path("runs").iterdir())) == 6
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["cells"] == found
    assert len(list(Path("runs").iterdir())) == 6


def test_the_six_trainings_differ_in_what_is_asked_and_minimised_alone() -> None:
    base = presets.fashion()
    made = ablation.cells(base)
    assert len({cell.config.name for cell in made}) == 6
    for cell in made:
        same = replace(cell.config, process=base.process, net=base.net, name=base.name, about=base.about)
        assert same == base
        assert cell.config.process.schedule == "linear"
        assert cell.config.net.out_channels == (2 if "learned" in cell.row else 1)
        assert losses.make_objective(cell.config.process) == ("simple" if "unweighted" in cell.row else "bound")


FEW = ["--count", "10", "--real", "60", "--features", "judge"]
ASKS = [
    ["sample", "plain", "--out", "new"],
    ["evaluate", "plain", "--metrics", "frechet", *FEW],
    ["compare", "plain", "--samplers", "ddim", *FEW, "--out", "new"],
    ["table", "ddim", "plain", *FEW, "--out", "new"],
    ["table", "guidance", "model", *FEW, "--out", "new"],
    ["table", "inversion", "plain", "--count", "2", "--out", "new"],
    ["invert", "plain", "picture.png", "--noise", "new"],
    ["interpolate", "plain", "-n", "2", "--grid", "new"],
    ["vary", "plain", "-n", "2", "--grid", "new"],
]
WRONG = [  # what only the model, or the machine, can refuse
    (["--steps", "2000", "--grid-spacing", "leading"], "2000 steps do not fit a table of 1000"),
    (["--guidance", "2"], "nothing to guide to"),
    (["--device", "gpu"], "no device 'gpu'"),
    (["--device", "cuda:99"], "use cpu or auto"),
]
HAVE_NOT = {
    "compare": "--grid-spacing",
    "ddim": "--grid-spacing",
    "guidance": "--guidance",
}  # options of their own instead


@pytest.mark.parametrize("ask", ASKS, ids=lambda ask: "-".join(ask[:2]))
def test_what_is_refused_before_the_first_step_was_asked_wrongly(
    ask: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 from every command, and nothing is written, also where the model has to be read to know."""
    Image.new("L", (16, 16)).save("picture.png")
    for words, said in WRONG:
        if any(HAVE_NOT.get(name) in words for name in ask[:2]):
            continue
        assert main([*ask, *words]) == 2, words
        assert said in capsys.readouterr().err
        assert not Path("new").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare", "model", "--samplers", "dimm"], "ddim"),
        (["compare", "model", "--steps", "5,x"], "'x'"),
        (["table", "ddim", "model", "--etas", "2"], "'2'"),
        (["table", "ddim", "model", "--grids", "evn"], "even"),
        (["table", "ddim", "model", "--steps", "2000", "--features", "judge"], "2000 steps do not fit a table of 1000"),
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
def test_a_wrong_question_is_answered_at_once(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err
