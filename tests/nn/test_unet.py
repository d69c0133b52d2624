"""The U-Net's laws: published sizes, initial output, independence of samples, and gradients.

Its output is compared with diffusers in tests/formats/test_diffusers.py.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.helpers.unets import CONFIGS, IMPROVED, LABELS, SMALL, TIMES, conditions, count, pictures, random_network
from unnoise.conditions import NOTHING, Cond
from unnoise.config.networks import UNetConfig
from unnoise.errors import UserError
from unnoise.nn import UNet
from unnoise.nn.attention import Attention
from unnoise.nn.embeddings import sinusoid
from unnoise.nn.unet import Down, Residual, heads
from unnoise.noise import normal

# --- sizes ---


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (UNetConfig(), 35_746_307),  # CIFAR-10: Ho et al. 2020
        (UNetConfig(size=64, channels=(128, 256, 256, 256, 512), attention=(0, 0, 1, 0, 0)), 78_700_803),  # CelebA
        (UNetConfig(size=256, channels=(128, 128, 256, 256, 512, 512), attention=(0, 0, 0, 0, 1, 0)), 113_673_219),
    ],
    ids=["cifar10", "celeba64", "256"],
)
def test_the_papers_networks_have_their_parameter_counts(config: UNetConfig, parameters: int) -> None:
    assert count(config) == parameters


def test_adm_has_its_parameter_count() -> None:
    """ImageNet 64x64, Dhariwal & Nichol 2021, Table 12 and their released class-conditional network: 296 M."""
    config = UNetConfig(
        size=64,
        out_channels=6,
        channels=(192, 384, 576, 768),
        blocks=3,
        attention=(False, True, True, True),
        head_width=64,
        scale_shift=True,
        residual_resampling=True,
        classes=1000,
        null_class=False,
    )
    assert round(count(config) / 1e6) == 296


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_any_size_that_can_be_halved(config: UNetConfig) -> None:
    net = random_network(config)
    x = normal((4, 3, 8, 20), "oblong")
    assert net(x, TIMES, conditions(config)).shape == (4, config.out_channels, 8, 20)
    with pytest.raises(UserError, match=r"22x8 do not fit this network: .* multiples of 4"):
        net(normal((4, 3, 8, 22), "oblong"), TIMES, conditions(config))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_patches_are_pixels_folded_into_channels(config: UNetConfig) -> None:
    """With the same weights: the network without patches, of a quarter of the pixels with four times the channels."""
    whole = replace(config, patch=2, concat_channels=1)
    plain = replace(
        config,
        size=config.size // 2,
        in_channels=4 * config.in_channels,
        out_channels=4 * config.out_channels,
        concat_channels=4,
    )
    net, reference = random_network(whole), UNet(plain)
    reference.load_state_dict(net.state_dict())
    x, joined = pictures(whole), normal((4, 1, config.size, config.size), "concat")
    cond, folded = (replace(conditions(config), concat=each) for each in (joined, F.pixel_unshuffle(joined, 2)))
    expected = reference(F.pixel_unshuffle(x, 2), TIMES, folded)
    found = net(x, TIMES, cond)
    assert torch.equal(found, F.pixel_shuffle(expected, 2))
    assert found.shape == (4, config.out_channels, config.size, config.size)


# --- birth ---


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_new_network_outputs_zero(config: UNetConfig) -> None:
    out = UNet(config)(pictures(config), TIMES, conditions(config))
    assert torch.equal(out, torch.zeros_like(out))


def test_branches_of_a_new_network_are_zero() -> None:
    net = UNet(IMPROVED)
    for module in net.modules():
        if isinstance(module, Residual) and module.conv_shortcut is None and module.resample is None:
            x = normal((2, module.conv1.in_channels, 4, 4), "x")
            assert torch.equal(module(x, normal((2, module.emb_channels), "conditions")), x)
        if isinstance(module, Attention):
            x = normal((2, module.qkv.in_features, 4, 4), "x")
            assert torch.equal(module(x), x)


def test_every_map_is_initialised_with_the_variance_of_its_own_fans() -> None:
    """Also those in a fused matrix: 2 / (fan in + fan out), each with its own fan out."""
    net = UNet(UNetConfig())
    fan_in = net.emb_proj.in_features
    for rows in torch.split(net.emb_proj.weight, net.emb_channels):
        if len(rows):
            assert rows.var().item() == pytest.approx(2 / (fan_in + len(rows)), rel=0.05)
    attention = next(module for module in net.modules() if isinstance(module, Attention))
    for rows in attention.qkv.weight.chunk(3):
        assert rows.var().item() == pytest.approx(2 / (2 * 256), rel=0.05)
    assert net.conv_in.weight.var().item() == pytest.approx(2 / (9 * 3 + 9 * 128), rel=0.1)
    assert not any(
        parameter.any() for name, parameter in net.named_parameters() if name.endswith(".bias") and "norm" not in name
    )


# --- time and class ---


def test_sinusoids_are_the_formula() -> None:
    t, half = 37.5, 16
    for shift in (0.0, 1.0):
        w = torch.tensor([1e4 ** (-i / (half - shift)) for i in range(half)], dtype=torch.float64)
        sines, cosines = (t * w).sin().float(), (t * w).cos().float()
        first = sinusoid(torch.tensor([t]), 32, shift=shift, cosine_first=False)[0]
        other = sinusoid(torch.tensor([t]), 32, shift=shift, cosine_first=True)[0]
        torch.testing.assert_close(first, torch.cat([sines, cosines]), atol=1e-5, rtol=0)
        torch.testing.assert_close(other, torch.cat([cosines, sines]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_output_depends_on_time_continuously(config: UNetConfig) -> None:
    net, x = random_network(config), pictures(config)[:1]
    cond = conditions(config)[:1]
    at = {t: net(x, torch.tensor([t], dtype=torch.float64), cond) for t in (10.0, 10.01, 10.5, 11.0)}
    assert (at[10.0] - at[11.0]).abs().max() > 1e-2
    assert (at[10.0] - at[10.01]).norm() < 0.1 * (at[10.0] - at[10.5]).norm()


def test_no_label_is_the_null_row() -> None:
    net, x = random_network(IMPROVED), pictures(IMPROVED)
    null = Cond(torch.full((4,), IMPROVED.classes))
    assert torch.equal(net(x, TIMES, NOTHING), net(x, TIMES, null))
    for label in range(IMPROVED.classes):
        assert (net(x, TIMES, Cond(torch.full((4,), label))) - net(x, TIMES, null)).abs().max() > 1e-2


def test_a_class_has_a_gradient_only_where_it_is_a_label() -> None:
    net = random_network(IMPROVED)
    net(pictures(IMPROVED), TIMES, Cond(torch.tensor([0, 0, 3, 3]))).square().sum().backward()
    assert net.class_embedding is not None
    grad = net.class_embedding.weight.grad
    assert grad is not None
    assert [bool(row.any()) for row in grad] == [True, False, False, True]


def test_unsupported_and_missing_labels_are_errors() -> None:
    with pytest.raises(UserError, match="is not conditioned on classes"):
        UNet(SMALL)(pictures(SMALL), TIMES, Cond(LABELS))
    with pytest.raises(UserError, match="give every picture a label"):
        UNet(replace(IMPROVED, null_class=False))(pictures(IMPROVED), TIMES, NOTHING)


def test_scale_and_shift_of_zero_are_a_plain_norm() -> None:
    """AdaGN with a zero map is GroupNorm, as is an added embedding of zero."""
    adaptive, added = random_network(replace(SMALL, scale_shift=True)), random_network(SMALL)
    rest = {name: tensor for name, tensor in adaptive.state_dict().items() if not name.startswith("emb_proj.")}
    added.load_state_dict(rest, strict=False)
    for net in (adaptive, added):
        nn.init.zeros_(net.emb_proj.weight)
        nn.init.zeros_(net.emb_proj.bias)
    x = pictures(SMALL)
    torch.testing.assert_close(adaptive(x, TIMES, NOTHING), added(x, TIMES, NOTHING), atol=1e-5, rtol=0)


# --- what a sample may see ---


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_sample_does_not_depend_on_its_batch(config: UNetConfig) -> None:
    net, x, cond = random_network(config), pictures(config), conditions(config)
    together = net(x, TIMES, cond)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(net(x[order], TIMES[order], cond[order]), together[order], atol=1e-5, rtol=0)
    for i in range(len(x)):
        one = slice(i, i + 1)
        torch.testing.assert_close(net(x[one], TIMES[one], cond[one]), together[one], atol=1e-5, rtol=0)


def test_a_residual_block_gets_the_feature_map_and_the_skip_apart() -> None:
    """Its input is the two side by side, the feature map first; a block on the way up always gets a skip."""
    net = random_network(IMPROVED)
    given: dict[str, tuple[Tensor, Tensor, Tensor | None]] = {}
    for name, module in net.named_modules():
        if isinstance(module, Residual):
            module.register_forward_hook(lambda _, inputs, out, name=name: given.update({name: inputs}))
    net(pictures(IMPROVED), TIMES, conditions(IMPROVED))
    with_skip = {name for name, inputs in given.items() if len(inputs) > 2 and inputs[2] is not None}
    assert with_skip == {name for name in given if name.startswith("up_blocks.") and ".blocks." in name}
    for name in with_skip:
        block, (h, emb, skip) = net.get_submodule(name), given[name]
        assert skip is not None
        assert h.shape[1] + skip.shape[1] == block.conv1.in_channels
        assert torch.equal(block(h, emb, skip), block(torch.cat([h, skip], dim=1), emb))


def test_strided_convolutions_read_the_right_pixels() -> None:
    """DDPM's reads a pixel, those right of it and below, and zeros beyond the edge; padding 1 reads those around it."""
    x = normal((1, 8, 6, 6), "x")
    for asymmetric, (row, column), expected in (
        (True, (0, 0), x[:, :, 0::2, 0::2]),
        (True, (1, 1), x[:, :, 1::2, 1::2]),
        (True, (2, 0), F.pad(x, (0, 0, 0, 2))[:, :, 2::2, 0::2]),
        (False, (1, 1), x[:, :, 0::2, 0::2]),
        (False, (0, 0), F.pad(x, (1, 0, 1, 0))[:, :, 0:6:2, 0:6:2]),
    ):
        down = Down(replace(SMALL, asymmetric_padding=asymmetric), 8)
        nn.init.zeros_(down.conv.weight)
        nn.init.zeros_(down.conv.bias)  # type: ignore[arg-type]
        down.conv.weight.data[range(8), range(8), row, column] = 1
        torch.testing.assert_close(down(x, x), expected)


