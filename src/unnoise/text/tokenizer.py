"""From captions to numbers: a byte-level tokenizer, learned from the captions of a training.

    <begin> a red circle on white <end> <pad> <pad> ...

Captions are lower-cased and their spaces made single; the frequent words become one token each, any other word several,
down to bytes, so that nothing is unknown. The empty caption is <begin> <end>: what a network hears that is told no
words. The work is done by the `tokenizers` library, and what is kept is its JSON.
"""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from unnoise.conditions import Cond
from unnoise.errors import UserError

PAD, BEGIN, END = 0, 1, 2
SPECIAL = ("<pad>", "<begin>", "<end>")
BYTES = 256  # single bytes, which come first: a vocabulary holds them all
FILE = "tokenizer.json"


class PromptEncoder(Protocol):
    """What makes of captions what a network is told: a tokenizer, or an encoder beside the network."""

    def encode(self, captions: Sequence[str]) -> Cond:
        """A row a caption."""

    def truncated(self, caption: str) -> str:
        """What of a caption is too long to be heard: its end, from a whole letter on, or nothing."""


class Tokenizer:
    """Captions to tokens (B, length) int64. `text` is the JSON of the `tokenizers` library; nothing in it can run."""

    def __init__(self, text: str, length: int) -> None:
        self.text = text
        self.length = length

    @classmethod
    def learn(cls, captions: Iterable[str], *, vocabulary: int, length: int) -> Tokenizer:
        """The tokenizer of at most `vocabulary` tokens that says these captions in few of them: byte-pair encoding.

        A function of the captions. Raises UserError where there is no room for the single bytes.
        """
        least = BYTES + len(SPECIAL)
        if vocabulary < least:
            raise UserError(f"net.text.vocabulary {vocabulary} should be {least} or more: every byte has a token")
        if length < 3:
            raise UserError(f"net.text.length {length} should be 3 or more: begin, a word, end")
        lib = library()
        learned = lib.Tokenizer(lib.models.BPE())
        normal = lib.normalizers
        learned.normalizer = normal.Sequence(
            [normal.NFKC(), normal.Lowercase(), normal.Replace(lib.Regex(r"\s+"), " "), normal.Strip()]
        )
        learned.pre_tokenizer = lib.pre_tokenizers.ByteLevel(add_prefix_space=True)
        learned.decoder = lib.decoders.ByteLevel()
        trainer = lib.trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=list(SPECIAL),
            initial_alphabet=sorted(lib.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        learned.train_from_iterator(captions, trainer)
        return cls(learned.to_str(), length)

    @classmethod
    def load(cls, file: Path, length: int) -> Tokenizer:
        """The tokenizer in a file. Raises UserError where it is none, or not one of ours."""
        try:
            text = file.read_text(encoding="utf-8")
            table = json.loads(text)["model"]["vocab"]
            right = all(table.get(name) == i for i, name in enumerate(SPECIAL))
        except OSError as e:
            raise UserError(f"cannot read {file}: {e.strerror or e}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{file} is not a tokenizer's JSON: is the model whole?") from None
        if not right:
            raise UserError(f"{file} is a tokenizer, but not one of ours: {', '.join(SPECIAL)} should be its first")
        return cls(text, length)

    def save(self, file: Path) -> None:
        file.write_text(self.text, encoding="utf-8")

    @property
    def vocabulary(self) -> int:
        return len(json.loads(self.text)["model"]["vocab"])

    def encode(self, captions: Sequence[str]) -> Cond:
        """A row a caption: begin, its tokens, end, then padding; what is too long is cut before the end."""
        return Cond(tokens=rows_of(self._ids(captions), self.length, BEGIN, END, PAD))

    def truncated(self, caption: str) -> str:
        return truncated_part(self._library, caption, self.length - 2)

    def _ids(self, captions: Sequence[str]) -> list[list[int]]:
        return [list(found.ids) for found in self._library.encode_batch(list(captions), add_special_tokens=False)]

    @cached_property
    def _library(self) -> Any:
        """Made when first needed, so that a model can be shown without the library."""
        try:
            return library().Tokenizer.from_str(self.text)
        except UserError:
            raise
        except Exception as e:  # the library raises bare Exceptions for JSON that is no tokenizer
            raise UserError(f"the model's {FILE} cannot be used: {e}") from None


def rows_of(texts: Sequence[Sequence[int]], length: int, begin: int, end: int, pad: int) -> Tensor:
    """Tokens (B, length) int64: begin, a text's, end, then padding; what is too long is cut before the end."""
    tokens = torch.full((len(texts), length), pad, dtype=torch.int64)
    for row, ids in enumerate(texts):
        said = torch.tensor([begin, *ids[: length - 2], end])
        tokens[row, : len(said)] = said
    return tokens


def truncated_part(tokenizer: Any, text: str, count: int) -> str:
    """What of a text its first `count` tokens do not say, with the whole of a letter that they say a part of."""
    places = tokenizer.encode(text, add_special_tokens=False).offsets
    return text[places[count][0] :].strip() if len(places) > count else ""


def truncation_note(words: PromptEncoder | None, captions: Iterable[str]) -> str:
    """In words, how many of these captions are longer than what is heard of them, and the longest of them; empty where
    none is."""
    often = Counter(captions)
    unheard = {} if words is None else {text: end for text in often if (end := words.truncated(text))}
    if not unheard:
        return ""
    count, longest = sum(often[text] for text in unheard), max(unheard, key=len)
    said, end = (textwrap.shorten(text, 100, placeholder=" ...") for text in (longest, unheard[longest]))
    return (
        f"{count:,} of {often.total():,} captions {'is' if count == 1 else 'are'} longer than the text encoder reads, "
        f"and cut; of the longest, {said!r}, it does not hear {end!r}"
    )


def library() -> Any:
    """The `tokenizers` library. Raises UserError where it is not installed."""
    try:
        import tokenizers
    except ImportError:
        raise UserError("captions need the tokenizers library: pip install 'unnoise[text]'") from None
    return tokenizers
