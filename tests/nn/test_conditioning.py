"""What a network is told: encoded beforehand or not, the same bits; a null for each; errors for what it cannot take."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.networks import ALL, NETWORKS, PLAIN, ROWS, TEXT, TIMES, alive, pictures, said
from unnoise.acceleration.placement import Placement, place
from unnoise.acceleration.prepack import packed
from unnoise.conditions import NOTHING, Cond
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import DiTConfig
from unnoise.denoiser import make_diffusion
from unnoise.errors import UserError
from unnoise.nn.embeddings import sinusoid
from unnoise.noise import normal

each_network = pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)


# --- encoded beforehand ---


@each_network
def test_what_was_heard_beforehand_gives_the_same_bits(config: Any) -> None:
    net, cond = alive(config), said(config)
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
def test_nothing_is_heard_twice(config: Any) -> None:
    """A walk does not run the encoder, the maps of words, and the drawings' networks again."""
    net, cond = alive(config), said(config)
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
def test_a_denoiser_hears_once(config: Any) -> None:
    diffusion, cond = make_diffusion(alive(config), DiffusionConfig()), said(config)
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
def test_rows_of_what_was_heard_are_cut_joined_and_replaced(config: Any) -> None:
    net = alive(config)
    one, other = said(config), said(config, "another")
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
    both = net(torch.cat([pictures()] * 2), torch.cat([TIMES] * 2), encoded.then(others))
    torch.testing.assert_close(both, torch.cat([right, wrong]), **close)


@each_network
def test_rows_that_were_heard_do_not_mix_with_rows_that_were_not(config: Any) -> None:
    """Else the captions of some rows would be lost without a word."""
    encoded = alive(config).encode(said(config))
    with pytest.raises(ValueError, match="with and without"):
        encoded.where(torch.tensor([True, False, True, False]), said(config, "another"))
    with pytest.raises(ValueError, match="with and without"):
        said(config).then(encoded)


@each_network
def test_what_is_said_after_hearing_is_not_lost_in_silence(config: Any) -> None:
    net, cond = alive(config), said(config)
    encoded = net.encode(cond)
    for name in ("tokens", "text", "control"):
        value = getattr(cond, name)
        if value is None or value == ():
            continue
        with pytest.raises(UserError, match="is told words or drawings anew"):
            net(pictures(), TIMES, replace(encoded, **{name: value}))


def test_what_another_network_heard_is_refused() -> None:
    encoded = alive(NETWORKS["words"]).encode(said(NETWORKS["words"]))
    with pytest.raises(
        UserError, match="4 tensors were encoded of this condition, this network hears 0, with drawings 2"
    ):
        alive(NETWORKS["drawings alone"])(pictures(), TIMES, encoded)
    with pytest.raises(UserError, match="4 tensors were encoded of this condition, this network hears 2"):
        alive(NETWORKS["dit, words"])(pictures(), TIMES, encoded)


@each_network
def test_a_network_that_hears_nothing_beforehand_leaves_the_condition_alone(config: Any) -> None:
    for plain in (PLAIN, replace(PLAIN, classes=3), DiTConfig(size=8, width=16, depth=1, heads=2)):
        cond = Cond(torch.zeros(ROWS, dtype=torch.int64)) if plain.classes else NOTHING
        assert alive(plain).encode(cond) is cond


# --- rows ---


@each_network
def test_a_sample_does_not_see_its_batch(config: Any) -> None:
    net, cond, x = alive(config), said(config), pictures()
    together = net(x, TIMES, cond)
    for i in range(ROWS):
        one = slice(i, i + 1)
        torch.testing.assert_close(net(x[one], TIMES[one], cond[one]), together[one], atol=2e-5, rtol=0)


@each_network
def test_everything_that_is_told_is_heard(config: Any) -> None:
    net, cond, other = alive(config), said(config), said(config, "another")
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
def test_masked_words_and_padding_change_nothing(config: Any) -> None:
    net, cond = alive(config), said(config)
    right = net(pictures(), TIMES, cond)
    if cond.tokens is not None:
        net.text.table.weight.data[0] = 100.0
        assert torch.equal(net(pictures(), TIMES, cond), right)
    elif cond.text is not None:
        words = torch.where(cond.mask[:, :, None], cond.text, 100.0)
        assert torch.equal(net(pictures(), TIMES, replace(cond, text=words)), right)
        assert not torch.allclose(net(pictures(), TIMES, replace(cond, mask=None)), right, atol=1e-3)


