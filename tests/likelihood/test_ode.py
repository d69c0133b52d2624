"""Laws of the exact likelihood: densities known in closed form, on every kind of schedule, and the bound above them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.helpers.worlds import Gaussian, Mixture
from unnoise import noise
from unnoise.denoiser import Denoiser, Estimate
from unnoise.errors import UserError
from unnoise.likelihood import log_density, whole_bound
from unnoise.likelihood.bound import chain, large, last
from unnoise.likelihood.ode import Divergence, bits, bits_of, dequantized, exact, hutchinson
from unnoise.schedules import (
    EDM,
    VPSDE,
    Cosine,
    CosineContinuous,
    Flow,
    LinearBeta,
    Schedule,
    SubVP,
    VarianceExploding,
)

SCHEDULES = [LinearBeta(), Cosine(), CosineContinuous(), VPSDE(), SubVP(), Flow(), EDM(), VarianceExploding()]


def density(
    denoiser: Denoiser, x: Tensor, divergence: Divergence = exact, *, begin: float = 1e-5, tol: float = 1e-9
) -> Tensor:
    return log_density(lambda rows: denoiser, x, divergence, begin=begin, rtol=tol, atol=tol).log_prob


def test_the_golden_density() -> None:
    """VP, s = 0.5, m = 0.2, x = 0.9: -1.2076155205; the data's own is -1.2057914, for the prior is not x_T's law."""
    schedule, world = VPSDE(), Gaussian()
    x = torch.tensor([[0.9]], dtype=torch.float64)
    assert density(world.denoiser(schedule), x, tol=1e-11).item() == pytest.approx(-1.2076155205, abs=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
def test_a_gaussian_has_its_closed_form_on_every_schedule(schedule: Schedule) -> None:
    """The change of variables of the exact flow: log N(z_T; 0, prior) + log |dz_T / dx|, three numbers a row."""
    world, begin = Gaussian(), 1e-3
    x = world.draw((4, 3), torch.Generator().manual_seed(0))
    at, end = schedule.at(begin), schedule.at(1.0)
    z = world.flow(x, at, end)
    prior = end.alpha**2 + end.sigma**2
    stretch = (world.variance(end) / world.variance(at)).log() / 2
    expected = (-(z.square() / prior + (2 * math.pi * prior).log()) / 2 + stretch).sum(1)
    found = density(world.denoiser(schedule), x, begin=begin)
    assert torch.allclose(found, expected, atol=2e-7, rtol=0)


@pytest.mark.parametrize("schedule", [CosineContinuous(), Flow()], ids=["cosine", "flow"])
def test_a_mixture_has_its_density(schedule: Schedule) -> None:
    """Three modes: where x_T is the prior's, the flow's density is that of the data with the noise of `begin`."""
    world, begin = Mixture(), 1e-3
    x = torch.tensor([[-1.0, 0.4], [0.2, -0.1], [1.2, 0.1], [0.3, -1.0]], dtype=torch.float64)
    at = schedule.at(begin)
    variance = at.alpha**2 * world.std**2 + at.sigma**2
    distance = (x[:, None] - at.alpha * torch.tensor(world.means, dtype=x.dtype)).square().sum(-1)
    logs = torch.tensor(world.weights, dtype=x.dtype).log() - distance / (2 * variance)
    expected = torch.logsumexp(logs, 1) - (2 * math.pi * variance).log()
    found = density(world.denoiser(schedule), x, begin=begin, tol=1e-7)
    assert torch.allclose(found, expected, atol=1e-5, rtol=0)


def test_probes_are_right_on_average_and_exact_for_separate_numbers() -> None:
    """Signs see the diagonal exactly where numbers do not mix; elsewhere all signs together give the trace."""
    schedule, world = CosineContinuous(), Gaussian()
    x = world.draw((3, 4), torch.Generator().manual_seed(2))
    sign = torch.tensor([[1.0, -1, 1, -1]], dtype=torch.float64).repeat(3, 1)
    separate = world.denoiser(schedule)
    assert torch.allclose(density(separate, x, hutchinson(sign), tol=1e-6), density(separate, x, tol=1e-6), atol=1e-8)
    mixed = Mixture().denoiser(schedule)
    y = torch.tensor([[0.2, -0.1]], dtype=torch.float64)
    level = schedule.at(0.4)

    def field(y: Tensor) -> Tensor:
        return Mixture().denoise(y, level)

    each = [
        hutchinson(torch.tensor([[a, b]]).double())(field, y, torch.tensor([0]))[1] for a in (1, -1) for b in (1, -1)
    ]
    whole = exact(field, y, torch.tensor([0]))[1]
    assert not torch.allclose(each[0], whole)
    assert torch.allclose(torch.stack(each).mean(0), whole, rtol=1e-12)
    assert torch.isfinite(density(mixed, y, hutchinson(sign[:1, :2]), tol=1e-5)).all()


def test_errors_follow_the_tolerance() -> None:
    world, schedule = Mixture(), CosineContinuous()
    x = torch.tensor([[-1.0, 0.4], [0.2, -0.1]], dtype=torch.float64)
    true = density(world.denoiser(schedule), x, tol=1e-9)
    off = [(density(world.denoiser(schedule), x, tol=tol) - true).abs().max().item() for tol in (1e-3, 1e-5, 1e-7)]
    assert off[0] < 1e-1
    assert off[1] < 1e-3
    assert off[2] < 1e-5


def test_a_row_does_not_depend_on_its_batch() -> None:
    world, schedule = Mixture(), Cosine(steps=50)
    x = torch.tensor([[-1.0, 0.4], [0.2, -0.1], [3.0, 3.0]], dtype=torch.float64)
    together = log_density(lambda rows: world.denoiser(schedule), x, exact)
    for row in range(3):
        alone = log_density(lambda rows: world.denoiser(schedule), x[row : row + 1], exact)
        assert alone.log_prob.item() == pytest.approx(together.log_prob[row].item(), abs=1e-12)
        assert alone.evaluations.item() == together.evaluations[row].item()
    assert len(set(together.evaluations.tolist())) > 1


def test_rows_have_the_conditions_of_their_pictures() -> None:
    """Rows that are finished leave the batch; the others still have their own class."""
    schedule = CosineContinuous()
    means = torch.tensor([-0.5, 0.0, 0.7], dtype=torch.float64)
    stds = (0.1, 1.0, 0.4)

    def given(rows: Tensor) -> Denoiser:
        def estimate(x_t: Tensor, t: Tensor) -> Estimate:
            each = [
                Gaussian(means[row].item(), stds[row]).denoise(x_t[i : i + 1], schedule(t[i : i + 1]))
                for i, row in enumerate(rows.tolist())
            ]
            return Estimate(torch.cat(each))

        return Denoiser(schedule, estimate)

    x = means[:, None] + 0.05
    found = log_density(given, x, exact, rtol=1e-8, atol=1e-8)
    for row, std in enumerate(stds):
        normal = torch.distributions.Normal(means[row], std).log_prob(x[row, 0])
        assert found.log_prob[row].item() == pytest.approx(normal.item(), abs=1e-5)


def test_the_end_is_where_the_flow_ends() -> None:
    world, schedule = Gaussian(), Flow()
    x = world.draw((5, 2), torch.Generator().manual_seed(3))
    found = log_density(lambda rows: world.denoiser(schedule), x, exact, rtol=1e-9, atol=1e-9)
    assert torch.allclose(found.end, world.flow(x, schedule.at(1e-5), schedule.at(1.0)), atol=1e-7)


def test_grey_levels_and_their_bits() -> None:
    """256 equal cells fill [-1, 1]; a uniform density on them costs 8 bits, one on half of them 7."""
    greys = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    low, high = dequantized(greys, torch.zeros(256)), dequantized(greys, torch.ones(256))
    assert low[0] == -1
    assert high[-1] == 1
    assert torch.allclose(low[1:], high[:-1], atol=1e-12)
    assert bits_of(torch.tensor([-math.log(2) * 10]), 10).item() == pytest.approx(8)
    assert bits_of(torch.tensor([0.0]), 10).item() == 7


def test_repeats_are_dequantised_anew_and_belong_to_the_picture() -> None:
    world, schedule = Gaussian(0.0, 0.4), CosineContinuous()
    x = torch.randint(60, 200, (3, 1, 2, 2), generator=torch.Generator().manual_seed(0)).double() / 127.5 - 1

    def run(x: Tensor, batch: int) -> dict[tuple[int, int], float]:
        found = bits(lambda rows: world.denoiser(schedule), x, repeats=2, trace=True, batch=batch)
        return {
            (row, part.repeat): value for part in found for row, value in zip(part.row.tolist(), part.bits.tolist())
        }

    whole = run(x, 3)
    assert set(whole) == {(row, repeat) for row in range(3) for repeat in range(2)}
    assert run(x, 2) == pytest.approx(whole, abs=1e-10)
    (part,) = bits(lambda rows: world.denoiser(schedule), x[1:], first=1, trace=True)  # a process's share of them
    assert part.bits.tolist() == pytest.approx([whole[1, 0], whole[2, 0]], abs=1e-10)
    assert whole[0, 0] != whole[0, 1]
    # by hand: the density of N(0, 0.4^2) anywhere in the four cells
    cells = torch.stack([dequantized(x[0], torch.full_like(x[0], u)) for u in torch.linspace(0, 1, 11).tolist()])
    each = bits_of(torch.distributions.Normal(0.0, 0.4).log_prob(cells.double()).flatten(1), 1)
    assert each.min(0).values.mean() - 1e-3 < whole[0, 0] < each.max(0).values.mean() + 1e-3


def test_a_picture_has_its_own_dequantisation_and_a_probe_that_does_not_know_it() -> None:
    """Both are drawn by (seed, place, repeat) and their own name: a seed's figures are what they were."""
    world, schedule, tol = Mixture(), CosineContinuous(), 1e-7
    x = (torch.tensor([[0.2, -0.1], [-0.8, 0.4]]).double() * 127.5).round() / 127.5
    for seed in (0, 5):
        for part in bits(lambda rows: world.denoiser(schedule), x, seed=seed, repeats=2, rtol=tol, atol=tol):
            for row in range(2):
                key = (seed, row, part.repeat)
                u, chance = (noise.uniform((2,), *key, name)[None] for name in ("dequantise", "probe"))
                probe = torch.where(chance < 0.5, -1.0, 1.0).double()
                y = dequantized(x[row : row + 1], u)
                found = bits_of(density(world.denoiser(schedule), y, hutchinson(probe), tol=tol), 2)
                assert part.bits[row].item() == pytest.approx(found.item(), abs=1e-9)


