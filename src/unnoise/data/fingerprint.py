"""Whether two openings are of the same data: sha256 over names, stored sizes, labels, captions, what of the config
changes the pictures, and, in a set of at most HASHED_BYTES, the stored bytes.

A copy elsewhere, other workers or another cache do not change it; so a training may be moved and resumed.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

from unnoise.data.source import Source, Unreadable
from unnoise.settings import DataConfig

HASHED_BYTES = 256 * 2**20  # about a second to read
FINGERPRINTED = ("size", "channels", "crop", "flip", "background", "max_pixels")


def fingerprint(source: Source, config: DataConfig) -> str:
    """Hexadecimal; changes with any of these and with nothing else."""
    digest = hashlib.sha256(b"unnoise data 1")
    told = [source.names, source.classes, source.captions, {name: getattr(config, name) for name in FINGERPRINTED}]
    digest.update(json.dumps(told, sort_keys=True).encode())
    digest.update(source.sizes.astype("<i8").tobytes())
    digest.update(b"" if source.labels is None else source.labels.astype("<i8").tobytes())
    if by_contents(source):
        if source.array is not None:
            digest.update(np.ascontiguousarray(source.array).data)
        else:
            for i in range(len(source.names)):
                digest.update(_stored(source, i))
    return digest.hexdigest()


def by_contents(source: Source) -> bool:
    """Whether the stored bytes count, too."""
    return bool(source.sizes.sum() <= HASHED_BYTES)


def _stored(source: Source, i: int) -> bytes:
    try:
        return hashlib.sha256(bytes(source.read(i))).digest()
    except (OSError, Unreadable) as error:
        return f"unreadable: {type(error).__name__}".encode()