@pytest.mark.parametrize("name", ["everything", "dit, text"])
def test_a_network_with_an_encoder_takes_its_words_too(name: str) -> None:
    net, cond = alive(NETWORKS[name]), said(NETWORKS[name])
    words = replace(cond, tokens=None, text=net.text(cond.tokens), mask=cond.tokens != 0)
    assert torch.equal(net(pictures(), TIMES, words), net(pictures(), TIMES, cond))


# --- numbers, vectors, joined pictures ---


def test_each_number_is_its_own_network_of_its_sinusoid_and_nan_its_own_null() -> None:
    config = replace(PLAIN, values=2)
    net = alive(config)
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
    told = torch.cat(list(net.embed(TIMES, Cond(value=value), None)), dim=1)
    torch.testing.assert_close(told, emb_proj, atol=1e-5, rtol=0)
    x = pictures()
    assert torch.equal(net(x, TIMES, NOTHING), net(x, TIMES, Cond(value=torch.full((ROWS, 2), float("nan")))))


def test_a_null_learns_only_where_a_number_is_not_told() -> None:
    net = alive(replace(PLAIN, values=2))
    value = torch.tensor([[3.0, float("nan")]] * ROWS)
    net(pictures(), TIMES, Cond(value=value)).square().sum().backward()
    grads = net.value_embedding.null.weight.grad
    assert [bool(row.any()) for row in grads] == [False, True]
    assert all(bool(p.grad.any()) for p in net.value_embedding.networks[0].parameters())
    assert not any(bool(p.grad.any()) for p in net.value_embedding.networks[1].parameters())
    assert all(bool(p.grad.isfinite().all()) for p in net.parameters())


def test_a_joined_picture_is_further_channels() -> None:
    config = replace(PLAIN, concat_channels=1)
    net, whole = alive(config), alive(replace(PLAIN, in_channels=4))
    whole.load_state_dict(net.state_dict())
    image = normal((ROWS, 1, 8, 8), "image")
    right = whole(torch.cat([pictures(), image], dim=1), TIMES, NOTHING)
    assert torch.equal(net(pictures(), TIMES, Cond(concat=image)), right)


# --- what cannot be ---


@pytest.mark.parametrize(
    ("config", "cond", "message"),
    [
        (PLAIN, {"tokens": torch.ones(4, 3, dtype=torch.int64)}, "reads no captions: give it neither tokens nor words"),
        (PLAIN, {"text": torch.ones(4, 3, 12)}, "reads no captions"),
        (PLAIN, {"mask": torch.ones(4, 3, dtype=torch.bool)}, "reads no captions"),
        (PLAIN, {"value": torch.ones(4, 1)}, "knows no numbers: give it no values"),
        (PLAIN, {"pooled": torch.ones(4, 1)}, "takes no vector: give it none"),
        (PLAIN, {"concat": torch.ones(4, 1, 8, 8)}, "is shown no second picture: give it no image"),
        (PLAIN, {"control": (torch.ones(4, 1, 8, 8),)}, "has no controls and is shown 1 drawings"),
        (PLAIN, {"control_scale": torch.ones(4, 1)}, r"strengths are \(rows, 0\) for the 0 controls, not \(4, 1\)"),
        (ALL, {"tokens": None}, "give every picture tokens, an empty caption's where none is told"),
        (ALL, {"text": torch.ones(4, 3, 12)}, "a caption is told twice"),
        (ALL, {"mask": torch.ones(4, 3, dtype=torch.bool)}, r"a mask of \(4, 3\) for words of \(4, 8\)"),
        (ALL, {"value": torch.ones(4, 3)}, r"values are \(rows, 2\) for this network, not \(4, 3\)"),
        (ALL, {"pooled": None}, "is told a vector of 5 numbers: give every picture one"),
        (ALL, {"pooled": torch.ones(4, 4)}, r"vectors are \(rows, 5\) for this network, not \(4, 4\)"),
        (ALL, {"concat": None}, "is shown a picture of 1 channels beside x_t: give it as image"),
        (ALL, {"concat": torch.ones(4, 1, 8, 4)}, "is 1 x 8 x 4 here; this network wants 1 x 8 x 8"),
        (
            ALL,
            {"control": (torch.ones(4, 3, 16, 16),)},
            "has 2 controls and is shown 1 drawings: give it one a control",
        ),
        (
            ALL,
            {"control": (torch.ones(4, 1, 16, 16), torch.ones(4, 1, 8, 8))},
            "drawing 0 has 1 channels and 16x16 pixels",
        ),
        (ALL, {"control": (torch.ones(4, 3, 15, 16), torch.ones(4, 1, 8, 8))}, "channels and multiples of 2 pixels"),
        (ALL, {"control": (torch.ones(4, 3, 8, 16), torch.ones(4, 1, 8, 8))}, "a drawing for 8x4 beside an x_t of 8x8"),
        (ALL, {"control_scale": torch.ones(4, 3)}, r"strengths are \(rows, 2\) for the 2 controls, not \(4, 3\)"),
        (NETWORKS["words"], {"text": None}, "give every picture words"),
        (NETWORKS["words"], {"text": torch.ones(4, 5, 11)}, r"words are \(rows, words, 12\) .* not \(4, 5, 11\)"),
        (NETWORKS["words"], {"text": None, "tokens": torch.ones(4, 5)}, "an encoder beside it makes of tokens"),
        (replace(PLAIN, values=1, null_value=False), {}, "was taught 1 numbers and nothing for 'not told'"),
        (NETWORKS["dit, words"], {"value": torch.ones(4, 1)}, "this network takes no values"),
        (NETWORKS["dit, words"], {"control": (torch.ones(4, 1, 8, 8),)}, "this network takes no drawings"),
    ],
    ids=str,
)
def test_what_cannot_be_taken_or_is_missing_is_an_error_for_people(config: Any, cond: Any, message: str) -> None:
    full = said(config) if config in NETWORKS.values() else NOTHING
    with pytest.raises(UserError, match=message):
        alive(config)(pictures(), TIMES, replace(full, **cond))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"values": -1}, "values is 0"),
        ({"concat_channels": -1}, "concat_channels is 0"),
        ({"context": -1}, "context is the width of words"),
        ({"value_width": 6}, "of values that are told beside a vector"),
        ({"value_width": 5, "values": 1, "vector": 1}, "value_width is an even width"),
        ({"context": 4, "attention": (False, False), "middle_attention": False}, "no level attends to them"),
        ({"context": 4, "transformers": (1, 2, 3)}, "transformers is a number, or one for each of 2 levels"),
        ({"context": 4, "transformers": 0}, "transformers is at least 1"),
        ({"heads": (1, 2, 4)}, "heads is a number, or one for each of 2 levels"),
        ({"heads": (1, 3)}, "heads 3 does not divide the 16 channels"),
        ({"text": replace(TEXT, heads=5)}, "heads 5 does not divide the width 12 of the text encoder"),
    ],
    ids=str,
)
def test_a_network_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        alive(replace(PLAIN, **settings))


