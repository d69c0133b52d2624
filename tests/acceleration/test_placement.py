"""A placed network computes what the original does, also a patched one; the original does not change."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unnoise.acceleration import placement as module
from unnoise.acceleration.placement import Placement, best, fast_bfloat16, find, place, prepare
from unnoise.acceleration.prepack import PackedConv, PackedLinear, PackedUp, _layout, _works, pack, packed
from unnoise.conditions import Cond
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import UNetConfig
from unnoise.denoiser import make_diffusion
from unnoise.errors import UserError
from unnoise.nn import compiled, conv, norm, winograd
from unnoise.nn.attention import AttentionCore
from unnoise.nn.norm import Norm
from unnoise.nn.unet import UNet, Up
from unnoise.patch import Patch, patched

SMALL = UNetConfig(size=16, channels=(16, 32), blocks=1, attention=(False, True), groups=8, classes=3)
PLACES = [Placement("cpu", dtype, last) for dtype in (torch.float32, torch.bfloat16) for last in (True, False)]


@pytest.fixture(autouse=True)
def as_before():
    before = norm._enabled, conv._enabled
    yield
    norm._enabled, conv._enabled = before


def diffusion(seed: int = 0):
    torch.manual_seed(seed)
    net = UNet(SMALL).eval()
    for p in net.parameters():  # also those that are zero initially
        if not p.any():
            nn.init.normal_(p, std=0.1)
    return make_diffusion(net, DiffusionConfig())


def inputs(size: int = 16, batch: int = 2):
    torch.manual_seed(1)
    t = torch.linspace(0.3, 0.9, batch, dtype=torch.float64)
    return torch.randn(batch, 3, size, size), t, Cond(torch.arange(batch) % 4)


@pytest.mark.parametrize("placement", PLACES, ids=str)
def test_a_placed_copy_computes_the_same(placement):
    original = diffusion()
    kept = copy.deepcopy(original.state_dict())
    with torch.no_grad():
        for size in (16, 8, 12):
            right = original(*inputs(size)).mean
            got = place(original, placement)(*inputs(size)).mean
            off = ((got - right).norm() / right.norm()).item()
            assert off < (1e-5 if placement.dtype == torch.float32 else 0.02)
            assert got.dtype == right.dtype
    assert all(torch.equal(v, kept[k]) and v.dtype == kept[k].dtype for k, v in original.state_dict().items())


def test_a_placed_copy_does_not_follow_the_original():
    original = diffusion()
    placed = place(original, Placement("cpu", torch.bfloat16))
    with torch.no_grad():
        before = placed(*inputs()).mean
        for p in original.net.parameters():
            p.add_(1.0)
        assert torch.equal(placed(*inputs()).mean, before)


def test_each_weight_is_freed_when_it_is_packed(monkeypatch):
    """Otherwise a network is in memory twice while it is placed."""
    _needs(PackedConv, torch.float32)
    alive = []

    def watched(net, **how):
        plain = {name: part for name, part in net.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)}
        weights = {name: weakref.ref(part.weight) for name, part in plain.items()}
        del plain
        pack(net, **how)
        gc.collect()
        left = {name for name, part in net.named_modules() if isinstance(part, nn.Linear)}  # where they are not packed
        alive.extend(weight() is not None for name, weight in weights.items() if name not in left)

    monkeypatch.setattr(module, "pack", watched)
    place(diffusion(), Placement("cpu", torch.float32))
    assert len(alive) > 20
    assert not any(alive)


def test_placing_draws_no_random_numbers():
    _works.cache_clear()
    original = diffusion()
    state = torch.get_rng_state()
    place(original, Placement("cpu", torch.bfloat16))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 40, 3, padding=1),
        nn.Conv2d(64, 48, 1, bias=False),
        nn.Conv2d(32, 32, 3, stride=2),
        nn.Conv2d(32, 64, 3, padding=2, dilation=2, groups=4),
        nn.Conv2d(64, 5, (3, 1), padding=(1, 0)),
    ],
    ids=str,
)
def test_a_packed_convolution_is_that_convolution_at_every_size(conv, dtype):
    _needs(PackedConv, dtype)
    conv = copy.deepcopy(conv).to(dtype)
    with torch.no_grad():
        fast = PackedConv(conv)
        for size in ((1, 16, 16), (3, 7, 9), (2, 32, 5), (1, 64, 64)):
            x = torch.randn(size[0], conv.in_channels, *size[1:]).to(dtype)
            for layout in (torch.contiguous_format, torch.channels_last):
                got, right = fast(x.contiguous(memory_format=layout)), conv.double()(x.double())
                conv.to(dtype)
                assert got.shape == right.shape
                assert ((got - right).norm() / right.norm()) < (1e-6 if dtype == torch.float32 else 5e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_a_step_up_by_a_transposed_convolution_is_a_step_up(dtype):
    _needs(PackedUp, dtype)
    up = Up(24).to(dtype)
    nn.init.normal_(up.conv.bias)
    exact = copy.deepcopy(up).double()
    with torch.no_grad():
        fast = PackedUp(up)
        for size in ((1, 1, 1), (2, 5, 7), (3, 16, 16), (1, 2, 33)):
            x = torch.randn(size[0], 24, *size[1:]).to(dtype)
            right = exact(x.double(), x)
            assert ((fast(x, x) - right).norm() / right.norm()) < (1e-6 if dtype == torch.float32 else 6e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_a_packed_linear_map_is_that_map(dtype):
    _needs(PackedLinear, dtype)
    with torch.no_grad():
        for bias in (True, False):
            linear = nn.Linear(48, 80, bias=bias).to(dtype)
            for shape in ((48,), (1, 48), (5, 48), (2, 300, 48)):
                x = torch.randn(shape).to(dtype)
                got, right = PackedLinear(linear)(x), copy.deepcopy(linear).double()(x.double())
                assert got.shape == right.shape
                assert ((got - right).norm() / right.norm()) < (1e-6 if dtype == torch.float32 else 5e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_a_convolution_is_laid_out_for_each_size(dtype):
    """A layout other than the kernel's is rearranged at every call. Sizes with the same layout use one tensor."""
    _needs(PackedConv, dtype)
    conv = nn.Conv2d(60, 60, 3, padding=1).to(dtype)  # Winograd's method needs multiples of 8 and 16
    sizes = [(7, 7), (14, 14), (28, 28), (16, 16), (14, 14), (12, 20)]
    with torch.no_grad():
        fast = PackedConv(conv)
        for size in sizes:
            fast(torch.randn(1, 60, *size).to(dtype))
            assert torch.equal(fast._by_size[size].to_dense(), conv.weight)
            own = torch.ops.aten.mkldnn_reorder_conv2d_weight(conv.weight.to_mkldnn(), *fast._options, (1, 60, *size))
            assert _layout(fast._by_size[size]) == _layout(own)
    held = {id(each): _layout(each) for each in (fast.weight, *fast._by_size.values())}
    assert len(held) == len(set(held.values())), "a layout is stored once, and the first guess is freed"
    for size in range(1, 41):
        fast._lay_out_for(torch.Size((size, size)))
    assert len({id(each) for each in fast._by_size.values()}) < 8, "forty sizes are not forty copies of a weight"


