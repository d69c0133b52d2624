"""Control networks: nothing at birth, three stages of waking, and residuals where the published code adds them.

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

from tests.helpers.networks import PLAIN, ROWS, TIMES, alive, pictures
from unnoise.conditions import NOTHING, Cond
from unnoise.config.networks import ControlConfig, UNetConfig
from unnoise.errors import UserError
from unnoise.nn import UNet
from unnoise.nn.controlnet import ControlNet, Hint, copy_base, guess_scales
from unnoise.noise import normal

HOW = ControlConfig(channels=2, hint=(4, 6), scale=2)
CONFIG = replace(PLAIN, context=12, classes=3, blocks=2, controls=(HOW,))
WORDS = Cond(label=torch.tensor([2, 0, 3, 1]), text=normal((ROWS, 5, 12), "words"))
HINT = normal((ROWS, 2, 16, 16), "hint").sigmoid()
DRAWN = replace(WORDS, control=(HINT,))


def born(config: UNetConfig = CONFIG, seed: int = 0) -> UNet:
    """A base that says something, with controls as at the beginning of their training."""
    torch.manual_seed(seed)
    base, net = alive(replace(config, controls=())), UNet(config)
    net.load_state_dict(base.state_dict(), strict=False)
    copy_base(net)
    return net.eval()


def base_of(net: UNet) -> UNet:
    base = UNet(replace(net.config, controls=()))
    base.load_state_dict({n: t for n, t in net.state_dict().items() if not n.startswith("controls.")})
    return base.eval()


# --- what changes nothing ---


def test_at_birth_the_base_is_unchanged_bit_for_bit() -> None:
    net = born()
    right = base_of(net)(pictures(), TIMES, WORDS)
    assert torch.equal(net(pictures(), TIMES, WORDS), right)
    assert torch.equal(net(pictures(), TIMES, DRAWN), right)


def test_without_a_drawing_or_without_strength_the_base_is_unchanged_bit_for_bit() -> None:
    net = alive(CONFIG)
    right = base_of(net)(pictures(), TIMES, WORDS)
    assert torch.equal(net(pictures(), TIMES, WORDS), right)
    assert torch.equal(net(pictures(), TIMES, replace(DRAWN, control_scale=torch.zeros(ROWS, 1))), right)
    assert not torch.allclose(net(pictures(), TIMES, DRAWN), right, atol=1e-2)


def test_strength_is_a_rows_own() -> None:
    net = alive(CONFIG)
    without, full = net(pictures(), TIMES, WORDS), net(pictures(), TIMES, DRAWN)
    assert torch.equal(net(pictures(), TIMES, replace(DRAWN, control_scale=torch.ones(ROWS, 1))), full)
    mixed = net(pictures(), TIMES, replace(DRAWN, control_scale=torch.tensor([[0.0], [1.0], [0.0], [1.0]])))
    assert torch.equal(mixed[[0, 2]], without[[0, 2]])
    assert torch.equal(mixed[[1, 3]], full[[1, 3]])


def test_two_of_one_at_half_strength_are_one() -> None:
    one, two = alive(CONFIG), alive(replace(CONFIG, controls=(HOW, HOW)))
    state = one.state_dict()
    state |= {n.replace("controls.0.", "controls.1."): t for n, t in state.items() if n.startswith("controls.")}
    two.load_state_dict(state)
    halves = replace(DRAWN, control=(HINT, HINT), control_scale=torch.full((ROWS, 2), 0.5))
    assert torch.equal(two(pictures(), TIMES, halves), one(pictures(), TIMES, DRAWN))


# --- where it is added ---


def test_residuals_have_the_skips_shapes() -> None:
    config = UNetConfig(size=16, channels=(8, 8, 16, 16), blocks=2, attention=(False,) * 4, groups=4, controls=(HOW,))
    control = alive(config).controls[0]
    told, seen = [], normal((2, 3, 16, 16), "x")
    for h, width in [(16, 8)] * 3 + [(8, 8)] * 3 + [(4, 8)] + [(4, 16)] * 2 + [(2, 16)] * 3 + [(2, 16)]:
        told.append((2, width, h, h))
    hint = control.hint(normal((2, 2, 32, 32), "hint"))
    found = control(
        seen, TIMES[:2], NOTHING, hint, caption=None, words=control.contexts(iter(()), None), run=alive(config).run
    )
    assert [tuple(residual.shape) for residual in found] == told
    assert len(found) == 12 + 1


def test_each_residual_goes_to_its_own_skip_before_it_is_joined() -> None:
    """By hand: zero convolutions that say a constant c_k are constants added to the skips and behind the middle."""
    net = alive(CONFIG)
    control = net.controls[0]
    constants = [0.1 * k for k in range(1, len(control.zero_convs) + 2)]
    for conv, constant in zip((*control.zero_convs, control.zero_middle), constants, strict=True):
        conv.weight.data.zero_()
        conv.bias.data.fill_(constant)
    base = base_of(net)
    told = base.embed(TIMES, WORDS, None)
    words = base.contexts(iter(base.encode(WORDS).encoded), None)
    skips = base.down(base.conv_in(pictures()), told, words, base.run)
    h = base.mid_block(skips[-1], told, words, base.run) + constants[-1]
    skips = [skip + constant for skip, constant in zip(skips, constants[:-1], strict=True)]
    for level in base.up_blocks:
        h = level(h, skips, told, words, base.run)
    right = base.conv_out(F.silu(base.conv_norm_out(h)))
    torch.testing.assert_close(net(pictures(), TIMES, DRAWN), right, atol=1e-5, rtol=0)


def test_a_copy_with_open_convolutions_says_what_the_base_leaves_behind() -> None:
    """At birth the drawing adds zero: with identities for zero convolutions each residual is the base's own skip."""
    net = born()
    control = net.controls[0]
    for conv in (*control.zero_convs, control.zero_middle):
        conv.weight.data = torch.eye(conv.weight.shape[0])[:, :, None, None]
    told, words = net.embed(TIMES, WORDS, None), net.contexts(iter(net.encode(WORDS).encoded), None)
    skips = net.down(net.conv_in(pictures()), told, words, net.run)
    middle = net.mid_block(skips[-1], told, words, net.run)
    hint, *encoded = net.encode(DRAWN).encoded[net.depth :]
    found = control(
        pictures(), TIMES, WORDS, hint, caption=None, words=control.contexts(iter(encoded), None), run=net.run
    )
    for residual, wanted in zip(found, [*skips, middle], strict=True):
        torch.testing.assert_close(residual, wanted, atol=1e-6, rtol=0)


