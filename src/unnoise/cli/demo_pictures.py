"""The pictures of the demo: a grid of samples, and the gallery of its page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unnoise.config.request import Request
from unnoise.config.training import TrainConfig
from unnoise.io.units import human

if TYPE_CHECKING:
    from PIL import Image

    from unnoise.data import Dataset
    from unnoise.evaluation.page import Gallery
    from unnoise.generate.sheets import Sample
    from unnoise.model import Model

SEEDS = 8  # pictures of each class
CLASSES = 12  # classes, or captions, that are shown
ROWS = 4  # rows of pictures where there are no classes
SAMPLER, STEPS = "dpm++2m", 20
GUIDANCE = 3.0  # for samples and measurements: after a short training, classes are a little vague without guidance
SHOWN = (0, 4, 8, 12, 16)  # sampling steps that are shown, before the pictures themselves
REAL = 4  # real pictures beside each row of samples


def sample_classes(model: Model) -> tuple[list[Sample], Request]:
    """Returns samples with their intermediate steps: of each class with the same seeds, where there are classes."""
    from unnoise.cli.sampling import sampled
    from unnoise.generate.job import prepare
    from unnoise.generate.rows import pairs, request_for

    names = named_rows(model)
    rows = pairs([(seed, None) for seed in range(SEEDS if names else ROWS * SEEDS)], names)
    settings = {"sampler": SAMPLER, "steps": STEPS, "guidance": GUIDANCE if names else 1.0, "batch": len(rows)}
    request = request_for(rows, settings, prompted=bool(model.card.captions))
    return list(sampled(prepare(model, request), rows, walk=True)), request


def named_rows(model: Model) -> tuple[str, ...]:
    """Returns the first classes, or captions, of a model: a row of pictures for each."""
    return (model.card.captions or model.card.classes)[:CLASSES]


def save_grid(path: Path, drawn: Sequence[Sample], folder: Path, model: Model, request: Request) -> None:
    """Saves the samples as a grid, with how they were made in its metadata."""
    from unnoise.generate.recipe import build_recipe, grid_recipe
    from unnoise.generate.sheets import columns_for, sheet
    from unnoise.io.png import write_png

    rows = [d.row for d in drawn]
    columns = columns_for(rows)
    recipe = build_recipe(folder, model, request)
    recipe = grid_recipe(recipe, rows, columns=columns, size=model.picture_shape[:0:-1])
    write_png(path, sheet(drawn, columns, None, prompted=bool(request.prompt.prompts)), recipe)


def gallery(run: Path, config: TrainConfig, model: Model, drawn: Sequence[Sample], pictures: Dataset) -> Gallery:
    """Returns the pictures of the page: samples, real ones, samples over the training, and sampling steps."""
    from unnoise.evaluation.page import Gallery, row
    from unnoise.io.images import image

    names = named_rows(model)
    if names:
        made = {name: [image(d.pixels) for d in drawn if d.row[1] == name] for name in names}
        first = [next(d for d in drawn if d.row[1] == name) for name in names]
    else:
        starts = range(0, len(drawn), SEEDS)
        made = {f"seeds {k}-{k + SEEDS - 1}": [image(d.pixels) for d in drawn[k : k + SEEDS]] for k in starts}
        first = list(drawn[:SEEDS])
    walk = []
    for at in SHOWN:
        stages = [min(d.previews, key=lambda preview: abs(preview[0] - at)) for d in first]
        walk.append(("noise" if at == 0 else f"step {stages[0][0]}", row([image(pixels) for _, pixels in stages])))
    walk.append((f"step {STEPS}", row([image(d.pixels) for d in first])))
    real = {} if model.card.captions else real_pictures(config, pictures, list(made))
    return Gallery(made, real, over_time(run, config), walk)


def real_pictures(config: TrainConfig, pictures: Dataset, names: Sequence[str]) -> dict[str, list[Image.Image]]:
    """Returns real pictures for each row of samples: of its class, from the test part where the set has one."""
    import numpy as np

    from unnoise import data
    from unnoise.generate.sheets import as_bytes
    from unnoise.io.images import image

    real = data.open(replace(config.data, path=f"{config.data.path}:test")) if packaged(config) else pictures
    labels = real.labels()
    if real.classes and labels is not None:
        places = [np.flatnonzero(labels == real.classes.index(name))[:REAL] for name in names]
    else:
        places = np.array_split(
            np.linspace(0, len(real) - 1, min(len(real), REAL * len(names))).astype(int), len(names)
        )
    return {
        name: [image(pixels) for pixels in as_bytes(real.batch(rows.tolist()).x)]
        for name, rows in zip(names, places)
        if len(rows)
    }


def packaged(config: TrainConfig) -> bool:
    """Whether the pictures come with the package, and with a classifier of them."""
    from unnoise.metrics.classifier import shipped

    return config.data.path in shipped()


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
