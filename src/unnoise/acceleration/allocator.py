"""Freed memory stays with the process for the next tensor, instead of being returned to the system.

glibc returns the free end of its heap to the system whenever it is large, requests it again a moment later, and the
system clears every page again: a tenth to a sixth of the time of a small U-Net in batches. A step allocates the same
sizes again and again, so that what one frees is what the next one needs. Blocks of 32 MiB and more stay outside the
heap, as by default: inside it, their fragmentation could multiply the memory. Law
(tests/acceleration/test_allocator.py): after `retain`, allocating the same tensors again causes no page faults.
"""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's parameters, malloc.h
_LARGEST = 32 << 20  # glibc's largest threshold for blocks of the heap


def retain() -> bool:
    """Retains freed memory in this process from now on. False, without effect, if the C library is not glibc.

    The peak does not change, but between two peaks the memory is not available to other processes.
    """
    return _mallopt((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, 2**31 - 1))


def release() -> bool:
    """Restores the thresholds that glibc adapts to when large blocks are freed: to measure the effect of `retain`."""
    return _mallopt((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, 2 * _LARGEST))


def trim() -> bool:
    """Returns what is free now to the system, once. False, without effect, if the C library is not glibc."""
    if platform.libc_ver()[0] != "glibc":
        return False
    ctypes.CDLL(None).malloc_trim(0)
    return True


def _mallopt(*settings: tuple[int, int]) -> bool:
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(name, value) == 1 for name, value in settings)
