"""Laws of guidance: scale 1 is nothing at all, one batch equals two calls, the linear case has its closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unnoise.conditions import NOTHING, Cond
from unnoise.denoiser import Denoiser, Diffusion, Estimate, edm
from unnoise.guidance import classifier_free, clip, dynamic_threshold
from unnoise.samplers import heun, last, walk
from unnoise.samplers.times import karras
from unnoise.schedules import EDM, LinearBeta
from worlds import Gaussian

T = torch.tensor(0.4, dtype=torch.float64)


class Told(nn.Module):
    """A network whose answer depends on its label, and on nothing random."""

    def forward(self, x: Tensor, time: Tensor, cond: Cond) -> Tensor:
        assert cond.label is not None
        return x * (cond.label[:, None] + 1.0) * 0.1 + 0.01 * time[:, None]


def told() -> tuple[Diffusion, Cond, Cond]:
    return Diffusion(Told(), LinearBeta()), Cond(torch.tensor([0, 1, 2])), Cond(torch.tensor([3, 3, 3]))


def test_scale_one_is_the_told_denoiser_bit_for_bit() -> None:
    diffusion, cond, null = told()
    x = torch.randn(3, 5)
    assert torch.equal(classifier_free(diffusion, cond, null, 1.0)(x, T).mean, diffusion.given(cond)(x, T).mean)


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
def test_one_batch_equals_two_calls(scale: float) -> None:
    diffusion, cond, null = told()
    x = torch.randn(3, 5)
    with_, without = diffusion.given(cond)(x, T).mean, diffusion.given(null)(x, T).mean
    for t in (T, torch.tensor([0.4, 0.4, 0.4], dtype=torch.float64)):
        assert torch.allclose(
            classifier_free(diffusion, cond, null, scale)(x, t).mean, without + scale * (with_ - without), atol=1e-5
        )


def test_scale_zero_is_told_nothing() -> None:
    diffusion, cond, null = told()
    x = torch.randn(3, 5)
    assert torch.allclose(classifier_free(diffusion, cond, null, 0.0)(x, T).mean, diffusion.given(null)(x, T).mean)


def test_the_learned_variance_is_the_told_ones() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor, time: Tensor, cond: Cond) -> Tensor:
            assert cond.label is not None
            return torch.cat([x, cond.label[:, None].expand_as(x).to(x)], 1)

    diffusion = Diffusion(Net(), LinearBeta(), learned_variance=True)
    spread = classifier_free(diffusion, Cond(torch.tensor([0, 1])), Cond(torch.tensor([9, 9])), 2.0)(
        torch.randn(2, 4), T
    ).spread
    assert spread is not None
    assert spread[:, 0].tolist() == [0.5, 1.0]


def test_the_guided_flow_has_its_closed_form() -> None:
    """p(x | c) = N(0, 1), p(x) = N(0, 4), scale 2: the flow from far out ends at std 1^2 / 2^1 = 0.5.

    The density p(x | c)^2 / p(x), which guidance is often said to sample, has 0.756.
    """
    narrow, wide = Gaussian(0, 1.0), Gaussian(0, 2.0)
    schedule = EDM(sigma_max=2000)

    class Both(nn.Module):
        def forward(self, x: Tensor, time: Tensor, cond: Cond) -> Tensor:
            raise AssertionError

    class Exact(Diffusion):
        def forward(self, x_t: Tensor, t: Tensor, cond: Cond = NOTHING) -> Estimate:
            assert cond.label is not None
            level = schedule(t)
            is_null = cond.label[:, None] == 1
            return Estimate(torch.where(is_null, wide.denoise(x_t, level), narrow.denoise(x_t, level)))

    diffusion = Exact(Both(), schedule, edm())
    guided = classifier_free(diffusion, Cond(torch.tensor([0])), Cond(torch.tensor([1])), 2.0)
    times = karras(1e-4, 2000)(schedule, 600)
    x = torch.tensor([[2000.0]], dtype=torch.float64)
    end = last(walk(guided, x, times, heun(), lambda t, draw: x))
    assert end.item() == pytest.approx(0.5, abs=1e-3)


def constant(value: Tensor) -> Denoiser:
    return Denoiser(LinearBeta(), lambda x_t, t: Estimate(value))


def test_clipping() -> None:
    value = torch.tensor([[-3.0, -1.0, 0.2, 1.5]])
    assert torch.equal(clip(constant(value))(value, T).mean, torch.tensor([[-1.0, -1.0, 0.2, 1.0]]))
    inside = value / 4
    assert torch.equal(clip(constant(inside))(inside, T).mean, inside)


def test_dynamic_thresholding() -> None:
    value = torch.linspace(-3, 3, 601)[None]
    out = dynamic_threshold(constant(value), 0.5)(value, T).mean
    edge = torch.quantile(value.abs(), 0.5).item()  # 1.5
    assert out.max() == 1
    assert out.min() == -1
    assert torch.allclose(out[0, 300 + 75], torch.tensor(0.75 / edge), atol=1e-6)
    quiet = value / 10
    assert torch.equal(dynamic_threshold(constant(quiet), 0.995)(quiet, T).mean, quiet)  # within the range: untouched
    limited = dynamic_threshold(constant(value), 1.0, most=1.0)(value, T).mean
    assert torch.equal(limited, value.clamp(-1, 1))


def test_each_sample_has_its_own_threshold() -> None:
    value = torch.stack([torch.linspace(-3, 3, 101), torch.linspace(-0.5, 0.5, 101)])
    out = dynamic_threshold(constant(value), 0.9)(value, T).mean
    assert torch.equal(out[1], value[1])
    assert not torch.equal(out[0], value[0])
