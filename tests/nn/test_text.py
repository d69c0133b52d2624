"""The trainable text encoder: torch's own transformer computes the same, and padding has no effect."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.random_weights import randomised
from unnoise.config.networks import DiTConfig, TextConfig, UNetConfig
from unnoise.errors import UserError
from unnoise.nn import DiT, UNet, build
from unnoise.nn.text import PAD, TextBlock, TextEncoder, pooled, token_mask
from unnoise.noise import normal

CONFIG = TextConfig(vocabulary=30, length=9, width=16, depth=2, heads=4)
TOKENS = torch.tensor([[1, 5, 7, 2, 0, 0], [1, 2, 0, 0, 0, 0], [1, 9, 5, 7, 11, 2]])


def random_network(config: TextConfig = CONFIG) -> TextEncoder:
    return randomised(TextEncoder(config), "table")


def test_torchs_own_transformer_computes_the_same() -> None:
    net = random_network()
    text = net.table(TOKENS) + net.positions.weight[:6]
    for block in net.blocks:
        assert isinstance(block, TextBlock)
        layer = nn.TransformerEncoderLayer(16, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True).double()
        ours = {
            "self_attn.in_proj_weight": block.self_attention.qkv.weight,
            "self_attn.in_proj_bias": block.self_attention.qkv.bias,
            "self_attn.out_proj.weight": block.self_attention.out.weight,
            "self_attn.out_proj.bias": block.self_attention.out.bias,
        }
        for name, module in (("norm1", block.norm1), ("norm2", block.norm2)):
            ours |= {f"{name}.{leaf}": getattr(module, leaf) for leaf in ("weight", "bias")}
        for name, module in (("linear1", block.linear_in), ("linear2", block.linear_out)):
            ours |= {f"{name}.{leaf}": getattr(module, leaf) for leaf in ("weight", "bias")}
        layer.load_state_dict(ours)
        text = layer.train()(text.double(), src_key_padding_mask=TOKENS == 0)  # train: the way that is not fused
    right = net.norm.double()(text)
    got = random_network()(TOKENS)
    torch.testing.assert_close(got.double()[TOKENS != 0], right[TOKENS != 0], atol=2e-5, rtol=0)


def test_more_padding_changes_nothing_and_the_order_of_tokens_matters() -> None:
    net = random_network()
    text = net(TOKENS)
    longer = torch.cat([TOKENS, torch.zeros(3, 3, dtype=torch.int64)], dim=1)
    unmasked = TOKENS != PAD
    torch.testing.assert_close(net(longer)[:, :6][unmasked], text[unmasked], atol=1e-5, rtol=0)
    torch.testing.assert_close(net(TOKENS[1:2, :2]), text[1:2, :2], atol=1e-5, rtol=0)
    turned = TOKENS[:, [0, 2, 1, 3, 4, 5]]
    assert (net(turned)[0, 1] - text[0, 2]).abs().max() > 0.1
    net.table.weight.data[PAD] += 100.0
    assert torch.equal(net(TOKENS)[unmasked], text[unmasked])


def test_every_token_depends_on_later_ones_too() -> None:
    net = random_network()
    other = TOKENS.clone()
    other[2, 4] = 12
    changed = (net(other) != net(TOKENS)).any(2)
    assert changed.tolist() == [[False] * 6, [False] * 6, [True] * 6]


def test_a_row_does_not_depend_on_its_batch() -> None:
    net = random_network()
    together = net(TOKENS)
    for row in range(3):
        torch.testing.assert_close(net(TOKENS[row : row + 1])[0], together[row], atol=1e-5, rtol=0)


def test_a_pooled_caption_is_the_mean_of_its_tokens() -> None:
    text = normal((3, 6, 4), "text").double()
    right = torch.stack([text[0, :4].mean(0), text[1, :2].mean(0), text[2].mean(0)])
    torch.testing.assert_close(pooled(text, token_mask(TOKENS)), right)
    torch.testing.assert_close(pooled(text, None), text.mean(1))
    assert not pooled(text, torch.zeros(3, 6, dtype=torch.bool)).any()


def test_long_captions_are_errors() -> None:
    with pytest.raises(UserError, match="has 10 tokens and this network reads at most 9"):
        random_network()(torch.ones(1, 10, dtype=torch.int64))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 3}, "heads 3 does not divide the width 16 of the text encoder"),
        ({"vocabulary": 0}, "vocabulary of the text encoder must be at least 1"),
        ({"depth": -1}, "depth of the text encoder must be 0 or more"),
    ],
)
@pytest.mark.parametrize("net", [UNetConfig(), DiTConfig()], ids=["unet", "dit"])
def test_an_invalid_configuration_is_an_error(net: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(replace(net, text=replace(CONFIG, **fields)))
    with pytest.raises(UserError, match="context 8 differs from the width 16 of the text encoder"):
        build(replace(net, text=CONFIG, context=8))


def small_unet() -> UNet:
    return UNet(UNetConfig(size=8, channels=(8,), attention=(True,), groups=4, text=CONFIG))


@pytest.mark.parametrize(
    "make", [small_unet, lambda: DiT(DiTConfig(size=8, width=16, depth=2, heads=2, text=CONFIG))], ids=["unet", "dit"]
)
def test_initial_embeddings_are_small_and_the_pooled_one_is_zero(make: Any) -> None:
    """Tables are initialised near zero, as classes are; each of q, k, v has the variance of its own fans."""
    net = make()
    assert net.text.table.weight.std().item() == pytest.approx(0.02, rel=0.15)
    assert net.text.positions.weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert not net.pooled_embedding.weight.any()
    assert not net.pooled_embedding.bias.any()


def thirds(weight: Tensor, parts: int) -> list[float]:
    return [part.var().item() for part in weight.chunk(parts)]


def test_maps_in_a_fused_matrix_are_initialised_with_their_own_fans() -> None:
    config = UNetConfig(size=8, channels=(64,), attention=(True,), groups=4, text=replace(CONFIG, width=64))
    net = UNet(config)
    block = net.down_blocks[0].blocks[0].attention.blocks[0]
    for weight, parts in (
        (block.self_attention.qkv.weight, 3),
        (block.cross_attention.kv.weight, 2),
        (net.text.blocks[0].self_attention.qkv.weight, 3),
    ):
        assert thirds(weight, parts) == pytest.approx([2 / 128] * parts, rel=0.15)
