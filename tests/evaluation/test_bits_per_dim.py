"""Bits per dimension in an evaluation equal those of the bound, and the report has all that they depend on."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.evaluation.test_evaluate import HOW, TOY, toy_model
from tests.helpers.tiny_training import launch
from unnoise import data
from unnoise.acceleration.placement import best, place
from unnoise.cli.console import UsageError, emit
from unnoise.cli.evaluate import check_plot, metric_names
from unnoise.cli.measuring import as_text
from unnoise.cli.plot import plot
from unnoise.conditions import Cond
from unnoise.config.evaluation import EvaluateConfig
from unnoise.errors import UserError
from unnoise.evaluation.curves import bound_panels
from unnoise.evaluation.details import curve_rows
from unnoise.evaluation.evaluate import evaluate
from unnoise.evaluation.report import markdown
from unnoise.likelihood.bound import VARIANCES, last, noise_of, table, whole_bound
from unnoise.likelihood.ode import bits as flow_bits
from unnoise.model import Model
from unnoise.training.distributed import ALONE, Processes

HELD = replace(TOY, path="toy:test")
ASK = EvaluateConfig(metrics=("bpd",), bits_count=5)


def short(model: Model, **process: Any) -> Model:
    """The same network with twenty steps."""
    made = type(model.diffusion)(
        model.diffusion.net, model.diffusion.schedule, model.diffusion.predicts, steps=20, **process
    )
    return Model(made, model.card)


def report(ask: EvaluateConfig = ASK, model: Model | None = None, who: Processes = ALONE, **how: Any) -> dict[str, Any]:
    asked = HOW.but(**how)
    steps = list(evaluate(model or short(toy_model()), ask, asked, data.open(HELD), cache=None, processes=who))
    assert all(0 <= step.done <= step.total for step in steps)
    found = steps[-1].report
    assert found is not None
    return found


def test_value_is_that_of_the_bound() -> None:
    """Held-out pictures in the order of an evaluation, each with its class, in the network's own placement."""
    model = short(toy_model())
    found = report(model=model)
    (entry,) = found["metrics"]
    real = data.open(HELD)
    rows = data.order(0, 0, len(real))[:5].tolist()
    batch = real.batch(rows)
    diffusion = place(model.diffusion, best("auto", "float32"))
    whole = last(
        whole_bound(
            lambda rows: diffusion.given(Cond(batch.label[rows])),
            batch.x,
            table(diffusion.schedule, 20),
            noise_of(0, (1, 16, 16)),
        )
    )
    assert entry["value"] == pytest.approx(whole.total.mean().item(), rel=1e-5)
    assert entry["error"] == pytest.approx(whole.total.std().item() / 5**0.5, rel=1e-4)
    assert (entry["n"], entry["steps"], entry["variance"], entry["clip"], entry["classes"]) == (
        5, 20, "small", True, True,
    )  # fmt: skip
    parts = entry["parts"]
    assert sum(part["value"] for part in parts.values()) == pytest.approx(entry["value"], rel=1e-9)
    assert len(entry["curve"]["t"]) == len(entry["curve"]["rmse"]) == 20
    assert entry["curve"]["t"][0] == 1
    assert found["data"]["path"] == "toy:test"
    assert json.loads(json.dumps(found)) == found


def test_settings_change_the_value() -> None:
    plain = report()["metrics"][0]
    sub = report(replace(ASK, bits_steps=4))["metrics"][0]
    assert (sub["steps"], sub["curve"]["t"]) == (4, [1.0, 0.75, 0.5, 0.25])
    wide = report(replace(ASK, bits_variance="large"))["metrics"][0]
    assert wide["variance"] == "large"
    assert wide["parts"]["L_t"]["value"] != plain["parts"]["L_t"]["value"]
    assert wide["parts"]["L_T"] == plain["parts"]["L_T"]
    assert report(clip=False)["metrics"][0]["clip"] is False
    one = report(labels=("ring",))["metrics"][0]
    assert one["value"] != plain["value"]
    assert report(batch=3)["metrics"][0]["value"] == pytest.approx(plain["value"], rel=1e-5)


