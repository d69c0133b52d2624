"""Fingerprints of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from unnoise.io.reading import open_regular


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits. The file is read in pieces, whatever its size.

    Raises NotRegular, and OSError as `open` does.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
