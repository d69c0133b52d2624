"""Conditions: encoded beforehand or not, the same bits; a null for each; errors for what a network does not support."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.networks import ALL, NETWORKS, PLAIN, ROWS, TEXT, TIMES, full_condition, pictures, random_network
from unnoise.acceleration.placement import Placement, place
from unnoise.acceleration.prepack import packed
from unnoise.conditions import NOTHING, Cond
from unnoise.config.diffusion import DiffusionConfig
from unnoise.denoiser import make_diffusion
from unnoise.errors import UserError
from unnoise.nn.embeddings import sinusoid
from unnoise.noise import normal

each_network = pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)


# --- rows ---


@each_network
def test_a_sample_does_not_depend_on_its_batch(config: Any) -> None:
    net, cond, x = random_network(config), full_condition(config), pictures()
    together = net(x, TIMES, cond)
    for i in range(ROWS):
        one = slice(i, i + 1)
        torch.testing.assert_close(net(x[one], TIMES[one], cond[one]), together[one], atol=2e-5, rtol=0)


@each_network
def test_every_condition_changes_the_output(config: Any) -> None:
    net, cond, other = random_network(config), full_condition(config), full_condition(config, "another")
    right = net(pictures(), TIMES, cond)
    for field in fields(Cond):
        mine, others = getattr(cond, field.name), getattr(other, field.name)
        if mine is None or mine == ():
            continue
        if field.name in ("label", "mask", "control_scale"):
            others = mine.flip(0)
        changed = (net(pictures(), TIMES, replace(cond, **{field.name: others})) - right).abs().flatten(1).amax(1)
        assert changed.max() > 1e-3, field.name


@each_network
def test_masked_tokens_and_padding_change_nothing(config: Any) -> None:
    net, cond = random_network(config), full_condition(config)
    right = net(pictures(), TIMES, cond)
    if cond.tokens is not None:
        net.text.table.weight.data[0] = 100.0
        assert torch.equal(net(pictures(), TIMES, cond), right)
    elif cond.text is not None:
        text = torch.where(cond.mask[:, :, None], cond.text, 100.0)
        assert torch.equal(net(pictures(), TIMES, replace(cond, text=text)), right)
        assert not torch.allclose(net(pictures(), TIMES, replace(cond, mask=None)), right, atol=1e-3)


@pytest.mark.parametrize("name", ["everything", "dit, tokens"])
def test_a_network_with_a_text_encoder_accepts_its_output_as_text(name: str) -> None:
    net, cond = random_network(NETWORKS[name]), full_condition(NETWORKS[name])
    encoded = replace(cond, tokens=None, text=net.text(cond.tokens), mask=cond.tokens != 0)
    assert torch.equal(net(pictures(), TIMES, encoded), net(pictures(), TIMES, cond))


# --- numbers, vectors, joined pictures ---


def test_each_value_has_its_own_network_of_its_sinusoid_and_nan_its_own_null() -> None:
    config = replace(PLAIN, values=2)
    net = random_network(config)
    value = torch.tensor([[3.0, 700.0], [float("nan"), 700.0], [3.0, float("nan")], [float("nan")] * 2])
    first, second = net.value_embedding.networks
    null = net.value_embedding.null.weight

    def made(network: nn.Module, number: float) -> Tensor:
        out: Tensor = network(sinusoid(torch.tensor([number]), 8, shift=1.0, cosine_first=False))
        return out

    wanted = [made(first, 3) + made(second, 700), null[:1] + made(second, 700), made(first, 3) + null[1:], null.sum(0)]
    emb_proj = net.emb_proj(
        torch.nn.functional.silu(net.time_embedding(net._waves(TIMES, 8)) + torch.stack([w.view(-1) for w in wanted]))
    )
    embedding = torch.cat(list(net.embed(TIMES, Cond(value=value), None)), dim=1)
    torch.testing.assert_close(embedding, emb_proj, atol=1e-5, rtol=0)
    x = pictures()
    assert torch.equal(net(x, TIMES, NOTHING), net(x, TIMES, Cond(value=torch.full((ROWS, 2), float("nan")))))


def test_a_null_has_a_gradient_only_where_a_value_is_missing() -> None:
    net = random_network(replace(PLAIN, values=2))
    value = torch.tensor([[3.0, float("nan")]] * ROWS)
    net(pictures(), TIMES, Cond(value=value)).square().sum().backward()
    grads = net.value_embedding.null.weight.grad
    assert [bool(row.any()) for row in grads] == [False, True]
    assert all(bool(p.grad.any()) for p in net.value_embedding.networks[0].parameters())
    assert not any(bool(p.grad.any()) for p in net.value_embedding.networks[1].parameters())
    assert all(bool(p.grad.isfinite().all()) for p in net.parameters())


def test_a_concatenated_picture_is_further_channels() -> None:
    config = replace(PLAIN, concat_channels=1)
    net, whole = random_network(config), random_network(replace(PLAIN, in_channels=4))
    whole.load_state_dict(net.state_dict())
    image = normal((ROWS, 1, 8, 8), "image")
    right = whole(torch.cat([pictures(), image], dim=1), TIMES, NOTHING)
    assert torch.equal(net(pictures(), TIMES, Cond(concat=image)), right)


# --- what cannot be ---


@pytest.mark.parametrize(
    ("config", "cond", "message"),
    [
        (
            PLAIN,
            {"tokens": torch.ones(4, 3, dtype=torch.int64)},
            "not conditioned on text: give neither tokens nor text",
        ),
        (PLAIN, {"text": torch.ones(4, 3, 12)}, "is not conditioned on text"),
        (PLAIN, {"mask": torch.ones(4, 3, dtype=torch.bool)}, "is not conditioned on text"),
        (PLAIN, {"value": torch.ones(4, 1)}, "is not conditioned on values: give none"),
        (PLAIN, {"pooled": torch.ones(4, 1)}, "is not conditioned on a pooled vector: give none"),
        (PLAIN, {"concat": torch.ones(4, 1, 8, 8)}, "has no concatenated picture .*: give none"),
        (PLAIN, {"control": (torch.ones(4, 1, 8, 8),)}, "has no controls and got 1 control images"),
        (PLAIN, {"control_scale": torch.ones(4, 1)}, r"must be of shape \(rows, 0\) for the 0 controls, not \(4, 1\)"),
        (ALL, {"tokens": None}, "give tokens for every picture, those of the empty caption where there is none"),
        (ALL, {"text": torch.ones(4, 3, 12)}, "has both tokens and text"),
        (ALL, {"mask": torch.ones(4, 3, dtype=torch.bool)}, r"mask has shape \(4, 3\) and text \(4, 8\)"),
        (ALL, {"value": torch.ones(4, 3)}, r"value must be of shape \(rows, 2\) for this network, not \(4, 3\)"),
        (ALL, {"pooled": None}, "is conditioned on a pooled vector of width 5: give every picture one"),
        (ALL, {"pooled": torch.ones(4, 4)}, r"pooled must be of shape \(rows, 5\) for this network, not \(4, 4\)"),
        (ALL, {"concat": None}, "needs a picture of 1 channels concatenated to x_t: give it as concat"),
        (
            ALL,
            {"concat": torch.ones(4, 1, 8, 4)},
            r"concat is 1 x 8 x 4 .*, but this network needs 1 x 8 x 8",
        ),
        (
            ALL,
            {"control": (torch.ones(4, 3, 16, 16),)},
            "has 2 controls and got 1 control images: give one for each control",
        ),
        (
            ALL,
            {"control": (torch.ones(4, 1, 16, 16), torch.ones(4, 1, 8, 8))},
            "control image 0 has 1 channels and 16x16 pixels",
        ),
        (ALL, {"control": (torch.ones(4, 3, 15, 16), torch.ones(4, 1, 8, 8))}, "channels and multiples of 2 pixels"),
        (
            ALL,
            {"control": (torch.ones(4, 3, 8, 16), torch.ones(4, 1, 8, 8))},
            "a control image for pictures of 8x4 with an x_t of 8x8",
        ),
        (ALL, {"control_scale": torch.ones(4, 3)}, r"must be of shape \(rows, 2\) for the 2 controls, not \(4, 3\)"),
        (NETWORKS["text"], {"text": None}, "give text for every picture"),
        (
            NETWORKS["text"],
            {"text": torch.ones(4, 5, 11)},
            r"shape \(rows, tokens, 12\) .* not \(4, 5, 11\)",
        ),
        (NETWORKS["text"], {"text": None, "tokens": torch.ones(4, 5)}, "no text encoder of its own"),
        (replace(PLAIN, values=1, null_value=False), {}, "has 1 values and no null value"),
        (NETWORKS["dit, text"], {"value": torch.ones(4, 1)}, "not conditioned on value"),
        (NETWORKS["dit, text"], {"control": (torch.ones(4, 1, 8, 8),)}, "not conditioned on control"),
    ],
    ids=str,
)
def test_an_unsupported_or_missing_condition_is_an_error(config: Any, cond: Any, message: str) -> None:
    full = full_condition(config) if config in NETWORKS.values() else NOTHING
    with pytest.raises(UserError, match=message):
        random_network(config)(pictures(), TIMES, replace(full, **cond))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"values": -1}, "values must be 0"),
        ({"concat_channels": -1}, "concat_channels must be 0"),
        ({"context": -1}, "context, the width of text embeddings, must be 0"),
        ({"value_width": 6}, "needs values and vector"),
        ({"value_width": 5, "values": 1, "vector": 1}, "value_width must be even"),
        (
            {"context": 4, "attention": (False, False), "middle_attention": False},
            "needs cross-attention: set",
        ),
        ({"context": 4, "transformers": (1, 2, 3)}, "transformers must be one number, or one for each of the 2 levels"),
        ({"context": 4, "transformers": 0}, "transformers must be at least 1"),
        ({"heads": (1, 2, 4)}, "heads must be one number, or one for each of the 2 levels"),
        ({"heads": (1, 3)}, "heads 3 does not divide the 16 channels"),
        ({"text": replace(TEXT, heads=5)}, "heads 5 does not divide the width 12 of the text encoder"),
    ],
    ids=str,
)
def test_an_invalid_configuration_is_an_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        random_network(replace(PLAIN, **settings))


# --- training, precision, surgery ---


def gradients(net: Any, config: Any, seed: int = 0) -> dict[str, Tensor]:
    net.zero_grad()
    torch.manual_seed(seed)  # dropout's
    out = net(pictures(), TIMES, full_condition(config))
    (out * normal(tuple(out.shape), "direction")).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in net.named_parameters() if parameter.grad is not None}


@each_network
def test_every_weight_has_a_gradient(config: Any) -> None:
    net = random_network(config)
    found = gradients(net, config)
    silent = [name for name, _ in net.named_parameters() if name not in found or not found[name].any()]
    assert silent == [name for name, _ in net.named_parameters() if name.endswith("value_embedding.null.weight")]


@each_network
def test_checkpointing_gives_the_same_gradients(config: Any) -> None:
    net = random_network(replace(config, dropout=0.2)).train()
    plain = gradients(net, config)
    net.checkpointing = True
    again = gradients(net, config)
    assert all(torch.equal(again[name], grad) for name, grad in plain.items())
    assert any(not torch.equal(gradients(net, config, 1)[name], grad) for name, grad in plain.items())  # dropout


@each_network
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_a_placed_copy_computes_the_same(config: Any, dtype: torch.dtype) -> None:
    original, cond, t = (
        make_diffusion(random_network(config), DiffusionConfig()),
        full_condition(config),
        torch.linspace(0.2, 0.9, ROWS).double(),
    )
    kept = copy.deepcopy(original.state_dict())
    placed = place(original, Placement("cpu", dtype))
    with torch.no_grad():
        right = original(pictures(), t, cond).mean
        for got in (placed(pictures(), t, cond).mean, placed.given(cond)(pictures(), t).mean):
            assert ((got - right).norm() / right.norm()) < (1e-5 if dtype == torch.float32 else 0.05)
    assert all(torch.equal(value, kept[name]) for name, value in original.state_dict().items())


@each_network
def test_a_packed_copy_leaves_the_original_bit_for_bit(config: Any) -> None:
    net, cond = random_network(config), full_condition(config)
    with torch.no_grad():
        right = net(pictures(), TIMES, cond)
        fast = packed(net)
        torch.testing.assert_close(fast(pictures(), TIMES, cond), right, atol=1e-4, rtol=0)
        torch.testing.assert_close(fast(pictures(), TIMES, fast.encode(cond)), right, atol=1e-4, rtol=0)
        assert torch.equal(net(pictures(), TIMES, cond), right)


@each_network
def test_the_network_compiles_to_one_graph(config: Any) -> None:
    net, cond = random_network(config), full_condition(config)
    traced = torch.compile(net, backend="eager", fullgraph=True)
    assert torch.equal(traced(pictures(), TIMES, cond), net(pictures(), TIMES, cond))
