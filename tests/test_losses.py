"""Laws of loss weights: every time at which a sampler evaluates the network is trained, with a finite weight."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from unnoise.config.diffusion import DiffusionConfig
from unnoise.denoiser import PREDICTIONS, make_diffusion, make_prediction, schedule_of
from unnoise.errors import UserError
from unnoise.losses import WEIGHTS, check, make_weight
from unnoise.samplers import SPACINGS, find_spacing
from unnoise.schedules import SCHEDULES

T = 100
PROCESSES = [
    DiffusionConfig(
        schedule=schedule,
        steps=T,
        schedule_options={"values": (0.1,) * T} if schedule == "table" else {},
        zero_snr=zero_snr,
        predicts=predicts,
    )
    for schedule, zero_snr, predicts in itertools.product(SCHEDULES, (False, True), PREDICTIONS)
    if not (zero_snr and schedule in ("flow", "edm", "variance-exploding", "sub-vp"))  # refused: not VP
]


def refusal(process: DiffusionConfig) -> str:
    """The sentence that refuses to train this process; "" for none."""
    try:
        check(process)
    except UserError as error:
        return str(error)
    return ""


def determined(process: DiffusionConfig) -> bool:
    try:
        make_diffusion(torch.nn.Identity(), process)
    except UserError:
        return False
    return True


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: f"{p.schedule}-{p.zero_snr}-{p.predicts}")
def test_no_time_that_a_sampler_asks_is_untrained(process: DiffusionConfig) -> None:
    """Schedule x prediction x weight: refused, or the error of the network's output weighs something at every time of
    every spacing, and no infinite or undefined amount."""
    for name in WEIGHTS:
        trained_everywhere(replace(process, weight=name), name)


def trained_everywhere(process: DiffusionConfig, name: str) -> None:
    why = refusal(process)
    if not determined(process):
        assert "zero terminal SNR" in why
        return
    if why:
        assert f"the loss weight {name!r} is" in why
        assert refusal(replace(process, weight="output")) == ""  # the fix that the message names
        return
    schedule = schedule_of(process)
    weight, predicts = make_weight(process, schedule), make_prediction(process, schedule)
    for spacing, steps in itertools.product(SPACINGS, (1, 4, 25)):
        level = schedule(find_spacing(spacing, T, 1 / T)(schedule, steps)[:-1])
        scale = weight(level) * predicts.error(level).square()
        assert torch.isfinite(scale).all()
        assert (scale > 1e-13).all()


@pytest.mark.parametrize("name", ["simple", "min-snr", "p2"])
def test_a_weight_of_zero_where_sampling_starts_is_refused(name: str) -> None:
    """v with zero terminal SNR: the SNR is 0 at t = 1. Lin et al. 2024 train v's own error there."""
    process = DiffusionConfig(schedule="cosine", zero_snr=True, predicts="v", weight=name)
    assert f"the loss weight '{name}' is 0 at t = 1 for the prediction 'v'" in refusal(process)
    assert "process.weight=output" in refusal(process)
    assert refusal(replace(process, objective="bound")) == ""  # which has no weight
    assert refusal(replace(process, zero_snr=False)) == ""
    for trained in ("output", "snr-plus-one", "truncated-snr", "x0"):
        assert refusal(replace(process, weight=trained)) == ""


def test_options_that_make_a_weight_zero_or_undefined_are_refused() -> None:
    process = DiffusionConfig(predicts="v", weight="min-snr")
    for gamma, what in ((0.0, "0"), (float("nan"), "not finite")):
        assert f"'min-snr' is {what} at t = 1" in refusal(replace(process, weight_options={"gamma": gamma}))


def test_the_plain_error_of_v_weighs_one_at_zero_terminal_snr() -> None:
    process = DiffusionConfig(schedule="linear", zero_snr=True, predicts="v", weight="output")
    schedule = schedule_of(process)
    level = schedule(torch.tensor([1.0, 0.999, 0.5, 0.001], dtype=torch.float64))
    scale = make_weight(process, schedule)(level) * make_prediction(process, schedule).error(level).square()
    assert torch.allclose(scale, torch.ones(4, dtype=torch.float64))
