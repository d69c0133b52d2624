"""Precision, recall, density and coverage of point sets whose values can be counted, and their expectations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from unnoise.metrics.precision_recall import density_coverage, expected_coverage, precision_recall


def line(*at: float) -> Tensor:
    return torch.tensor(at)[:, None]


def draws(n: int, dim: int, seed: int) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_counted_on_a_line() -> None:
    """Real 0 1 2 10, k = 1: radii 1 1 1 8, balls [-1, 1] [0, 2] [1, 3] [2, 18].
    Generated 0.5 2.5 3 -1.5 40: in 2, 2, 2, 0, 0 balls. Their radii: 2 .5 .5 2 37, balls [-1.5, 2.5] [2, 3] [2.5, 3.5]
    [-3.5, .5] [3, 77]: all four real ones are inside.
    """
    real, generated = line(0, 1, 2, 10), line(0.5, 2.5, 3, -1.5, 40)
    found = precision_recall(real, generated, k=1)
    assert found.precision == pytest.approx(3 / 5)
    assert found.recall == 1.0
    assert precision_recall(generated, real, k=1) == (found.recall, found.precision)
    held = density_coverage(real, generated, k=1)
    assert held.density == pytest.approx(6 / 5)
    assert held.coverage == 1.0
    assert density_coverage(real, line(0.5, 0.5), k=1).coverage == pytest.approx(2 / 4)


def test_second_neighbour_and_the_edge() -> None:
    """Real 0 1 3 7, k = 2: radii 3 2 3 6, balls [-3, 3] [-1, 3] [0, 6] [1, 13]: the edges belong to the balls."""
    real = line(0, 1, 3, 7)
    generated = line(-3, -3.0001, 13, 13.0001, 3)
    assert precision_recall(real, generated, k=2).precision == pytest.approx(3 / 5)
    held = density_coverage(real, generated, k=2)
    assert held.density == pytest.approx((1 + 0 + 1 + 0 + 4) / (2 * 5))
    assert held.coverage == 1.0
    assert density_coverage(real, line(-2.0, -2, -2), k=2).coverage == pytest.approx(1 / 4)


def test_copies_and_distant_sets() -> None:
    x = draws(50, 4, 0)
    assert precision_recall(x, x) == (1.0, 1.0)
    assert density_coverage(x, x).coverage == 1.0
    assert precision_recall(x, x + 1000) == (0.0, 0.0)
    assert density_coverage(x, x + 1000) == (0.0, 0.0)


def counted(real: Tensor, generated: Tensor, k: int) -> list[float]:
    """Precision, recall, density and coverage of integers (n, D), by their definitions and without rounding."""

    def squares(x: Tensor, y: Tensor) -> Tensor:
        return (x[:, None] - y).square().sum(2)

    def radius(x: Tensor) -> Tensor:
        return squares(x, x).sort(1).values[:, k]  # the first is the sample itself

    held = squares(real, generated) <= radius(real)[:, None]
    covered = squares(real, generated) <= radius(generated)
    within = int(held.any(0).sum()) / len(generated), int(covered.any(1).sum()) / len(real)
    return [*within, int(held.sum()) / (k * len(generated)), int(held.any(1).sum()) / len(real)]


@pytest.mark.parametrize("copies", [0, 9, 40])
@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("dim", [2, 64])
def test_ties_and_copies_are_counted_as_in_exact_arithmetic(dim: int, k: int, copies: int) -> None:
    """On a lattice most balls have samples on their edges, and among `copies` equal samples the radius is 0. Far from
    the origin, and scaled by a number that is no power of two, the rounding is not that of the lattice."""
    chance = torch.Generator().manual_seed(dim + k + copies)
    real = torch.randint(0, 4, (60, dim), generator=chance)
    generated = torch.randint(0, 4, (50, dim), generator=chance)
    if copies:
        real[:copies], generated[: copies // 2] = real[0].clone(), real[0].clone()
        generated[copies // 2 : copies] = real[copies : copies + 1]
    expected = counted(real, generated, k)
    for scale, shift in ((1.0, 0.0), (0.1, 3.7), (1 / 3, -1000.1)):
        x, y = (scale * each.double() + shift for each in (real, generated))
        found = [*precision_recall(x, y, k=k, chunk=17), *density_coverage(x, y, k=k, chunk=17)]
        assert found == pytest.approx(expected, abs=1e-12)


def test_a_set_of_copies_is_covered_by_its_copies() -> None:
    """Real samples of which each stands eight times, as float32 features, against themselves: all of both is inside."""
    real = draws(25, 32, 8).float().repeat(8, 1)
    assert precision_recall(real, real.flip(0)) == (1.0, 1.0)
    assert density_coverage(real, real.flip(0)) == (8 / 5, 1.0)


def test_half_of_the_clusters_is_generated() -> None:
    """Two distant clusters, one of them generated: precision 1, recall 1/2."""
    real = torch.cat([draws(200, 2, 1), draws(200, 2, 2) + 100])
    generated = draws(200, 2, 1) + 1e-9
    assert precision_recall(real, generated).precision == 1.0
    assert precision_recall(real, generated).recall == pytest.approx(0.5)
    assert density_coverage(real, generated).coverage == pytest.approx(0.5)


def test_an_outlier_raises_precision_but_not_density() -> None:
    """One far sample among the real ones has a huge ball (Naeem et al., fig. 1)."""
    real = torch.cat([draws(200, 2, 3), torch.tensor([[50.0, 50.0]])])
    generated = draws(200, 2, 4) + 25
    assert precision_recall(real, generated).precision > 0.9
    assert density_coverage(real, generated).density == pytest.approx(0.2, abs=0.05)  # one ball of five
    assert density_coverage(real, generated).coverage < 0.02


@pytest.mark.parametrize(("n", "m", "k"), [(80, 80, 3), (60, 120, 5), (100, 30, 2)])
def test_expectations_for_equal_distributions(n: int, m: int, k: int) -> None:
    """Naeem et al. 2020, sec. 3.3: density 1, coverage 1 - prod_{i=1..k} (n - i) / (n + m - i), in any space."""
    found = [density_coverage(draws(n, 3, 100 + s), draws(m, 3, 900 + s), k=k) for s in range(150)]
    coverage = 1 - math.prod((n - i) / (n + m - i) for i in range(1, k + 1))
    assert expected_coverage(n, m, k=k) == pytest.approx(coverage)
    for values, expected in (([d.density for d in found], 1.0), ([d.coverage for d in found], coverage)):
        x = torch.tensor(values)
        assert float(x.mean()) == pytest.approx(expected, abs=3.5 * float(x.std()) / 150**0.5)


def test_chunks_rotation_and_scale_change_nothing() -> None:
    x, y = draws(90, 5, 5), draws(70, 5, 6) * 0.8
    q = torch.linalg.qr(draws(5, 5, 7)).Q
    for measure in (precision_recall, density_coverage):
        whole = measure(x, y)
        assert min(whole) > 0
        assert measure(x, y, chunk=13) == pytest.approx(whole)
        assert measure(3 * x @ q + 2, 3 * y @ q + 2) == pytest.approx(whole)


def test_too_few_neighbours_are_an_error() -> None:
    x = draws(3, 2, 0)
    with pytest.raises(ValueError, match="more than 3"):
        precision_recall(x, x, k=3)
    with pytest.raises(ValueError, match="2 and 3"):
        density_coverage(x, draws(9, 3, 0), k=1)
