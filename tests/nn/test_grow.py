"""A grown network's inner levels compute what the inner network's do; what cannot grow is an error."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.helpers.random_weights import randomised
from unnoise.conditions import Cond
from unnoise.config.networks import TextConfig, UNetConfig
from unnoise.config.presets import PRESETS
from unnoise.errors import UserError
from unnoise.nn.grow import grow, inner, levels_around
from unnoise.nn.unet import UNet

OUTER = UNetConfig(
    size=16, channels=(8, 8, 8, 16), blocks=2, attention=(False, False, True, True), groups=4, head_width=4,
    scale_shift=True, text=TextConfig(vocabulary=50, length=9, width=8, depth=1, heads=2),
)  # fmt: skip
CORE = inner(OUTER, 2)


def grown(config: UNetConfig = OUTER) -> tuple[UNet, UNet]:
    core, net = randomised(UNet(CORE)), new_network(config)
    grow(net, CORE, core.state_dict())
    return core, net


def new_network(config: UNetConfig = OUTER) -> UNet:
    torch.manual_seed(1)
    return UNet(config).eval()


def between(net: UNet, levels: int, features: torch.Tensor, time: torch.Tensor, cond: Cond) -> torch.Tensor:
    """The output of the levels from `levels` on, for the features that reach them in this network."""
    caught: list[torch.Tensor] = []

    def shown(part: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return features, *inputs[1:]

    def left(part: nn.Module, inputs: object, out: torch.Tensor) -> None:
        caught.append(out)

    depth = len(net.config.channels)
    last = net.up_blocks[depth - 1 - levels].blocks[-1]
    hooks = [net.down_blocks[levels].register_forward_pre_hook(shown), last.register_forward_hook(left)]
    # the skip beside the last block is what came into these levels
    entry = net.conv_in if levels == 0 else net.down_blocks[levels - 1].step
    hooks.append(entry.register_forward_hook(lambda part, inputs, out: features))
    with torch.no_grad():
        net(torch.zeros(2, 3, net.config.size, net.config.size), time, cond)
    for hook in hooks:
        hook.remove()
    return caught[0]


def test_inner_levels_compute_what_the_inner_network_does() -> None:
    core, net = grown()
    generator = torch.Generator().manual_seed(3)
    features, time = torch.randn((2, 8, 4, 4), generator=generator), torch.tensor([3.0, 900.0])
    cond = Cond(tokens=torch.tensor([[3, 7, 9], [4, 1, 0]]))
    theirs, mine = between(core, 0, features, time, cond), between(net, 2, features, time, cond)
    assert theirs.abs().mean() > 0.1
    assert torch.equal(mine, theirs)
    assert not torch.allclose(between(new_network(), 2, features, time, cond), theirs)


def test_the_levels_around_keep_their_initial_weights() -> None:
    _, net = grown()
    initial = new_network().state_dict()
    own = [name for name, value in net.state_dict().items() if torch.equal(value, initial[name])]
    assert {name.split(".")[0] for name in own} == {"conv_in", "conv_norm_out", "conv_out", "down_blocks", "up_blocks"}
    assert all(not name.startswith(("down_blocks.2", "down_blocks.3", "up_blocks.0.")) for name in own)


def test_levels_around_counts_them() -> None:
    assert levels_around(OUTER, CORE) == 2
    assert levels_around(replace(OUTER, dropout=0.1), CORE) == 2
    assert levels_around(OUTER, OUTER) == 0
    assert levels_around(CORE, OUTER) == 0
    assert levels_around(OUTER, replace(CORE, size=8)) == 0
    assert levels_around(OUTER, replace(CORE, blocks=1)) == 0


def test_the_preset_grows_around_its_core() -> None:
    whole, core = PRESETS["shapes-text"](), PRESETS["shapes-text-core"]()
    levels = levels_around(whole.net, core.net)
    assert levels == 2
    assert core.process.schedule_options == {"shift": 0.5**levels}
    assert (core.data.size, whole.data.size) == (core.net.size, whole.net.size)


def test_a_level_of_another_width_is_an_error() -> None:
    wide = replace(OUTER, channels=(8, 16, 8, 16))
    with pytest.raises(UserError, match=r"net.channels must begin with 8, 8, 8, not \(8, 16, 8\)"):
        grow(UNet(wide), CORE, UNet(CORE).state_dict())
