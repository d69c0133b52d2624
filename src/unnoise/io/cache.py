"""The user's cache folder of this package: what can be computed or measured again."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """`unnoise` in XDG_CACHE_HOME, or in ~/.cache where that is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unnoise"
