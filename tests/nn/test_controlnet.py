"""Control networks: no change at initialisation, and residuals where the published code adds them.

What diffusers computes with the same weights is in tests/formats/test_stable_diffusion.py.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers.networks import PLAIN, ROWS, TIMES, pictures, random_network
from unnoise.conditions import NOTHING, Cond
from unnoise.config.networks import ControlConfig, UNetConfig
from unnoise.errors import UserError
from unnoise.nn import UNet
from unnoise.nn.controlnet import ControlNet, Hint, copy_base, guess_scales
from unnoise.noise import normal

CONTROL = ControlConfig(channels=2, hint=(4, 6), scale=2)
CONFIG = replace(PLAIN, context=12, classes=3, blocks=2, controls=(CONTROL,))
TEXT_ONLY = Cond(label=torch.tensor([2, 0, 3, 1]), text=normal((ROWS, 5, 12), "words"))
HINT = normal((ROWS, 2, 16, 16), "hint").sigmoid()
CONTROLLED = replace(TEXT_ONLY, control=(HINT,))


def new_network(config: UNetConfig = CONFIG, seed: int = 0) -> UNet:
    """A base with random weights, with controls as at the beginning of their training."""
    torch.manual_seed(seed)
    base, net = random_network(replace(config, controls=())), UNet(config)
    net.load_state_dict(base.state_dict(), strict=False)
    copy_base(net)
    return net.eval()


def base_of(net: UNet) -> UNet:
    base = UNet(replace(net.config, controls=()))
    base.load_state_dict({n: t for n, t in net.state_dict().items() if not n.startswith("controls.")})
    return base.eval()


# --- what changes nothing ---


def test_at_initialisation_the_base_is_unchanged_bit_for_bit() -> None:
    net = new_network()
    right = base_of(net)(pictures(), TIMES, TEXT_ONLY)
    assert torch.equal(net(pictures(), TIMES, TEXT_ONLY), right)
    assert torch.equal(net(pictures(), TIMES, CONTROLLED), right)


def test_without_a_control_image_or_at_scale_zero_the_base_is_unchanged_bit_for_bit() -> None:
    net = random_network(CONFIG)
    right = base_of(net)(pictures(), TIMES, TEXT_ONLY)
    assert torch.equal(net(pictures(), TIMES, TEXT_ONLY), right)
    assert torch.equal(net(pictures(), TIMES, replace(CONTROLLED, control_scale=torch.zeros(ROWS, 1))), right)
    assert not torch.allclose(net(pictures(), TIMES, CONTROLLED), right, atol=1e-2)


def test_each_row_has_its_own_scale() -> None:
    net = random_network(CONFIG)
    without, full = net(pictures(), TIMES, TEXT_ONLY), net(pictures(), TIMES, CONTROLLED)
    assert torch.equal(net(pictures(), TIMES, replace(CONTROLLED, control_scale=torch.ones(ROWS, 1))), full)
    mixed = net(pictures(), TIMES, replace(CONTROLLED, control_scale=torch.tensor([[0.0], [1.0], [0.0], [1.0]])))
    assert torch.equal(mixed[[0, 2]], without[[0, 2]])
    assert torch.equal(mixed[[1, 3]], full[[1, 3]])


def test_one_control_twice_at_half_scale_is_once_at_scale_one() -> None:
    one, two = random_network(CONFIG), random_network(replace(CONFIG, controls=(CONTROL, CONTROL)))
    state = one.state_dict()
    state |= {n.replace("controls.0.", "controls.1."): t for n, t in state.items() if n.startswith("controls.")}
    two.load_state_dict(state)
    halves = replace(CONTROLLED, control=(HINT, HINT), control_scale=torch.full((ROWS, 2), 0.5))
    assert torch.equal(two(pictures(), TIMES, halves), one(pictures(), TIMES, CONTROLLED))


# --- where it is added ---


def test_residuals_have_the_skips_shapes() -> None:
    config = UNetConfig(
        size=16, channels=(8, 8, 16, 16), blocks=2, attention=(False,) * 4, groups=4, controls=(CONTROL,)
    )
    control = random_network(config).controls[0]
    shapes, x = [], normal((2, 3, 16, 16), "x")
    for h, width in [(16, 8)] * 3 + [(8, 8)] * 3 + [(4, 8)] + [(4, 16)] * 2 + [(2, 16)] * 4:
        shapes.append((2, width, h, h))
    hint = control.hint(normal((2, 2, 32, 32), "hint"))
    found = control(
        x, TIMES[:2], NOTHING, hint, pooled=None, contexts=control.contexts((), None), run=random_network(config).run
    )
    assert [tuple(residual.shape) for residual in found] == shapes
    assert len(found) == 12 + 1


def test_each_residual_is_added_to_its_own_skip() -> None:
    """By hand: zero convolutions with a constant output c_k add these constants to the skips and to the middle."""
    net = random_network(CONFIG)
    control = net.controls[0]
    constants = [0.1 * k for k in range(1, len(control.zero_convs) + 2)]
    for conv, constant in zip((*control.zero_convs, control.zero_middle), constants, strict=True):
        conv.weight.data.zero_()
        conv.bias.data.fill_(constant)
    base = base_of(net)
    emb = base.embed(TIMES, TEXT_ONLY, None)
    contexts = base.contexts(base.encode(TEXT_ONLY).encoded.keys_values, None)
    skips = base.down(base.conv_in(pictures()), emb, contexts, base.run)
    h = base.mid_block(skips[-1], emb, contexts, base.run) + constants[-1]
    skips = [skip + constant for skip, constant in zip(skips, constants[:-1], strict=True)]
    for level in base.up_blocks:
        h = level(h, skips, emb, contexts, base.run)
    right = base.conv_out(F.silu(base.conv_norm_out(h)))
    torch.testing.assert_close(net(pictures(), TIMES, CONTROLLED), right, atol=1e-5, rtol=0)


def test_a_copy_with_identity_convolutions_computes_the_skips_of_the_base() -> None:
    """Initially `hint` is zero: with identities for zero convolutions each residual is the base's own skip."""
    net = new_network()
    control = net.controls[0]
    for conv in (*control.zero_convs, control.zero_middle):
        conv.weight.data = torch.eye(conv.weight.shape[0])[:, :, None, None]
    emb, contexts = net.embed(TIMES, TEXT_ONLY, None), net.contexts(net.encode(TEXT_ONLY).encoded.keys_values, None)
    skips = net.down(net.conv_in(pictures()), emb, contexts, net.run)
    middle = net.mid_block(skips[-1], emb, contexts, net.run)
    encoded = net.encode(CONTROLLED).encoded.controls[0]
    contexts = control.contexts(encoded.keys_values, None)
    found = control(pictures(), TIMES, TEXT_ONLY, encoded.hint, pooled=None, contexts=contexts, run=net.run)
    for residual, wanted in zip(found, [*skips, middle], strict=True):
        torch.testing.assert_close(residual, wanted, atol=1e-6, rtol=0)


