"""Sampled pictures with their previews, laid out: grids by class or prompt, strips and animations of walks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unnoise.codec import to_bytes
from unnoise.generate.frames import Frame
from unnoise.generate.job import Job
from unnoise.generate.rows import Row
from unnoise.io.images import Pixels, captioned, grid

MOST_PREVIEWS = 100  # estimates of a walk that are stored for strips and animations


@dataclass(frozen=True)
class Sample:
    """One finished picture, and the rows of its batch: the same batch gives the same bits."""

    place: int  # among all rows of the request
    row: Row
    together: Sequence[Row]
    pixels: Pixels  # (H, W, C) bytes
    previews: Sequence[tuple[int, Pixels]]  # (step, the estimate at that step), the first one being noise at step 0


def with_walk(job: Job) -> Job:
    """The same job with a preview at every step, up to MOST_PREVIEWS of them."""
    steps = len(job.times) - 1
    previews = max(job.request.previews, min(steps - 1, MOST_PREVIEWS))
    return replace(job, request=replace(job.request, previews=previews))


def samples(job: Job, frames: Iterable[Frame], rows: Sequence[Row], *, walk: bool = False) -> Iterator[Sample]:
    """The finished pictures of a job's frames, with their previews; with `walk` also the noise that they start from."""
    previews: list[tuple[int, NDArray[np.uint8]]] = []
    for frame in frames:
        if frame.step == 1:
            previews = [(0, as_bytes(noise(job, frame.rows)))] if walk else []
        if frame.pictures is None:
            continue
        if not frame.done:
            previews.append((frame.step, as_bytes(frame.pictures)))
            continue
        batch, pixels = rows[frame.rows], as_bytes(frame.pictures)
        for i, row in enumerate(batch):
            shown = [(step, each[i]) for step, each in previews]
            yield Sample(frame.rows.start + i, row, batch, pixels[i], shown)


def as_bytes(pictures: Tensor) -> NDArray[np.uint8]:
    """(B, C, H, W) in [-1, 1] as (B, H, W, C) bytes, rounded to the nearest."""
    return to_bytes(pictures).permute(0, 2, 3, 1).contiguous().numpy()


def noise(job: Job, rows: slice) -> Tensor:
    """The noise that these pictures start from, (B, C, H, W), at half its strength so that its grain is visible."""
    return job.placed.codec.decode(job.noise(rows).start().cpu() / 2)


def strip(sample: Sample, most: int = 9) -> list[Pixels]:
    """The noise, estimates evenly between, and the picture: `most` of them, or as many as there are."""
    walk = [pixels for _, pixels in sample.previews] + [sample.pixels]
    count = min(most, len(walk))
    return [walk[round(i * (len(walk) - 1) / max(count - 1, 1))] for i in range(count)]


def columns_for(rows: Sequence[Row]) -> int:
    """One line per class where all classes have as many pictures; otherwise nearly square."""
    each = {label: sum(other == label for _, other in rows) for label in {label for _, label in rows}}
    runs = [rows[i][1] for i in range(len(rows)) if i == 0 or rows[i][1] != rows[i - 1][1]]
    if len(each) > 1 and len(runs) == len(each) and len(set(each.values())) == 1:
        return next(iter(each.values()))
    return math.ceil(math.sqrt(len(rows)))


def line_names(rows: Sequence[Row], columns: int) -> list[str]:
    """The name at the left of each line of a grid: its class, or its seeds where it mixes classes."""
    names = []
    for line in (rows[i : i + columns] for i in range(0, len(rows), columns)):
        labels = {label for _, label in line}
        seeds = f"{line[0][0]}" if line[0][0] == line[-1][0] else f"{line[0][0]}-{line[-1][0]}"
        names.append(labels.pop() or seeds if len(labels) == 1 else seeds)
    return [str(name) for name in names]


def sheet(done: Sequence[Sample], columns: int, scale: int | None, *, prompted: bool) -> Image.Image:
    """A grid of samples with the names of its lines, or with prompts below: a line's, or each picture's own."""
    if not prompted:
        names = line_names([sample.row for sample in done], columns)
        return grid([sample.pixels for sample in done], columns=columns, rows=names, scale=scale)
    lines = [done[i : i + columns] for i in range(0, len(done), columns)]
    least = 96 if scale is None else scale * min(done[0].pixels.shape[:2])
    if all(len({sample.row[1] for sample in line}) == 1 for line in lines):
        cells = [([sample.pixels for sample in line], line[0].row[1] or "") for line in lines]
        return captioned(cells, columns=1, at_least=least)
    return captioned([([sample.pixels], sample.row[1] or "") for sample in done], columns=columns, at_least=least)


def strips(done: Sequence[Sample], scale: int | None) -> Image.Image:
    """A line per sample: from its noise to the picture."""
    lines = [strip(sample) for sample in done]
    names = [f"{seed}" if label is None else f"{seed} {label}" for seed, label in (sample.row for sample in done)]
    return grid([pixels for line in lines for pixels in line], columns=len(lines[0]), rows=names, scale=scale)


def animation(done: Sequence[Sample], columns: int, scale: int | None) -> list[Image.Image]:
    """The walks of all samples as one grid per step, from noise to the pictures."""
    names = line_names([sample.row for sample in done], columns)
    walks = [[pixels for _, pixels in sample.previews] + [sample.pixels] for sample in done]
    return [
        grid([walk[min(step, len(walk) - 1)] for walk in walks], columns=columns, rows=names, scale=scale)
        for step in range(max(map(len, walks)))
    ]
