"""Running a job with a bar, and writing its samples: what `sample`, `demo` and others do with a prepared job."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unnoise.cli.console import emit, say, show
from unnoise.cli.progress import Progress
from unnoise.generate import sheets
from unnoise.generate.frames import Frame, frames
from unnoise.generate.job import Job, ignored_measurement, starts_in_a_picture
from unnoise.generate.output import file_names, save_tensor, write_sample
from unnoise.generate.recipe import grid_recipe
from unnoise.generate.rows import Row, seeds_text
from unnoise.io import animation, fonts, images, png
from unnoise.io.units import duration

if TYPE_CHECKING:
    from torch import Tensor

    from unnoise.cli.outputs import Output
    from unnoise.model import Model


def with_bar(job: Job, what: str = "sampling", *, silent: bool = False) -> Iterator[Frame]:
    """The frames of a job, with a progress bar."""
    count, steps, finished = len(job.request.seeds), len(job.times) - 1, 0
    batches = -(-count // job.request.batch)
    with Progress(steps * batches, what, silent=silent) as bar:
        for frame in frames(job):
            number = frame.rows.start // job.request.batch
            finished += (frame.rows.stop - frame.rows.start) * frame.done
            bar.step(number * frame.steps + frame.step, f"{finished} of {count} pictures")
            yield frame


def sampled(job: Job, rows: Sequence[Row], *, walk: bool = False, silent: bool = False) -> Iterator[sheets.Sample]:
    """The samples of a job, with a bar; with `walk` also the estimates of every step."""
    job = sheets.with_walk(job) if walk else job
    return sheets.samples(job, with_bar(job, silent=silent), rows, walk=walk)


def finished(steps: Iterable[Frame]) -> Tensor:
    """The pictures (B, C, H, W) at the end of these frames."""
    import torch

    return torch.cat([frame.pictures for frame in steps if frame.done and frame.pictures is not None])


def notes(job: Job, texts: Sequence[str]) -> Iterator[str]:
    """The model's notes; truncated prompts, values out of range, a spacing that starts late."""
    yield from job.model.card.notes
    encoder = job.model.text
    for text in dict.fromkeys((*texts, job.request.prompt.negative_prompt)):
        if encoder is not None and (rest := encoder.truncated(text)):
            yield f"the prompt {text!r} is too long for the text encoder; it ignores {rest!r}"
    yield from job.conditioner.out_of_range(job.request.prompt.values)
    yield from filter(None, [starts_in_a_picture(job.model, job.request), ignored_measurement(job)])


def write_latents(
    job: Job, rows: list[Row], texts: Sequence[str], recipe: dict[str, Any], output: Output, began: float
) -> None:
    """Sample, and write the latents as one tensor, a row per picture."""
    assert output.latents is not None
    recipe |= {"together": seeds_text(rows, texts), "prompts": list(texts)}
    save_tensor(output.latents, "latents", finished(with_bar(job)), recipe if output.metadata else {})
    report([], {"latents": output.latents}, time.perf_counter() - began, len(rows), recipe, as_json=output.json)


def write_pictures(
    job: Job, rows: list[Row], texts: Sequence[str], recipe: dict[str, Any], output: Output, began: float
) -> None:
    """Sample, and write pictures as they are finished; then the grid, the strip and the animation."""
    names, about = file_names(texts), recipe if output.metadata else None
    written: list[dict[str, Any]] = []
    done: list[sheets.Sample] = []
    sheets_of_all = {"grid": output.grid, "animation": output.animation, "strip": output.strip}
    for sample in sampled(job, rows, walk=output.walk):
        if output.out is not None:
            written.append(write_sample(output.out, sample, about, names, previews=job.request.previews))
        if any(sheets_of_all.values()):
            done.append(sample)
    seconds = time.perf_counter() - began
    if done and (note := fonts.boxes(label for _, label in rows if label)):
        say(f"note: {note}")
    write_sheets(done, rows, texts, job, recipe, output)
    report(written, sheets_of_all, seconds, len(rows), recipe, as_json=output.json)


def write_sheets(
    done: Sequence[sheets.Sample],
    rows: list[Row],
    texts: Sequence[str],
    job: Job,
    recipe: dict[str, Any],
    output: Output,
) -> None:
    """Write what shows all pictures together."""
    columns = output.columns or sheets.columns_for(rows)
    if output.grid is not None:
        grid = sheets.sheet(done, columns, output.scale, prompted=bool(texts))
        about = grid_recipe(recipe, rows, columns=columns, size=job.model.picture_shape[:0:-1], prompts=texts)
        png.write_png(output.grid, grid, about if output.metadata else None)
    if output.strip is not None:
        png.write_png(output.strip, sheets.strips(done, output.scale), None)
    if output.animation is not None:
        pictures = sheets.animation(done, columns, output.scale)
        animation.animation_writer(output.animation)(output.animation, pictures, 4.0)


def report(
    written: Sequence[dict[str, Any]],
    files: dict[str, Path | None],
    seconds: float,
    count: int,
    recipe: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """Print what was generated, and where it is."""
    if as_json:
        emit(recipe | {"pictures": list(written), **files, "seconds": round(seconds, 3)})
        return
    if written:
        first = Path(written[0]["path"])
        show(str(first) if len(written) == 1 else f"{len(written)} pictures in {first.parent}")
    for path in files.values():
        if path is not None:
            show(str(path))
    many = "1 picture" if count == 1 else f"{count} pictures"
    say(f"{many} in {duration(seconds)}, {count / seconds:.3g} per second")


def unconditional(model: Model, count: int) -> tuple[str, ...]:
    """The label "none" for each picture of a model with classes."""
    return ("none",) * count if model.classes else ()


def write_grid(path: Path, pictures: Tensor, columns: int, names: list[str], *, as_json: bool) -> None:
    """Write a PNG with all pictures, and print where it is."""
    grid = images.grid(list(sheets.as_bytes(pictures)), columns=columns, rows=names)
    png.write_png(path, grid, None)
    if as_json:
        emit({"grid": path, "pictures": len(pictures)})
    else:
        show(str(path))
