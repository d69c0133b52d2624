"""Comparisons: the same seeds in every variant, each result what an evaluation alone gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.helpers.toy_models import TOY, save_toy_models
from unnoise import data, losses
from unnoise.config import presets
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request
from unnoise.errors import UserError
from unnoise.evaluation.evaluate import evaluate
from unnoise.evaluation.sweep import Result, compare
from unnoise.evaluation.variants import Axes, Variant, guidance_variants, variants
from unnoise.model import Model
from unnoise.recipes import ablation


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("comparisons")
    save_toy_models(base)
    return base


@pytest.fixture(autouse=True)
def _working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def config() -> EvaluateConfig:
    return EvaluateConfig(metrics=("frechet", "kernel"), count=20, real=60, features="judge")


def test_a_result_is_that_of_an_evaluation_alone() -> None:
    model, real = Model.load("model"), data.open(TOY)
    how = Request.of(precision="float32", batch=8)
    cells = variants(how, Axes(("ddim", "heun"), (2, 3)))
    found = [at for at in compare(model, config(), cells, real, cache=None, show=3) if isinstance(at, Result)]
    assert [(r.variant.row, r.variant.column, r.calls) for r in found] == [
        ("ddim", "2", 2), ("ddim", "3", 3), ("heun", "2", 3), ("heun", "3", 5)
    ]  # fmt: skip
    alone = list(evaluate(model, config(), how.but(sampler="heun", steps=3), real, cache=None))[-1].report
    assert alone is not None
    assert found[3].metric() == alone["metrics"][0]["value"]
    assert found[3].metric("kernel") == alone["metrics"][1]["value"]
    assert found[3].metric("recall") is None
    assert found[0].pictures.shape == (3, 1, 16, 16)


def test_an_impossible_variant_is_refused_before_the_first_is_sampled() -> None:
    model, real = Model.load("model"), data.open(TOY)
    cells = [*variants(Request(), Axes(("ddim",), (2,))), Variant("x", "y", Request.of(sampler="ddpm-learned"))]
    with pytest.raises(UserError, match="no learned variance"):
        next(compare(model, config(), cells, real, cache=None))
    too_many = [Variant("x", "y", Request.of(spacing="leading", steps=2000))]
    with pytest.raises(UserError, match="2000 steps"):
        next(compare(model, config(), too_many, real, cache=None))


def test_further_evaluators_get_every_picture_and_its_row() -> None:
    model, real = Model.load("model"), data.open(TOY)
    places: list[int] = []

    def bright(x: torch.Tensor, rows: slice) -> torch.Tensor:
        places.extend(range(rows.start, rows.stop))
        assert x.shape == (rows.stop - rows.start, 1, 16, 16)
        return torch.arange(rows.start, rows.stop) % 4 == 0

    cells = guidance_variants(Request.of(precision="float32", batch=8), Axes(steps=(2,), guidance=(1, 2)))
    steps = compare(model, config(), cells, real, cache=None, evaluators={"captions": bright})
    found = [step for step in steps if isinstance(step, Result)]
    assert [r.metric("captions") for r in found] == [5 / 20, 5 / 20]
    assert places == list(range(20)) * 2
    assert [e["n"] for e in found[0].report["metrics"] if e["id"] == "captions"] == [20]


def test_the_six_trainings_differ_in_prediction_and_loss_alone() -> None:
    base = presets.fashion()
    made = ablation.cells(base)
    assert len({cell.config.name for cell in made}) == 6
    for cell in made:
        same = replace(cell.config, process=base.process, net=base.net, name=base.name, about=base.about)
        assert same == base
        assert cell.config.process.schedule == "linear"
        assert cell.config.net.out_channels == (2 if "learned" in cell.row else 1)
        assert losses.make_objective(cell.config.process) == ("simple" if "unweighted" in cell.row else "bound")
