"""Fingerprints of data sets: equal fingerprints mean equal data.

A fingerprint is a SHA-256 over names, stored sizes, labels, captions, the settings that change the pictures, and stored
bytes: those of all pictures in a small set, of evenly spread ones in a large set. It does not depend on where the data
are, on the number of workers or on the cache, so that a training may be moved and resumed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from unnoise.config.data import DataConfig
from unnoise.data.source import Source, Unreadable

HASHED_BYTES = 256 * 2**20  # stored bytes that are read: about a second of work
FINGERPRINTED = ("size", "channels", "crop", "flip", "background", "max_pixels")


def fingerprint(source: Source, config: DataConfig, controls: Source | None = None) -> str:
    """64 hexadecimal digits.

    Besides the above it depends on `config.control` (on its kind, or on the `controls` of a folder) and on the numbers
    that `config.values` names, and on nothing else.
    """
    digest = hashlib.sha256(b"unnoise data 1")
    facts = [source.names, source.classes, source.captions, {name: getattr(config, name) for name in FINGERPRINTED}]
    digest.update(json.dumps(facts, sort_keys=True).encode())
    digest.update(source.sizes.astype("<i8").tobytes())
    digest.update(b"" if source.labels is None else source.labels.astype("<i8").tobytes())
    for i in range(0, len(source.names), stride(source)):
        digest.update(_stored(source, i))
    if config.control:  # a set without control images has the fingerprint of earlier versions
        beside = config.control if controls is None else fingerprint(controls, replace(config, control=""))
        digest.update(b"control" + beside.encode())
    if source.more_captions is not None:
        digest.update(b"captions" + json.dumps(source.more_captions).encode())
    for name in config.values:  # the same for numbers
        digest.update(b"value" + name.encode() + source.values[name].astype("<f8").tobytes())
    return digest.hexdigest()


def stride(source: Source) -> int:
    """The distance between pictures whose bytes are hashed; 1 means all pictures."""
    return int(source.sizes.sum()) // HASHED_BYTES + 1


def _stored(source: Source, i: int) -> bytes:
    try:
        data = source.read(i)
        return hashlib.sha256(data if isinstance(data, bytes) else data.tobytes()).digest()
    except (OSError, Unreadable) as error:
        return f"unreadable: {type(error).__name__}".encode()
