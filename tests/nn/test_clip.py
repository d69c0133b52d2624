"""CLIP's text encoder and its tokenizer agree with transformers, for random weights and for the published ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.random_weights import randomised
from unnoise.errors import UserError
from unnoise.formats import clip
from unnoise.formats.clip_tokenizer import BEGIN, END, ClipTokenizer
from unnoise.nn.clip import ClipConfig, ClipText

transformers = pytest.importorskip("transformers")

SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "projection_dim": 6,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 9,
    "eos_token_id": 39,
    "bos_token_id": 38,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
TOKENS = torch.tensor(
    [[38, 5, 7, 2, 39, 39, 39, 39, 39], [38, 39, 0, 0, 0, 0, 0, 0, 0], [38, 9, 5, 7, 11, 2, 3, 4, 39]]
)


def reference(kind: str = "CLIPTextModel", **settings: Any) -> Any:
    return randomised(getattr(transformers, kind)(transformers.CLIPTextConfig(**SMALL | settings)), "embedding")


def small_tower(folder: Path, **settings: Any) -> Any:
    net = reference(**{"vocab_size": 600, "eos_token_id": 599, "bos_token_id": 598} | settings)
    net.save_pretrained(folder)
    return net


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("end", [39, 2])
@pytest.mark.parametrize("kind", ["CLIPTextModel", "CLIPTextModelWithProjection"])
@torch.no_grad()
def test_transformers_computes_the_same(kind: str, act: str, end: int, tmp_path: Path) -> None:
    net = reference(kind, hidden_act=act, eos_token_id=end)
    net.save_pretrained(tmp_path)
    mine = clip.read(tmp_path)
    right = net(TOKENS, output_hidden_states=True)
    got = mine(TOKENS)
    torch.testing.assert_close(got.text, right.last_hidden_state, atol=1e-5, rtol=0)
    pooled = right.text_embeds if "Projection" in kind else right.pooler_output
    assert pooled.shape[1] == (6 if "Projection" in kind else 16)
    torch.testing.assert_close(got.pooled, pooled, atol=1e-5, rtol=0)
    norm = net.get_submodule("text_model" if "Projection" in kind else "").final_layer_norm
    for skip in (1, 2, 3):
        state = right.hidden_states[-(skip + 1)]
        torch.testing.assert_close(mine(TOKENS, skip=skip).text, norm(state), atol=1e-5, rtol=0)
        torch.testing.assert_close(mine(TOKENS, skip=skip, normed=False).text, state, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["CLIPTextModel", "CLIPTextModelWithProjection"])
@torch.no_grad()
def test_transformers_reads_saved_weights(kind: str, tmp_path: Path) -> None:
    reference(kind).save_pretrained(tmp_path / "theirs")
    mine = clip.read(tmp_path / "theirs")
    clip.write(tmp_path / "ours", mine)
    net, report = getattr(transformers, kind).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    right = net.eval()(TOKENS)
    torch.testing.assert_close(mine(TOKENS).text, right.last_hidden_state, atol=1e-5, rtol=0)
    assert clip.read(tmp_path / "ours").config == mine.config


@pytest.mark.parametrize("prefix", ["", "text_model."])
@torch.no_grad()
def test_old_and_new_names_are_read_and_positions_are_not_needed(prefix: str, tmp_path: Path) -> None:
    net = reference()
    net.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    state = {prefix + name.removeprefix("text_model."): tensor for name, tensor in load_file(file).items()}
    state[f"{prefix}embeddings.position_ids"] = torch.arange(9)[None]
    save_file(state, file)
    torch.testing.assert_close(clip.read(tmp_path)(TOKENS).text, net(TOKENS).last_hidden_state, atol=1e-5, rtol=0)
    del state[f"{prefix}final_layer_norm.bias"]
    save_file(state, file)
    with pytest.raises(UserError, match=r"final_layer_norm\.bias is missing"):
        clip.read(tmp_path)


def test_a_token_depends_on_those_before_it_only() -> None:
    torch.manual_seed(0)
    net = ClipText(ClipConfig(vocabulary=40, length=9, width=16, hidden=24, depth=2, heads=4, end=39)).eval()
    other = TOKENS.clone()
    other[:, 4] = 30
    changed = (net(other).text != net(TOKENS).text).any(2)
    assert changed.tolist() == [[False] * 4 + [True] * 5] * 3


def test_invalid_configurations_and_inputs_are_errors(tmp_path: Path) -> None:
    for settings, message in (
        ({"hidden_act": "relu"}, "no hidden_act 'relu'"),
        ({"use_attention_mask": True}, "no setting of CLIPTextModel 'use_attention_mask'"),
        ({"model_type": "t5"}, "the configuration of a t5"),
        ({"hidden_size": 0}, "hidden_size is 0"),
    ):
        with pytest.raises(UserError, match=message):
            clip.from_config(SMALL | settings, "there")
    for key in ("num_attention_heads", "eos_token_id", "hidden_act", "layer_norm_eps"):
        with pytest.raises(UserError, match=f"there: {key} is missing, and no tensor's shape determines it"):
            clip.from_config({name: value for name, value in SMALL.items() if name != key}, "there")
    net = ClipText(clip.from_config(SMALL, "there"))
    with pytest.raises(UserError, match="has 10 tokens and this encoder reads at most 9"):
        net(torch.zeros(1, 10, dtype=torch.int64))
    with pytest.raises(UserError, match="between 0 and the 3 blocks"):
        net(TOKENS, skip=4)


# --- the tokenizer ---


def byte_letters() -> list[str]:
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def small_tokenizer(folder: Path, *, whole: bool = False, pad: str = END) -> Any:
    """Bytes, bytes that end a word, some merges, begin and end: 600 tokens. Returns transformers' own."""
    letters = byte_letters()
    merges = [("c", "a"), ("ca", "t</w>"), ("r", "e"), ("re", "d</w>"), ("t", "h"), ("th", "e</w>"), ("1", "2</w>")]
    vocabulary = letters + [f"{letter}</w>" for letter in letters] + ["".join(pair) for pair in merges]
    vocabulary += [f"<unused {i}>" for i in range(598 - len(vocabulary))] + [BEGIN, END]
    folder.mkdir(parents=True, exist_ok=True)
    table = {token: i for i, token in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(table))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": pad, "tokenizer_class": "CLIPTokenizer"}))
    made = transformers.CLIPTokenizer(vocab=table, merges=merges, pad_token=pad)
    if whole:
        made.backend_tokenizer.save(str(folder / "tokenizer.json"))
    return made


