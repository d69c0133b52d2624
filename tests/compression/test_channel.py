"""One Gaussian channel: what is picked has the channel's law, and its number costs about what it should."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from unnoise.compression import channel
from unnoise.noise import normal


def target_of(bits: float, size: int, *key: int | str) -> Tensor:
    """A direction at random, with a divergence of so many bits."""
    direction = normal((size,), "target", *key)
    return direction / direction.norm() * math.sqrt(2 * bits * math.log(2))


def picked(pick: channel.Pick, divergence: float, bits: int, count: int, size: int = 128) -> tuple[Tensor, list[int]]:
    """Products of the picked candidates with the target's direction, less the target's length; and their numbers."""
    along, numbers = [], []
    for k in range(count):
        target = target_of(divergence, size, k)
        index = pick(target, ("law", k), bits)
        z = channel.candidate(index, size, ("law", k), bits)
        along.append((z - target) @ target / target.norm())
        numbers.append(index)
    return torch.stack(along), numbers


def test_a_candidate_is_the_row_that_the_products_are_of() -> None:
    for size in (1, 7, 64):
        target = normal((size,), "t")
        found = channel.products(target, ("k", 3), 8)
        each = torch.stack([channel.candidate(i, size, ("k", 3), 8) for i in range(256)]) @ target
        assert found.shape == (256,)
        assert torch.allclose(found, each, atol=1e-4)


def test_candidates_are_standard_normal_and_nearly_independent() -> None:
    z = torch.stack([channel.candidate(i, 50, ("n", 0), 12) for i in range(4096)]).double()
    assert abs(z.mean().item()) < 4 / math.sqrt(82 * 50)  # 82 vectors of 50 numbers, each shifted 50 times
    assert abs(z.var().item() - 1) < 4 * math.sqrt(2 / (82 * 50))
    found = channel.products(channel.spread(torch.ones(50, dtype=torch.float64), (1,)), ("n", 0), 12)
    assert abs(found.std().item() / math.sqrt(50) - 1) < 0.1
    other = channel.candidate(5, 50, ("n", 1), 12)
    assert not torch.equal(other, channel.candidate(5, 50, ("n", 0), 12))


@pytest.mark.parametrize("size", [1, 2, 9, 784])
def test_spreading_is_orthogonal_and_undone(size: int) -> None:
    x = normal((3, size), "x").double()
    there = channel.spread(x, (4, size))
    assert torch.allclose(channel.gather(there, (4, size)), x, atol=1e-12)
    assert torch.allclose(there @ there.T, x @ x.T, atol=1e-10)


def test_spreading_makes_any_target_look_like_noise() -> None:
    flat = channel.spread(torch.eye(400, dtype=torch.float64)[7] * 20, (0,))
    assert flat.square().max() < 2.1  # all of it was in one number: 400
    smooth = channel.spread(torch.linspace(0, 1, 400, dtype=torch.float64), (0,))
    neighbours = (smooth[1:] @ smooth[:-1]) / smooth.square().sum()
    assert abs(neighbours.item()) < 4 / math.sqrt(400)


def test_a_draw_has_the_mean_and_the_variance_of_the_channel() -> None:
    """2^14 candidates for a divergence of 2 bits: along the target N(|target|, 1), as the channel is."""
    count = 600
    along, _ = picked(channel.draw, 2.0, 14, count)
    assert abs(along.mean().item()) < 4 / math.sqrt(count)
    assert abs(along.var().item() - 1) < 4 * math.sqrt(2 / count)
    assert torch.sort(along).values[count // 10].item() == pytest.approx(-1.28, abs=0.25)


def test_a_draw_is_noise_in_the_other_directions() -> None:
    size, total, squares = 32, torch.zeros(32), torch.zeros(32)
    target = torch.zeros(size)
    target[0] = 1.5
    for k in range(400):
        z = channel.candidate(channel.draw(target, ("o", k), 10), size, ("o", k), 10)
        total, squares = total + z, squares + z.square()
    assert (total[1:].abs() / 400).max() < 4.2 / math.sqrt(400)
    assert (squares[1:] / 400).mean().item() == pytest.approx(1, abs=4 * math.sqrt(2 / 400 / 31))
    assert total[0].item() / 400 == pytest.approx(1.5, abs=4 / math.sqrt(400))


def test_nearest_goes_as_far_as_the_target() -> None:
    near, _ = picked(channel.nearest, 5.0, 12, 200)
    assert near.abs().mean() < 0.02  # many candidates are close to it: no draw's scatter of 1
    far, _ = picked(channel.nearest, 12.0, 12, 200)
    assert -0.65 < far.mean() < -0.35  # as many as the divergence says: the best is a little short, by extreme value
    assert far.std() < 0.35


@pytest.mark.parametrize("bits", [10, 14, 16])
def test_the_law_of_the_numbers_is_a_law(bits: int) -> None:
    for spare in (None, 3.0, 6.0):
        law = channel.law(bits, spare)
        assert len(law) == bits + 1
        assert sum(law) == pytest.approx(1)
        mass = sum(2.0 ** -channel.cost(i, bits, spare) for i in range(2**bits))
        assert mass == pytest.approx(1)
    assert channel.cost(0, bits, None) == pytest.approx(bits)
    assert channel.cost(2**bits - 1, bits, None) == pytest.approx(bits)


def test_octaves_are_counted_from_one() -> None:
    assert [channel.octave(i) for i in (0, 1, 2, 3, 6, 7)] == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 3), (3, 0)]


@pytest.mark.parametrize("divergence", [4.0, 8.0])
def test_the_number_of_a_draw_costs_its_divergence_and_little_more(divergence: float) -> None:
    """Theis & Yosri: the divergence, log2 of it + 1, and a few bits; uniform numbers would cost 6 more, not 3."""
    bits = int(divergence) + 6
    _, numbers = picked(channel.draw, divergence, bits, 300)
    cost = sum(channel.cost(i, bits, 6.0) for i in numbers) / len(numbers)
    assert divergence - 0.5 < cost < divergence + math.log2(divergence + 1) + 1
    histogram = torch.bincount(torch.tensor([channel.octave(i)[0] for i in numbers]), minlength=bits + 1) / 300
    entropy = sum(h * (min(o, bits - 1) - math.log2(h)) for o, h in enumerate(histogram.tolist()) if h)
    assert cost - entropy < 0.5  # what a law fitted to these very numbers would save
