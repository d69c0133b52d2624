"""The kernel distance against explicit sums, its expectation, its standard deviation, and torchmetrics."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unnoise.metrics.kernel import kernel, kernel_of_subsets


def draws(n: int, dim: int, seed: int) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_two_and_three_points_by_hand() -> None:
    """x = {0, 1}, y = {1, 2, -1} in one dimension: k(a, b) = (ab + 1)^3.

    within x: k(0,1) = 1.  within y: k(1,2) = 27, k(1,-1) = 0, k(2,-1) = -1, mean 26/3.
    across: k(0,.) = 1 thrice; k(1,.) = 8, 27, 0: mean 38/6.
    """
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0], [-1.0]])
    assert kernel(x, y).value == pytest.approx(1 + 26 / 3 - 2 * 38 / 6, rel=1e-12)


def test_width_divides_the_product() -> None:
    """A feature repeated four times changes nothing: x . y / D is a mean."""
    x, y = draws(20, 3, 0), draws(30, 3, 1) + 1
    assert kernel(x.repeat(1, 4), y.repeat(1, 4)).value == pytest.approx(kernel(x, y).value, rel=1e-12)


def test_chunks_order_and_rotation_change_nothing() -> None:
    x, y = draws(50, 4, 2), draws(70, 4, 3) * 1.5
    whole = kernel(x, y)
    q = torch.linalg.qr(draws(4, 4, 4)).Q
    for other in (kernel(x, y, chunk=7), kernel(x.flip(0), y.flip(0)), kernel(x @ q, y @ q), kernel(y, x)):
        assert other.value == pytest.approx(whole.value, rel=1e-9)
        assert other.error == pytest.approx(whole.error, rel=1e-9)


def test_zero_on_average_where_the_distributions_are_equal_and_the_error_bounds_the_spread() -> None:
    found = [kernel(draws(60, 4, 1000 + s), draws(40, 4, 5000 + s)) for s in range(300)]
    values = torch.tensor([k.value for k in found])
    errors = torch.tensor([k.error for k in found])
    assert abs(float(values.mean())) < 3 * float(values.std()) / 300**0.5
    assert float((values < 0).double().mean()) > 0.3
    assert 0.9 < float(errors.square().mean().sqrt() / values.std()) < 1.6


def test_known_value_and_error_of_a_shifted_gaussian() -> None:
    """In one dimension E k(x, y) = 1 + 3 E[x]E[y] + 3 E[x^2]E[y^2] + E[x^3]E[y^3] for independent x, y, so that
    MMD^2 = 3 dm1^2 + 3 dm2^2 + dm3^2; N(0, 1) against N(1, 1) has moments 0, 1, 0 against 1, 2, 4: 3 + 3 + 16."""
    found = [kernel(draws(400, 1, 2000 + s), draws(300, 1, 7000 + s) + 1) for s in range(200)]
    values = torch.tensor([k.value for k in found])
    assert float(values.mean()) == pytest.approx(22, abs=4 * float(values.std()) / 200**0.5)
    errors = torch.tensor([k.error for k in found])
    assert 0.8 < float(errors.square().mean().sqrt() / values.std()) < 1.2


def test_subsets_average_to_the_whole() -> None:
    x, y = draws(400, 3, 11), draws(300, 3, 12) + 0.5
    parts = kernel_of_subsets(x, y, subsets=400, size=100, generator=torch.Generator().manual_seed(0))
    assert parts.spread is not None
    assert parts.error == pytest.approx(parts.spread / 20)
    assert parts.value == pytest.approx(kernel(x, y).value, abs=4 * parts.error)
    again = kernel_of_subsets(x, y, subsets=400, size=100, generator=torch.Generator().manual_seed(0))
    assert again == parts


def test_features_that_cannot_be_compared_are_an_error() -> None:
    x = draws(10, 3, 0)
    with pytest.raises(ValueError, match="3 and 2"):
        kernel(x, draws(10, 2, 0))
    with pytest.raises(ValueError, match="at least 2"):
        kernel(x, x[:1])
    with pytest.raises(ValueError, match="at least 11"):
        kernel_of_subsets(x, x, size=11, generator=torch.Generator())


def test_torchmetrics_computes_the_same() -> None:
    kid = pytest.importorskip("torchmetrics.image.kid")
    x, y = draws(500, 16, 21), draws(500, 16, 22) * 1.2 + 0.3
    assert kernel(x, y).value == pytest.approx(float(kid.poly_mmd(x, y)), rel=1e-4)
    reference = kid.KernelInceptionDistance(feature=torch.nn.Flatten(), subsets=6, subset_size=100)
    reference.set_dtype(torch.float64)
    reference.update(x.view(-1, 1, 4, 4), real=True)
    reference.update(y.view(-1, 1, 4, 4), real=False)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        mean, spread = (float(v) for v in reference.compute())
    ours = kernel_of_subsets(x, y, subsets=6, size=100, generator=torch.Generator().manual_seed(3))  # the same draws
    assert ours.value == pytest.approx(mean, rel=1e-4)
    assert ours.spread == pytest.approx(spread, rel=1e-4)
