"""Between noises and between pictures."""

from __future__ import annotations

import math

import pytest
import torch

from unnoise.editing import linear, plane, preserving, slerp, strip
from unnoise.noise import normal
from unnoise.schedules import LinearBeta


def test_slerp_keeps_the_length_and_the_angle() -> None:
    a, b = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    third = slerp(a, b, torch.tensor([1 / 3, 0.5]))
    assert torch.allclose(third[0], torch.tensor([math.cos(math.pi / 6), math.sin(math.pi / 6)]))
    assert torch.allclose(third[1], torch.full((2,), 2 * math.sqrt(0.5)))


def test_the_angle_does_not_know_the_lengths() -> None:
    """Of unit length, a third of the way is a third of the angle; a longer end has more of itself in between."""
    theta, k = math.radians(50), torch.tensor([1 / 3])
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[math.cos(theta), math.sin(theta)]])
    third = torch.tensor([[math.cos(theta / 3), math.sin(theta / 3)]])
    assert torch.allclose(slerp(a, b, k), third, atol=1e-6)
    share_of_b = third[0, 1] / math.sin(theta)  # what is not along a
    assert torch.allclose(slerp(a, 4 * b, k), third + 3 * share_of_b * b, atol=1e-5)
    assert torch.allclose(slerp(4 * a, b, k), slerp(b, 4 * a, 1 - k), atol=1e-6)


def test_slerp_has_one_angle_a_sample_not_one_a_batch() -> None:
    a, b = normal((3, 1, 4, 4), "a"), normal((3, 1, 4, 4), "b")
    k = torch.tensor([0.2, 0.5, 0.7])
    rows = torch.cat([slerp(a[i : i + 1], b[i : i + 1], k[i : i + 1]) for i in range(3)])
    assert torch.equal(slerp(a, b, k), rows)


def test_ends_are_the_ends_and_parallel_ones_go_straight() -> None:
    a, b = normal((1, 3, 8, 8), 1), normal((1, 3, 8, 8), 2)
    zero, one, half = torch.zeros(1), torch.ones(1), torch.full((1,), 0.5)
    assert torch.allclose(slerp(a, b, zero), a, atol=1e-6)
    assert torch.allclose(slerp(a, b, one), b, atol=1e-6)
    assert torch.allclose(slerp(a, 3 * a, half), 2 * a, atol=1e-6)
    assert torch.isfinite(slerp(a, -a, half)).all()


def test_from_a_vector_of_zeros_there_is_no_angle() -> None:
    """0 has no direction: the way to it and from it is straight, row by row."""
    b = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 2.0]])
    a = torch.tensor([[0.0, 0.0], [0.0, 0.0], [2.0, 0.0]])
    found = slerp(a, b, torch.tensor([0.25, 0.25, 0.5]))
    expected = torch.tensor([[0.75, 1.0], [0.0, 0.0], [math.sqrt(2), math.sqrt(2)]])
    assert torch.allclose(found, expected)


def test_slerp_keeps_noise_noise_and_a_straight_line_does_not() -> None:
    a, b = normal((1, 3, 64, 64), 1), normal((1, 3, 64, 64), 2)
    half = torch.full((1,), 0.5)
    assert slerp(a, b, half).std().item() == pytest.approx(1, abs=0.02)
    assert linear(a, b, half).std().item() == pytest.approx(0.5**0.5, abs=0.02)


def test_a_mixture_of_noisy_pictures_keeps_its_noise() -> None:
    level = LinearBeta().at(0.5)
    x, y = torch.full((1, 3, 64, 64), -0.5), torch.full((1, 3, 64, 64), 0.7)
    a, b = level.mix(x, normal(x.shape, 1)), level.mix(y, normal(y.shape, 2))
    k = torch.tensor([0.3])
    kept = preserving(level, x, y)(a, b, k)
    alpha, sigma = level.alpha.item(), level.sigma.item()
    assert kept.mean().item() == pytest.approx(alpha * (0.7 * -0.5 + 0.3 * 0.7), abs=0.03)
    assert kept.std().item() == pytest.approx(sigma, rel=0.02)
    assert linear(a, b, k).std().item() == pytest.approx(sigma * math.sqrt(0.7**2 + 0.3**2), rel=0.02)
    for share, end in ((0.0, a), (1.0, b)):
        assert torch.allclose(preserving(level, x, y)(a, b, torch.tensor([share])), end, atol=1e-5)


def test_strips_and_planes() -> None:
    corners = [normal((1, 4, 4), i) for i in range(4)]
    line = strip(corners[0], corners[1], 5)
    assert line.shape == (5, 1, 4, 4)
    assert torch.allclose(line[2], slerp(corners[0][None], corners[1][None], torch.tensor([0.5]))[0], atol=1e-6)
    sheet = plane(corners, 3, 5)
    assert sheet.shape == (15, 1, 4, 4)
    for place, corner in zip((0, 4, 10, 14), corners, strict=True):
        assert torch.allclose(sheet[place], corner, atol=1e-5)
    middle = slerp(
        slerp(corners[0][None], corners[2][None], torch.tensor([0.5])),
        slerp(corners[1][None], corners[3][None], torch.tensor([0.5])),
        torch.tensor([0.25]),
    )
    assert torch.allclose(sheet[6], middle[0], atol=1e-5)
