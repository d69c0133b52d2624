"""Whether two openings are of the same data: sha256 over names, stored sizes, labels, captions, what of the config
changes the pictures, and the stored bytes: of all pictures in a small set, of evenly spread ones in a large one.

A copy elsewhere, other workers or another cache do not change it; so a training may be moved and resumed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from unnoise.config.data import DataConfig
from unnoise.data.source import Source, Unreadable

HASHED_BYTES = 256 * 2**20  # stored bytes that are read: about a second's worth
FINGERPRINTED = ("size", "channels", "crop", "flip", "background", "max_pixels")


def fingerprint(source: Source, config: DataConfig, drawings: Source | None = None) -> str:
    """Hexadecimal; changes with any of these, with the drawings of a folder or the kind of drawings asked for, with the
    numbers asked for, and with nothing else."""
    digest = hashlib.sha256(b"unnoise data 1")
    told = [source.names, source.classes, source.captions, {name: getattr(config, name) for name in FINGERPRINTED}]
    digest.update(json.dumps(told, sort_keys=True).encode())
    digest.update(source.sizes.astype("<i8").tobytes())
    digest.update(b"" if source.labels is None else source.labels.astype("<i8").tobytes())
    for i in range(0, len(source.names), stride(source)):
        digest.update(_stored(source, i))
    if config.control:  # else as it was before there were drawings
        beside = config.control if drawings is None else fingerprint(drawings, replace(config, control=""))
        digest.update(b"control" + beside.encode())
    for name in config.values:  # likewise
        digest.update(b"value" + name.encode() + source.values[name].astype("<f8").tobytes())
    return digest.hexdigest()


def stride(source: Source) -> int:
    """One picture in so many has its bytes read; 1: all of them."""
    return int(source.sizes.sum()) // HASHED_BYTES + 1


def _stored(source: Source, i: int) -> bytes:
    try:
        data = source.read(i)
        return hashlib.sha256(data if isinstance(data, bytes) else data.tobytes()).digest()
    except (OSError, Unreadable) as error:
        return f"unreadable: {type(error).__name__}".encode()
