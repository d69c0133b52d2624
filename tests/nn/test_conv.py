"""The compiled convolution in training computes torch's, with its gradients."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.nn import compiled, winograd
from unnoise.nn import conv as module
from unnoise.nn.conv import Conv3x3


@pytest.fixture(autouse=True)
def as_before():
    before = module._enabled
    yield
    module._enabled = before


@pytest.fixture
def enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on processors where it is not the faster one."""
    there, why = winograd.compiled()
    assert "computed wrong numbers" not in why, why
    if not there:
        pytest.skip(f"no compiled operation here: {why}")
    monkeypatch.setattr(module, "_enabled", True)


needs_build = pytest.mark.usefixtures("enabled")


def off(a: Tensor, b: Tensor) -> float:
    return ((a.double() - b).norm() / b.norm()).item()


@needs_build
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("channels", "outs"), [(16, 16), (48, 32), (24, 16), (8, 48)], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 4), (6, 6), (8, 9), (13, 12), (28, 28)], ids=str)
def test_the_output_and_all_gradients_are_torchs(size, channels, outs, bias):
    torch.manual_seed(0)
    conv = Conv3x3(channels, outs)
    if not bias:
        conv.bias = None
    exact = copy.deepcopy(conv).double()
    x = torch.randn(3, channels, *size).contiguous(memory_format=torch.channels_last).requires_grad_()
    z = x.detach().double().requires_grad_()
    grad = torch.randn(3, outs, *size)
    y, right = conv(x), F.conv2d(z, exact.weight, exact.bias, padding=1)
    assert off(y, right) < 3e-6
    got = torch.autograd.grad(y, [x, *conv.parameters()], grad)
    true = torch.autograd.grad(right, [z, *exact.parameters()], grad.double())
    assert len(got) == len(true) == 2 + bias
    assert max(off(a, b) for a, b in zip(got, true)) < 3e-6


@needs_build
def test_each_gradient_can_be_wanted_alone():
    torch.manual_seed(0)
    conv, x = Conv3x3(16, 32), torch.randn(2, 16, 9, 9, requires_grad=True)
    inputs = (x, conv.weight, conv.bias)
    every = torch.autograd.grad(conv(x).square().sum(), inputs)
    for i, wanted in enumerate(inputs):
        for t in inputs:
            t.requires_grad_(t is wanted)
        (alone,) = torch.autograd.grad(conv(x).square().sum(), wanted)
        assert off(alone, every[i].double()) < 3e-6


@needs_build
def test_second_derivatives_are_torchs():
    torch.manual_seed(0)
    conv, x = Conv3x3(16, 16), torch.randn(2, 16, 8, 8, requires_grad=True)
    exact, z = copy.deepcopy(conv).double(), x.detach().double().requires_grad_()

    def norm_of_gradient(y: Tensor, x: Tensor) -> Tensor:
        (grad,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
        return grad.square().sum()

    got = torch.autograd.grad(norm_of_gradient(conv(x), x), [x, conv.weight])
    true = torch.autograd.grad(norm_of_gradient(F.conv2d(z, exact.weight, exact.bias, padding=1), z), [z, exact.weight])
    assert max(off(a, b) for a, b in zip(got, true)) < 1e-5


@needs_build
def test_it_computes_where_it_fits_and_torch_does_elsewhere(monkeypatch):
    used = []
    monkeypatch.setattr(module, "_fits", lambda x, weight, fits=module._fits: used.append(fits(x, weight)) or used[-1])
    for conv, x, fits in [
        (Conv3x3(16, 16), torch.randn(1, 16, 8, 8), True),
        (Conv3x3(16, 16), torch.randn(1, 16, 4, 4), True),
        (Conv3x3(12, 16), torch.randn(1, 12, 8, 8), False),
        (Conv3x3(16, 16).double(), torch.randn(1, 16, 8, 8).double(), False),
        (Conv3x3(16, 16).bfloat16(), torch.randn(1, 16, 8, 8).bfloat16(), False),
    ]:
        right = F.conv2d(x, conv.weight, conv.bias, padding=1)
        assert off(conv(x), right.double()) < (1e-5 if conv.weight.dtype != torch.bfloat16 else 1e-2)
        assert used.pop() == fits
    conv, x = Conv3x3(16, 16), torch.randn(2, 16, 8, 8)
    tangent = torch.func.jvp(conv, (x,), (torch.ones_like(x),))[1]
    assert off(tangent, F.conv2d(torch.ones_like(x), conv.weight, padding=1).double()) < 1e-5
    assert not used.pop(), "the transforms of torch.func differentiate torch's operation"


@needs_build
def test_a_compiled_graph_knows_its_shape_and_layout():
    conv, x = Conv3x3(16, 32), torch.randn(2, 16, 8, 9).contiguous(memory_format=torch.channels_last)
    torch.library.opcheck(torch.ops.unnoise.conv3x3, (x, conv.weight.detach(), conv.bias.detach()))


def test_it_is_a_convolution_with_the_same_names_and_the_same_first_weights():
    torch.manual_seed(0)
    ours = Conv3x3(8, 16)
    torch.manual_seed(0)
    torchs = nn.Conv2d(8, 16, 3, padding=1)
    assert isinstance(ours, nn.Conv2d)
    assert ours.state_dict().keys() == torchs.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), torchs.parameters()))


def test_without_a_compiler_it_is_torchs(monkeypatch):
    monkeypatch.setitem(compiled._known, "winograd", "no compiler")
    assert module.enable() is False
    conv, x = Conv3x3(16, 16), torch.randn(1, 16, 16, 16)
    assert torch.equal(conv(x), F.conv2d(x, conv.weight, conv.bias, padding=1))