def test_the_volume_is_held_to_the_tolerance_too() -> None:
    """In the middle of a Gaussian nothing moves: only the volume says how long a step may be."""
    schedule, world, begin = CosineContinuous(), Gaussian(0.0, 0.05), 1e-3
    at, end = schedule.at(begin), schedule.at(1.0)
    stretch = (world.variance(end) / world.variance(at)).log() / 2
    expected = 3 * (stretch - math.log(2 * math.pi) / 2).item()
    for tol in (1e-4, 1e-7):
        found = density(world.denoiser(schedule), torch.zeros(1, 3).double(), begin=begin, tol=tol)
        assert found.item() == pytest.approx(expected, abs=100 * tol)


def test_the_bound_is_above_the_exact_bits() -> None:
    """A mixture drawn from: -log p of the flow, and above it the bound of 10, 30 and 100 steps, which comes down."""
    world, schedule = Mixture(std=0.3), CosineContinuous()
    generator = torch.Generator().manual_seed(0)
    picked = torch.multinomial(torch.tensor(world.weights), 200, True, generator=generator)
    x = torch.tensor(world.means, dtype=torch.float64)[picked]
    x = x + world.std * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    denoiser = world.denoiser(schedule)
    exactly = -density(denoiser, x, tol=1e-5) / (2 * math.log(2))

    def continuous(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        return -((x - mean).square() * torch.exp(-log_variance) + log_variance + math.log(2 * math.pi)) / 2

    steady = torch.Generator().manual_seed(1)
    gaps = []
    for length in (10, 30, 100):
        found = last(
            whole_bound(
                lambda rows: denoiser,
                x.repeat(40, 1),
                chain(schedule, torch.linspace(1, 0, length + 1, dtype=torch.float64)),
                lambda rows, t: torch.randn(len(rows), 2, generator=steady, dtype=torch.float64),
                variance=large,
                decoder=continuous,
                clip=False,
                batch=50_000,
            )
        )
        gap = (found.total.reshape(40, -1) - exactly).mean(1)
        assert gap.mean() > 4 * gap.std() / math.sqrt(40)
        gaps.append(gap.mean().item())
    assert gaps[0] > gaps[1] > gaps[2]


def test_a_flow_that_cannot_be_solved_says_so() -> None:
    broken = Denoiser(Flow(), lambda x_t, t: Estimate(x_t * math.nan))
    with pytest.raises(UserError, match="rtol and atol"):
        log_density(lambda rows: broken, torch.zeros(1, 2), exact, most=100)
