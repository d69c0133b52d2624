"""Captions of the pictures in a tree: from the rows of metadata files, or from a text file beside each picture.

A picture may have several captions. Text is UTF-8, or UTF-16 and UTF-32 with their byte order mark; a caption file that
is none of these counts as no caption and is reported, because its bytes would be learned as other characters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from os.path import splitext
from typing import NamedTuple
from unicodedata import normalize

from unnoise.data.plain_text import SURROGATES, decode_text, some
from unnoise.data.source import Unreadable

KEYS = ("text", "caption", "prompt", "texts", "captions", "prompts")  # of a row; the first that has a text
ENDINGS = (".txt", ".caption")  # of a file beside a picture; the first that exists


class Captions(NamedTuple):
    """The captions of pictures, and the files that they were read from."""

    texts: list[tuple[str, ...]]  # of each picture; empty if it has none
    files: set[str]
    unread: dict[str, str]  # caption files of these pictures that are not read -> why
    notes: list[str]


def caption_key(row: Mapping[str, object]) -> str:
    """The first of KEYS under which a row of a metadata file has a text, or a list of texts; empty if none has."""
    return next((key for key in KEYS if _texts(row.get(key))), "")


def texts_of(row: Mapping[str, object]) -> tuple[str, ...]:
    """The captions in a row of a metadata file."""
    return _texts(row.get(caption_key(row)))


def _texts(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    many = value if isinstance(value, list) else [value]
    return tuple(text for text in many if isinstance(text, str) and text.strip())


def read_captions(
    pictures: Sequence[str],
    rows: Mapping[str, Sequence[Mapping[str, object]]],
    files: Iterable[str],
    read: Callable[[str], bytes],
) -> Captions:
    """The captions of `pictures`: from their `rows`, otherwise from the caption file among `files` beside each."""
    beside: dict[str, dict[str, str]] = {}  # stem -> ending -> file
    for file in files:
        stem, ending = splitext(file)
        if ending.lower() in ENDINGS:
            beside.setdefault(normalize("NFC", stem), {})[ending.lower()] = file
    found = Captions([], set(), {}, [])
    if not beside and not rows:
        return found._replace(texts=[()] * len(pictures))
    undecoded: dict[str, None] = {}
    halved = 0
    for picture in pictures:
        texts = tuple(dict.fromkeys(text for row in rows.get(picture, ()) for text in texts_of(row)))
        near = beside.get(normalize("NFC", splitext(picture)[0]), {})
        file = next((near[ending] for ending in ENDINGS if ending in near), "")
        source = "metadata has" if texts else f"{splitext(file)[1]} files have"
        found.unread.update((other, f"{source} these captions") for other in near.values() if texts or other != file)
        if not texts and file:
            found.files.add(file)
            text = _text(file, read)
            if text is None:
                undecoded[file] = None
            texts = (text.strip(),) if text and text.strip() else ()
        whole = tuple(SURROGATES.sub("", text) for text in texts)
        halved += whole != texts
        found.texts.append(tuple(text for text in whole if text))
    found.notes.extend(caption_notes(found.texts))
    if undecoded:
        found.notes.append(
            f"{len(undecoded):,} caption files cannot be read as UTF-8 text and count as no caption "
            f"({some(list(undecoded))}): save them as UTF-8"
        )
    if halved:
        found.notes.append(f"the captions of {halved:,} pictures contain half of a surrogate pair, which is left out")
    return found


def caption_notes(texts: Sequence[tuple[str, ...]]) -> list[str]:
    """Notes about pictures without a caption, among others that have one, and with several."""
    notes = []
    missing = sum(not found for found in texts)
    if 0 < missing < len(texts):
        notes.append(f"{missing} of {len(texts)} pictures have no caption")
    several = [len(found) for found in texts if len(found) > 1]
    if several:
        notes.append(
            f"{len(several):,} pictures have several captions ({sum(several):,} together): a training uses one at a "
            "time, chosen by seed, epoch and picture"
        )
    return notes


def _text(file: str, read: Callable[[str], bytes]) -> str | None:
    try:
        return decode_text(read(file))
    except (OSError, Unreadable):
        return None
