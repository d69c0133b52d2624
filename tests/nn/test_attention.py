"""Attention is its formula, in float64 and in bfloat16."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unnoise.nn.attention import SHORT, AttentionCore, split_heads
from unnoise.noise import normal


def test_attention_is_its_formula_in_float64() -> None:
    qkv = nn.Linear(12, 36).double()
    tokens = normal((2, 7, 12), "tokens").double()
    q, k, v = (F.linear(tokens, w, b) for w, b in zip(qkv.weight.chunk(3), qkv.bias.chunk(3), strict=True))
    for count_ in (1, 3):
        width = 12 // count_
        expected = torch.empty(2, 7, 12, dtype=torch.float64)
        for head in range(count_):
            at = slice(head * width, (head + 1) * width)
            scores = torch.einsum("bld,bmd->blm", q[..., at], k[..., at]) / width**0.5
            expected[..., at] = torch.einsum(
                "blm,bmd->bld", scores.exp() / scores.exp().sum(-1, keepdim=True), v[..., at]
            )
        torch.testing.assert_close(AttentionCore()(*split_heads(qkv(tokens), 3, count_)), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("length", [64, SHORT + 64])
def test_attention_in_bfloat16_is_close_with_its_gradient(length: int) -> None:
    """By both implementations, below and above SHORT, to a few times bfloat16's 2^-9."""
    qkv = nn.Linear(32, 96)
    tokens = normal((1, length, 32), "tokens").requires_grad_()
    exact = AttentionCore()(*split_heads(qkv(tokens), 3, 2))
    exact.square().sum().backward()
    low = tokens.detach().bfloat16().requires_grad_()
    out = AttentionCore()(*split_heads(copy.deepcopy(qkv).bfloat16()(low), 3, 2))
    out.float().square().sum().backward()
    assert (out - exact).norm() < 0.02 * exact.norm()
    assert low.grad is not None
    assert tokens.grad is not None
    assert (low.grad - tokens.grad).norm() < 0.03 * tokens.grad.norm()
