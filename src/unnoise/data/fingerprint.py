"""Fingerprints of data sets: equal fingerprints mean equal data, as far as the bytes were read.

    up to HASHED_BYTES   all stored bytes, with names, sizes, labels, captions and the settings that change pictures
    a larger set         instead of all bytes: those of evenly spread pictures, and of every file its size, its time of
                         modification, its first and last EDGE_BYTES; so the whole of files up to twice that

Up to HASHED_BYTES the contents alone decide: a copy of a folder has its fingerprint, whatever the times of its files.
Of a larger set a fingerprint misses a change in the middle of a large file whose size and time stay the same, and a
copy keeps its fingerprint only if it keeps the times (cp -a, rsync -a). It does not depend on where the data are, on
the number of workers or on the cache, so that a training may be moved and resumed. `parts` has a digest of each of
these, to say what changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import dataclass, replace

from unnoise.config.data import DataConfig
from unnoise.data.source import Source, Unreadable
from unnoise.io.reading import open_regular

HASHED_BYTES = 256 * 2**20  # stored bytes that are read: about a second of work
EDGE_BYTES = 4096  # at each end of a file: a block of most file systems
FINGERPRINTED = ("size", "channels", "crop", "flip", "background", "max_pixels")


@dataclass(frozen=True)
class Fingerprint:
    """A fingerprint, 64 hexadecimal digits, and digests of what it is made of: {"names": "0f...", "sizes": ...}."""

    digest: str
    parts: dict[str, str]


def fingerprint(source: Source, config: DataConfig, controls: Source | None = None) -> Fingerprint:
    """The fingerprint of a data set.

    Besides the above it depends on `config.control` (on its kind, or on the `controls` of a folder) and on the numbers
    that `config.values` names, and on nothing else.
    """
    settings = {name: getattr(config, name) for name in FINGERPRINTED}
    labels = b"" if source.labels is None else source.labels.astype("<i8").tobytes()
    sizes = source.sizes.astype("<i8").tobytes()
    facts = _json([source.names, source.classes, source.captions, settings])
    whole, contents = hashlib.sha256(b"unnoise data 1" + facts + sizes + labels), hashlib.sha256()
    for i in range(0, len(source.names), stride(source)):
        stored = _stored(source, i)
        whole.update(stored)
        contents.update(stored)
    parts = {
        "names": _digest(_json(source.names)),
        "classes": _digest(_json(source.classes), labels),
        "captions": _digest(_json(source.captions)),
        "settings of data": _digest(_json(settings)),
        "sizes": _digest(sizes),
    }
    if stride(source) > 1:
        times, edges = _files(source)
        whole.update(b"files" + times + edges)
        contents.update(edges)
        parts["times of modification"] = _digest(times)
    parts["contents"] = contents.hexdigest()
    if config.control:  # a set without control images has the fingerprint of earlier versions
        beside = config.control if controls is None else fingerprint(controls, replace(config, control="")).digest
        whole.update(b"control" + beside.encode())
        parts["control images"] = _digest(beside.encode())
    if source.more_captions is not None:
        whole.update(b"captions" + _json(source.more_captions))
        parts["captions"] = _digest(_json([source.captions, source.more_captions]))
    if config.values:  # the same for numbers
        columns = [b"value" + name.encode() + source.values[name].astype("<f8").tobytes() for name in config.values]
        whole.update(b"".join(columns))
        parts["numbers"] = _digest(*columns)
    return Fingerprint(whole.hexdigest(), parts)


def stride(source: Source) -> int:
    """The distance between pictures whose stored bytes are hashed; 1 means all pictures."""
    return int(source.sizes.sum()) // HASHED_BYTES + 1


def _files(source: Source) -> tuple[bytes, bytes]:
    """The times of modification of the files that hold the pictures, and a digest of their sizes and edges."""
    if source.file is None:
        return b"", b""
    times, edges = hashlib.sha256(), hashlib.sha256()
    for path in dict.fromkeys(map(source.file, range(len(source.names)))):  # an archive holds many pictures
        try:
            with open_regular(path) as file:  # whole seconds: copies may not keep the fractions
                status = os.fstat(file.fileno())
                times.update(struct.pack("<q", int(status.st_mtime)))
                edges.update(struct.pack("<q", status.st_size) + file.read(EDGE_BYTES))
                file.seek(max(EDGE_BYTES, status.st_size - EDGE_BYTES))
                edges.update(file.read(EDGE_BYTES))
        except OSError as error:
            edges.update(f"unreadable: {type(error).__name__}".encode())
    return times.digest(), edges.digest()


def _stored(source: Source, i: int) -> bytes:
    try:
        data = source.read(i)
        return hashlib.sha256(data if isinstance(data, bytes) else data.tobytes()).digest()
    except (OSError, Unreadable) as error:
        return f"unreadable: {type(error).__name__}".encode()


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()
