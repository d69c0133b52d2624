"""CLIP's tokenizer is that of transformers for every text and every folder, with added tokens and all their flags."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.nn.test_clip import small_tokenizer, small_tower
from unnoise.errors import UserError
from unnoise.formats import clip
from unnoise.formats.clip_tokenizer import BEGIN, END, ClipTokenizer
from unnoise.formats.text_encoders import ClipEncoder

transformers = pytest.importorskip("transformers")

ADDED = ("<zebra>", "<Red-Cat>", "cat", "sks", "<|pad|>", "fünf", " x ")
WORDS = (
    *ADDED, *(token.upper() for token in ADDED), *(f"a{token}b" for token in ADDED), BEGIN, END, END.upper(), "the",
    "red", "cats", "12", "!", "<", "|>", "'s", " ", "  ", "\t", "\n", "\u2028", "\u00a0", "e\u0301", "\U0001f600",
    "<pad>",
)  # fmt: skip
FLAGS = ("lstrip", "rstrip", "single_word", "normalized")


def write(folder: Path, name: str, data: dict[str, Any]) -> None:
    (folder / name).write_text(json.dumps(data), encoding="utf-8")


def texts(rng: random.Random, count: int) -> list[str]:
    return ["".join(rng.choices(WORDS, k=rng.randrange(12))) for _ in range(count)]


def agree(folder: Path, some: list[str]) -> ClipTokenizer:
    """Compares the tokens of some texts with transformers'; returns the tokenizer."""
    right = transformers.CLIPTokenizer.from_pretrained(folder)
    mine = ClipTokenizer.load(folder, 77)
    for text in some:
        wanted = right(text, padding="max_length", truncation=True, max_length=77).input_ids
        assert mine.encode([text])[0].tolist() == wanted, text
    return mine


def flags(rng: random.Random) -> dict[str, bool]:
    return {flag: rng.random() < 0.5 for flag in FLAGS}


def added_file(folder: Path, rng: random.Random) -> None:
    """As tokenizers before transformers 4.34 were saved: numbers in one file, special tokens in another."""
    chosen = rng.sample(ADDED, 3)
    write(folder, "added_tokens.json", {token: 600 + i for i, token in enumerate(chosen)})
    named = {"bos_token": {"content": BEGIN} | flags(rng), "eos_token": END, "pad_token": rng.choice([END, "!"])}
    write(folder, "special_tokens_map.json", named | {"additional_special_tokens": chosen[:1]})


def decoder(folder: Path, rng: random.Random) -> None:
    """As slow tokenizers of transformers 4.34 and later were saved: every added token with its flags."""
    tokens = {"598": {"content": BEGIN}, "599": {"content": END}}
    tokens |= {str(600 + i): {"content": token} for i, token in enumerate(rng.sample(ADDED, 3))}
    table = {n: each | flags(rng) | {"special": rng.random() < 0.5} for n, each in tokens.items()}
    config = {"tokenizer_class": "CLIPTokenizer", "added_tokens_decoder": table, "pad_token": END}
    write(folder, "tokenizer_config.json", config | {"additional_special_tokens": rng.sample(ADDED, 1)})


def whole(folder: Path, rng: random.Random) -> None:
    """As fast tokenizers are saved: one file, with the added tokens in it, beside an older map."""
    made = transformers.CLIPTokenizer.from_pretrained(folder)
    some = [transformers.AddedToken(token, **flags(rng)) for token in rng.sample(ADDED, 3)]
    made.add_tokens(some, special_tokens=rng.random() < 0.5)
    made.backend_tokenizer.save(str(folder / "tokenizer.json"))
    write(folder, "special_tokens_map.json", {"bos_token": BEGIN, "eos_token": {"content": END} | flags(rng)})


def split(folder: Path, rng: random.Random) -> None:
    """Special tokens in a text are text."""
    config = {"tokenizer_class": "CLIPTokenizer", "split_special_tokens": True, "pad_token": END}
    write(folder, "tokenizer_config.json", config)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("files", [added_file, decoder, whole, split])
def test_added_tokens_are_those_of_transformers(files: Any, seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    small_tokenizer(tmp_path)
    files(tmp_path, rng)
    some = texts(rng, 40)
    mine = agree(tmp_path, some)
    mine.save(tmp_path / "again")
    again = agree(tmp_path / "again", [])
    assert torch.equal(again.encode(some), mine.encode(some))


def test_an_added_token_is_one_token(tmp_path: Path) -> None:
    small_tokenizer(tmp_path)
    write(tmp_path, "added_tokens.json", {"<zebra>": 600})
    row = ClipTokenizer.load(tmp_path, 6).encode(["red <zebra>cat"])[0].tolist()
    plain = ClipTokenizer.load(tmp_path, 6).encode(["red", "cat"])
    assert row == [598, int(plain[0, 1]), 600, int(plain[1, 1]), 599, 599]


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        ("added_tokens.json", {"<zebra>": 700}, "'<zebra>' has the number 700, and the next free one is 600"),
        ("added_tokens.json", {"<zebra>": "many"}, "'many' is not the number of an added token"),
        ("tokenizer_config.json", {"pad_token": 3}, "'3' is not an added token"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"600": "x", "y": {}}}, "not the number"),
        ("tokenizer_config.json", {"pad_token": {"content": "!", "lstrip": 1}}, "is not an added token"),
        ("vocab.json", {"a": "b"}, "it is not one of byte-pair encoding"),
        ("tokenizer.json", {"model": []}, "it is not one of byte-pair encoding"),
        ("tokenizer.json", {"model": {"vocab": {}, "merges": ["a b c"]}}, "is not a merge of two tokens"),
        ("tokenizer.json", {"model": {"vocab": {}, "merges": []}, "added_tokens": [3]}, "'3' is not an added token"),
    ],
    ids=str,
)
def test_files_that_cannot_be_used_are_refused(file: str, data: dict[str, Any], message: str, tmp_path: Path) -> None:
    small_tokenizer(tmp_path)
    write(tmp_path, file, data)
    with pytest.raises(UserError) as error:
        ClipTokenizer.load(tmp_path, 77)
    assert message in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_a_token_without_an_embedding_is_refused(tmp_path: Path) -> None:
    small_tokenizer(tmp_path)
    write(tmp_path, "added_tokens.json", {"<zebra>": 600})
    small_tower(tmp_path / "tower")  # of 600 tokens
    encoder = ClipEncoder(ClipTokenizer.load(tmp_path, 9), clip.read(tmp_path / "tower"))
    assert encoder.encode(["a red cat"]).text is not None
    with pytest.raises(
        UserError, match="the added token '<zebra>', and the text encoder has embeddings for 600 tokens"
    ):
        encoder.encode(["a <zebra>"])
