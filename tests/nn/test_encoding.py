"""Conditions that are encoded beforehand: the same bits, nothing twice, and rows as of any condition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.networks import NETWORKS, PLAIN, ROWS, TIMES, full_condition, pictures, random_network
from unnoise.conditions import NOTHING, Cond
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import DiTConfig
from unnoise.denoiser import make_diffusion
from unnoise.errors import UserError

each_network = pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)


@each_network
def test_encoding_beforehand_gives_the_same_bits(config: Any) -> None:
    net, cond = random_network(config), full_condition(config)
    encoded = net.encode(cond)
    assert encoded.encoded
    assert encoded.tokens is None
    assert encoded.text is None
    assert encoded.control == ()
    assert net.encode(encoded) is encoded
    right = net(pictures(), TIMES, cond)
    assert right.std() > 0.1
    assert torch.equal(net(pictures(), TIMES, encoded), right)


@each_network
def test_nothing_is_encoded_twice(config: Any) -> None:
    """With an encoded condition no text encoder, no map of its output and no network of control images runs again."""
    net, cond = random_network(config), full_condition(config)
    ran: list[str] = []
    for name, module in net.named_modules():
        if name.startswith("text.") or name.endswith(".kv") or ".hint." in name:
            module.register_forward_hook(lambda module, inputs, out, name=name: ran.append(name))
    encoded = net.encode(cond)
    assert ran
    ran.clear()
    net(pictures(), TIMES, encoded)
    assert ran == []


@each_network
def test_a_denoiser_encodes_once(config: Any) -> None:
    diffusion, cond = make_diffusion(random_network(config), DiffusionConfig()), full_condition(config)
    calls = []
    encode = diffusion.net.encode
    diffusion.net.encode = lambda cond: calls.append(bool(cond.encoded)) or encode(cond)  # type: ignore[method-assign]
    t = torch.tensor(0.5, dtype=torch.float64)
    right = diffusion(pictures(), t, cond).mean
    denoiser = diffusion.given(cond)
    calls.clear()
    assert torch.equal(denoiser(pictures(), t).mean, right)
    assert torch.equal(denoiser(pictures(), t).mean, right)
    assert calls == [True, True]


@each_network
def test_rows_of_encoded_conditions_are_selected_concatenated_and_replaced(config: Any) -> None:
    net = random_network(config)
    one, other = full_condition(config), full_condition(config, "another")
    encoded, others = net.encode(one), net.encode(other)
    rows = torch.tensor([True, False, False, True])

    def answer(cond: Cond, rows: Any = slice(None)) -> Tensor:
        out: Tensor = net(pictures()[rows], TIMES[rows], cond)
        return out

    right, wrong = answer(one), answer(other)
    assert (right - wrong).flatten(1).abs().amax(1).min() > 1e-3
    close: Any = {"atol": 2e-5, "rtol": 0}  # another batch adds in another order
    torch.testing.assert_close(answer(encoded[1:3], slice(1, 3)), right[1:3], **close)
    torch.testing.assert_close(
        answer(encoded.where(rows, others)), torch.where(rows[:, None, None, None], wrong, right)
    )
    both = net(torch.cat([pictures()] * 2), torch.cat([TIMES] * 2), encoded.cat(others))
    torch.testing.assert_close(both, torch.cat([right, wrong]), **close)


@each_network
def test_encoded_rows_do_not_mix_with_rows_that_are_not(config: Any) -> None:
    """Otherwise the captions of some rows would be ignored silently."""
    encoded = random_network(config).encode(full_condition(config))
    with pytest.raises(ValueError, match="with and without"):
        encoded.where(torch.tensor([True, False, True, False]), full_condition(config, "another"))
    with pytest.raises(ValueError, match="with and without"):
        full_condition(config).cat(encoded)


@each_network
def test_text_that_is_added_after_encoding_is_an_error(config: Any) -> None:
    net, cond = random_network(config), full_condition(config)
    encoded = net.encode(cond)
    for name in ("tokens", "text", "control"):
        value = getattr(cond, name)
        if value is None or value == ():
            continue
        with pytest.raises(UserError, match="added to a condition that is already encoded"):
            net(pictures(), TIMES, replace(encoded, **{name: value}))


def test_a_condition_encoded_by_another_network_is_an_error() -> None:
    encoded = random_network(NETWORKS["text"]).encode(full_condition(NETWORKS["text"]))
    with pytest.raises(UserError, match=r"encoded by another network .*4 .* and 0 control images, expected 0 and 2"):
        random_network(NETWORKS["control images only"])(pictures(), TIMES, encoded)
    with pytest.raises(UserError, match=r"encoded by another network .*4 cross-attentions, expected 2"):
        random_network(NETWORKS["dit, text"])(pictures(), TIMES, encoded)


@each_network
def test_a_network_without_text_and_controls_leaves_the_condition_as_it_is(config: Any) -> None:
    for plain in (PLAIN, replace(PLAIN, classes=3), DiTConfig(size=8, width=16, depth=1, heads=2)):
        cond = Cond(torch.zeros(ROWS, dtype=torch.int64)) if plain.classes else NOTHING
        assert random_network(plain).encode(cond) is cond