@pytest.mark.parametrize("sizes", [(4, 32, 8, 16, 3), (32, 16, 5), (3, 4)], ids=str)
def test_winograds_method_at_large_sizes_and_the_direct_one_at_small_ones(sizes):
    """One module computes every size right in any order, and stores a weight for each method that it has used."""
    _needs_winograd()
    conv, up = nn.Conv2d(32, 48, 3, padding=1), Up(16)
    with torch.no_grad():
        fast, fast_up = PackedConv(conv), PackedUp(up)
        for side in sizes:
            x = torch.randn(2, 32, side, side)
            right = F.conv2d(x.double(), conv.weight.double(), conv.bias.double(), padding=1)
            assert ((fast(x) - right).norm() / right.norm()) < 1e-6
            small = x[:, :16]
            exact = copy.deepcopy(up).double()(small.double(), x)
            assert ((fast_up(small, x) - exact).norm() / exact.norm()) < 1e-6
            method = winograd.form(side, side)
            assert fast._by_size[x.shape[2:]].is_mkldnn == (method is None)
            if method:
                assert torch.equal(fast(x), winograd.convolve(x, winograd.lay_out(conv.weight), conv.bias, method))
    kept = {fast.weight, *fast._by_size.values()}
    methods = {winograd.form(side, side) is None for side in sizes}
    assert len(kept) >= len(methods)
    assert {each.is_mkldnn for each in kept} == methods, "the first size replaces the layout that was a guess"


