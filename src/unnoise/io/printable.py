"""Text from files, made safe for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` without control characters: an escape sequence in a file's metadata must not reach the terminal."""
    return "".join(character for character in text if character.isprintable())
