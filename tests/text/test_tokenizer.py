"""Captions become rows of tokens: no text is unknown, nothing within the length is lost, truncation is reported."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from unnoise.errors import UserError
from unnoise.text.tokenizer import BEGIN, END, PAD, Tokenizer, truncation_note

pytest.importorskip("tokenizers")
COLOURS, KINDS = ("red", "green", "blue"), ("circle", "square")
CAPTIONS = [f"a {colour} {kind} on white" for colour in COLOURS for kind in KINDS]


def learned(length: int = 12, vocabulary: int = 320) -> Tokenizer:
    return Tokenizer.learn(CAPTIONS, vocabulary=vocabulary, length=length)


def test_a_frequent_word_is_one_token() -> None:
    rows = learned().encode(CAPTIONS).tokens
    assert rows is not None
    assert rows.shape == (6, 12)
    for row in rows.tolist():
        assert row[0] == BEGIN
        assert row[6] == END  # five words
        assert row[7:] == [PAD] * 5
    assert len(set(rows[:, 2].tolist())) == len(COLOURS)  # the second word, and nothing but it
    assert len(set(rows[:, 3].tolist())) == len(KINDS)
    assert len(set(rows[:, 1].tolist())) == 1


def test_the_empty_caption_is_begin_and_end() -> None:
    rows = learned().encode(["", "   "]).tokens
    assert rows is not None
    assert rows.tolist() == [[BEGIN, END] + [PAD] * 10] * 2


def test_case_and_runs_of_spaces_have_no_effect() -> None:
    rows = learned().encode(["a red circle on white", "  A  Red\tcircle\non WHITE "]).tokens
    assert rows is not None
    assert rows[0].tolist() == rows[1].tolist()


def test_no_text_is_unknown() -> None:
    words = learned(length=64)
    rows = words.encode(["Ünïcödé 🦩 zebra"]).tokens
    assert rows is not None
    ids = rows[0].tolist()
    inside = ids[1 : ids.index(END)]
    assert min(inside) > END
    assert words._library.decode(inside).strip() == "ünïcödé 🦩 zebra"


@pytest.mark.parametrize("text", ["a <pad> b", "<begin>red<end>", "<END> <end>", "<end>"])
def test_the_names_of_special_tokens_are_text_in_a_caption(text: str) -> None:
    words = learned(length=64)
    rows = words.encode([text]).tokens
    assert rows is not None
    ids = rows[0].tolist()
    inside = ids[1 : ids.index(END)]
    assert min(inside) > END
    assert words._library.decode(inside).strip() == text.lower()
    assert words.truncated(text) == ""


def test_long_captions_are_truncated_before_the_end_token() -> None:
    words = learned(length=5)
    rows = words.encode(["a red circle on white"]).tokens
    assert rows is not None
    assert rows.shape == (1, 5)
    assert rows[0, -1] == END
    assert rows[0, :4].tolist() == learned().encode(["a red circle"]).tokens[0, :4].tolist()  # type: ignore[index]
    assert words.truncated("a red circle on white") == "on white"
    assert words.truncated("a red circle") == ""


@pytest.mark.parametrize("text", ["  A   red 🦩 ﬁsh\tünïcödé ", "赤い 円 on white", "e\u0301clair"])
def test_the_truncated_part_begins_with_a_whole_character(text: str) -> None:
    """At every length, the encoded and the truncated part are the whole text; a half encoded character is in both."""
    whole = plain(text)
    for length in range(3, 64):
        words = learned(length=length)
        ids = words._ids([text])[0]
        encoded = plain(words._library.decode(ids[: length - 2]).rstrip("\N{REPLACEMENT CHARACTER}"))
        rest = words.truncated(text)
        assert (rest == "") == (len(ids) <= length - 2)
        assert rest in text
        assert whole.startswith(encoded)
        assert whole.endswith(plain(rest))
        assert len(whole) <= len(encoded) + len(plain(rest)) <= len(whole) + 1


def plain(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).lower().split())


def test_the_number_of_truncated_captions_and_the_longest() -> None:
    words = learned(length=5)
    long, longer = "a red circle on white", "a red circle on white and a square"
    assert truncation_note(words, ["a red circle", "", "a red square"]) == ""
    assert truncation_note(None, [long]) == ""
    note = truncation_note(words, [long, "a red circle", long, longer])
    assert note.startswith("3 of 4 captions are longer than the text encoder reads and truncated; the longest, ")
    assert note.endswith(f"{longer!r}, loses 'on white and a square'")
    assert truncation_note(words, [long]).startswith("1 of 1 captions is longer")


def test_the_vocabulary_is_an_upper_limit() -> None:
    assert learned(vocabulary=259).vocabulary == 259  # bytes and nothing else
    assert learned(vocabulary=100_000).vocabulary < 400
    with pytest.raises(UserError, match="259 or more"):
        learned(vocabulary=258)
    with pytest.raises(UserError, match="3 or more"):
        learned(length=2)


def test_it_depends_on_the_captions_alone_and_survives_a_file(tmp_path: Path) -> None:
    words = learned()
    assert words.text == learned().text
    words.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json", 12)
    assert again.encode(CAPTIONS).tokens.tolist() == words.encode(CAPTIONS).tokens.tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"model": 3}', '{"model": {"vocab": {"a": 0}}}'])
def test_files_that_are_not_tokenizers_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(UserError, match="tokenizer"):
        Tokenizer.load(tmp_path / "tokenizer.json", 12)
    with pytest.raises(UserError, match="cannot read"):
        Tokenizer.load(tmp_path / "none.json", 12)


def test_text_that_is_not_unicode_is_refused() -> None:
    """A lone surrogate stands for a byte of a command line that is not UTF-8."""
    tokenizer = Tokenizer.learn(["a cat"], vocabulary=300, length=8)
    for read in (lambda text: tokenizer.encode([text]), tokenizer.truncated):
        with pytest.raises(UserError, match=r"the text 'a cat\\udcff' is not valid Unicode: remove \\udcff"):
            read("a cat\udcff")
    with pytest.raises(UserError, match="is not valid Unicode"):
        Tokenizer.learn(["a cat\udcff"], vocabulary=300, length=8)
