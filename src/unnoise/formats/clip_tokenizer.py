"""CLIP's tokenizer in a folder of transformers, read and written without transformers.

    tokenizer.json, or vocab.json and merges.txt   byte-level BPE; </w> marks the end of a word
    tokenizer_config.json                          names of begin, end and padding; added tokens, with their flags
    special_tokens_map.json, added_tokens.json     the same in older files

Added tokens (textual inversion) are found in a text before it is split into words. Law
(tests/formats/test_clip_tokenizer.py): the tokens of any text are those of transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from torch import Tensor

from unnoise.errors import UserError
from unnoise.formats.files import read_json
from unnoise.io.json_files import MOST_JSON
from unnoise.io.reading import read_text
from unnoise.text.tokenizer import check_text, library, rows_of, truncated_part

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
NAMED: dict[str, str | None] = {  # special tokens that have a name, with CLIP's own, in the order they are added
    "bos_token": BEGIN,
    "eos_token": END,
    "unk_token": END,
    "sep_token": None,
    "pad_token": END,
    "cls_token": None,
    "mask_token": None,
}
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")  # of an added token
Token = dict[str, Any]
"""The content of an added token, and those of its flags that are given."""


class ClipTokenizer:
    """Texts to tokens (B, length) int64: begin, those of a text, end, padding; long texts are truncated before end.

    `library_tokenizer`, of the `tokenizers` library, adds no begin, end or padding and does not truncate.
    """

    def __init__(self, library_tokenizer: Any, *, length: int, begin: str = BEGIN, end: str = END, pad: str) -> None:
        self._library = library_tokenizer
        self.length = length
        self.begin, self.end, self.pad = (self._id(token) for token in (begin, end, pad))

    @classmethod
    def load(cls, folder: Path, length: int) -> ClipTokenizer:
        """The tokenizer in a folder, for texts of this length. Raises UserError if it cannot be used."""
        vocabulary, merges, stored = _model(folder)
        named, added, tokens = _added(folder, stored)
        try:
            made = _bpe(vocabulary, merges, named["unk_token"])
            made.add_tokens([library().AddedToken(**token) for token in tokens])
        except UserError:
            raise
        except Exception as problem:  # the library raises bare Exceptions
            raise UserError(f"{folder} has no usable tokenizer: {problem}") from None
        for number, token in added.items():
            if made.token_to_id(token["content"]) != number:
                raise UserError(
                    f"{folder}: the added token {token['content']!r} has the number {number}, and the next free one is "
                    f"{made.token_to_id(token['content'])}: copy the whole folder"
                )
        made.encode_special_tokens = _optional(folder / "tokenizer_config.json").get("split_special_tokens") is True
        names = {key: token["content"] for key, token in named.items() if token is not None}
        end = names["eos_token"]
        return cls(made, length=length, begin=names["bos_token"], end=end, pad=names.get("pad_token", end))

    def content(self, number: int) -> str:
        """The text of the token with this number."""
        return str(self._library.id_to_token(number))

    def encode(self, texts: Sequence[str]) -> Tensor:
        """A row for each text."""
        return rows_of(self._ids(texts), self.length, self.begin, self.end, self.pad)

    def truncated(self, text: str) -> str:
        """The end of a text that exceeds the length; empty if nothing does."""
        return truncated_part(self._library, text, self.length - 2)

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text(self._library.to_str(), encoding="utf-8")
        names = {"bos_token": self.begin, "eos_token": self.end, "unk_token": self.end, "pad_token": self.pad}
        settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": self.length}
        settings |= {key: self._library.id_to_token(number) for key, number in names.items()}
        settings |= {"split_special_tokens": True} if self._library.encode_special_tokens else {}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [
            list(found.ids)
            for found in self._library.encode_batch(list(map(check_text, texts)), add_special_tokens=False)
        ]

    def _id(self, token: str) -> int:
        found = self._library.token_to_id(token)
        if found is None:
            raise UserError(f"the tokenizer has no {token}: give a tokenizer of CLIP")
        return int(found)


def _bpe(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], unknown: Token | None) -> Any:
    """The library's tokenizer with CLIP's normalisation, without added tokens."""
    lib = library()
    model = lib.models.BPE(
        vocabulary, merges, unk_token=unknown and unknown["content"], end_of_word_suffix="</w>",
        continuing_subword_prefix="",
    )  # fmt: skip
    made = lib.Tokenizer(model)
    normal, pre = lib.normalizers, lib.pre_tokenizers
    made.normalizer = normal.Sequence([normal.NFC(), normal.Replace(lib.Regex(r"\s+"), " "), normal.Lowercase()])
    words = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
    made.pre_tokenizer = pre.Sequence(
        [pre.Split(lib.Regex(words), behavior="removed", invert=True), pre.ByteLevel(add_prefix_space=False)]
    )
    return made


def _model(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]], list[Any]]:
    """The vocabulary, the merges and the added tokens of tokenizer.json; or of vocab.json and merges.txt.

    Raises UserError for files that are missing or are not those of byte-pair encoding.
    """
    whole = folder / "tokenizer.json"
    stored: list[Any] = []
    if whole.is_file():
        data = read_json(whole)
        model = data.get("model")
        model = model if isinstance(model, dict) else {}
        vocabulary, pairs, stored = model.get("vocab"), model.get("merges"), data.get("added_tokens") or []
    else:
        for name in ("vocab.json", "merges.txt"):
            if not (folder / name).is_file():
                raise UserError(f"{folder} has neither tokenizer.json nor {name}: copy the whole folder")
        vocabulary = read_json(folder / "vocab.json")
        lines = _text(folder / "merges.txt").split("\n")
        pairs = [line for line in lines if line.strip() and not line.startswith("#version")]
    if not _is_vocabulary(vocabulary) or not isinstance(pairs, list) or not isinstance(stored, list):
        raise UserError(f"{folder} has no usable tokenizer: it is not one of byte-pair encoding")
    merges = [pair.split() if isinstance(pair, str) else pair for pair in pairs]
    for merge in merges:
        if not isinstance(merge, list) or len(merge) != 2 or not all(isinstance(part, str) for part in merge):
            raise UserError(f"{folder} has no usable tokenizer: {str(merge)[:80]!r} is not a merge of two tokens")
    return vocabulary, [(first, second) for first, second in merges], stored


def _is_vocabulary(value: object) -> TypeGuard[dict[str, int]]:
    if not isinstance(value, dict):
        return False
    return all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in value.values())


def _added(folder: Path, stored: list[Any]) -> tuple[dict[str, Token | None], dict[int, Token], list[Token]]:
    """The named tokens, the added tokens by number, and all that are added to the vocabulary, in their order.

    As transformers 5.23 reads them: the first list of `added_tokens_decoder` in tokenizer_config.json, or
    added_tokens.json and the list in tokenizer.json, then named and further special tokens that are not among them.
    """
    config, where = _optional(folder / "tokenizer_config.json"), str(folder)
    given = {key: config.get(key, usual) for key, usual in NAMED.items()}
    further = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    special, added = list(further) if isinstance(further, list) else [], {}
    decoder = config.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        added = {_number(key, where): _token(token, where) for key, token in decoder.items()}
    else:
        old = _optional(folder / "special_tokens_map.json")
        given |= {key: _special(value) for key, value in old.items() if key in NAMED}
        known = {_token(each, where)["content"] for each in (*filter(None, given.values()), *special)}
        for content, number in _optional(folder / "added_tokens.json").items():
            flags = {"normalized": content not in known, "special": content in known}
            added[_number(number, where)] = {"content": content} | flags
        for token in stored:
            added[_number(token.get("id") if isinstance(token, dict) else None, where)] = _token(token, where)
        more = old.get("extra_special_tokens") or old.get("additional_special_tokens") or []
        special += [_special(each) for each in more] if isinstance(more, list) else []
    by_content = {token["content"]: token for token in added.values()}
    named: dict[str, Token | None] = {}
    for key, value in given.items():
        token = None if value is None else _token(value, where)
        named[key] = None if token is None else by_content.get(token["content"], token)
    tokens = {token["content"]: token for _, token in sorted(added.items())}
    for token in (*filter(None, named.values()), *(_token(each, where) for each in special)):
        tokens.setdefault(token["content"], token)
    names = {token["content"] for token in named.values() if token is not None}
    for token in tokens.values():
        token["special"] = bool(token.get("special")) or token["content"] in names
    return named, added, list(tokens.values())


def _token(value: object, where: str) -> Token:
    """An added token from its content, which is then special, or from a dictionary with flags. Raises UserError."""
    if isinstance(value, str):
        return {"content": value, "special": True, "normalized": False}
    if isinstance(value, dict) and isinstance(value.get("content"), str):
        flags = {flag: value[flag] for flag in FLAGS if flag in value}
        if all(isinstance(flag, bool) for flag in flags.values()):
            flags.setdefault("normalized", not flags.get("special", False))
            return {"content": value["content"]} | flags
    raise UserError(f"{where} has no usable tokenizer: {str(value)[:80]!r} is not an added token")


def _special(value: object) -> object:
    return value | {"special": True} if isinstance(value, dict) else value


def _number(value: object, where: str) -> int:
    """The number of an added token. Raises UserError if it is not one."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    raise UserError(f"{where} has no usable tokenizer: {str(value)[:80]!r} is not the number of an added token")


def _text(file: Path) -> str:
    try:
        return read_text(file, MOST_JSON)
    except OSError as problem:
        raise UserError(f"{file} cannot be read: {problem}") from None


def _optional(file: Path) -> dict[str, Any]:
    """The contents of a JSON file; empty if there is none."""
    return read_json(file) if file.is_file() else {}