def test_pooled_residuals_are_spatial_means() -> None:
    plain, pooled = alive(CONFIG), alive(replace(CONFIG, controls=(replace(HOW, pooled=True),)))
    seen: list[list[Tensor]] = []
    for net in (plain, pooled):
        control = net.controls[0]
        hint, *encoded = net.encode(DRAWN).encoded[net.depth :]
        words = control.contexts(iter(encoded), None)
        seen.append(control(pictures(), TIMES, WORDS, hint, caption=None, words=words, run=net.run))
    for each, mean in zip(*seen, strict=True):
        torch.testing.assert_close(mean, each.mean((2, 3), keepdim=True))
    assert pooled(pictures(), TIMES, DRAWN).shape == pictures().shape


# --- drawings ---


def test_the_network_of_drawings_has_the_published_shape() -> None:
    """Of Stable Diffusion: 3x3 convolutions 16, 16, 32 (half), 32, 96 (half), 96, 256 (half), and one to 320."""
    hint = Hint(ControlConfig(), 320)
    convs = [hint.conv_in, *hint.blocks, hint.conv_out]
    assert [conv.out_channels for conv in convs] == [16, 16, 32, 32, 96, 96, 256, 320]
    assert [conv.stride[0] for conv in convs] == [1, 1, 2, 1, 2, 1, 2, 1]
    assert {conv.kernel_size for conv in convs} == {(3, 3)}
    assert hint(torch.zeros(1, 3, 32, 48)).shape == (1, 320, 4, 6)
    flat = Hint(ControlConfig(hint=(4, 5, 6), scale=1), 8)
    assert flat(torch.zeros(1, 3, 5, 7)).shape == (1, 8, 5, 7)


