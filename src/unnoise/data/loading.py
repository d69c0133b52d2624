"""The endless stream of batches, which can start at any step, for any number of processes and workers.

    position p = step * batch + j,    epoch p // n,    picture order(seed, epoch, n)[p % n]

Process r of `world` loads j in [r batch / world, (r + 1) batch / world). Steps have no state in common, so a stream
that starts at step k equals the rest of one that started earlier. Workers compute whole batches ahead, in order.
"""

from __future__ import annotations

import concurrent.futures
from collections import deque
from collections.abc import Iterator
from itertools import count

import numpy as np

from unnoise.data.dataset import Batch, Dataset
from unnoise.data.random import order

AHEAD = 2  # finished batches that may wait, beyond those being computed


def batches(
    dataset: Dataset,
    *,
    batch: int,
    seed: int,
    start: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    as_bytes: bool = False,
) -> Iterator[Batch]:
    """Yields this rank's part of each global batch, from step `start` on, without end. Close it to stop the workers.

    `batch` counts pictures over all ranks; `as_bytes`: see `Dataset.batch`. An exception in a worker is raised here, at
    its batch.
    """
    if batch < world or not 0 <= rank < world or start < 0 or workers < 0:
        raise ValueError(f"a batch of {batch} for rank {rank} of {world} from step {start} with {workers} workers")
    return _stream(dataset, batch, seed, start, rank, world, workers, as_bytes)


def _stream(
    dataset: Dataset, batch: int, seed: int, start: int, rank: int, world: int, workers: int, as_bytes: bool
) -> Iterator[Batch]:
    own = range(rank * batch // world, (rank + 1) * batch // world)

    def make(step: int) -> Batch:
        positions = step * batch + np.arange(own.start, own.stop)
        epochs, places = np.divmod(positions, len(dataset))
        rows = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            rows[here] = order(seed, epoch, len(dataset))[places[here]]
        return dataset.batch(rows.tolist(), seed=seed, epoch=epochs.tolist(), as_bytes=as_bytes)

    if workers == 0:
        for step in count(start):
            yield make(step)
    pool = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="unnoise-data")
    try:
        steps = count(start)
        waiting = deque(pool.submit(make, next(steps)) for _ in range(workers + AHEAD))
        while True:
            ready = waiting.popleft().result()
            waiting.append(pool.submit(make, next(steps)))
            yield ready
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
