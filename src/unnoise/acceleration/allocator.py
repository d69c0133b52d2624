"""Freed memory stays with the process for the next tensor, instead of being returned to the system.

glibc returns the free end of its heap to the system whenever it is large, and gives each block of 32 MiB and more
memory of its own, which it returns as soon as the block is freed. A moment later it requests both again, and the system
clears every page again: a tenth to a sixth of the time of a small U-Net in batches, a fifth to a third at 256x256
pixels, whose tensors are large. A step allocates the same sizes again and again, so that what one frees is what the
next one needs. The peak grows by what does not fit the holes: by a tenth to a third for one size of pictures, by a
twentieth where sizes change from call to call. Law (tests/acceleration/test_allocator.py): after `retain`, allocating
the same tensors again causes no page faults.
"""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # mallopt's parameters, malloc.h
_LARGEST = 32 << 20  # glibc's largest threshold for blocks of the heap
_USUAL_MAX = 65536  # blocks with memory of their own, by default


def retain() -> bool:
    """Retains freed memory in this process from now on. False, without effect, if the C library is not glibc.

    The memory is not available to other processes until this one ends.
    """
    return _mallopt((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, 2**31 - 1), (_MMAP_MAX, 0))


def release() -> bool:
    """Restores the thresholds that glibc adapts to when large blocks are freed: to measure the effect of `retain`."""
    return _mallopt((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, 2 * _LARGEST), (_MMAP_MAX, _USUAL_MAX))


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