def test_a_sample_of_a_placed_network_has_the_same_bits_in_every_batch():
    """Winograd's method is chosen by the size of the picture. Linear maps and 1x1 convolutions are the library's."""
    _needs_winograd()
    convs = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 16, 3, padding=1))
    with torch.no_grad():
        fast = packed(convs)
        for side in (6, 8, 12, 28):
            x = torch.randn(9, 16, side, side)
            assert torch.equal(fast(x), torch.cat([fast(sample) for sample in x.split(1)]))


def test_training_uses_the_compiled_convolutions_and_placing_leaves_other_networks_as_they_are():
    conv.disable()
    net = diffusion()
    place(net, Placement("cpu"))
    assert not conv._enabled
    prepare(net.net, Placement("cpu"))
    assert conv._enabled == winograd.faster()


def test_exact_is_the_direct_convolution():
    _needs(PackedConv, torch.float32)
    assert best("cpu", "exact") == Placement("cpu", torch.float32, exact=True)
    assert best("cpu", "exact").precision == "exact"
    original = diffusion()
    placed = place(original, best("cpu", "exact"))
    parts = [part for part in placed.net.modules() if isinstance(part, PackedConv | PackedUp)]
    assert parts
    assert not any(part._winograd for part in parts)
    prepare(original.net, best("cpu", "exact"))
    assert not conv._enabled


def test_linear_maps_are_packed_where_that_is_faster(monkeypatch):
    _needs(PackedLinear, torch.float32)
    net = nn.Sequential(nn.Linear(4, 4))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert isinstance(packed(net)[0], nn.Linear)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert isinstance(packed(net)[0], PackedLinear)


def test_without_a_compiler_nothing_but_the_speed_differs(monkeypatch):
    """As on every other processor: the direct convolutions."""
    monkeypatch.setitem(compiled._known, "winograd", "no compiler")
    original = diffusion()
    with torch.no_grad():
        right = original(*inputs()).mean
        placed = place(original, Placement("cpu", torch.float32))
        assert ((placed(*inputs()).mean - right).norm() / right.norm()).item() < 1e-5
    parts = [part for part in placed.net.modules() if isinstance(part, PackedConv | PackedUp)]
    assert not any(part._winograd for part in parts)


def _needs_winograd():
    _needs(PackedConv, torch.float32)
    if not winograd.faster():
        pytest.skip("this processor has something faster than Winograd's method, or no compiler")


def _needs(kind, dtype):
    if not _works(kind, dtype):
        pytest.skip("this torch or processor packs no weights")


def test_a_packed_copy_leaves_the_original_bit_for_bit():
    net = diffusion().net
    modules, state = dict(net.named_modules()), copy.deepcopy(net.state_dict())
    with torch.no_grad():
        x, _, cond = inputs()
        time = torch.tensor([3.0, 700.0])
        before = net(x, time, cond)
        fast = packed(net)
        if _works(PackedConv, torch.float32):
            assert isinstance(fast.conv_in, PackedConv)
        assert (fast(x, time, cond) - before).abs().max() < 1e-4
        assert torch.equal(net(x, time, cond), before)
    assert dict(net.named_modules()) == modules
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


