"""Text from files, made harmless for a terminal and for a shell.

A name, a caption or a recipe may contain control characters: escape sequences that colour or clear the terminal, and
marks that reverse the order of what follows. They are shown as their escapes in Python, `\\x1b`; nothing is lost.
"""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Iterable

HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))  # control, format, surrogate, line and paragraph separators
JOINERS = "\u200c\u200d"  # format characters that Persian, Indic scripts and emoji need


def escaped(text: str, keep: str = "") -> str:
    """`text` with every character that is not seen, except those of `keep`, as its escape: `\\x1b`, `\\u202e`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if c in keep or c in JOINERS or unicodedata.category(c) not in HIDDEN else c.encode("unicode_escape").decode()
        for c in text
    )


def visible(text: str) -> str:
    """Text of several lines as it is printed: newlines and tabs are kept, everything else is `escaped`."""
    return escaped(text, "\n\t")


def printable(text: str) -> str:
    """Text from a file as part of a line: newlines too are `escaped`."""
    return escaped(text)


def command_line(words: Iterable[str]) -> str:
    """A command as a shell reads it back: every word is quoted, and one with characters that are not seen is `$'...'`.

    bash, zsh and ksh know `$'...'`, POSIX since 2024. A lone surrogate is the byte that it stands for in a file name.
    """
    return " ".join(shlex.quote(word) if escaped(word) == word else f"$'{_quoted(word)}'" for word in words)


def _quoted(word: str) -> str:
    """The inside of `$'...'`: hidden characters as the bytes of their UTF-8 in octal, which are always three digits."""
    return "".join(f"\\{c}" if c in "'\\" else c if escaped(c) == c else _octal(c) for c in word)


def _octal(character: str) -> str:
    byte_of_a_name = "\udc80" <= character <= "\udcff"
    data = character.encode("utf-8", "surrogateescape" if byte_of_a_name else "surrogatepass")
    return "".join(f"\\{byte:03o}" for byte in data)
