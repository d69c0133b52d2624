"""From captions to tokens: a byte-level BPE tokenizer, trained on the captions of a data set.

    <begin> a red circle on white <end> <pad> <pad> ...

Captions are lower-cased and runs of spaces become one. Frequent words are one token each; other words are several, down
to bytes, so no text is unknown; "<end>" in a caption is text too. The empty caption, <begin> <end>, is the null
condition. The `tokenizers` library does the work, and its JSON is what is saved.
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
from unnoise.io.json_files import MOST_JSON, parse_json
from unnoise.io.reading import read_text

PAD, BEGIN, END = 0, 1, 2
SPECIAL = ("<pad>", "<begin>", "<end>")
BYTES = 256  # the single bytes, all of which are in the vocabulary
FILE = "tokenizer.json"


class PromptEncoder(Protocol):
    """Encodes captions: a tokenizer for the network's own text encoder, or a frozen text encoder."""

    def encode(self, captions: Sequence[str]) -> Cond:
        """The text fields of a condition, one row for each caption."""

    def truncated(self, caption: str) -> str:
        """The end of a caption that exceeds the length, from a whole character on; empty if nothing does."""


class Tokenizer:
    """Captions to tokens (B, length) int64. `text` is the JSON of the `tokenizers` library, which contains no code."""

    def __init__(self, text: str, length: int) -> None:
        self.text = text
        self.length = length

    @classmethod
    def learn(cls, captions: Iterable[str], *, vocabulary: int, length: int) -> Tokenizer:
        """The tokenizer of at most `vocabulary` tokens that byte-pair encoding learns from these captions.

        It depends on the captions alone. Raises UserError for a vocabulary smaller than the single bytes, and for a
        length without room for a word.
        """
        least = BYTES + len(SPECIAL)
        if vocabulary < least:
            raise UserError(
                f"net.text.vocabulary is {vocabulary}: set it to {least} or more, since every byte is a token"
            )
        if length < 3:
            raise UserError(f"net.text.length is {length}: set it to 3 or more, for begin, a word and end")
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
        learned.train_from_iterator(map(check_text, captions), trainer)
        return cls(learned.to_str(), length)

    @classmethod
    def load(cls, file: Path, length: int) -> Tokenizer:
        """The tokenizer in a file. Raises UserError if it is not one that `save` wrote."""
        try:
            text = read_text(file, MOST_JSON)
            table = parse_json(text, str(file))["model"]["vocab"]
            right = all(table.get(name) == i for i, name in enumerate(SPECIAL))
        except OSError as e:
            raise UserError(f"cannot read {file}: {e.strerror or e}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{file} is not the JSON of a tokenizer: copy the whole model directory again") from None
        if not right:
            raise UserError(f"{file} is not a tokenizer of unnoise: its first tokens are not {', '.join(SPECIAL)}")
        return cls(text, length)

    def save(self, file: Path) -> None:
        file.write_text(self.text, encoding="utf-8")

    @property
    def vocabulary(self) -> int:
        return len(json.loads(self.text)["model"]["vocab"])

    def encode(self, captions: Sequence[str]) -> Cond:
        """A row for each caption: begin, its tokens, end, then padding; long captions are truncated before end."""
        return Cond(tokens=rows_of(self._ids(captions), self.length, BEGIN, END, PAD))

    def truncated(self, caption: str) -> str:
        return truncated_part(self._library, caption, self.length - 2)

    def _ids(self, captions: Sequence[str]) -> list[list[int]]:
        texts = list(map(check_text, captions))
        return [list(found.ids) for found in self._library.encode_batch(texts, add_special_tokens=False)]

    @cached_property
    def _library(self) -> Any:
        """The library's tokenizer, created on first use, so that a model can be inspected without the library."""
        try:
            made = library().Tokenizer.from_str(self.text)
            made.encode_special_tokens = True  # "<end>" in a caption is text, and ends nothing
            return made
        except UserError:
            raise
        except Exception as e:  # the library raises bare Exceptions for JSON that is not a tokenizer
            raise UserError(f"the model's {FILE} cannot be used: {e}") from None


def check_text(text: str) -> str:
    """`text`, which is Unicode. Raises UserError for lone surrogates, which stand for bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        wrong = ascii(text[error.start])[1:-1]
        raise UserError(f"the text {text!a} is not valid Unicode: remove {wrong} from it") from None
    return text


def rows_of(texts: Sequence[Sequence[int]], length: int, begin: int, end: int, pad: int) -> Tensor:
    """Tokens (B, length) int64: begin, those of a text, end, then padding; long texts are truncated before end."""
    tokens = torch.full((len(texts), length), pad, dtype=torch.int64)
    for row, ids in enumerate(texts):
        found = torch.tensor([begin, *ids[: length - 2], end])
        tokens[row, : len(found)] = found
    return tokens


def truncated_part(tokenizer: Any, text: str, count: int) -> str:
    """The part of a text after its first `count` tokens, from a whole character on, even if they contain part of it."""
    places = tokenizer.encode(check_text(text), add_special_tokens=False).offsets
    return text[places[count][0] :].strip() if len(places) > count else ""


def truncation_note(encoder: PromptEncoder | None, captions: Iterable[str]) -> str:
    """A note with the number of captions that are truncated, and the longest of them; empty if none is."""
    counts = Counter(captions)
    ends = {} if encoder is None else {text: end for text in counts if (end := encoder.truncated(text))}
    if not ends:
        return ""
    count, longest = sum(counts[text] for text in ends), max(ends, key=len)
    text, end = (textwrap.shorten(part, 100, placeholder=" ...") for part in (longest, ends[longest]))
    return (
        f"{count:,} of {counts.total():,} captions {'is' if count == 1 else 'are'} longer than the text encoder reads "
        f"and truncated; the longest, {text!r}, loses {end!r}"
    )


def library() -> Any:
    """The `tokenizers` library. Raises UserError where it is not installed."""
    try:
        import tokenizers
    except ImportError:
        raise UserError("captions need the tokenizers library: pip install 'unnoise[text]'") from None
    return tokenizers
