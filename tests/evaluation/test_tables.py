"""Tables have every result in its row and column, and the best result of each budget is found."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request
from unnoise.evaluation.sweep import Result
from unnoise.evaluation.tables import (
    ablation_table,
    cheapest_within,
    ddim_table,
    guidance_table,
    pareto_front,
    sampler_table,
)
from unnoise.evaluation.variants import Variant

CONFIG = EvaluateConfig(count=1200, seed=5)


def result(row: str, calls: int, frechet: float, column: str = "", request: Request | None = None) -> Result:
    metrics: list[dict[str, Any]] = [
        {"id": "frechet", "value": frechet},
        {"id": "kernel", "value": frechet / 10, "error": 0.01},
    ]
    variant = Variant(row, column, request or Request())
    return Result(variant, {"metrics": metrics}, calls, 0.25, torch.full((2, 1, 4, 4), calls, dtype=torch.uint8))


def test_pareto_front_rises_in_calls_and_falls_in_distance() -> None:
    results = [
        result("a", 10, 5.0),
        result("b", 20, 3.02),
        result("c", 20, 4.0),
        result("d", 40, 3.5),
        result("e", 80, 3.0),
    ]
    assert [r.variant.row for r in pareto_front(results)] == ["a", "b", "e"]
    best = cheapest_within(results)
    assert best is not None
    assert best.variant.row == "b"
    assert cheapest_within([]) is None


def test_a_distance_of_zero_is_the_smallest_of_all() -> None:
    results = [result("a", 10, 0.01), result("b", 20, 0.0), result("c", 40, 0.001)]
    assert [r.variant.row for r in pareto_front(results)] == ["a", "b"]
    best = cheapest_within(results)
    assert best is not None
    assert best.variant.row == "b"
    assert (
        "The smallest Frechet distance: b, scale 2."
        in guidance_table(
            [result(r.variant.row, r.calls, r.metrics()["frechet"], f"{i + 1}") for i, r in enumerate(results)], CONFIG
        ).notes[0]
    )


def test_sampler_table_advises_the_options_of_the_cheapest_good_variant() -> None:
    request = Request.of(sampler="ddim", steps=7, eta=0.5, guidance=2.0, spacing="even")
    results = [
        result("ddim, eta 0.5", 7, 2.0, "7", request),
        result("heun", 19, 1.99, "10"),
        result("x", 30, 3.0, "30"),
    ]
    table = sampler_table(results, CONFIG)
    assert table.main.rows[0] == ("ddim, eta 0.5", "7", "7", "2", "0.2 ± 0.01", "250")
    assert table.notes[0] == "up to 7 calls: ddim, eta 0.5 in 7 steps (2)"
    assert table.notes[-1] == (
        "The cheapest within 5 % of the best: --sampler ddim --steps 7 --eta 0.5 --guidance 2 --timestep-spacing even"
    )
    assert [place["row"] for place in table.document["best"]] == ["ddim, eta 0.5", "heun"]
    (panel,) = table.panels
    assert panel.lines == {"ddim, eta 0.5": [(7.0, 2.0)], "heun": [(19.0, 1.99)], "x": [(30.0, 3.0)]}
    assert table.pictures["heun", "10"].unique().tolist() == [19]


def test_ddim_table_has_rows_by_name_and_columns_by_steps() -> None:
    results = [result(row, calls, 1.0 + calls, f"{calls}") for row in ("eta 0", "eta 1") for calls in (2, 4)]
    table = ddim_table(results, CONFIG, ["a warning."])
    assert table.main.head == ("Frechet distance", "S = 2", "S = 4")
    assert table.main.rows == [("eta 0", "3", "5"), ("eta 1", "3", "5")]
    assert table.second is not None
    assert table.second.rows[1] == ("eta 1", "0.3 ± 0.01", "0.5 ± 0.01")
    assert table.notes == ["1,200 pictures each, seeds 5 to 1204; guidance 1, clipped.", "a warning."]
    assert table.markdown().startswith("| Frechet distance | S = 2 | S = 4 |\n| --- | --- | --- |\n| eta 0 | 3 | 5 |")
    assert table.markdown().endswith("\n\na warning.\n")


def test_guidance_table_has_a_row_for_each_scale_and_names_the_best() -> None:
    results = [result("classifier-free", 5, value, scale) for scale, value in (("3", 1.5), ("1", 2.0))]
    for each in results:
        each.report["metrics"].append({"id": "accuracy", "value": 0.5, "real": 0.9})
    table = guidance_table(results, CONFIG)
    assert table.main.head == ("guidance", "scale", "Frechet", "class accuracy", "kernel", "calls")
    assert [row[:4] for row in table.main.rows] == [
        ("classifier-free", "3", "1.5", "0.5"),
        ("classifier-free", "1", "2", "0.5"),
    ]
    assert list(table.pictures) == [("1", "classifier-free"), ("3", "classifier-free")]  # rising on the sheet
    assert "The smallest Frechet distance: classifier-free, scale 3." in table.notes[0]
    assert "The classifier is right on 90.0% of real pictures." in table.notes[0]
    distance, accuracy = table.panels
    assert distance.lines == {"classifier-free": [(3.0, 1.5), (1.0, 2.0)]}
    assert accuracy.lines == {"classifier-free": [(0.5, 1.5), (0.5, 2.0)]}


def test_ablation_table_has_rows_by_objective() -> None:
    values = {"frechet": 1.0, "kernel": 2.0, "bpd": 3.0}
    found = {("L", "mean"): values, ("L", "eps"): {**values, "bpd": 4.0}}
    table = ablation_table(found, {}, "a note")
    assert table.main.head[1:] == tuple(
        f"{column}: {name}" for column in ("mean", "eps") for name in ("Frechet", "kernel", "bits")
    )
    assert table.main.rows == [("L", "1", "2", "3", "1", "2", "4")]
    assert table.document["cells"][1] == {"row": "L", "column": "eps", "frechet": 1.0, "kernel": 2.0, "bpd": 4.0}


def test_a_distance_that_was_not_measured_is_left_out() -> None:
    bare = Result(Variant("a", "", Request()), {"metrics": []}, 5, 0.1, torch.zeros(1, 1, 4, 4))
    assert pareto_front([bare]) == []
    assert bare.metric() is None
    assert sampler_table([bare], CONFIG).panels[0].lines == {}
    assert result("a", 5, math.pi).metric("kernel") == pytest.approx(math.pi / 10)
