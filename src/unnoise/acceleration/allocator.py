"""Memory that was freed waits for the next tensor, instead of going back to the system.

glibc hands the free end of its heap back whenever it is large, and asks for it anew a moment later, and the system
clears every page once more: a tenth to a sixth of the time of a small U-Net in batches. A step allocates the same sizes
again and again, so what one leaves is what the next one needs. Blocks of 32 MiB and more stay outside of the heap, as
glibc has them: kept there, each could be laid out several times over. Law (tests/acceleration/test_allocator.py): once
kept, the same tensors cost no page faults.
"""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's parameters, malloc.h
_LARGEST = 32 << 20  # glibc's own end for what it takes from the heap


def keep() -> bool:
    """Keep freed memory, in this process, from here on. False where the C library is not glibc, and nothing is done.

    The peak stays what it is; what is lost is that memory goes back to others between two peaks.
    """
    return _mallopt((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, 2**31 - 1))


def hand_back() -> bool:
    """What glibc comes to by itself where large blocks are freed: to measure what `keep` gives."""
    return _mallopt((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, 2 * _LARGEST))


def _mallopt(*settings: tuple[int, int]) -> bool:
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(name, value) == 1 for name, value in settings)
