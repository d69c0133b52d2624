"""The spatial transformer: diffusers computes the same with the same weights, and what each output depends on."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.helpers.random_weights import randomised
from unnoise.config.networks import DiTConfig
from unnoise.nn import attention
from unnoise.nn.attention import AttentionCore, Context, CrossAttention, score_bias
from unnoise.nn.dit import DiTBlock
from unnoise.nn.transformer import Transformer
from unnoise.noise import normal

WIDTH, CONTEXT, LENGTH = 16, 12, 7

NAMES = (  # ours, diffusers'
    (r"^blocks\.", "transformer_blocks."),
    (r"self_attention\.out\.", "attn1.to_out.0."),
    (r"cross_attention\.q\.", "attn2.to_q."),
    (r"cross_attention\.out\.", "attn2.to_out.0."),
    (r"feed_forward\.linear_in\.", "ff.net.0.proj."),
    (r"feed_forward\.linear_out\.", "ff.net.2."),
)
SPLIT = {
    "self_attention.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "cross_attention.kv": ("attn2.to_k", "attn2.to_v"),
}


def random_network(depth: int = 1, heads: int = 2) -> Transformer:
    net: Transformer = randomised(Transformer(WIDTH, CONTEXT, heads=heads, groups=4, depth=depth))
    return net


def from_diffusers(state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    ours = {}
    for name, tensor in net.state_dict().items():
        theirs = name
        for pattern, replacement in NAMES:
            theirs = re.sub(pattern, replacement, theirs)
        parts = [theirs]
        for whole, pieces in SPLIT.items():
            if whole in theirs:
                parts = [theirs.replace(whole, piece) for piece in pieces]
        ours[name] = torch.cat([state[part] for part in parts]).reshape(tensor.shape)
    return ours


def pictures() -> Tensor:
    return normal((3, WIDTH, 4, 6), "pictures")


def captions() -> Tensor:
    return normal((3, LENGTH, CONTEXT), "text")


MASK = torch.arange(LENGTH) < torch.tensor([[7], [1], [4]])


@pytest.mark.parametrize("linear", [True, False], ids=["linear", "convolution"])
@pytest.mark.parametrize(("depth", "heads"), [(1, 1), (1, 4), (3, 2)])
@pytest.mark.parametrize("masked", [False, True])
def test_diffusers_computes_the_same(depth: int, heads: int, linear: bool, masked: bool) -> None:
    diffusers = pytest.importorskip("diffusers")
    reference = diffusers.Transformer2DModel(
        heads, WIDTH // heads, WIDTH, num_layers=depth, norm_num_groups=4, cross_attention_dim=CONTEXT,
        use_linear_projection=linear,
    )  # fmt: skip
    reference = randomised(reference)
    net = random_network(depth, heads)
    net.load_state_dict(from_diffusers(reference.state_dict(), net))
    with torch.no_grad():
        mask = MASK if masked else None
        right = reference(pictures(), encoder_hidden_states=captions(), encoder_attention_mask=mask).sample
        got = net(pictures(), Context(tuple(net.encode(captions())), score_bias(mask, torch.float32)))
    assert (right - pictures()).std() > 0.3
    torch.testing.assert_close(got, right, atol=2e-5, rtol=0)


def test_a_new_transformer_is_the_identity() -> None:
    from unnoise.config.networks import UNetConfig
    from unnoise.nn import UNet

    net = UNet(UNetConfig(size=8, channels=(8, 8), attention=(False, True), groups=4, context=CONTEXT, transformers=2))
    found = [module for module in net.modules() if isinstance(module, Transformer)]
    assert len(found) == 2 + 1 + 3
    for transformer in found:
        x = normal((3, 8, 4, 4), "x")
        assert torch.equal(transformer(x, Context(tuple(transformer.encode(captions())))), x)


def test_permuting_pixels_permutes_the_output_and_rows_are_independent() -> None:
    net, x = random_network(2), pictures()
    context = Context(tuple(net.encode(captions())), score_bias(MASK, torch.float32))
    right = net(x, context)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    moved = net(x.flatten(2)[:, :, order].view_as(x), context)
    torch.testing.assert_close(moved, right.flatten(2)[:, :, order].view_as(x), atol=1e-5, rtol=0)
    rows = torch.tensor([2, 0, 1])
    swapped = net(x[rows], Context(tuple(net.encode(captions()[rows])), score_bias(MASK[rows], torch.float32)))
    torch.testing.assert_close(swapped, right[rows], atol=1e-5, rtol=0)


def test_a_masked_token_changes_nothing_and_all_others_do() -> None:
    net = random_network()
    right = net(pictures(), Context(tuple(net.encode(captions())), score_bias(MASK, torch.float32)))
    for word in range(LENGTH):
        other = captions()
        other[:, word] = 100 * normal((3, CONTEXT), "other")
        changed = net(pictures(), Context(tuple(net.encode(other)), score_bias(MASK, torch.float32))) != right
        assert torch.equal(changed.flatten(1).any(1), MASK[:, word])


def test_a_row_without_unmasked_tokens_has_no_nan() -> None:
    """It attends to all of them equally: the mask only lowers the scores of some tokens below those of others."""
    net = random_network()
    none = torch.zeros(3, LENGTH, dtype=torch.bool)
    text = captions()
    out = net(pictures(), Context(tuple(net.encode(text)), score_bias(none, torch.float32)))
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("masked", [False, True])
def test_cross_attention_is_its_formula_in_float64(masked: bool) -> None:
    net = randomised(CrossAttention(WIDTH, CONTEXT, heads=2)).double()
    tokens, text = normal((3, 5, WIDTH), "tokens").double(), captions().double()
    k, v = F.linear(text, net.kv.weight).chunk(2, dim=2)
    q = tokens @ net.q.weight.T
    found = []
    for head in (slice(0, 8), slice(8, 16)):
        scores = torch.einsum("bld,bmd->blm", q[..., head], k[..., head]) / 8**0.5
        weights = scores.exp() * (MASK[:, None] if masked else 1)
        found.append(torch.einsum("blm,bmd->bld", weights / weights.sum(-1, keepdim=True), v[..., head]))
    right = F.linear(torch.cat(found, dim=2), net.out.weight, net.out.bias)
    bias = score_bias(MASK if masked else None, torch.float64)
    torch.testing.assert_close(net(tokens, net.encode(text), bias), right, atol=1e-12, rtol=0)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("piece", [1, 7, 4 * LENGTH, 9 * LENGTH, 4 * 9 * LENGTH, 1 << 21])
def test_attention_in_bfloat16_is_close_in_pieces_of_any_size(monkeypatch: Any, piece: int, masked: bool) -> None:
    """A query at a time, four queries of a head, a head, four heads of six, all at once."""
    monkeypatch.setattr(attention, "PIECE", piece)
    q, k, v = normal((3, 2, 9, 8), "q"), normal((3, 2, LENGTH, 8), "k"), normal((3, 2, LENGTH, 8), "v")
    mask = MASK if masked else None
    right = AttentionCore()(q, k, v, score_bias(mask, torch.float32))
    got = AttentionCore()(*(each.bfloat16() for each in (q, k, v)), score_bias(mask, torch.bfloat16))
    assert got.dtype == torch.bfloat16
    assert (got - right).norm() < 0.02 * right.norm()


@pytest.mark.parametrize("piece", [7, 4 * 9 * LENGTH, 1 << 21])
def test_attention_in_pieces_does_not_depend_on_the_batch(monkeypatch: Any, piece: int) -> None:
    """Bit for bit, where a piece holds heads of two samples too."""
    monkeypatch.setattr(attention, "PIECE", piece)
    q, k, v = (normal((3, 3, length, 8), name).bfloat16() for length, name in ((9, "q"), (LENGTH, "k"), (LENGTH, "v")))
    bias = score_bias(MASK, torch.bfloat16)
    assert bias is not None
    alone = [AttentionCore()(q[i : i + 1], k[i : i + 1], v[i : i + 1], bias[i : i + 1]) for i in range(3)]
    assert torch.equal(AttentionCore()(q, k, v, bias), torch.cat(alone))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("short", [0, 1024], ids=["fused", "materialised"])
def test_attention_in_bfloat16_has_the_right_gradient(monkeypatch: Any, short: int, masked: bool) -> None:
    monkeypatch.setattr(attention, "SHORT", short)
    monkeypatch.setattr(attention, "PIECE", 1)  # is for no gradients
    q, k, v = (normal((3, 2, length, 8), name) for length, name in ((9, "q"), (LENGTH, "k"), (LENGTH, "v")))
    mask = MASK if masked else None
    exact, low = (
        [each.detach().to(dtype).requires_grad_() for each in (q, k, v)] for dtype in (torch.float32, torch.bfloat16)
    )
    AttentionCore()(*exact, score_bias(mask, torch.float32)).square().sum().backward()
    out = AttentionCore()(*low, score_bias(mask, torch.bfloat16))
    out.float().square().sum().backward()
    for right, got in zip(exact, low):
        assert right.grad is not None
        assert got.grad is not None
        assert (got.grad - right.grad).norm() < 0.04 * right.grad.norm()


def test_a_block_of_pixart_computes_the_same() -> None:
    """diffusers' block with `ada_norm_single`, its table zero: the order of its parts, no norm before text."""
    attention_ = pytest.importorskip("diffusers.models.attention")
    reference = attention_.BasicTransformerBlock(
        WIDTH, 2, 8, cross_attention_dim=CONTEXT, activation_fn="gelu-approximate", attention_bias=True,
        norm_type="ada_norm_single", norm_elementwise_affine=False, norm_eps=1e-6,
    )  # fmt: skip
    reference = randomised(reference)
    reference.scale_shift_table.data.zero_()
    for layer in (reference.attn2.to_q, reference.attn2.to_k, reference.attn2.to_v):
        layer.bias.data.zero_()
    block = randomised(DiTBlock(DiTConfig(width=WIDTH, depth=1, heads=2, context=CONTEXT)))
    state = reference.state_dict()
    for ours, parts in {
        "qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
        "out": ("attn1.to_out.0",),
        "cross_attention.q": ("attn2.to_q",),
        "cross_attention.kv": ("attn2.to_k", "attn2.to_v"),
        "cross_attention.out": ("attn2.to_out.0",),
        "mlp_in": ("ff.net.0.proj",),
        "mlp_out": ("ff.net.2",),
    }.items():
        layer = block.get_submodule(ours)
        layer.weight.data = torch.cat([state[f"{part}.weight"] for part in parts])
        if layer.bias is not None:
            layer.bias.data = torch.cat([state[f"{part}.bias"] for part in parts])
    tokens, emb = normal((3, 5, WIDTH), "tokens"), normal((3, WIDTH), "embedding")
    with torch.no_grad():
        right = reference(
            tokens, encoder_hidden_states=captions(), timestep=block.modulate(emb),
            encoder_attention_mask=torch.where(MASK, 0.0, -1e4)[:, None],
        )  # fmt: skip
        got = block(tokens, emb, block.encode(captions()), score_bias(MASK, torch.float32))
    torch.testing.assert_close(got, right, atol=1e-5, rtol=0)
