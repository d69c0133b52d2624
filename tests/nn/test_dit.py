"""The diffusion transformer: its published sizes, an independent implementation with the same weights, and its laws."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unnoise.conditions import NOTHING, Cond
from unnoise.config.networks import DiTConfig
from unnoise.errors import UserError
from unnoise.nn import DiT, build
from unnoise.nn.dit import dit_config
from unnoise.nn.embeddings import grid_waves
from unnoise.noise import normal

SMALL = DiTConfig(size=8, out_channels=6, width=16, depth=2, heads=2, classes=3)
TIMES = torch.tensor([0.0, 999.0, 137.0, 500.0])
LABELS = Cond(torch.tensor([2, 0, 3, 1]))  # 3 is the null row


def randomise(net: nn.Module) -> nn.Module:
    """Random weights everywhere, also where initial weights are zero."""
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        draw = torch.randn(parameter.shape, generator=generator)
        parameter.data = draw / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.3 * draw
    return net.eval()


def random_network(config: DiTConfig) -> DiT:
    net = randomise(DiT(config))
    assert isinstance(net, DiT)
    return net


def pictures(config: DiTConfig) -> Tensor:
    return normal((len(TIMES), config.in_channels, config.size, config.size), "pictures")


# --- sizes ---


@pytest.mark.parametrize(
    ("name", "millions", "width", "depth", "heads"),
    [("S", 33, 384, 12, 6), ("B", 130, 768, 12, 12), ("L", 458, 1024, 24, 16), ("XL", 675, 1152, 28, 16)],
)
@pytest.mark.parametrize("patch", [2, 4, 8])
def test_the_papers_networks_have_their_parameter_counts(
    name: Any, millions: int, width: int, depth: int, heads: int, patch: int
) -> None:
    """Table 1 of Peebles & Xie 2023 has the sizes with patches of 2, of 4x32x32 latents with learned variances.

    Patches of 4 and 8 pixels change the two maps at the ends and nothing else.
    """
    sizes = []
    for p in (2, patch):
        config = dit_config(name, p, size=32, in_channels=4, out_channels=8, classes=1000)
        assert (config.width, config.depth, config.heads, config.patch) == (width, depth, heads, p)
        with torch.device("meta"):
            sizes.append(sum(parameter.numel() for parameter in build(config).parameters()))
    positions = 256 * width  # which the paper counts, though they are fixed
    assert int((sizes[0] + positions) / 1e6) in (millions, millions - 1)
    assert sizes[1] - sizes[0] == (patch**2 - 4) * (4 * width + 8 * (width + 1))


def test_xl_2_to_the_last_parameter() -> None:
    """675,129,632 in the authors' checkpoint, with the 294,912 fixed numbers of the positions."""
    with torch.device("meta"):
        net = DiT(dit_config("XL", 2, size=32, in_channels=4, out_channels=8, classes=1000))
    assert sum(parameter.numel() for parameter in net.parameters()) + net.positions.numel() == 675_129_632


# --- an independent implementation ---

NAMES = (  # ours, diffusers'
    (r"^patch_in\.", "pos_embed.proj."),
    (r"^modulate_out\.", "proj_out_1."),
    (r"^patch_out\.", "proj_out_2."),
    (r"^blocks\.(\d+)\.modulate\.", r"transformer_blocks.\1.norm1.linear."),
    (r"^blocks\.(\d+)\.out\.", r"transformer_blocks.\1.attn1.to_out.0."),
    (r"^blocks\.(\d+)\.mlp_in\.", r"transformer_blocks.\1.ff.net.0.proj."),
    (r"^blocks\.(\d+)\.mlp_out\.", r"transformer_blocks.\1.ff.net.2."),
)


def from_diffusers(state: dict[str, Tensor], config: DiTConfig) -> dict[str, Tensor]:
    """Our weights of diffusers' DiTTransformer2DModel, which has time and class in each block."""
    ours = {}
    for name in DiT(config).state_dict():
        module, _, leaf = name.rpartition(".")
        if module.endswith(".qkv"):
            block = module.replace("blocks.", "transformer_blocks.").removesuffix(".qkv")
            ours[name] = torch.cat([state[f"{block}.attn1.{to}.{leaf}"] for to in ("to_q", "to_k", "to_v")])
        elif name.startswith("time_embedding."):
            ours[name] = state[f"transformer_blocks.0.norm1.emb.{name.replace('time_embedding', 'timestep_embedder')}"]
        elif name == "class_embedding.weight":
            ours[name] = state["transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight"]
        else:
            theirs = name
            for pattern, replacement in NAMES:
                theirs = re.sub(pattern, replacement, theirs)
            ours[name] = state[theirs]
    return ours


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_diffusers_computes_the_same(patch: int) -> None:
    diffusers = pytest.importorskip("diffusers")
    config = replace(SMALL, patch=patch)
    reference = randomise(
        diffusers.DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=3,
            out_channels=6,
            num_layers=2,
            sample_size=8,
            patch_size=patch,
            num_embeds_ada_norm=3,
            norm_eps=1e-6,
        )
    )
    embedding = reference.transformer_blocks[0].norm1.emb
    embedding.time_proj.downscale_freq_shift = 0  # the authors'; diffusers divides by half - 1 here
    for block in reference.transformer_blocks[1:]:
        block.norm1.emb = embedding  # one embedding of time and class, as the authors have it
    net = DiT(config).eval()
    net.load_state_dict(from_diffusers(reference.state_dict(), config))
    with torch.no_grad():
        expected = reference(pictures(config), TIMES, class_labels=LABELS.label).sample
        assert expected.std() > 0.1
        torch.testing.assert_close(net(pictures(config), TIMES, LABELS), expected, atol=1e-5, rtol=0)


