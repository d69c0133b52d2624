"""Tiles: one is the plain result, and many are it too where a function sees nearby pixels only."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from unnoise.codec import Latents
from unnoise.config.autoencoders import TinyConfig
from unnoise.config.cards import LatentsConfig
from unnoise.nn import build_autoencoder
from unnoise.noise import normal
from unnoise.tiling import Tiles, spread, tiled, weights

SIZES = [(8, 8), (17, 23), (9, 40), (33, 5), (32, 15)]  # of latents


@pytest.mark.parametrize("length", [1, 7, 8, 9, 13, 14, 15, 29, 64, 65, 100])
@pytest.mark.parametrize("overlap", [0, 2, 7])
def test_tiles_cover_everything_and_overlap(length: int, overlap: int) -> None:
    starts = spread(length, 8, overlap)
    assert starts[0] == 0
    if length <= 8:
        assert starts == [0]
        return
    assert starts[-1] == length - 8
    steps = [b - a for a, b in pairwise(starts)]
    assert all(0 < step <= 8 - overlap for step in steps)
    assert max(steps) - min(steps) <= 1  # evenly spread


@pytest.mark.parametrize("length", [9, 13, 15, 29, 64, 65])
@pytest.mark.parametrize("scale", [1, 4])
def test_the_weights_sum_to_one_and_change_by_a_ramp(length: int, scale: int) -> None:
    starts, total, sums = spread(length, 8, 3), torch.zeros(scale * length, dtype=torch.float64), []
    for start in starts:
        weight = weights(starts, start, 8, scale)
        assert weight.min() >= 0
        sums.append((start, weight))
        total[scale * start : scale * (start + 8)] += weight
    assert torch.allclose(total, torch.ones_like(total), atol=1e-12)
    (_, first), (second, _) = sums[:2]
    assert torch.equal(first[: scale * second], torch.ones(scale * second, dtype=torch.float64))
    if len(starts) == 2 or starts[2] >= 8:  # of two tiles: from 1 to 0 in the middle half of the overlap
        fall = first[scale * second :]
        share = (torch.arange(len(fall)) + 0.5).double() / len(fall)
        assert torch.allclose(fall, torch.where(share < 0.25, 1.0, torch.where(share > 0.75, 0.0, 1.5 - 2 * share)))


def shuffled(x: Tensor) -> Tensor:
    return pixel_shuffle(x, 2)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("tiles", [Tiles(10, 16, 4), Tiles(10, 10, 2), Tiles(10, 2, 0)], ids=str)
def test_tiles_of_a_pixelwise_function_are_the_whole(size: tuple[int, int], tiles: Tiles) -> None:
    x = normal((2, 8, *size), "x")
    assert torch.allclose(tiled(shuffled, (x,), size, 2, tiles), shuffled(x), atol=1e-6)
    picture, noise = normal((2, 2, 2 * size[0], 2 * size[1]), "picture"), normal((2, 8, *size), "noise")

    def encode(picture: Tensor, noise: Tensor) -> Tensor:
        return pixel_unshuffle(picture, 2) + 2 * noise

    found = tiled(encode, (picture, noise), size, 2, tiles)
    assert torch.allclose(found, encode(picture, noise), atol=1e-5)


def test_one_tile_is_the_plain_result_bit_for_bit_and_more_rows_are_groups() -> None:
    calls: list[tuple[int, ...]] = []

    def apply(x: Tensor) -> Tensor:
        calls.append(tuple(x.shape))
        return shuffled(x).sin()

    x = normal((5, 4, 8, 8), "x")
    assert torch.equal(tiled(apply, (x,), (8, 8), 2, Tiles(whole=2 * 256, side=16)), shuffled(x).sin())
    assert calls == [(2, 4, 8, 8), (2, 4, 8, 8), (1, 4, 8, 8)]  # two pictures of 256 pixels at once
    calls.clear()
    assert torch.equal(tiled(apply, (x,), (8, 8), 2, Tiles(whole=255, side=16)), shuffled(x).sin())
    assert calls == [(1, 4, 8, 8)] * 5


def test_the_largest_call_does_not_grow_with_the_area() -> None:
    largest = []
    for side in (32, 64, 128):
        sizes: list[int] = []

        def apply(x: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(x.numel())
            return shuffled(x)

        tiled(apply, (torch.zeros(2, 4, side, side),), (side, side), 2, Tiles(whole=32 * 32, side=32, overlap=8))
        largest.append(max(sizes))
    assert largest == [4 * 16 * 16] * 3


@pytest.mark.parametrize("size", [(40, 24), (37, 51)], ids=str)
def test_tiles_of_a_network_without_norms_are_the_plain_result(size: tuple[int, int]) -> None:
    """What it sees beyond a tile is within the quarter of the overlap that has no weight."""
    net = build_autoencoder(TinyConfig(width=4, encoder_blocks=(0, 0), decoder_blocks=(0, 0)))
    plain, cut = (
        Latents(net, 4, LatentsConfig(factor=2), tiles=tiles)  # type: ignore[arg-type]
        for tiles in (Tiles(whole=10**9), Tiles(whole=100, side=32, overlap=24))
    )
    x = normal((1, 4, *size), "x")
    with torch.no_grad():
        picture = plain.decode(x)
        assert (cut.decode(x) - picture).abs().max() < 1e-5
        assert (cut.encode(picture) - plain.encode(picture)).abs().max() < 1e-5
