"""Mutations of files: flipped bits, lost and repeated parts, false lengths; in JSON other types, huge numbers, nesting.

Everything follows from a `random.Random`, so that an input is made again from its seed.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import struct
import zipfile
import zlib
from typing import Any

HUGE = (0, 1, -1, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, 10**400)
ODD: tuple[Any, ...] = (
    *(None, True, False, "", "x", "0", "-1", "nan", "\ud800", "\x1b[2J", "../../x", "/", "a" * 5000, "1e400"),
    *(
        0.5,
        1e308,
        -1e-300,
        float("nan"),
        float("inf"),
        [],
        {},
        [[]],
        [None],
        {"": None},
        [0] * 2000,
        [1, "x", None, {}],
    ),
    *HUGE,
)
NUMBERS = (
    b"0",
    b"-1",
    b"1e400",
    b"NaN",
    b"9" * 30,
    b"9" * 5000,
    b"0.5",
    b"true",
    b'""',
    b"null",
    b"18446744073709551616",
)


def mutated(data: bytes, chosen: random.Random, name: str) -> bytes:
    """The bytes of a file called `name` with one to four changes, inside its structure or anywhere."""
    for _ in range(chosen.choice((1, 1, 1, 2, 4))):
        kind = chosen.random()
        if kind < 0.6 and name.endswith((".json", ".jsonl")):
            data = _json(data, chosen)
        elif kind < 0.6 and name.endswith(".safetensors"):
            data = _header(data, chosen)
        elif kind < 0.6 and name.endswith((".zip", ".npz")):
            data = _member(data, chosen)
        elif kind < 0.6 and name.endswith(".png"):
            data = _chunk(data, chosen)
        elif kind < 0.5 and name.endswith((".yaml", ".csv", ".txt", ".jsonl", ".npy")):
            data = _number(data, chosen)
        else:
            data = _bytes(data, chosen)
    return data


def _bytes(data: bytes, chosen: random.Random) -> bytes:
    out, at = bytearray(data or b"\0"), chosen.randrange(max(len(data), 1))
    if chosen.random() < 0.3:
        at = min(at, chosen.randrange(64))  # where headers are
    end = min(len(out), at + chosen.choice((1, 2, 4, 16, 256, 4096)))
    match chosen.randrange(9):
        case 0:
            out[at] ^= 1 << chosen.randrange(8)
        case 1:
            out[at] = chosen.choice((0, 1, 0x7F, 0x80, 0xFF, chosen.randrange(256)))
        case 2:
            del out[at:]
        case 3:
            del out[at:end]
        case 4:
            out[at:at] = out[at:end] * chosen.choice((1, 2, 100))
        case 5:
            out[at:at] = chosen.randbytes(chosen.choice((1, 4, 100)))
        case 6:
            form = chosen.choice(("<I", ">I", "<Q", ">Q", "<H", ">H"))
            number = chosen.choice(HUGE[:-2]) % 2 ** (8 * struct.calcsize(form))
            out[at : at + struct.calcsize(form)] = struct.pack(form, number)
        case 7:
            other = chosen.randrange(len(out))
            out[at:end] = out[other : other + end - at]
        case _:
            out[at:end] = chosen.choice((b"\0", b"\xff", b"[", b"(", b'{"a":', b"\xed\xa0\x80", b"\x1b[2J")) * (
                end - at
            )
    return bytes(out)


def _json(data: bytes, chosen: random.Random) -> bytes:
    """Another value, key or depth somewhere in JSON; each line of several is a value of its own."""
    lines = data.split(b"\n") if data.count(b"\n{") else [data]
    place = chosen.randrange(len(lines))
    try:
        value = json.loads(lines[place])
    except (ValueError, RecursionError):
        return _number(data, chosen)
    lines[place] = json.dumps(changed(value, chosen)).encode("ascii")
    return b"\n".join(lines)


def changed(value: Any, chosen: random.Random) -> Any:
    """A JSON value with one part replaced, removed, renamed, repeated or nested."""
    if not isinstance(value, dict | list) or not value or chosen.random() < 0.15:
        match chosen.randrange(4):
            case 0 if isinstance(value, list | dict):
                return [value] * chosen.choice((2, 50))
            case 1:
                for _ in range(chosen.choice((3, 60, 300))):
                    value = [value] if chosen.random() < 0.5 else {"a": value}
                return value
            case _:
                return chosen.choice(ODD)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key, action = chosen.choice(keys), chosen.random()
    if action < 0.1:
        del value[key]
    elif action < 0.2 and isinstance(value, dict):
        value[chosen.choice(("", "x", "kind", "\ud800", "__metadata__", key + "x"))] = value.pop(key)
    elif action < 0.25:
        other = chosen.choice(keys)
        value[key], value[other] = value[other], value[key]
    else:
        value[key] = changed(value[key], chosen)
    return value


def _number(data: bytes, chosen: random.Random) -> bytes:
    """Another number in the place of one in text."""
    places = [i for i, byte in enumerate(data[:20_000]) if chr(byte).isdigit()]
    if not places:
        return _bytes(data, chosen)
    start = end = chosen.choice(places)
    while end < len(data) and chr(data[end]) in "0123456789.e+-":
        end += 1
    return data[:start] + chosen.choice(NUMBERS) + data[end:]


def _header(data: bytes, chosen: random.Random) -> bytes:
    """Another header of a safetensors file, of which the length is right."""
    length = int.from_bytes(data[:8], "little")
    try:
        text = _json(data[8 : 8 + length].rstrip(), chosen)
    except ValueError:
        return _bytes(data, chosen)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _member(data: bytes, chosen: random.Random) -> bytes:
    """A zip whose checksums are right, with one member mutated, renamed or repeated."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as old:
            members = [(info.filename, old.read(info)) for info in old.infolist()]
    except Exception:  # an earlier mutation damaged it
        return _bytes(data, chosen)
    place = chosen.randrange(len(members)) if members else 0
    if members:
        name, inside = members[place]
        action = chosen.random()
        if action < 0.7:
            members[place] = name, mutated(inside, chosen, name)
        elif action < 0.9:
            members[place] = chosen.choice(("../" + name, "/" + name, name + "/", "a" * 300, "x.npy", "")), inside
        else:
            members += [members[place]] * 3
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as new:
        for name, inside in members:
            new.writestr(zipfile.ZipInfo(name), inside)
    return made.getvalue()


def _chunk(data: bytes, chosen: random.Random) -> bytes:
    """A PNG with one chunk mutated, repeated, moved or lost, and right checksums."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    if not chunks:
        return _bytes(data, chosen)
    place = chosen.randrange(len(chunks))
    kind, body = chunks[place]
    match chosen.randrange(6):
        case 0:
            chunks.pop(place)
        case 1:
            chunks.insert(chosen.randrange(len(chunks)), (kind, body))
        case 2 if kind == b"IDAT":
            with contextlib.suppress(zlib.error):  # an earlier mutation damaged it
                chunks[place] = kind, zlib.compress(_bytes(zlib.decompress(body), chosen))
        case 3 if kind in (b"tEXt", b"iTXt"):
            key, _, text = body.partition(b"\0")
            chunks[place] = kind, key + b"\0" + _json(text, chosen)
        case _:
            chunks[place] = kind, _bytes(body, chosen)
    parts = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return data[:8] + b"".join(parts)