# --- training, precision, surgery ---


def gradients(net: Any, config: Any, seed: int = 0) -> dict[str, Tensor]:
    net.zero_grad()
    torch.manual_seed(seed)  # dropout's
    out = net(pictures(), TIMES, said(config))
    (out * normal(tuple(out.shape), "direction")).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in net.named_parameters() if parameter.grad is not None}


@each_network
def test_every_weight_learns(config: Any) -> None:
    net = alive(config)
    found = gradients(net, config)
    silent = [name for name, _ in net.named_parameters() if name not in found or not found[name].any()]
    assert silent == [name for name, _ in net.named_parameters() if name.endswith("value_embedding.null.weight")]


@each_network
def test_checkpointing_gives_the_same_gradients(config: Any) -> None:
    net = alive(replace(config, dropout=0.2)).train()
    plain = gradients(net, config)
    net.checkpointing = True
    again = gradients(net, config)
    assert all(torch.equal(again[name], grad) for name, grad in plain.items())
    assert any(not torch.equal(gradients(net, config, 1)[name], grad) for name, grad in plain.items())  # dropout


@each_network
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_a_placed_copy_computes_the_same(config: Any, dtype: torch.dtype) -> None:
    original, cond, t = (
        make_diffusion(alive(config), DiffusionConfig()),
        said(config),
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
def test_packing_is_undone_bit_for_bit(config: Any) -> None:
    net, cond = alive(config), said(config)
    with torch.no_grad():
        right = net(pictures(), TIMES, cond)
        with packed(net):
            torch.testing.assert_close(net(pictures(), TIMES, cond), right, atol=1e-4, rtol=0)
            torch.testing.assert_close(net(pictures(), TIMES, net.encode(cond)), right, atol=1e-4, rtol=0)
        assert torch.equal(net(pictures(), TIMES, cond), right)


@each_network
def test_a_compiler_sees_one_graph(config: Any) -> None:
    net, cond = alive(config), said(config)
    traced = torch.compile(net, backend="eager", fullgraph=True)
    assert torch.equal(traced(pictures(), TIMES, cond), net(pictures(), TIMES, cond))
