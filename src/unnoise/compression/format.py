"""Files of compressed pictures: a header, the coded bits and a checksum.

    4      "unz" and the version of the format, 2
    4      the fingerprint of the model: the first bytes of a SHA-256
    1      bits of a search, and in the highest bit whether the pieces are draws
    each   a varint: seed, label + 1 (0: none), channels, height, width, pieces, bytes of the payload
    2      a CRC-16 of all of the above
           the payload, which a range coder reads from front to back
    2      a CRC-16 of everything above

About 20 bytes. The header has a checksum of its own, so that a file that was cut off can still be trusted in what it
says of itself; one of full length is checked as a whole. Nothing in such a file can run.
"""

from __future__ import annotations

from binascii import crc_hqx
from dataclasses import dataclass

from unnoise.errors import UserError

MAGIC, VERSION = b"unz", 2  # 1 had the candidates of another noise
CHECK = 2  # bytes of a checksum
MOST = 2**63


@dataclass(frozen=True)
class Header:
    """The header of a file. `label` is None without a class, or for a model without classes."""

    model: bytes  # 4
    seed: int
    bits: int
    draws: bool
    label: int | None
    shape: tuple[int, int, int]
    pieces: int


@dataclass(frozen=True)
class File:
    """A file that was read. `whole` False: it is cut off, and the payload is what is there of `size` bytes."""

    header: Header
    payload: bytes
    size: int

    @property
    def whole(self) -> bool:
        return len(self.payload) == self.size


def write(header: Header, payload: bytes) -> bytes:
    """Returns the bytes of a file."""
    label = 0 if header.label is None else header.label + 1
    numbers = (header.seed, label, *header.shape, header.pieces, len(payload))
    head = MAGIC + bytes([VERSION]) + header.model + bytes([header.bits | header.draws << 7])
    head = _checked(head + b"".join(map(_varint, numbers)))
    return _checked(head + payload)


def read(data: bytes, where: str) -> File:
    """Reads the parts of a file. Raises UserError that states what is wrong with the file `where`.

    Any changed byte of a whole file is found. Of one that is cut off, only the header can be checked.
    """
    if data[:3] != MAGIC:
        raise UserError(
            f"{where}: not a picture compressed by unnoise (it begins with {data[:8]!r}, not with {MAGIC!r}): "
            "give a file that `unnoise compress` wrote"
        )
    if len(data) > 3 and data[3] != VERSION:
        raise UserError(
            f"{where}: written in version {data[3]} of the format, this program reads version {VERSION}: "
            "update unnoise, or copy the file again if it is damaged"
        )
    try:
        search, place, numbers = data[8], 9, []
        for _ in range(7):
            number, place = _number(data, place)
            numbers.append(number)
        head = data[place : place + CHECK]
        if len(head) < CHECK:
            raise IndexError
    except IndexError:
        raise UserError(
            f"{where}: cut off within its first {len(data)} bytes, the header: nothing can be seen"
        ) from None
    seed, label, channels, height, width, pieces, size = numbers
    header = Header(
        data[4:8],
        seed,
        search & 0x7F,
        bool(search >> 7),
        label - 1 if label else None,
        (channels, height, width),
        pieces,
    )
    if _check(data[:place]) != head or not 1 <= header.bits <= 24 or seed >= MOST:
        raise UserError(f"{where}: its header is damaged: its checksum differs. Copy the file again")
    start = place + CHECK
    if len(data) > start + size + CHECK:
        extra = len(data) - (start + size + CHECK)
        raise UserError(f"{where}: {extra:,} bytes longer than its header states: it is damaged. Copy the file again")
    if len(data) == start + size + CHECK and _check(data[:-CHECK]) != data[-CHECK:]:
        raise UserError(f"{where}: damaged: its checksum differs from what was written. Copy the file again")
    return File(header, data[start : start + size], size)


def _check(data: bytes) -> bytes:
    return crc_hqx(data, 0xFFFF).to_bytes(CHECK, "big")


def _checked(data: bytes) -> bytes:
    return data + _check(data)


def _varint(number: int) -> bytes:
    """Encodes seven bits to a byte, the lowest first; the highest bit is set where more follow."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _number(data: bytes, place: int) -> tuple[int, int]:
    found = shift = 0
    while True:
        found |= (data[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if data[place - 1] < 0x80 or shift > 63:
            return found, place
