"""Measurements of a network: what is measured, what is left out and why, and which precision follows from it."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.unets import SMALL, random_network
from unnoise.acceleration import measure as module
from unnoise.acceleration import memory
from unnoise.acceleration.measure import PLAIN, Measured, fastest_precision, measure, variants
from unnoise.acceleration.speed import fastest, waiting
from unnoise.conditions import NOTHING, Cond
from unnoise.denoiser import PREDICTIONS, Diffusion
from unnoise.schedules import Cosine, LinearBeta

SHAPE = (3, 16, 16)


def results(diffusion: Diffusion, **settings: object) -> list[Measured]:
    return list(measure(diffusion, lambda count: NOTHING, SHAPE, "cpu", **settings))  # type: ignore[arg-type]


def test_every_variant_is_measured_and_float32_differs_by_rounding_alone() -> None:
    found = results(Diffusion(random_network(SMALL), LinearBeta()).eval(), seconds=20.0, batches=(1, 4))
    assert [(each.variant, each.batch) for each in found] == [(v, b) for v in variants("cpu") for b in (1, 4)]
    assert all(each.seconds > 0 and not each.left_out for each in found)
    plain, placed = found[:2], found[2:4]
    assert all(each.error is None for each in plain)
    assert all(0 < each.error < 1e-5 for each in placed)  # type: ignore[operator]
    if platform.system() == "Linux" and memory.reset_peak("cpu"):
        assert all(each.memory > 2**20 for each in found)  # type: ignore[operator]


class Scaled(nn.Module):
    """A network whose output is `factor` times eps, and one more percent in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, time: Tensor, cond: Cond) -> Tensor:
        wrong = 0.5 * x.float().roll(1, 0) if self.factor.dtype == torch.bfloat16 else 0.0
        return (x.float() + wrong).to(x.dtype)


@pytest.mark.parametrize("predicts", ["eps", "x0", "v", "flow", "edm", "score"])
def test_the_error_is_that_of_the_output_of_the_network(predicts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output x has an error of x / 2, rolled over the batch of 1, which is x / 2: 50 % whatever it predicts."""
    monkeypatch.setattr(module, "variants", lambda device: (PLAIN, "bfloat16"))
    schedule = Cosine()
    diffusion = Diffusion(Scaled(), schedule, PREDICTIONS[predicts](schedule, 1000)).eval()
    _, half = results(diffusion, seconds=1.0, batches=(1,))
    assert half.error == pytest.approx(0.5, rel=0.01)


def test_the_smallest_batch_is_always_measured_and_larger_ones_have_a_reason() -> None:
    found = results(Diffusion(random_network(SMALL), LinearBeta()).eval(), seconds=0.0, batches=(1, 4, 16))
    assert [each.batch for each in found if not each.left_out] == [1] * len(variants("cpu"))
    assert all("0.0 s left" in each.left_out for each in found if each.batch > 1)


@pytest.mark.parametrize(
    ("left", "available", "reason"),
    [(100.0, 10**9, ""), (7.9, 10**9, "about 8.0 s for two calls, 7.9 s left"), (100.0, 399, "about 400B of memory")],
)
def test_a_batch_is_planned_from_the_one_before(
    left: float, available: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four times the pictures need four times the seconds, twice, and four times the memory above the start."""
    monkeypatch.setattr(memory, "available_memory", lambda device: available)
    last = Measured(PLAIN, 4, seconds=1.0, memory=1100)
    found = module._too_much(last, 16, 1000, "cpu", left)
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


def test_a_batch_that_fails_is_left_out_with_the_larger_ones() -> None:
    class Small(Scaled):
        def forward(self, x: Tensor, time: Tensor, cond: Cond) -> Tensor:
            if len(x) > 1:
                raise RuntimeError("out of memory: tried\nto allocate")
            return x

    found = results(Diffusion(Small(), LinearBeta()).eval(), seconds=5.0, batches=(1, 2, 4))
    assert [each.left_out for each in found[:3]] == ["", *["out of memory: tried"] * 2]
    with pytest.raises(RuntimeError, match="out of memory"):
        results(Diffusion(Small(), LinearBeta()).eval(), seconds=5.0, batches=(2, 4))


def test_the_time_is_that_of_the_fastest_call() -> None:
    naps = iter([0.05, 0.01, *[0.05] * 100])
    assert 0.01 <= fastest(lambda: time.sleep(next(naps)), waiting("cpu"), seconds=0.2) < 0.05
    calls: list[int] = []
    fastest(lambda: calls.append(1), waiting("cpu"), seconds=0.0)
    assert calls == [1]


@pytest.mark.parametrize("fast", [False, True])
def test_bfloat16_is_measured_where_it_may_be_faster(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "fast_bfloat16", lambda device: fast)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert ("bfloat16" in variants("cpu")) == fast
    assert variants("mps") == (PLAIN, "float32", "bfloat16")
    assert variants("cuda") == (PLAIN, "float32", "tf32", "bfloat16")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert "bfloat16" in variants("cpu")


def rows(single: Sequence[float], half: Sequence[float], error: float = 0.01) -> list[Measured]:
    made = [Measured("float32", 4**i, seconds, error=1e-6) for i, seconds in enumerate(single)]
    return made + [Measured("bfloat16", 4**i, seconds, error=error) for i, seconds in enumerate(half)]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (rows([1, 4], [0.5, 2]), "bfloat16"),
        (rows([1, 4], [2, 8]), "float32"),
        (rows([1, 4], [0.5, 7.9]), "bfloat16"),  # the geometric mean: 2.00 against 1.99
        (rows([1, 4], [0.5, 8.1]), "float32"),
        (rows([1, 4, 16], [0.9, 3.9]), "bfloat16"),  # of the batches in common
        (rows([1, 4], [0.5, 2], error=0.06), "float32"),
        (rows([1, 4], [0.5, 2], error=math.nan), "float32"),
        (rows([1, 4], []), "float32"),
        ([*rows([1], []), Measured("bfloat16", 1, left_out="not implemented")], "float32"),
    ],
)
def test_the_fastest_precision_of_all_batches_is_chosen(found: list[Measured], expected: str) -> None:
    plain = Measured(PLAIN, 1, 0.01)
    assert fastest_precision([plain, *found]) == expected
