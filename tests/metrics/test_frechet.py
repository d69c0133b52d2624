"""The Frechet distance against Gaussians whose moments are known, its own invariances, and torchmetrics."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from unnoise.metrics import frechet as f


def draws(n: int, dim: int, seed: int, scale: float = 1.0) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def exact(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def rotation(dim: int, seed: int) -> Tensor:
    return torch.linalg.qr(draws(dim, dim, seed)).Q


def test_gaussians_on_the_same_axes() -> None:
    """Where covariances commute the distance is |m_a - m_b|^2 + sum (s_a - s_b)^2, in any rotation."""
    mean_a, mean_b = exact(1, 0, -2), exact(0.5, 3, -2)
    std_a, std_b = exact(1, 2, 0.1), exact(3, 2, 0.4)
    expected = (0.25 + 9 + 0) + (4 + 0 + 0.09)
    turn = rotation(3, 0)
    for q in (torch.eye(3).double(), turn):
        a = f.gaussian(q @ mean_a, q @ torch.diag(std_a**2) @ q.T, n=10)
        b = f.gaussian(q @ mean_b, q @ torch.diag(std_b**2) @ q.T, n=77)
        assert f.frechet(a, b) == pytest.approx(expected, rel=1e-12)
        assert f.frechet(b, a) == pytest.approx(expected, rel=1e-12)


def test_gaussians_on_different_axes() -> None:
    """In two dimensions tr sqrt(AB) = sqrt(tr(AB) + 2 sqrt(det(AB))), whether or not A and B commute."""
    a = exact(2, 0.7, 0.7, 1).view(2, 2)
    b = exact(1, -0.9, -0.9, 4).view(2, 2)
    zero = exact(0, 0)
    product = a @ b
    overlap = math.sqrt(product.trace() + 2 * math.sqrt(torch.linalg.det(product)))
    expected = float(a.trace() + b.trace()) - 2 * overlap
    assert f.frechet(f.gaussian(zero, a, n=5), f.gaussian(zero, b, n=5)) == pytest.approx(expected, rel=1e-12)


def test_singular_covariances_stay_exact() -> None:
    """Twenty samples in fifty dimensions: the set is at distance zero from itself, and a shift costs its square."""
    x = draws(20, 50, 1)
    total = float(f.moments(x).cov.trace())
    assert f.frechet(f.moments(x), f.moments(x)) <= 1e-11 * total
    assert f.frechet(f.moments(x), f.moments(x + 0.1)) == pytest.approx(50 * 0.01, rel=1e-9)
    assert f.frechet(f.moments(x), f.moments(x[:1].repeat(9, 1))) == pytest.approx(
        total + float((x.mean(0) - x[0]).square().sum()), rel=1e-9
    )


def test_symmetry_rotation_shift_and_scale() -> None:
    x, y = draws(300, 8, 2), draws(200, 8, 3) * 2 + 1
    d = f.frechet(f.moments(x), f.moments(y))
    q = rotation(8, 4)
    assert f.frechet(f.moments(y), f.moments(x)) == pytest.approx(d, rel=1e-10)
    assert f.frechet(f.moments(x @ q + 5), f.moments(y @ q + 5)) == pytest.approx(d, rel=1e-10)
    assert f.frechet(f.moments(3 * x), f.moments(3 * y)) == pytest.approx(9 * d, rel=1e-10)


def test_merged_parts_equal_the_whole() -> None:
    x = draws(100, 5, 5) + 1000  # far from zero: sums of squares would lose ten digits
    whole = f.moments(x)
    merged = f.no_moments(5)
    for part in x.split([1, 0, 40, 59]):
        merged = merged + f.moments(part)
    assert merged.n == 100
    torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-14, atol=0)
    torch.testing.assert_close(merged.cov, whole.cov, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(whole.cov, torch.cov(x.T), rtol=1e-10, atol=1e-12)
    backwards = f.moments(x[60:]) + f.moments(x[:60])
    torch.testing.assert_close(backwards.scatter, whole.scatter, rtol=1e-10, atol=1e-10)
    both_empty = f.no_moments(5) + f.no_moments(5)
    assert both_empty.n == 0


def test_the_bias_is_that_of_theory_and_extrapolation_removes_it() -> None:
    """Second-order expansion of the distance at equal unit Gaussians: (D + D (D + 1) / 4) / n."""
    dim, n, times = 8, 400, 60
    truth = f.gaussian(torch.zeros(dim), torch.eye(dim), n=10**9)
    plain, limit, slopes = [], [], []
    for seed in range(times):
        x = draws(n, dim, 100 + seed)
        plain.append(f.frechet(truth, f.moments(x)))
        line = f.extrapolated(truth, x, generator=torch.Generator().manual_seed(seed))
        assert line.sizes[-1] == n
        assert line.sizes[0] == n // 5
        assert line.values[-1] == pytest.approx(plain[-1], rel=1e-9)
        limit.append(line.value)
        slopes.append(line.slope)
    slope = dim + dim * (dim + 1) / 4
    mean, error = _mean(plain)
    assert mean == pytest.approx(slope / n, abs=4 * error + 0.05 * slope / n)
    assert _mean(slopes)[0] == pytest.approx(slope, rel=0.2)
    mean, error = _mean(limit)
    assert abs(mean) < 3 * error + 0.05 * slope / n
    assert mean < 0.2 * _mean(plain)[0]


def test_extrapolation_of_a_real_difference() -> None:
    truth = f.gaussian(torch.zeros(6), torch.eye(6), n=10**9)
    values = [
        f.extrapolated(truth, draws(300, 6, 300 + s, scale=1.5) + 1, generator=torch.Generator().manual_seed(s)).value
        for s in range(40)
    ]
    mean, error = _mean(values)
    assert mean == pytest.approx(6 * (1 + 0.25), abs=4 * error)
    assert error < 0.1


def _mean(values: list[float]) -> tuple[float, float]:
    x = torch.tensor(values).double()
    return float(x.mean()), float(x.std() / len(x) ** 0.5)


def test_small_sets_have_a_warning() -> None:
    assert f.too_few(1280, 128) is None
    assert "1,280" in str(f.too_few(1279, 128))
    assert "singular" not in str(f.too_few(129, 128))
    assert "singular" in str(f.too_few(128, 128))


def test_features_that_cannot_be_compared_are_an_error() -> None:
    x = draws(10, 3, 0)
    with pytest.raises(ValueError, match="3 and 4"):
        f.frechet(f.moments(x), f.moments(draws(10, 4, 0)))
    with pytest.raises(ValueError, match="at least 2"):
        f.frechet(f.moments(x), f.moments(x[:1]))
    with pytest.raises(ValueError, match="not finite"):
        f.frechet(f.moments(x), f.moments(x / 0))
    with pytest.raises(ValueError, match="at least 10"):
        f.extrapolated(f.moments(x), x[:9], generator=torch.Generator())


def test_torchmetrics_computes_the_same() -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")

    class Given(nn.Module):
        num_features = 16

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)

    x = (draws(700, 16, 7) @ draws(16, 16, 8)).float()
    y = (draws(900, 16, 9) @ draws(16, 16, 10) + 0.5).float()
    reference = fid.FrechetInceptionDistance(feature=Given())
    for part in x.split(100):
        reference.update(part.view(-1, 1, 4, 4), real=True)
    reference.update(y.view(-1, 1, 4, 4), real=False)
    assert f.frechet(f.moments(x), f.moments(y)) == pytest.approx(float(reference.compute()), rel=1e-4)
