"""Pictures joined to x_t: what the network is shown, and that what is known comes out as it went in."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from unnoise.joined import DRAWS, boxes, larger, masked, paste, smaller


def test_a_square_becomes_its_mean_and_the_mean_a_square() -> None:
    x = torch.tensor([[[[0.0, 1.0, 4.0, 4.0], [2.0, 5.0, 8.0, 8.0]]]])
    assert smaller(x, 2).tolist() == [[[[2.0, 6.0]]]]
    assert larger(smaller(x, 2), 2).tolist() == [[[[2.0, 2.0, 6.0, 6.0]] * 2]]


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_smaller_undoes_larger(factor: int) -> None:
    small = torch.randn(2, 3, 4, 5)
    assert (smaller(larger(small, factor), factor) - small).abs().max() < 1e-6
    assert torch.equal(larger(small, factor)[:, :, ::factor, ::factor], small)


def test_the_hole_is_zero_and_says_so() -> None:
    """Nothing of the picture inside; outside all of it; the last channel is the hole."""
    x, hole = torch.randn(2, 3, 4, 4), torch.zeros(2, 1, 4, 4)
    hole[0, :, 1:3, 2:] = 1
    image = masked(x, hole)
    assert image.shape == (2, 4, 4, 4)
    other = torch.where(hole > 0.5, torch.full_like(x, torch.nan), x)
    assert torch.equal(masked(other, hole), image)
    assert image[0, :3, 1:3, 2:].abs().max() == 0
    assert torch.equal(image[1, :3], x[1])
    assert torch.equal(image[:, 3:], hole)
    drawn = torch.randn(2, 3, 4, 4)
    assert torch.equal(paste(drawn, image), torch.where(hole > 0.5, drawn, x))


def test_boxes_of_known_draws() -> None:
    """Of 8 x 4 pixels: heights 2 to 6, widths 1 to 3; the first and the last of each."""
    draws = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.999, 0.999, 0.999, 0.999], [0.5, 0.0, 0.5, 0.999]])
    found = boxes(draws, 8, 4)[:, 0]
    expected = torch.zeros(3, 8, 4)
    expected[0, 0:2, 0:1] = 1
    expected[1, 2:8, 1:4] = 1
    expected[2, 2:6, 3:4] = 1  # height 2 + 2, of 5 places the third
    assert torch.equal(found, expected)
    assert len(DRAWS) == 4


def test_every_box_of_a_size_is_equally_likely() -> None:
    """Of 4 x 4: sides 1, 2 and 3, each a third of the time; places likewise. Within four standard errors."""
    n = 6_000
    found = boxes(torch.rand(n, 4, generator=torch.Generator().manual_seed(0)), 4, 4)[:, 0]
    heights = Counter(found.amax(2).sum(1).int().tolist())
    tops = Counter(box.amax(1).argmax().item() for box in found if box.amax(1).sum() == 2)
    assert set(heights) == {1, 2, 3}
    assert set(tops) == {0, 1, 2}
    for counts in (heights, tops):
        total = sum(counts.values())
        assert all(abs(c - total / 3) < 4 * (total * 2 / 9) ** 0.5 for c in counts.values())
    assert boxes(torch.tensor([[0.999] * 4]), 1, 1).item() == 1