def test_pooled_residuals_are_spatial_means() -> None:
    plain, pooled = random_network(CONFIG), random_network(replace(CONFIG, controls=(replace(CONTROL, pooled=True),)))
    results: list[list[Tensor]] = []
    for net in (plain, pooled):
        control = net.controls[0]
        encoded = net.encode(CONTROLLED).encoded.controls[0]
        contexts = control.contexts(encoded.keys_values, None)
        results.append(control(pictures(), TIMES, TEXT_ONLY, encoded.hint, pooled=None, contexts=contexts, run=net.run))
    for each, mean in zip(*results, strict=True):
        torch.testing.assert_close(mean, each.mean((2, 3), keepdim=True))
    assert pooled(pictures(), TIMES, CONTROLLED).shape == pictures().shape


# --- images ---


def test_the_network_of_control_images_has_the_published_shape() -> None:
    """Of Stable Diffusion: 3x3 convolutions 16, 16, 32 (half), 32, 96 (half), 96, 256 (half), and one to 320."""
    hint = Hint(ControlConfig(), 320)
    convs = [hint.conv_in, *hint.blocks, hint.conv_out]
    assert [conv.out_channels for conv in convs] == [16, 16, 32, 32, 96, 96, 256, 320]
    assert [conv.stride[0] for conv in convs] == [1, 1, 2, 1, 2, 1, 2, 1]
    assert {conv.kernel_size for conv in convs} == {(3, 3)}
    assert hint(torch.zeros(1, 3, 32, 48)).shape == (1, 320, 4, 6)
    flat = Hint(ControlConfig(hint=(4, 5, 6), scale=1), 8)
    assert flat(torch.zeros(1, 3, 5, 7)).shape == (1, 8, 5, 7)


