"""Variants are the product of their axes, each with the request that its names say."""

from __future__ import annotations

from unnoise.config.request import Request
from unnoise.evaluation.variants import Axes, InversionAxes, ddim_variants, guidance_variants, variants


def test_requests_are_the_product_and_steps_vary_fastest() -> None:
    axes = Axes(("heun", "plms"), (5, 10), guidance=(1.0, 3.0), spacings=("even", "karras"))
    found = axes.requests(Request.of(batch=7))
    assert [(r.sampling.spacing, r.guidance.scale, r.sampling.sampler, r.sampling.steps) for r in found] == [
        (spacing, scale, sampler, steps)
        for spacing in ("even", "karras")
        for scale in (1.0, 3.0)
        for sampler in ("heun", "plms")
        for steps in (5, 10)
    ]
    assert {r.batch for r in found} == {7}
    assert {r.sampling.eta for r in found} == {0.0}


def test_eta_varies_for_the_samplers_that_use_it_alone() -> None:
    axes = Axes(("auto", "ddim", "heun", "ddim-sigma-hat"), eta=(0.5, 1.0))
    assert [(r.sampling.sampler, r.sampling.eta) for r in axes.requests(Request())] == [
        ("auto", 0.5), ("auto", 1.0), ("ddim", 0.5), ("ddim", 1.0), ("heun", 0.0), ("ddim-sigma-hat", 0.0)
    ]  # fmt: skip


def test_rows_name_the_sampler_and_the_axes_with_several_values() -> None:
    plain = variants(Request(), Axes(("ddim", "heun"), (5, 10), guidance=(3.0,)))
    assert [(v.row, v.column) for v in plain] == [("ddim", "5"), ("ddim", "10"), ("heun", "5"), ("heun", "10")]
    assert {v.request.guidance.scale for v in plain} == {3.0}
    axes = Axes(("ddim", "heun"), (5,), eta=(0.0, 1.0), guidance=(1.0, 2.5), spacings=("even", "log-snr"))
    found = variants(Request(), axes)
    assert len(found) == len({v.row for v in found}) == 3 * 2 * 2
    assert [v.row for v in found[:3]] == [
        "ddim, eta 0, guidance 1, even", "ddim, eta 1, guidance 1, even", "heun, guidance 1, even"
    ]  # fmt: skip
    assert found[-1].row == "heun, guidance 2.5, log-snr"


def test_ddim_variants_are_eta_and_sigma_hat() -> None:
    found = ddim_variants(Request(), Axes(steps=(10, 20), eta=(0, 0.5), spacings=("ddim-uniform", "even")))
    assert len(found) == 2 * 2 * 3
    assert {(v.request.sampling.sampler, v.request.sampling.eta) for v in found} == {
        ("ddim", 0), ("ddim", 0.5), ("ddim-sigma-hat", 0.0)
    }  # fmt: skip
    assert {v.row for v in found} == {
        f"{name}, {spacing}" for name in ("eta 0", "eta 0.5", "sigma-hat") for spacing in ("ddim-uniform", "even")
    }
    assert all(v.row.endswith(v.request.sampling.spacing) and v.column == str(v.request.sampling.steps) for v in found)
    one = Axes(steps=(5,), spacings=("even",))
    assert [v.row for v in ddim_variants(Request(), one)] == ["eta 0", "sigma-hat"]
    assert [v.row for v in ddim_variants(Request(), one, sigma_hat=False)] == ["eta 0"]


def test_guidance_variants_are_both_kinds_of_guidance_by_scale() -> None:
    axes = Axes(steps=(7,), guidance=(1, 2.5))
    found = guidance_variants(Request.of(guidance=9.0), axes, classifier="guide", classifier_scales=(1, 9))
    guidance = [(v.row, v.column, v.request.guidance) for v in found]
    assert [(row, column, g.scale, g.classifier, g.classifier_scale) for row, column, g in guidance] == [
        ("classifier-free", "1", 1, "", 1.0), ("classifier-free", "2.5", 2.5, "", 1.0),
        ("classifier", "1", 0, "guide", 1), ("classifier", "9", 0, "guide", 9),
    ]  # fmt: skip
    assert {v.request.sampling.steps for v in found} == {7}
    assert len(guidance_variants(Request(), axes, classifier_scales=(1,))) == 2  # none without a classifier
    rows = {v.row for v in guidance_variants(Request(), Axes(("ddim", "heun"), (7, 9)))}
    assert rows == {f"classifier-free, {sampler}, {steps} steps" for sampler in ("ddim", "heun") for steps in (7, 9)}


def test_inversion_settings_are_the_product_by_scale_and_convention() -> None:
    assert InversionAxes(("own", "exact"), (2, 3), (1.0, 2.0)).settings() == [
        (convention, steps, scale) for scale in (1.0, 2.0) for convention in ("own", "exact") for steps in (2, 3)
    ]