class Halved(nn.Module):
    """A module whose output is halved."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *inputs):
        return self.inner(*inputs) / 2


class HalvedNorm(Halved):
    """A norm whose output is halved."""

    def forward(self, x, *, silu=False, add=None, scale=None, shift=None):
        return self.inner(x, silu=silu, add=add, scale=scale, shift=shift) / 2


@pytest.mark.parametrize("kind", [nn.Linear, nn.Conv2d, Norm, AttentionCore, Up], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("placement", PLACES, ids=str)
def test_patched_then_placed_computes_what_the_patched_network_does(kind, placement):
    """Every seam: packing leaves the replacements, packs what is plain around and inside them, and nothing is lost."""
    norm.enable()  # for the whole process, as placing does: before it the original computes torch's own norm
    original = diffusion()
    patch = Patch(kind, lambda module, name: HalvedNorm(module) if kind is Norm else Halved(module))
    right = copy.copy(original)
    right._modules = {**original._modules, "net": patched(original.net, [patch])}
    with torch.no_grad():
        plain, exact = original(*inputs()).mean, right(*inputs()).mean
        got = place(original, placement, [patch])(*inputs()).mean
        assert ((exact - plain).norm() / plain.norm()).item() > 0.01
        assert ((got - exact).norm() / exact.norm()).item() < (1e-5 if placement.dtype == torch.float32 else 0.03)
        assert torch.equal(original(*inputs()).mean, plain)
        again = place(right, placement)(*inputs()).mean
        assert torch.equal(again, got), "a patched network placed is the same as one patched while it is placed"


def test_a_part_of_a_step_up_that_was_replaced_is_not_packed_away():
    """A step up is packed as one operation, which would drop a replacement of its convolution."""
    net = patched(
        diffusion().net, [Patch(nn.Conv2d, lambda module, name: Halved(module), name="up_blocks.*.step.conv")]
    )
    assert any(isinstance(module, Halved) for module in packed(net).modules())


def test_a_patch_of_a_packed_network_is_an_error():
    _needs(PackedConv, torch.float32)
    with pytest.raises(ValueError, match=r"no Conv2d to patch: it has .*PackedConv"):
        patched(packed(diffusion().net), [Patch(nn.Conv2d, lambda module, name: Halved(module))])


def test_a_gradient_of_a_packed_network_is_an_error():
    _needs(PackedConv, torch.float32)
    net = pack(diffusion().net)
    x, _, cond = inputs()
    with pytest.raises(RuntimeError, match="no gradient"):
        net(x.requires_grad_(), torch.tensor([3.0, 700.0]), cond)
    with pytest.raises(RuntimeError, match="no gradient"):
        torch.func.jvp(net.conv_in, (x.detach(),), (x.detach(),))


def test_modules_that_cannot_be_packed_are_unchanged():
    odd = nn.Sequential(nn.Conv2d(4, 4, 3, padding="same"), nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"))
    inside = list(odd)
    assert list(pack(odd)) == inside
    assert list(pack(odd.double())) == inside


def test_preparing_for_training_is_in_place_and_keeps_the_weights():
    net = diffusion().net
    state = copy.deepcopy(net.state_dict())
    assert prepare(net, Placement("cpu", torch.bfloat16)) is net
    assert all(torch.equal(v, state[k]) and v.dtype == torch.float32 for k, v in net.state_dict().items())
    assert net.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    x, _, cond = inputs()
    net(x, torch.tensor([3.0, 700.0]), cond).square().mean().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_best_is_the_requested_placement():
    assert best("cpu", "float32") == Placement("cpu", torch.float32, True)
    assert best("cpu", "bfloat16").dtype == torch.bfloat16
    assert best("cpu").dtype == (torch.bfloat16 if fast_bfloat16("cpu") else torch.float32)


def test_unknown_and_unavailable_devices_are_errors():
    with pytest.raises(UserError, match="did you mean 'bfloat16'"):
        best("cpu", "bfloat61")
    with pytest.raises(UserError, match="did you mean 'cuda'"):
        find("cudda")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="0 CUDA devices"):
            find("cuda:3")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_a_packed_network_keeps_its_dtype(dtype):
    """All its convolutions' weights are packed, and its biases have its dtype."""
    _needs(PackedConv, dtype)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3, padding=1)).to(dtype).requires_grad_(False)
    right = [name for name, _ in net.named_parameters() if name.endswith("bias")]
    assert [name for name, p in pack(net).named_parameters() if p.dtype == dtype] == right