def test_bgr_is_rgb_reversed() -> None:
    rgb, bgr = (
        random_network(replace(CONFIG, controls=(ControlConfig(hint=(4,), scale=1, order=o),))) for o in ("rgb", "bgr")
    )
    image = normal((ROWS, 3, 8, 8), "image")
    right = rgb(pictures(), TIMES, replace(TEXT_ONLY, control=(image,)))
    assert torch.equal(bgr(pictures(), TIMES, replace(TEXT_ONLY, control=(image.flip(1),))), right)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (replace(CONTROL, scale=3), "scale of a control must be a power of two, not 3"),
        (replace(CONTROL, scale=4), "scale 4 of a control needs 2 halvings, but its hint of 2 widths has 1 steps"),
        (replace(CONTROL, hint=()), "channels and hint of a control must be at least 1"),
    ],
)
def test_an_invalid_configuration_is_an_error(how: ControlConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        UNet(replace(CONFIG, controls=(how,)))


# --- learning ---

ZEROS = re.compile(r"controls\.0\.zero_")
LAST = re.compile(r"controls\.0\.hint\.conv_out\.")


def learned(net: UNet) -> set[str]:
    """The controls' parameters that have a gradient other than zero after one step of the others."""
    net.zero_grad()
    out = net(pictures(), TIMES, CONTROLLED)
    (out * normal(tuple(out.shape), "direction")).sum().backward()
    found = {n for n, p in net.named_parameters() if p.grad is not None and p.grad.any()}
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.grad is not None:
                parameter -= 1e-2 * parameter.grad
    return found


def test_gradients_reach_the_weights_in_three_steps() -> None:
    """First the zero convolutions; then also the copy and the last layer of `hint`; then all of it."""
    net = new_network()
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name.startswith("controls."))
    names = {name for name, _ in net.named_parameters() if name.startswith("controls.")}
    zeros = {name for name in names if ZEROS.match(name)}
    reader = {name for name in names if name.startswith("controls.0.hint.") and not LAST.match(name)}
    assert len(zeros) == 2 * (1 + 2 * 2 + 1 + 1)
    assert learned(net) == zeros
    assert learned(net) == names - reader
    assert learned(net) == names


def test_a_frozen_base_stays_as_it_is() -> None:
    net = new_network()
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name.startswith("controls."))
    before = {n: t.clone() for n, t in net.state_dict().items()}
    for _ in range(3):
        learned(net)
    changed = {n for n, t in net.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == {n for n in before if n.startswith("controls.")}


def test_new_controls_are_copies_of_their_base() -> None:
    torch.manual_seed(3)
    net = UNet(CONFIG)
    base = net.state_dict()
    control = net.controls[0]
    assert isinstance(control, ControlNet)
    for name, tensor in control.state_dict().items():
        if not name.startswith(("hint.", "zero_")):
            assert torch.equal(tensor, base[name][: len(tensor)]), name
    assert not any(parameter.any() for parameter in control.hint.conv_out.parameters())
    assert all(bool(conv.weight.any()) for conv in (control.hint.conv_in, *control.hint.blocks))


# --- guess mode ---


def test_guess_mode_decays_from_the_middle_to_the_first() -> None:
    """The published code: scale * 0.825 ** (12 - i), i = 0 the first skip, 12 the middle."""
    strength = guess_scales(torch.tensor([[1.0, 2.0], [0.0, 1.0]]), 13)
    assert strength.shape == (2, 2, 13)
    torch.testing.assert_close(strength[0, 1], torch.tensor([2 * 0.825 ** (12 - i) for i in range(13)]))
    assert not strength[1, 0].any()


def test_a_scale_per_residual_scales_that_residual() -> None:
    net = random_network(CONFIG)
    depths = len(net.controls[0].zero_convs) + 1
    flat = torch.full((ROWS, 1, depths), 0.5)
    right = net(pictures(), TIMES, replace(CONTROLLED, control_scale=torch.full((ROWS, 1), 0.5)))
    assert torch.equal(net(pictures(), TIMES, replace(CONTROLLED, control_scale=flat)), right)
    for depth in range(depths):
        one = torch.zeros(ROWS, 1, depths)
        one[:, :, depth] = 1
        silenced: Any = random_network(CONFIG)
        for place, conv in enumerate((*silenced.controls[0].zero_convs, silenced.controls[0].zero_middle)):
            if place != depth:
                conv.weight.data.zero_()
                conv.bias.data.zero_()
        assert torch.equal(
            net(pictures(), TIMES, replace(CONTROLLED, control_scale=one)), silenced(pictures(), TIMES, CONTROLLED)
        )
