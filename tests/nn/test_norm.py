"""The fused norm is the four lines of its docstring: both implementations in float64, values and all gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers.norms import draw, norm_of
from unnoise.nn import norm as module
from unnoise.nn.norm import Norm, compiled

LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
OPTIONS = {
    "bare": (),
    "add": ("add",),
    "scale": ("scale", "shift"),
    "all": ("add", "scale", "shift"),
}
# (B, C, H, W), groups: 1, 2, 4, 8 and 12 channels a group, odd sizes, single pixels, more than one part a sample
SHAPES = [
    ((2, 8, 3, 5), 8),
    ((3, 24, 1, 1), 6),
    ((1, 32, 7, 7), 16),
    ((2, 20, 9, 5), 5),
    ((2, 256, 12, 13), 32),
    ((1, 36, 41, 23), 3),
]


@pytest.fixture(params=["torch", "compiled"])
def way(request: pytest.FixtureRequest) -> str:
    if request.param == "compiled":
        _need()
    return str(request.param)


@pytest.fixture(autouse=True)
def as_before():
    before = module._enabled
    yield
    module._enabled = before


def _need() -> None:
    there, why = compiled()
    if not there:
        pytest.skip(f"no compiled operation here: {why}")
    module.enable()


def truth(x: Tensor, weight: Tensor, bias: Tensor, groups: int, silu: bool, add=None, scale=None, shift=None) -> Tensor:
    """The four lines, computed in the dtype of x (float64)."""
    b, c, h, w = x.shape
    u = x if add is None else x + add[:, :, None, None]
    members = u.reshape(b, groups, -1)
    mean = members.mean(-1, keepdim=True)
    var = ((members - mean) ** 2).mean(-1, keepdim=True)
    y = ((members - mean) / (var + 1e-5).sqrt()).reshape(b, c, h, w)
    y = y * weight[:, None, None] + bias[:, None, None]
    if scale is not None:
        y = y * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    return y / (1 + torch.exp(-y)) if silu else y


def off(a: Tensor, b: Tensor) -> float:
    """The error relative to the norm of b, or to 0.1 per number if that is larger (a channel that is its own group)."""
    return ((a.double() - b).norm() / b.norm().clamp(min=0.1 * b.numel() ** 0.5)).item()


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_is_the_formula_with_all_its_gradients(way, dtype, layout, options, silu):
    value, slope = (1e-6, 2e-5) if dtype == torch.float32 else (3e-3, 3e-3)  # bfloat16 rounds to 2^-9: 1.7e-3 in norm
    for shape, groups in SHAPES:
        x, added = draw(shape, dtype, LAYOUTS[layout], options=OPTIONS[options])
        norm = norm_of(shape[1], groups)
        inputs = [t.requires_grad_() for t in (x, norm.weight, norm.bias, *added.values())]
        y = norm(x, silu=silu, **added)
        assert y.dtype == dtype
        assert y.is_contiguous(memory_format=LAYOUTS[layout])
        exact = [t.detach().double().requires_grad_() for t in inputs]
        z = truth(exact[0], exact[1], exact[2], groups, silu, **dict(zip(added, exact[3:])))
        assert off(y, z) < value
        upstream = torch.randn_like(y)
        found = torch.autograd.grad(y, inputs, upstream)
        right = torch.autograd.grad(z, exact, upstream.double())
        if shape[2] * shape[3] * shape[1] // groups > 4:  # in a group of four numbers, gradients are differences
            for got, true, given in zip(found, right, inputs):
                assert got.dtype == given.dtype
                assert off(got, true) < slope


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_neutral_options_change_no_bit(way, dtype, layout):
    x, _ = draw((2, 48, 9, 7), dtype, LAYOUTS[layout])
    norm, none = norm_of(48, 12).requires_grad_(False), torch.zeros(2, 48)
    bare = norm(x, silu=True)
    assert torch.equal(bare, norm(x, silu=True, add=none, scale=none, shift=none))
    with torch.no_grad():
        assert torch.equal(bare, norm(x, silu=True))
    with torch.inference_mode():
        assert torch.equal(bare, norm(x, silu=True))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sample_depends_neither_on_its_batch_nor_on_the_number_of_threads(layout):
    _need()
    x, added = draw((5, 64, 33, 31), torch.bfloat16, LAYOUTS[layout])
    norm, before = norm_of(64, 32), torch.get_num_threads()
    with torch.no_grad():
        together = norm(x, silu=True, **added)
        try:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                for i in (0, 4):
                    alone = norm(x[i : i + 1], silu=True, **{k: t[i : i + 1] for k, t in added.items()})
                    assert torch.equal(alone, together[i : i + 1])
        finally:
            torch.set_num_threads(before)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_do_not_depend_on_the_number_of_threads(layout):
    _need()
    x, added = draw((2, 64, 33, 31), torch.float32, LAYOUTS[layout])
    norm, before, results = norm_of(64, 32), torch.get_num_threads(), []
    inputs = [t.requires_grad_() for t in (x, norm.weight, norm.bias, *added.values())]
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(torch.autograd.grad(norm(x, silu=True, **added).square().sum(), inputs))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results))


def test_a_mean_far_from_zero_costs_no_digits():
    _need()
    for layout in LAYOUTS.values():
        x, _ = draw((1, 32, 16, 16), layout=layout)
        x = x + 1000  # float32 holds numbers there to 6e-5, 2e-5 of their spread; x^2 - mean^2 would hold a tenth
        norm = norm_of(32, 8)
        z = truth(x.double(), norm.weight.double(), norm.bias.double(), 8, False)
        assert off(norm(x, silu=False), z) < 5e-5


def test_silu_from_end_to_end():
    _need()
    norm = Norm(1, 1)
    z = torch.cat([torch.linspace(-100, 100, 4001), torch.tensor([-1e4, 1e4, 1e-30])])
    x = torch.full((1, 1, 4004 // 4, 4), 0.5)  # nothing but the shift is left of a constant picture
    for layout in LAYOUTS.values():
        wide = Norm(1, 4004)
        constant = torch.zeros(1, 4004, 1, 1).contiguous(memory_format=layout)
        y = wide(constant, silu=True, scale=torch.zeros(1, 4004), shift=z[None])[0, :, 0, 0]
        assert torch.allclose(y.double(), F.silu(z.double()), rtol=1e-6, atol=1e-30)
    x[0, 0, 0, 0] = float("nan")
    assert norm(x, silu=True).isnan().all()
    assert norm(x.bfloat16(), silu=True).isnan().all()


def test_bfloat16_is_rounded_to_the_nearest_even():
    _need()
    shift = torch.randn(1, 4096)
    y = Norm(1, 4096)(torch.zeros(1, 4096, 1, 1).bfloat16(), scale=0 * shift, shift=shift)
    assert torch.equal(y[0, :, 0, 0], shift[0].bfloat16())


def test_second_derivatives_are_those_of_torch():
    _need()
    x, added = draw((2, 8, 4, 4), options=("add",))
    norm = norm_of(8, 4)
    results = []
    for on in (True, False):
        module._enabled = on
        leaves = [x.clone().requires_grad_(), added["add"].clone().requires_grad_()]
        y = norm(leaves[0], silu=True, add=leaves[1])
        first = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
        results.append(torch.autograd.grad(first[0].square().sum() + first[1].sum(), [*leaves, norm.weight]))
    for ours, torchs in zip(*results):
        assert torch.allclose(ours, torchs, rtol=1e-3, atol=1e-3)


def test_the_operation_is_registered_completely():
    _need()
    x, added = draw((2, 8, 4, 4), layout=torch.channels_last)
    norm = norm_of(8, 4)
    for options in ((None, None, None), tuple(t.requires_grad_() for t in added.values())):
        args = (x.requires_grad_(), norm.weight, norm.bias, *options, 4, 1e-5, True)
        torch.library.opcheck(torch.ops.unnoise.group_norm.default, args)


def test_a_gradient_of_the_weight_alone(way):
    """torch 2.13's own kernel crashes the process here, in channels_last."""
    x, _ = draw((1, 64, 5, 4), layout=torch.channels_last)
    norm = norm_of(64, 8)
    (got,) = torch.autograd.grad(norm(x, silu=True).sum(), norm.weight)
    weight = norm.weight.detach().double().requires_grad_()
    (right,) = torch.autograd.grad(truth(x.double(), weight, norm.bias.double(), 8, True).sum(), weight)
    assert off(got, right) < 1e-5


def test_other_dtypes_and_transforms_go_through_torch():
    _need()
    x, _ = draw((2, 8, 4, 4))
    norm = norm_of(8, 4)
    assert norm.double()(x.double(), silu=True).dtype == torch.float64
    norm.float()
    _, tangent = torch.func.jvp(lambda x: norm(x, silu=True), (x,), (torch.ones_like(x),))
    assert tangent.abs().max() < 1e-5  # a constant added to every pixel changes nothing
