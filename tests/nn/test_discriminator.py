"""PatchGAN: the published parameter count and patch, and logits that depend on their own picture and patch alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unnoise.config.training import DiscriminatorConfig
from unnoise.errors import UserError
from unnoise.nn.discriminator import PatchDiscriminator, least_size


def small(norm: str = "group", layers: int = 2) -> PatchDiscriminator:
    torch.manual_seed(0)
    return PatchDiscriminator(DiscriminatorConfig(width=4, layers=layers, norm=norm), 3)  # type: ignore[arg-type]


def test_the_published_count() -> None:
    published = PatchDiscriminator(DiscriminatorConfig(width=64, layers=3, norm="batch"), 3)
    assert sum(p.numel() for p in published.parameters()) == 2_765_633


@pytest.mark.parametrize(("layers", "patch"), [(1, 16), (2, 34), (3, 70)])
def test_a_logit_is_that_of_a_patch(layers: int, patch: int) -> None:
    net = small(layers=layers)
    for i, part in enumerate(net.net):
        if isinstance(part, nn.GroupNorm):  # which sees the whole picture
            net.net[i] = nn.Identity()
    x = torch.rand(1, 3, 160, 160, requires_grad=True)
    logits = net(x)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    assert x.grad is not None
    seen = x.grad[0].abs().sum(0) > 0
    assert seen.any(0).sum() == seen.any(1).sum() == patch


@pytest.mark.parametrize("norm", ["group", "instance"])
def test_logits_of_a_picture_are_its_own(norm: str) -> None:
    net, x = small(norm), torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(net(x)[:1], net(x[:1]))


def test_batch_norm_depends_on_the_batch() -> None:
    net, x = small("batch"), torch.rand(3, 3, 32, 32)
    assert not torch.allclose(net(x)[:1], net(x[:2])[:1])
    assert not list(net.buffers())  # no statistics that differ between training and evaluation


def test_instance_norm_is_of_each_channel() -> None:
    parts = [part for part in small("instance").net if isinstance(part, nn.GroupNorm)]
    assert [part.num_groups for part in parts] == [part.num_channels for part in parts] == [8, 16]


def test_initial_weights_are_published() -> None:
    net = PatchDiscriminator(DiscriminatorConfig(), 3)
    weights = torch.cat([part.weight.flatten() for part in net.net if isinstance(part, nn.Conv2d)])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    scales = torch.cat([part.weight for part in net.net if isinstance(part, nn.GroupNorm)])
    assert scales.mean().item() == pytest.approx(1, abs=0.005)
    assert scales.std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_least_size(layers: int) -> None:
    side = least_size(layers)
    assert small(layers=layers)(torch.rand(1, 3, side, side)).shape == (1, 1, 1, 1)
    with pytest.raises((RuntimeError, ValueError)):
        small(layers=layers)(torch.rand(1, 3, side - 1, side - 1))


def test_a_wrong_configuration() -> None:
    with pytest.raises(UserError, match=r"discriminator.layers 0 must be at least 1"):
        small(layers=0)