def test_report_names_an_estimate_as_one() -> None:
    """Twenty steps at seven times: three near the picture, and every fifth; the mean over five seeds' offsets, with the
    same noise, would be the whole bound."""
    whole, part = (report(replace(ASK, bits_times=times))["metrics"][0] for times in (0, 7))
    assert (whole["estimate"], whole["times"]) == (False, 20)
    assert part["estimate"] is True
    assert part["times"] == pytest.approx((4 + 4 + 3 + 3 + 3) / 5 + 3)
    assert part["steps"] == 20
    assert part["value"] != whole["value"]
    assert part["error"] > 0
    assert part["curve"]["t"] == whole["curve"]["t"]  # five pictures, five offsets: every step is some picture's
    assert part["parts"]["L_0"] == whole["parts"]["L_0"]
    found = report(replace(ASK, bits_times=7, bits_count=2))
    assert len(found["metrics"][0]["curve"]["t"]) == len(found["metrics"][0]["curve"]["rmse"]) < 20
    assert json.loads(json.dumps(found)) == found
    assert "an estimate of the mean" in as_text(found)
    assert "an estimate" not in as_text(report())
    same = report(replace(ASK, bits_times=20))["metrics"][0]
    assert same == whole
    for wrong in (1, 21, -3):
        with pytest.raises(UserError, match="2 to 20"):
            report(replace(ASK, bits_times=wrong))


