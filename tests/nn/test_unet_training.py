"""Training a U-Net: gradients, checkpointing, dropout, and weights that fit their network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.helpers.unets import CONFIGS, IMPROVED, SMALL, TIMES, conditions, pictures, random_network
from unnoise.conditions import NOTHING
from unnoise.config.networks import UNetConfig
from unnoise.nn import UNet
from unnoise.nn.unet import Block
from unnoise.noise import normal


def gradients(net: UNet, seed: int = 0) -> Iterator[Tensor]:
    net.zero_grad()
    torch.manual_seed(seed)  # dropout's
    config = net.config
    out = net(pictures(config), TIMES, conditions(config))
    (out * normal(tuple(out.shape), "direction")).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        yield parameter.grad.clone()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_weight_has_a_gradient(config: UNetConfig) -> None:
    net = random_network(config)
    for (name, parameter), grad in zip(net.named_parameters(), gradients(net), strict=True):
        rows = grad.abs().flatten(1).sum(1) if grad.ndim > 1 else grad.abs()
        if name.endswith("qkv.bias"):
            rows = torch.cat([rows.chunk(3)[0], rows.chunk(3)[2]])  # a bias of all keys changes no weight of attention
        assert (rows > 0).float().mean() > 0.99, name
        assert parameter.shape == grad.shape


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_checkpointing_gives_the_same_gradients(config: UNetConfig) -> None:
    net = random_network(replace(config, dropout=0.2)).train()
    plain = list(gradients(net))
    net.checkpointing = True
    assert all(torch.equal(a, b) for a, b in zip(gradients(net), plain, strict=True))
    other = list(gradients(net, seed=1))
    assert not all(torch.equal(a, b) for a, b in zip(other, plain, strict=True))  # dropout was there


def kept_for_gradients(net: UNet) -> int:
    sizes: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        net(pictures(net.config), TIMES, conditions(net.config))
    return sum(sizes)


def test_checkpointing_stores_less() -> None:
    net = random_network(SMALL)
    plain = kept_for_gradients(net)
    net.checkpointing = True
    assert kept_for_gradients(net) < 0.4 * plain


def test_dropout_is_for_training() -> None:
    net, x = random_network(replace(SMALL, dropout=0.5)), pictures(SMALL)
    assert torch.equal(net(x, TIMES, NOTHING), net(x, TIMES, NOTHING))
    net.train()
    assert not torch.equal(net(x, TIMES, NOTHING), net(x, TIMES, NOTHING))


def test_weights_fit_their_network_only() -> None:
    state = random_network(SMALL).state_dict()
    UNet(SMALL).load_state_dict(state)
    for other in (
        IMPROVED,
        replace(SMALL, blocks=2),
        replace(SMALL, middle_attention=False),
        replace(SMALL, classes=1),
    ):
        with pytest.raises(RuntimeError):
            UNet(other).load_state_dict(state)


def test_attention_is_at_the_configured_levels() -> None:
    net = UNet(replace(SMALL, attention=(True, False, True), middle_attention=False))
    found = [name for name, module in net.named_modules() if isinstance(module, Block) and module.attention is not None]
    levels = {name.rsplit(".blocks.", 1)[0] for name in found}
    assert levels == {"down_blocks.0", "down_blocks.2", "up_blocks.0", "up_blocks.2"}
    assert len(found) == 2 * 1 + 2 * 2