def test_bgr_is_rgb_turned_round() -> None:
    rgb, bgr = (alive(replace(CONFIG, controls=(ControlConfig(hint=(4,), scale=1, order=o),))) for o in ("rgb", "bgr"))
    drawing = normal((ROWS, 3, 8, 8), "drawing")
    right = rgb(pictures(), TIMES, replace(WORDS, control=(drawing,)))
    assert torch.equal(bgr(pictures(), TIMES, replace(WORDS, control=(drawing.flip(1),))), right)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (replace(HOW, scale=3), "scale of a control is a power of two, not 3"),
        (replace(HOW, scale=4), "scale 4 of a control is 2 halvings, and hint of 2 widths has 1 steps"),
        (replace(HOW, hint=()), "channels and hint of a control are at least 1"),
    ],
)
def test_a_control_that_cannot_be_is_refused(how: ControlConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        UNet(replace(CONFIG, controls=(how,)))


# --- learning ---

ZEROS = re.compile(r"controls\.0\.zero_")
LAST = re.compile(r"controls\.0\.hint\.conv_out\.")


def learned(net: UNet) -> set[str]:
    """The controls' parameters that have a gradient other than zero after one step of the others."""
    net.zero_grad()
    out = net(pictures(), TIMES, DRAWN)
    (out * normal(tuple(out.shape), "direction")).sum().backward()
    found = {n for n, p in net.named_parameters() if p.grad is not None and p.grad.any()}
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.grad is not None:
                parameter -= 1e-2 * parameter.grad
    return found


def test_learning_wakes_in_three_stages() -> None:
    """First the zero convolutions; then the copy and the last layer of what reads the drawing; then all of it."""
    net = born()
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
    net = born()
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name.startswith("controls."))
    before = {n: t.clone() for n, t in net.state_dict().items()}
    for _ in range(3):
        learned(net)
    changed = {n for n, t in net.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == {n for n in before if n.startswith("controls.")}


def test_controls_are_copies_of_the_base_they_are_born_beside() -> None:
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


def test_guess_mode_fades_from_the_middle_to_the_first() -> None:
    """The published code: strength * 0.825 ** (12 - i), i = 0 the first skip, 12 the middle."""
    strength = guess_scales(torch.tensor([[1.0, 2.0], [0.0, 1.0]]), 13)
    assert strength.shape == (2, 2, 13)
    torch.testing.assert_close(strength[0, 1], torch.tensor([2 * 0.825 ** (12 - i) for i in range(13)]))
    assert not strength[1, 0].any()


def test_a_strength_a_depth_scales_that_depth() -> None:
    net = alive(CONFIG)
    depths = len(net.controls[0].zero_convs) + 1
    flat = torch.full((ROWS, 1, depths), 0.5)
    right = net(pictures(), TIMES, replace(DRAWN, control_scale=torch.full((ROWS, 1), 0.5)))
    assert torch.equal(net(pictures(), TIMES, replace(DRAWN, control_scale=flat)), right)
    for depth in range(depths):
        one = torch.zeros(ROWS, 1, depths)
        one[:, :, depth] = 1
        silenced: Any = alive(CONFIG)
        for place, conv in enumerate((*silenced.controls[0].zero_convs, silenced.controls[0].zero_middle)):
            if place != depth:
                conv.weight.data.zero_()
                conv.bias.data.zero_()
        assert torch.equal(
            net(pictures(), TIMES, replace(DRAWN, control_scale=one)), silenced(pictures(), TIMES, DRAWN)
        )