def test_a_learned_variance_is_used_where_there_is_one() -> None:
    class Both(nn.Module):
        """A mean and a spread."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((1,), 0.3))

        def forward(self, x: torch.Tensor, time: torch.Tensor, cond: Cond) -> torch.Tensor:
            return torch.cat([self.weight * x, torch.zeros_like(x)], 1)

    base = toy_model()
    made = type(base.diffusion)(Both(), base.diffusion.schedule, steps=20, learned_variance=True)
    model = Model(made, base.card)
    values = {name: report(replace(ASK, bits_variance=name), model)["metrics"][0] for name in ("auto", *VARIANCES)}
    assert values["auto"]["variance"] == "learned"
    assert values["auto"]["value"] == values["learned"]["value"]
    assert len({entry["value"] for entry in values.values()}) == 3


def test_unknown_and_unlearned_variances_are_refused() -> None:
    with pytest.raises(UserError, match="did not learn"):
        report(replace(ASK, bits_variance="learned"))
    with pytest.raises(UserError, match=r"no variance 'smal'.*small"):
        report(replace(ASK, bits_variance="smal"))


def test_more_than_one_label_is_refused() -> None:
    """Two labels do not say which picture has which class."""
    with pytest.raises(UserError, match=r"one label for all pictures.*2 were given"):
        report(labels=("bag", "coat"))


def test_a_count_below_one_is_refused() -> None:
    for wrong in (0, -3):
        for name in ("bpd", "ode-bpd"):
            with pytest.raises(UserError, match=f"--bits-count {wrong} is too small"):
                report(replace(ASK, metrics=(name,), bits_count=wrong))


def test_one_picture_has_no_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """It is unknown: nan here, null in JSON, which has no nan, and nothing in the text."""
    found = report(replace(ASK, bits_count=1))
    assert math.isnan(found["metrics"][0]["error"])
    for text in (as_text(found), markdown(found)):
        assert "±" not in text
        assert "nan" not in text
    emit(found)

    def refuse(name: str) -> None:
        raise AssertionError(f"JSON has no {name}")

    entry = json.loads(capsys.readouterr().out, parse_constant=refuse)["metrics"][0]
    assert (entry["error"], entry["parts"]["L_0"]["error"]) == (None, None)
    assert entry["value"] == found["metrics"][0]["value"]


def test_report_has_the_precision_that_was_used() -> None:
    used = best("auto", "auto").precision
    found = report(replace(ASK, metrics=("bpd", "ode-bpd"), bits_count=2), precision="auto")
    assert [entry["precision"] for entry in found["metrics"]] == [used, "float32"]  # the flow needs derivatives
    assert found["drawn"] == {"precision": used}
    half = report(replace(ASK, bits_count=2), precision="bfloat16")
    assert half["metrics"][0]["precision"] == "bfloat16"
    assert "in bfloat16" in as_text(half)


def test_bits_of_training_pictures_are_reported_with_a_warning() -> None:
    model = short(toy_model())
    known = Model(model.diffusion, replace(model.card, info={"data": "toy:test"}))
    assert "trained on" in report(model=known)["warnings"][0]
    assert report()["warnings"] == []
    assert "without guidance" in report(guidance=2.0)["warnings"][0]


def test_flow_and_bound_are_measured_together() -> None:
    model = short(toy_model())
    found = report(replace(ASK, metrics=("bpd", "ode-bpd"), bits_count=2), model)
    real = data.open(HELD)
    batch = real.batch(data.order(0, 0, len(real))[:2].tolist())
    (alone,) = flow_bits(lambda rows: model.diffusion.given(Cond(batch.label[rows])), batch.x, begin=0.05)
    bound, flow = found["metrics"]
    assert (flow["id"], flow["n"], flow["begin"]) == ("ode-bpd", 2, 0.05)
    assert flow["evaluations"] >= 7
    assert flow["value"] == pytest.approx(alone.bits.mean().item(), rel=1e-4)
    assert bound["id"] == "bpd"
    for text in (as_text(found), markdown(found)):
        assert "evaluations each" in text
        assert "variance small, estimates clipped, 2 pictures, conditioned on their classes" in text
        assert "no pictures were sampled" in text


def test_repeats_are_averaged_before_the_error_over_pictures() -> None:
    """Three dequantisations of two pictures are two figures: the error is that of two, and not of six."""
    model = short(toy_model())
    asked = replace(ASK, metrics=("ode-bpd",), bits_count=2, bits_repeats=3)
    found = report(asked, model)
    (entry,) = found["metrics"]
    real = data.open(HELD)
    batch = real.batch(data.order(0, 0, len(real))[:2].tolist())
    parts = list(flow_bits(lambda rows: model.diffusion.given(Cond(batch.label[rows])), batch.x, repeats=3, begin=0.05))
    each = torch.stack([part.bits for part in parts])  # (repeats, pictures)
    assert len(each) == 3
    assert entry["value"] == pytest.approx(each.mean().item(), rel=1e-5)
    assert entry["error"] == pytest.approx(each.mean(0).std().item() / 2**0.5, rel=1e-3)
    assert (entry["n"], entry["repeats"], entry["trace"]) == (2, 3, "hutchinson")
    assert "2 pictures, the mean of 3 dequantisations" in as_text(found)
    with pytest.raises(UserError, match="--bits-repeats 0 is too small"):
        report(replace(asked, bits_repeats=0), model)


def together(who: Processes, path: str) -> None:
    found = report(who=who)
    Path(path, f"{who.rank}.json").write_text(json.dumps(found["metrics"]))


@pytest.mark.slow
def test_two_processes_measure_the_same_as_one(tmp_path: Path) -> None:
    children = launch(tmp_path / "launched", together, str(tmp_path), world=2)
    assert [child.end(120) for child in children] == [0, 0], [child.said() for child in children]
    each = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert each[0] == each[1]
    one = report()["metrics"][0]
    assert each[0][0]["value"] == pytest.approx(one["value"], rel=1e-5)
    assert each[0][0]["n"] == 5


def test_curves_have_the_points_of_the_report(tmp_path: Path) -> None:
    found = report()["metrics"][0]["curve"]
    terms, coding, reverse = bound_panels(found)
    assert [len(panel.lines[""]) for panel in (terms, coding)] == [20, 20]
    error, sent = reverse.lines.values()
    assert error == [(pytest.approx(k / 20), found["rmse"][k]) for k in range(20)]
    assert sent == [(pytest.approx(k / 20), found["rate"][k]) for k in range(20) if found["rate"][k] > 1e-3]
    assert all(math.isfinite(x) and math.isfinite(y) for panel in (terms, coding) for x, y in panel.lines[""])
    plot(tmp_path / "bits.png", [terms, coding, reverse])
    with Image.open(tmp_path / "bits.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5


def test_text_has_the_curve_in_ten_rows() -> None:
    """From the estimate of pure noise to the last estimate; errors in even ratios, on every schedule."""
    curve = {"t": [1 - k / 1000 for k in range(1000)], "rate": [k / 500 for k in range(1000)]}
    curve["rmse"] = [80 * 0.995**k for k in range(1000)]
    shown = [tuple(map(float, row)) for row in curve_rows(curve)]
    assert len(shown) == 10
    assert (shown[0], shown[-1]) == (
        (1.0, 0.0, 80.0),
        (0.001, pytest.approx(2, rel=1e-2), pytest.approx(0.535, rel=1e-2)),
    )
    ratios = [after[2] / before[2] for before, after in pairwise(shown)]
    assert max(ratios) / min(ratios) < 1.02
    assert curve_rows({"t": [1.0], "rate": [0.0], "rmse": [0.0]}) == [("1", "0", "0")]
    found = report()
    (entry,) = found["metrics"]
    for text in (as_text(found), markdown(found)):
        assert "RMSE, grey levels" in text
        for row in curve_rows(entry["curve"]):
            assert all(number in text for number in row)


def test_impossible_plots_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    assert metric_names("bpd,fid,ode-bits") == ("bpd", "fid", "ode-bits")
    check_plot(tmp_path / "a.svg", ("bpd",), False)
    check_plot(tmp_path / "a.svg", ("bits",), False)
    (tmp_path / "file").touch()
    for file, names, why in (
        (tmp_path / "a.svg", ("frechet",), "--metrics bpd"),
        (tmp_path / "a.jpg", ("bits",), r"a\.jpg"),
        (tmp_path / "file" / "a.svg", ("bits",), "is a file, not a folder"),
    ):
        with pytest.raises(UsageError, match=why):
            check_plot(file, names, False)
