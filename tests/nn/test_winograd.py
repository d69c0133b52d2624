"""Winograd's method computes the convolution, to rounding, and a sample's bits depend on that sample alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unnoise.nn import winograd
from unnoise.nn.winograd import ERROR, SIDE, convolve, convolve_tiles, fits, form, form_up, laid_back, lay_out

SIDES = [*((side, side) for side in (*range(1, 14), 28, 32)), (1, 9), (6, 3), (5, 14)]


@pytest.fixture
def built() -> None:
    there, why = winograd.compiled()
    assert "computed wrong numbers" not in why, why
    if not there:
        pytest.skip(f"no compiled operation here: {why}")


needs_build = pytest.mark.usefixtures("built")


def draw(shape: tuple[int, ...], outs: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A picture in channels_last, a weight whose outputs have variance one, and a bias."""
    generator = torch.Generator().manual_seed(seed)
    x, bias = torch.randn(shape, generator=generator), torch.randn(outs, generator=generator)
    weight = torch.randn(outs, shape[1], 3, 3, generator=generator) / (9 * shape[1]) ** 0.5
    return x.contiguous(memory_format=torch.channels_last), weight, bias


def truth(x: Tensor, weight: Tensor, bias: Tensor | None, name: str) -> Tensor:
    x = x.double()
    if name == "up":
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return F.conv2d(x, weight.double(), None if bias is None else bias.double(), padding=1)


def errors(y: Tensor, right: Tensor) -> tuple[float, float]:
    """Relative to the rms of what is right: the rms of the error and the largest."""
    rms = right.square().mean().sqrt()
    return ((y - right).square().mean().sqrt() / rms).item(), ((y - right).abs().max() / rms).item()


def within(y: Tensor, right: Tensor, name: str) -> bool:
    return all(error < most for error, most in zip(errors(y, right), ERROR[name]))


@needs_build
@pytest.mark.parametrize("name", ERROR)
@pytest.mark.parametrize("size", SIDES, ids=str)
def test_it_is_the_convolution_at_every_size(name: str, size: tuple[int, int]) -> None:
    x, weight, bias = draw((2, 24, *size), 48)
    y = convolve(x, lay_out(weight), bias, name)
    assert within(y, truth(x, weight, bias, name), name)
    assert y.is_contiguous(memory_format=torch.channels_last)


@needs_build
@pytest.mark.parametrize("name", ERROR)
@pytest.mark.parametrize(("channels", "outs"), [(8, 16), (16, 80), (48, 48), (64, 64), (40, 144), (512, 64)], ids=str)
def test_it_is_the_convolution_for_all_numbers_of_channels(name: str, channels: int, outs: int) -> None:
    """Also where the last chunk of output channels is narrower than the others, and without a bias."""
    for batch in (1, 3, 17):
        x, weight, bias = draw((batch, channels, 9, 10), outs)
        packed = lay_out(weight)
        assert within(convolve(x, packed, bias, name), truth(x, weight, bias, name), name)
        assert within(convolve(x.contiguous(), packed, None, name), truth(x, weight, None, name), name)


@needs_build
@pytest.mark.parametrize("name", ERROR)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_samples_bits_do_not_depend_on_its_batch(name: str, threads: int) -> None:
    x, weight, bias = draw((11, 32, 14, 13), 160)
    packed, before = lay_out(weight), torch.get_num_threads()
    alone = torch.cat([convolve(sample, packed, bias, name) for sample in x.split(1)])
    try:
        torch.set_num_threads(threads)
        assert torch.equal(convolve(x, packed, bias, name), alone)
        assert torch.equal(convolve(x[:1], packed, bias, name), alone[:1]), "few blocks: threads share the channels"
    finally:
        torch.set_num_threads(before)


@needs_build
@pytest.mark.parametrize("name", ERROR)
def test_a_transformed_weight_gives_the_same_bits(name: str) -> None:
    """In one block or many, whose weights are transformed at once where they are small and for each block if large."""
    for batch, channels, outs, side in [(1, 24, 48, 9), (3, 40, 144, 30), (2, 520, 512, 30)]:
        x, weight, bias = draw((batch, channels, side, side), outs)
        packed = lay_out(weight)
        stored = winograd.transform(packed, name)
        assert torch.equal(convolve(x, stored, bias, name), convolve(x, packed, bias, name))


@needs_build
def test_a_weight_is_stored_transformed_for_small_calls_up_to_a_size() -> None:
    _, weight, _ = draw((1, 64, 1, 1), 64)
    packed, one = lay_out(weight), torch.zeros(1, 64, 32, 32)
    layer = winograd.Transformed()
    assert layer.of(packed, one.expand(4, -1, -1, -1), "F4") is packed, "256 tiles"
    stored = layer.of(packed, one, "F4")
    assert stored is not packed
    assert layer.of(packed, one.expand(4, -1, -1, -1), "F4") is stored, "once it is there"
    assert layer.of(packed, one[..., :8, :8], "F2").shape[0] == 16
    large = torch.zeros(40, 9, 320, 16)
    assert winograd.Transformed().of(large, torch.zeros(1, 320, 16, 16), "F4") is large
    assert large.nbytes // 9 * 36 > winograd._STORED