# --- laws ---


def test_a_new_network_outputs_zero_and_its_blocks_are_the_identity() -> None:
    net = DiT(SMALL)
    out = net(pictures(SMALL), TIMES, LABELS)
    assert torch.equal(out, torch.zeros_like(out))
    tokens = normal((2, 16, 16), "tokens")
    for block in net.blocks:
        assert torch.equal(block(tokens, normal((2, 16), "embedding")), tokens)


def test_positions_are_the_formula() -> None:
    """Channels: sines then cosines of the column, sines then cosines of the row."""
    side, width = 5, 24
    w = 1e4 ** -(torch.arange(6, dtype=torch.float64) / 6)
    for place, waves in enumerate(grid_waves(side, width).double()):
        row, column = divmod(place, side)
        parts = [(column * w).sin(), (column * w).cos(), (row * w).sin(), (row * w).cos()]
        torch.testing.assert_close(waves, torch.cat(parts), atol=1e-6, rtol=0)


def test_permuting_the_patches_permutes_the_output_without_positions() -> None:
    """Only the positions distinguish patches: without them the output is permuted as the input is."""
    net, x = random_network(SMALL), pictures(SMALL)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))

    def moved(picture: Tensor) -> Tensor:
        patches = picture.unfold(2, 2, 2).unfold(3, 2, 2).flatten(2, 3)[:, :, order]
        return patches.unflatten(2, (4, 4)).permute(0, 1, 2, 4, 3, 5).reshape(picture.shape)

    assert not torch.allclose(net(moved(x), TIMES, LABELS), moved(net(x, TIMES, LABELS)), atol=1e-2)
    net.positions.zero_()
    torch.testing.assert_close(net(moved(x), TIMES, LABELS), moved(net(x, TIMES, LABELS)), atol=1e-5, rtol=0)


def test_no_label_is_the_null_row() -> None:
    net, x = random_network(SMALL), pictures(SMALL)
    null = net(x, TIMES, Cond(torch.full((4,), 3)))
    assert torch.equal(net(x, TIMES, NOTHING), null)
    assert (net(x, TIMES, Cond(torch.full((4,), 0))) - null).abs().max() > 1e-2
    with pytest.raises(UserError, match="is not conditioned on classes"):
        DiT(replace(SMALL, classes=0))(x, TIMES, LABELS)
    with pytest.raises(UserError, match="give every picture a label"):
        DiT(replace(SMALL, null_class=False))(x, TIMES, NOTHING)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    net, x = random_network(SMALL), pictures(SMALL)
    together = net(x, TIMES, LABELS)
    for i in range(len(x)):
        one = slice(i, i + 1)
        torch.testing.assert_close(net(x[one], TIMES[one], LABELS[one]), together[one], atol=1e-5, rtol=0)


def test_bfloat16_channels_last_is_close() -> None:
    net, x = random_network(SMALL), pictures(SMALL)
    exact = net(x, TIMES, LABELS)
    low = copy.deepcopy(net).to(torch.bfloat16).to(memory_format=torch.channels_last)
    out = low(x.bfloat16().to(memory_format=torch.channels_last), TIMES, LABELS)
    assert out.dtype == torch.bfloat16
    assert (out.float() - exact).norm() < 0.05 * exact.norm()


def gradients(net: DiT, seed: int = 0) -> Iterator[Tensor]:
    net.zero_grad()
    torch.manual_seed(seed)  # dropout's
    out = net(pictures(net.config), TIMES, LABELS)
    (out * normal(tuple(out.shape), "direction")).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        yield parameter.grad.clone()


def test_every_weight_has_a_gradient() -> None:
    net = random_network(SMALL)
    for (name, _), grad in zip(net.named_parameters(), gradients(net), strict=True):
        rows = grad.abs().flatten(1).sum(1) if grad.ndim > 1 else grad.abs()
        if name.endswith("qkv.bias"):
            rows = torch.cat([rows.chunk(3)[0], rows.chunk(3)[2]])  # a bias of all keys changes no weight of attention
        assert bool((rows > 0).all()), name


def test_checkpointing_gives_the_same_gradients() -> None:
    net = random_network(replace(SMALL, dropout=0.2)).train()
    plain = list(gradients(net))
    net.checkpointing = True
    assert all(torch.equal(a, b) for a, b in zip(gradients(net), plain, strict=True))
    other = list(gradients(net, seed=1))
    assert not all(torch.equal(a, b) for a, b in zip(other, plain, strict=True))  # dropout was there


def test_weights_fit_their_network_only() -> None:
    state = random_network(SMALL).state_dict()
    assert "positions" not in state
    DiT(SMALL).load_state_dict(state)
    for other in (replace(SMALL, depth=3), replace(SMALL, patch=4), replace(SMALL, classes=0)):
        with pytest.raises(RuntimeError):
            DiT(other).load_state_dict(state)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patch": 3}, "size 8 is not divisible by patch 3"),
        ({"heads": 3}, "heads 3 does not divide the width 16"),
        ({"width": 18}, "width must be a multiple of four"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"classes": -1}, "classes must be 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"mlp_ratio": 0.0}, "mlp_ratio must be above 0"),
    ],
    ids=str,
)
def test_an_invalid_configuration_is_an_error(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DiT(replace(SMALL, **fields))


def test_other_sizes_and_names_are_errors() -> None:
    with pytest.raises(UserError, match="this network computes pictures of 8x8, not 16x16"):
        random_network(SMALL)(normal((4, 3, 16, 16), "x"), TIMES, LABELS)
    with pytest.raises(UserError, match="no size of a DiT 'XXL'; did you mean 'XL'"):
        dit_config("XXL", 2, size=32, in_channels=4, out_channels=8)  # type: ignore[arg-type]
