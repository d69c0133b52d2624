"""The pictures of the demo: a grid of samples, and the gallery of its page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unnoise.config.data import DataConfig
from unnoise.config.request import Request
from unnoise.config.training import TrainConfig
from unnoise.io.units import human

if TYPE_CHECKING:
    from PIL import Image

    from unnoise.evaluation.page import Gallery
    from unnoise.generate.sheets import Sample
    from unnoise.model import Model

SEEDS = 8  # pictures of each class
STEPS = 50
GUIDANCE = 3.0  # for samples and measurements: after a short training, classes are a little vague without guidance
SHOWN = (0, 10, 20, 30, 40)  # sampling steps that are shown, before the pictures themselves
HELD_OUT = 4  # real pictures of each class beside the samples


def sample_classes(model: Model) -> tuple[list[Sample], Request]:
    """Returns eight pictures of each class, with the same seeds for all, and their intermediate steps."""
    from unnoise.cli.sampling import sampled
    from unnoise.generate.job import prepare
    from unnoise.generate.rows import pairs

    rows = pairs([(seed, None) for seed in range(SEEDS)], model.card.classes)
    request = Request.of(
        seeds=tuple(seed for seed, _ in rows),
        labels=tuple(label for _, label in rows if label is not None),
        sampler="ddim",
        steps=STEPS,
        guidance=GUIDANCE,
        batch=len(rows),
    )
    return list(sampled(prepare(model, request), rows, walk=True)), request


def save_grid(path: Path, drawn: Sequence[Sample], folder: Path, model: Model, request: Request) -> None:
    """Saves the samples as a grid, with how they were made in its metadata."""
    from unnoise.generate.recipe import build_recipe, grid_recipe
    from unnoise.generate.sheets import columns_for, sheet
    from unnoise.io.png import write_png

    rows = [d.row for d in drawn]
    columns = columns_for(rows)
    recipe = build_recipe(folder, model, request)
    recipe = grid_recipe(recipe, rows, columns=columns, size=model.picture_shape[:0:-1])
    write_png(path, sheet(drawn, columns, None, prompted=False), recipe)


def gallery(run: Path, config: TrainConfig, model: Model, drawn: Sequence[Sample]) -> Gallery:
    """Returns the pictures of the page: samples, real ones, samples over the training, and sampling steps."""
    from unnoise.evaluation.page import Gallery, row
    from unnoise.io.images import image

    classes = model.card.classes
    made = {name: [image(d.pixels) for d in drawn if d.row[1] == name] for name in classes}
    first = [next(d for d in drawn if d.row[1] == name) for name in classes]
    walk = []
    for at in SHOWN:
        stages = [min(d.previews, key=lambda preview: abs(preview[0] - at)) for d in first]
        walk.append(("noise" if at == 0 else f"step {stages[0][0]}", row([image(pixels) for _, pixels in stages])))
    walk.append((f"step {STEPS}", row([image(d.pixels) for d in first])))
    return Gallery(made, held_out(config, classes), over_time(run, config), walk)


def held_out(config: TrainConfig, classes: Sequence[str]) -> dict[str, list[Image.Image]]:
    """Returns real pictures of each class from the test part of the data set."""
    import numpy as np

    from unnoise import data
    from unnoise.generate.sheets import as_bytes
    from unnoise.io.images import image

    real = data.open(DataConfig(path=f"{config.data.path}:test", size=config.data.size, channels=config.data.channels))
    labels = real.labels()
    if labels is None:
        return {}
    places = {name: np.flatnonzero(labels == k)[:HELD_OUT].tolist() for k, name in enumerate(classes)}
    return {name: [image(pixels) for pixels in as_bytes(real.batch(rows).x)] for name, rows in places.items()}


def over_time(run: Path, config: TrainConfig, most: int = 5) -> list[tuple[str, Image.Image]]:
    """Returns some of the sample sheets of the training, including the first and the last."""
    from unnoise.io.picture_files import load_picture

    files = sorted((run / "samples").glob("step-*.png"))
    if len(files) > most:
        files = [files[round(i * (len(files) - 1) / (most - 1))] for i in range(most)]
    sheets = []
    for file in files:
        seen = int(file.stem.removeprefix("step-")) * config.fit.batch
        sheets.append((f"after {human(seen)} pictures", load_picture(file).convert("RGB")))
    return sheets
