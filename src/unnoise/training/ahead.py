"""Steps that are prepared while the graphics card computes the one before: their batch, and the noise of their losses.

Both are made on the CPU, in pinned memory, by one thread. On a CPU nothing is made ahead of its step: the thread would
take cores from the computation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from unnoise.transfer import pin

T = TypeVar("T")
B = TypeVar("B", bound=NamedTuple)


def ahead(make: Callable[[int], T], first: int, end: int) -> Iterator[T]:
    """Yields make(first), ..., make(end - 1), each made in a thread while the one before it is used.

    An exception of `make` is raised in its turn. Closing the iterator ends the thread.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="unnoise-ahead") as pool:
        waiting = pool.submit(make, first) if first < end else None
        for step in range(first, end):
            assert waiting is not None
            ready = waiting.result()
            waiting = pool.submit(make, step + 1) if step + 1 < end else None
            yield ready


def pinned(batch: B, device: torch.device) -> B:
    """The batch with its tensors in pinned memory, where `take` will copy them from."""

    def part(field: Any) -> Any:
        return pin(field, device) if isinstance(field, Tensor) and field.dtype != torch.float64 else field

    return type(batch)(*map(part, batch))
