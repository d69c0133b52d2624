"""Text towers of checkpoint files: diffusers converts the same file, and transformers computes the same."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.checkpoints import TOWERS, tower_tensors
from unnoise.errors import UserError
from unnoise.formats import clip
from unnoise.formats.single_file import entries, text
from unnoise.formats.single_file.contents import CLIP, OPEN_CLIP
from unnoise.nn.clip import ClipConfig, ClipText

transformers: Any = pytest.importorskip("transformers")
converter: Any = pytest.importorskip("diffusers.loaders.single_file_utils")

TOKENS = torch.tensor([[598, 5, 7, 2, 599, 0, 0], [598, 599, 3, 0, 0, 0, 0]])


def tower(kind: str, state: dict[str, Tensor]) -> ClipText:
    config = text.config_of({name: tuple(tensor.shape) for name, tensor in state.items()}, kind, 599, "there")
    return clip.join(config, entries.to_folder(text.entries(config, kind), state, clip.shapes_of(config)))


def reference(config: ClipConfig) -> Any:
    kind = "CLIPTextModelWithProjection" if config.projection else "CLIPTextModel"
    return getattr(transformers, kind)(
        transformers.CLIPTextConfig(
            vocab_size=config.vocabulary, hidden_size=config.width, intermediate_size=config.hidden,
            projection_dim=config.projection or config.width, num_hidden_layers=config.depth,
            num_attention_heads=config.heads, max_position_embeddings=config.length, hidden_act=config.activation,
            eos_token_id=config.end, bos_token_id=config.end - 1,
        )
    ).eval()  # fmt: skip


def load(net: Any, state: dict[str, Tensor]) -> Any:
    """transformers' model with these weights, all of them, whatever prefix it has."""
    own = {name.removeprefix("text_model."): name for name in net.state_dict()}
    state = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    net.load_state_dict({own[name]: tensor for name, tensor in state.items()})
    return net


@torch.no_grad()
def test_openai_s_tower_computes_what_transformers_does() -> None:
    prefix = "cond_stage_model.transformer."
    state = tower_tensors(CLIP, "text_model.")
    theirs = converter.convert_ldm_clip_checkpoint({prefix + name: tensor for name, tensor in state.items()})
    net = load(reference(TOWERS[CLIP]), theirs)
    ours = tower(CLIP, {name.removeprefix("text_model."): tensor for name, tensor in state.items()})
    torch.testing.assert_close(ours(TOKENS).text, net(TOKENS).last_hidden_state, atol=1e-5, rtol=0)


@torch.no_grad()
def test_openclip_s_tower_computes_what_transformers_does() -> None:
    """Also the embeddings before the last block, and the pooled one, whose projection is transposed in the file."""
    prefix, config = "conditioner.embedders.1.model.", replace(TOWERS[OPEN_CLIP], projection=128)
    state = tower_tensors(OPEN_CLIP, "", projection=128)  # the converter takes this width for that of the blocks
    stub = SimpleNamespace(config=SimpleNamespace(hidden_size=config.width))
    theirs = converter.convert_open_clip_checkpoint(stub, {prefix + n: tensor for n, tensor in state.items()}, prefix)
    net = load(reference(config), theirs)
    right, got = net(TOKENS, output_hidden_states=True), tower(OPEN_CLIP, state)
    torch.testing.assert_close(got(TOKENS).text, right.last_hidden_state, atol=1e-5, rtol=0)
    torch.testing.assert_close(got(TOKENS).pooled, right.text_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(got(TOKENS, skip=1, normed=False).text, right.hidden_states[-2], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [CLIP, OPEN_CLIP])
def test_writing_undoes_reading(kind: str) -> None:
    state, config = tower_tensors(kind, ""), TOWERS[kind]
    again = entries.to_file(text.entries(config, kind), clip.split(tower(kind, state)))
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)


@pytest.mark.parametrize("kind", [CLIP, OPEN_CLIP])
def test_sizes_are_inferred(kind: str) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in tower_tensors(kind, "").items()}
    assert text.config_of(shapes, kind, 599, "there") == TOWERS[kind]
    with pytest.raises(UserError, match=r"there: .*token_embedding\.weight of the text encoder is missing"):
        text.config_of({n: s for n, s in shapes.items() if "token_embedding" not in n}, kind, 599, "there")
    odd = text.NAMES[kind == OPEN_CLIP].tokens
    with pytest.raises(UserError, match="a text encoder of width 65 with"):
        text.config_of(shapes | {odd: (600, 65)}, kind, 599, "there")


def test_the_last_block_of_vit_h_is_not_used_where_the_file_has_it() -> None:
    vit_h = ClipConfig(width=1024, hidden=4096, depth=24, heads=16, activation="gelu", projection=1024)
    assert text.skip_of(vit_h) == 1
    assert text.skip_of(replace(vit_h, depth=23)) == 0  # as diffusers' scripts write it
