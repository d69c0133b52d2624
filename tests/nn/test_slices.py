"""The rows of fused matrices are those that formats/names.py reads and writes for the parts' names in diffusers."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers.networks import NETWORKS, PLAIN, random_network
from unnoise.conditions import Cond
from unnoise.config.networks import ControlConfig, DiTConfig, UNetConfig
from unnoise.formats.names import pieces, split, theirs
from unnoise.nn import UNet
from unnoise.nn.attention import AttentionCore, split_heads
from unnoise.nn.clip import ClipConfig, ClipText
from unnoise.nn.slices import emb_slices, slices

TEXT = replace(PLAIN, blocks=2, context=12, transformers=(1, 2), heads=4)
UNETS = {
    "attention": replace(PLAIN, middle_attention=True, classes=3),
    "transformers": TEXT,
    "scale and shift": replace(PLAIN, scale_shift=True, residual_resampling=True),
    "controls": replace(TEXT, controls=(ControlConfig(hint=(4,), scale=1),) * 2),
}
PARTS = {"q": "to_q", "k": "to_k", "v": "to_v", "emb_proj": "time_emb_proj"}


@pytest.mark.parametrize("config", UNETS.values(), ids=UNETS)
def test_each_slice_is_the_tensor_of_that_name_in_diffusers(config: UNetConfig) -> None:
    base, controls = random_network(replace(config, controls=())), random_network(config).each_control()
    found = set()
    for net in (base, *controls):  # a file for each
        apart = split(pieces(net), net.state_dict())
        for part, (module, rows) in slices(net).items():
            parent, _, leaf = part.rpartition(".")
            name = f"{theirs(f'{parent}.')}{PARTS[leaf]}.weight"
            assert torch.equal(net.get_submodule(module).weight[rows], apart[name]), part
            found.add(leaf)
    assert found == {"q", "k", "v", "emb_proj"}


@pytest.mark.parametrize(
    "config", [*UNETS.values(), *NETWORKS.values(), DiTConfig(size=8, width=16, depth=2, heads=2)], ids=str
)
def test_the_slices_of_a_fused_matrix_are_all_its_rows_once(config: Any) -> None:
    net = random_network(config)
    by_module: dict[str, list[slice]] = {}
    for module, rows in slices(net).values():
        by_module.setdefault(module, []).append(rows)
    fused = {name for name, module in net.named_modules() if name.rpartition(".")[2] in ("qkv", "kv", "emb_proj")}
    assert set(by_module) == fused
    for module, rows in by_module.items():
        assert [each.start for each in rows] == [0, *(each.stop for each in rows[:-1])]
        assert rows[-1].stop == net.get_submodule(module).out_features


def test_the_slices_of_a_block_are_the_embedding_that_it_is_called_with() -> None:
    """A change of one block's rows changes the embedding of that block, and of no other."""
    net = random_network(UNETS["controls"])
    names = list(emb_slices(net))
    assert names == [name for name, module in net.named_modules() if hasattr(module, "conv_shortcut")][: len(names)]
    inputs: dict[str, torch.Tensor] = {}
    for name in names:
        net.get_submodule(name).register_forward_hook(lambda _, given, out, name=name: inputs.update({name: given[1]}))
    x, time, cond = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 500.0]), Cond(text=torch.randn(2, 5, 12))
    net(x, time, cond)
    before = dict(inputs)
    with torch.no_grad():
        net.emb_proj.bias[slices(net)[f"{names[3]}.emb_proj"].rows] += 1
    net(x, time, cond)
    changed = [name for name in names if not torch.equal(inputs[name], before[name])]
    assert changed == [names[3]]
    torch.testing.assert_close(inputs[names[3]], before[names[3]] + 1)


def test_queries_keys_and_values_are_the_inputs_of_the_core_by_name() -> None:
    """Also in a text encoder, for which formats/names.py has no table: rows set to zero are that input of the core."""
    net = ClipText(ClipConfig(vocabulary=9, length=4, width=8, hidden=8, depth=1, heads=2, end=8))
    given: list[torch.Tensor] = []
    core = net.get_submodule("blocks.0.core")
    assert isinstance(core, AttentionCore)
    core.register_forward_hook(lambda _, inputs, out: given.extend(inputs[:3]))
    for place, part in enumerate("qkv"):
        module, rows = slices(net)[f"blocks.0.{part}"]
        linear: nn.Linear = net.get_submodule(module)  # type: ignore[assignment]
        before = linear.weight.detach().clone(), linear.bias.detach().clone()
        with torch.no_grad():
            linear.weight[rows] = 0
            linear.bias[rows] = 0
        given.clear()
        net(torch.tensor([[1, 2, 8]]))
        assert [not tensor.any() for tensor in given] == [each == place for each in range(3)]
        with torch.no_grad():
            linear.weight.copy_(before[0])
            linear.bias.copy_(before[1])


def test_split_heads_is_the_inverse_of_concatenation() -> None:
    q, k, v = (torch.randn(2, 5, 12) for _ in range(3))
    for whole, part in zip((q, k, v), split_heads(torch.cat([q, k, v], dim=2), 3, 4), strict=True):
        assert torch.equal(part.transpose(1, 2).flatten(2), whole)


def test_rows_follow_the_order_in_which_blocks_run() -> None:
    net = UNet(UNETS["attention"])
    ends = list(accumulate(count for count in net.emb_channels if count))
    assert [rows.stop for rows in emb_slices(net).values()] == ends