def gradient(x: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    weight = weight.double().requires_grad_()
    (right,) = torch.autograd.grad(F.conv2d(x.double(), weight, padding=1), weight, grad.double())
    return right


@needs_build
@pytest.mark.parametrize("size", SIDES, ids=str)
def test_the_gradient_of_the_weights_at_every_size(size: tuple[int, int]) -> None:
    x, weight, _ = draw((5, 24, *size), 48)
    grad, _, _ = draw((5, 48, *size), 1, seed=1)
    right = gradient(x, grad, weight)
    for given in (grad, grad.contiguous()):
        assert within(winograd.weight_gradient(given, x), right, "F4")


@needs_build
@pytest.mark.parametrize(("channels", "outs"), [(8, 16), (16, 80), (48, 48), (40, 144), (264, 16)], ids=str)
def test_the_gradient_of_the_weights_for_all_numbers_of_channels_and_threads(channels: int, outs: int) -> None:
    for batch in (1, 3, 17):  # one block of tiles, and several with a shorter last one
        x, weight, _ = draw((batch, channels, 14, 15), outs)
        grad, _, _ = draw((batch, outs, 14, 15), 1, seed=1)
        got = winograd.weight_gradient(grad, x)
        assert within(got, gradient(x, grad, weight), "F4")
        before = torch.get_num_threads()
        try:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                assert torch.equal(winograd.weight_gradient(grad, x), got)
        finally:
            torch.set_num_threads(before)


@needs_build
@pytest.mark.parametrize("name", ERROR)
def test_a_list_of_tiles_is_those_tiles_of_the_whole_and_nothing_else(name: str) -> None:
    x, weight, bias = draw((3, 16, 11, 9), 32)
    packed, side, scale = lay_out(weight), SIDE[name], 2 if name == "up" else 1
    whole = convolve(x, packed, bias, name)
    down, across = -(-11 * scale // side), -(-9 * scale // side)
    every = torch.randperm(3 * down * across, generator=torch.Generator().manual_seed(0))
    for count in (0, 1, 5, len(every) // 2, len(every)):
        at = every[:count]
        marked = torch.zeros(len(every)).scatter_(0, at, 1.0).view(3, 1, down, across)
        inside = marked.repeat_interleave(side, 2).repeat_interleave(side, 3)[:, :, : 11 * scale, : 9 * scale] > 0
        y = torch.full_like(whole, 7.0)
        convolve_tiles(x, packed, bias, name, at=at, y=y)
        assert torch.equal(y, torch.where(inside, whole, torch.tensor(7.0)))
    for wrong in (-1, len(every)):
        with pytest.raises(RuntimeError, match="tiles are numbered from 0"):
            convolve_tiles(x, packed, bias, name, at=torch.tensor([0, wrong]), y=whole)


@needs_build
@pytest.mark.parametrize("name", ERROR)
def test_one_large_pixel_disturbs_its_neighbours_alone(name: str) -> None:
    """Its rounding spreads over the tiles that read it, and is small beside the largest value."""
    x, weight, bias = draw((1, 64, 32, 32), 32)
    packed = lay_out(weight)
    calm = convolve(x, packed, bias, name)
    x[0, :, 16, 16] = 1e3
    y, right = convolve(x, packed, bias, name), truth(x, weight, bias, name)
    changed = (y != calm).any(1).nonzero()[:, 1:] // (2 if name == "up" else 1)
    assert (changed - 16).abs().max() <= 5
    assert (y - right).abs().max() < 3e-6 * right.abs().max()


def test_the_layout_is_undone_exactly() -> None:
    _, weight, _ = draw((1, 24, 1, 1), 48)
    for given in (weight, weight.contiguous(memory_format=torch.channels_last)):
        assert torch.equal(laid_back(lay_out(given)), weight)


def test_what_does_not_fit() -> None:
    def weight(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(shape, dtype=dtype)

    assert fits(weight(16, 8, 3, 3))
    assert not fits(weight(24, 8, 3, 3))
    assert not fits(weight(16, 12, 3, 3))
    assert not fits(weight(16, 8, 1, 1))
    assert not fits(weight(16, 8, 3, 3, dtype=torch.bfloat16))
    assert not fits(weight(16, 8, 3, 3, dtype=torch.float64))


def test_the_form_follows_from_the_size_of_the_picture() -> None:
    """Fewest products where the picture is large enough for the transformed weights to be used often."""
    assert [form(side, side) for side in (4, 5, 7, 8, 10, 12, 28)] == [None, None, "F2", "F2", "F2", "F4", "F4"]
    assert [form_up(side, side) for side in (4, 7, 8, 16)] == [None, "up", "up", "up"]


@needs_build
def test_a_wrong_weight_or_output_is_an_error() -> None:
    x, weight, bias = draw((1, 16, 8, 8), 32)
    packed = lay_out(weight)
    with pytest.raises(RuntimeError, match="a weight of"):
        convolve(x[:, :8], packed, bias, "F4")
    with pytest.raises(RuntimeError, match="a bias of 32"):
        convolve(x, packed, bias[:16], "F4")
    with pytest.raises(RuntimeError, match="float32"):
        convolve(x.double(), packed, bias, "F4")
    for call in (lambda: convolve(x, packed, bias, "F6"), lambda: winograd.transform(packed, "F6")):
        with pytest.raises(RuntimeError, match="the forms are"):
            call()
    with pytest.raises(RuntimeError, match="a weight of"):
        convolve(x, winograd.transform(packed, "F2"), bias, "F4")
    with pytest.raises(RuntimeError, match="a gradient of"):
        winograd.weight_gradient(torch.zeros(1, 32, 8, 9), x)
    with pytest.raises(RuntimeError, match="memory format"):
        convolve_tiles(x, packed, bias, "F4", at=torch.tensor([0]), y=torch.zeros(1, 32, 8, 8))