TEXTS = (
    "", "a red cat", "The  RED   cat's 12 hats!", "  spaces \t and\nlines ", "emoji \U0001f600 here",
    "caf\u00e9 na\u00efve", "cat " * 80, "can't we'll 2024 ...", "e\u0301 composed", "\u4e2d\u6587",
    "\ufb01 \u00bd \u2460",  # composed by compatibility (NFKC) they would be: fi 1/2 1
)  # fmt: skip


@pytest.mark.parametrize("pad", [END, "!"])
@pytest.mark.parametrize("whole", [False, True], ids=["merges", "json"])
def test_transformers_tokenizes_to_the_same_ids(whole: bool, pad: str, tmp_path: Path) -> None:
    right = small_tokenizer(tmp_path, whole=whole, pad=pad)
    mine = ClipTokenizer.load(tmp_path, 77)
    for text in TEXTS:
        wanted = right(text, padding="max_length", truncation=True, max_length=77).input_ids
        assert mine.encode([text])[0].tolist() == wanted, text
    mine.save(tmp_path / "again")
    assert torch.equal(ClipTokenizer.load(tmp_path / "again", 77).encode(TEXTS), mine.encode(TEXTS))


def test_texts_have_begin_and_end_tokens_padding_and_a_maximum_length(tmp_path: Path) -> None:
    small_tokenizer(tmp_path)
    mine = ClipTokenizer.load(tmp_path, 77)
    assert mine.encode([""])[0].tolist() == [598] + [599] * 76
    long = mine.encode(["cat " * 80])[0].tolist()
    assert (long[0], long[-1], len(set(long[1:-1]))) == (598, 599, 1)
    assert mine.truncated("cat " * 75) == ""
    assert mine.truncated("red " * 75 + "cat cat") == "cat cat"
    assert mine.truncated("red " * 75 + "Fünf 🦩") == "Fünf 🦩"  # letters, not the bytes of their tokens


def test_a_tokenizer_of_another_kind_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither tokenizer.json nor vocab.json"):
        ClipTokenizer.load(tmp_path, 77)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="has no usable tokenizer"):
        ClipTokenizer.load(tmp_path, 77)
