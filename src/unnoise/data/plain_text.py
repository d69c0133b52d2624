"""Text from files: decoded where its encoding is certain, and names that can be written as UTF-8."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence

SHOWN = 3  # names in a note

_MARKS = {  # UTF-32 first: its mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
SURROGATES = re.compile("[\ud800-\udfff]")


def decode_text(data: bytes) -> str | None:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark; None for anything else."""
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8-sig")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text  # UTF-16 without its mark is often valid UTF-8


def escaped(text: str) -> str:
    """`text` that can be written as UTF-8: bytes of a name that are not UTF-8 as `\\xe9`, surrogates as `\\ud83d`."""
    return text if text.isascii() else SURROGATES.sub(lambda found: _escape(ord(found.group())), text)


def _escape(code: int) -> str:
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"  # PEP 383


def some(names: Sequence[str]) -> str:
    """The first of these names, for a note."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")