def test_permuting_the_pixels_permutes_the_output_of_attention() -> None:
    attention = random_network(replace(SMALL, heads=2)).mid_block.blocks[0].attention
    assert isinstance(attention, Attention)
    x = normal((2, 16, 4, 4), "x")
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    moved = x.flatten(2)[:, :, order].view_as(x)
    torch.testing.assert_close(attention(moved), attention(x).flatten(2)[:, :, order].view_as(x), atol=1e-5, rtol=0)


def test_heads_by_number_and_by_width_are_the_same_network() -> None:
    config = replace(SMALL, attention=(False, True, True))
    by_number, by_width = replace(config, heads=4), replace(config, head_width=4)
    assert [heads(by_number, 1), heads(by_width, 1), heads(config, 1)] == [4, 4, 1]
    one, other, single = random_network(by_number), random_network(by_width), random_network(config)
    x = pictures(SMALL)
    assert torch.equal(one(x, TIMES, NOTHING), other(x, TIMES, NOTHING))
    assert not torch.allclose(one(x, TIMES, NOTHING), single(x, TIMES, NOTHING), atol=1e-3)


# --- precision and layout ---


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_bfloat16_channels_last_is_close(config: UNetConfig) -> None:
    net, x = random_network(config), pictures(config)
    exact = net(x, TIMES, conditions(config))
    low = copy.deepcopy(net).to(torch.bfloat16).to(memory_format=torch.channels_last)
    out = low(x.bfloat16().to(memory_format=torch.channels_last), TIMES, conditions(config))
    assert out.dtype == torch.bfloat16
    assert (out.float() - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_no_part_leaves_bfloat16_or_channels_last(config: UNetConfig) -> None:
    net = random_network(config).to(torch.bfloat16).to(memory_format=torch.channels_last)
    left = []

    def watch(module: nn.Module, inputs: Any, out: Any) -> None:
        for tensor in out if isinstance(out, list) else [out]:
            if tensor.dtype != torch.bfloat16:
                left.append((type(module).__name__, tensor.dtype))
            if tensor.ndim == 4 and not tensor.is_contiguous(memory_format=torch.channels_last):
                left.append((type(module).__name__, tensor.stride()))

    for module in net.modules():
        module.register_forward_hook(watch)
    with torch.inference_mode():
        net(pictures(config).bfloat16().to(memory_format=torch.channels_last), TIMES, conditions(config))
    assert left == []


def test_the_layout_of_the_input_changes_nothing() -> None:
    net, x = random_network(IMPROVED), pictures(IMPROVED)
    other = net(x.to(memory_format=torch.channels_last), TIMES, conditions(IMPROVED))
    torch.testing.assert_close(other, net(x, TIMES, conditions(IMPROVED)), atol=1e-5, rtol=0)


def test_the_network_compiles_to_one_graph() -> None:
    """No part falls back to Python: torch.compile traces the network whole."""
    net = random_network(IMPROVED)
    traced = torch.compile(net, backend="eager", fullgraph=True)
    assert torch.equal(
        traced(pictures(IMPROVED), TIMES, conditions(IMPROVED)), net(pictures(IMPROVED), TIMES, conditions(IMPROVED))
    )
