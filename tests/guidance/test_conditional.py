"""Guidance takes any Conditional: one that changes nothing gives the same bits, one that shifts has a closed form."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from unnoise.conditions import Cond
from unnoise.denoiser import Conditional, Denoiser, Diffusion, Estimate
from unnoise.guidance import autoguidance, chain, classifier_free
from unnoise.noise import Seeds, normal
from unnoise.samplers import ddim, last, walk
from unnoise.samplers.timesteps import even
from unnoise.schedules import Cosine, Schedule

T = torch.tensor(0.4, dtype=torch.float64)
X = normal((3, 5), "x")
COND, SOME, NULL = (Cond(torch.tensor(rows)) for rows in ([0, 1, 2], [5, 6, 7], [3, 3, 3]))
SCALES = [0.0, 0.5, 1.0, 3.0, torch.tensor([0.0, 1.0, 4.0])]


class Labelled(nn.Module):
    """A network whose output depends on its input, the time and the label."""

    def forward(self, x: Tensor, time: Tensor, cond: Cond) -> Tensor:
        assert cond.label is not None
        return torch.sin(x * (cond.label[:, None] + 1.0) + 0.01 * time[:, None])


DIFFUSION = Diffusion(Labelled(), Cosine())


@dataclass(frozen=True)
class Shifted:
    """A Conditional: the mean of another plus slope * label + constant. By default it changes nothing."""

    inside: Conditional
    slope: float = 0.0
    constant: float = 0.0
    bound: list[int] = field(default_factory=list)  # rows of each condition that was bound

    @property
    def schedule(self) -> Schedule:
        return self.inside.schedule

    def given(self, cond: Cond) -> Denoiser:
        assert cond.label is not None
        self.bound.append(len(cond.label))
        denoiser, by = self.inside.given(cond), self.slope * cond.label[:, None] + self.constant
        return Denoiser(self.schedule, lambda x_t, t: Estimate(denoiser(x_t, t).mean + by))


def label(cond: Cond) -> Tensor:
    assert cond.label is not None
    return cond.label[:, None].float()


@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_a_neutral_wrapper_changes_nothing(scale: float | Tensor) -> None:
    """Bit for bit, in one estimate and in a whole walk."""
    plain, wrapped = (classifier_free(c, COND, NULL, scale, rescale=0.3) for c in (DIFFUSION, Shifted(DIFFUSION)))
    assert torch.equal(plain(X, T).mean, wrapped(X, T).mean)
    noise, times = Seeds((1, 2, 3), (5,)), even(DIFFUSION.schedule, 4)
    ends = [last(walk(denoiser, X, times, ddim(), noise)) for denoiser in (plain, wrapped)]
    assert torch.equal(*ends)
    chains = [chain(c, (NULL, SOME, COND), (scale, 2.0))(X, T).mean for c in (DIFFUSION, Shifted(DIFFUSION))]
    assert torch.equal(*chains)


@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_guidance_composes_over_a_wrapper(scale: float | Tensor) -> None:
    """The shifts are guided as the means are: by + scale (by_cond - by_null) is added to the guided estimate."""
    by = 0.7
    plain = classifier_free(DIFFUSION, COND, NULL, scale)(X, T).mean
    shifted = classifier_free(Shifted(DIFFUSION, by), COND, NULL, scale)(X, T).mean
    column = scale[:, None] if isinstance(scale, Tensor) else scale
    added = by * (label(NULL) + column * (label(COND) - label(NULL)))
    assert torch.allclose(shifted, plain + added, atol=1e-5)


def test_a_constant_shift_passes_through_guidance() -> None:
    """The weights of all guidances sum to one, so that a shift of every mean is the shift of the guided one."""
    plain, shifted = DIFFUSION, Shifted(DIFFUSION, constant=0.7)
    for scale in SCALES:
        means = [classifier_free(each, COND, NULL, scale)(X, T).mean for each in (plain, shifted)]
        assert torch.allclose(means[1], means[0] + 0.7, atol=1e-5)
    means = [chain(each, (NULL, SOME, COND), (1.5, 7.0))(X, T).mean for each in (plain, shifted)]
    assert torch.allclose(means[1], means[0] + 0.7, atol=1e-5)


def test_a_chain_composes_over_a_wrapper() -> None:
    plain = chain(DIFFUSION, (NULL, SOME, COND), (1.5, 7.0))(X, T).mean
    shifted = chain(Shifted(DIFFUSION, 0.1), (NULL, SOME, COND), (1.5, 7.0))(X, T).mean
    null, some, cond = map(label, (NULL, SOME, COND))
    assert torch.allclose(shifted, plain + 0.1 * (null + 1.5 * (some - null) + 7 * (cond - some)), atol=1e-4)


def test_autoguidance_composes_over_a_wrapper() -> None:
    """It takes denoisers, whose conditions are bound: those of two Conditionals."""
    good, poor = DIFFUSION.given(COND), Shifted(DIFFUSION, 0.7).given(COND)
    found = autoguidance(good, poor, 3.0)(X, T).mean
    assert torch.allclose(found, good(X, T).mean - 2 * 0.7 * label(COND), atol=1e-5)


def test_all_conditions_of_a_guidance_are_bound_once_and_together() -> None:
    wrapped = Shifted(DIFFUSION)
    guided = classifier_free(wrapped, COND, NULL, 2.0)
    guided(X, T)
    guided(X, T)
    classifier_free(wrapped, COND, NULL, 1.0)(X, T)
    assert wrapped.bound == [6, 3]
