"""`unnoise table ddpm`: the six trainings of table 2 of Ho et al. 2020."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

from unnoise.cli.console import UsageError, asking, say, writable
from unnoise.cli.evaluate import home
from unnoise.cli.options import option, within
from unnoise.cli.tables.options import AS_JSON, AS_MARKDOWN, EACH, FIGURES, OUT, SHOW
from unnoise.cli.tables.output import answer, write_tables
from unnoise.cli.train_settings import preset_help
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request
from unnoise.config.training import TrainConfig


def ddpm(
    what: Annotated[str, option(preset_help())],
    /,
    *,
    data: Annotated[str | None, option("the pictures: a folder, a file, or a set that comes with the package")] = None,
    set: Annotated[
        tuple[str, ...], option("key=value: replaces a setting; the end of its name is enough where that is unique")
    ] = (),
    runs: Annotated[Path, option("the folder of the six trainings; the same command goes on where it stopped")] = Path(
        "runs"
    ),
    steps: Annotated[int, option("steps drawn with", validator=within(1, 100_000, "steps"))] = 100,
    count: EACH = 1000,
    bits: Annotated[int, option("pictures whose bits are counted", validator=within(1, 1_000_000, "pictures"))] = 32,
    bits_steps: Annotated[int, option("steps of the bound; 0: all", validator=within(0, 100_000, "steps"))] = 0,
    held: Annotated[str | None, option("the pictures whose bits are counted; otherwise those trained on")] = None,
    features: Annotated[str, option("inception, a weight file of it, a shipped classifier, or a directory")] = "auto",
    device: Annotated[str | None, option("auto, cpu, cuda, cuda:1, mps")] = None,
    out: OUT = Path("table-ddpm"),
    shown: SHOW = 4,
    markdown: AS_MARKDOWN = False,
    json: AS_JSON = False,
) -> int:
    """What to ask the network for, and what to minimise: the six trainings of table 2 of Ho et al. 2020, on your data.

    Trains one after the other, each with the same network, pictures and length, and measures them: the Frechet
    distance of drawn pictures, and the bits a number of real ones.
    """
    from unnoise.cli.data import present
    from unnoise.cli.train_progress import train_with_progress
    from unnoise.cli.train_settings import settings_from_options
    from unnoise.recipes.settings import with_classes

    settings = settings_from_options(what, data=data, sets=set, device=device, name=None)
    with asking():
        if not isinstance(settings.config, TrainConfig):
            raise UsageError(f"{what} is no diffusion model: the table is of six ways to train one")
        present(settings.config.data.path)
        if held is not None:
            present(held)
    for path, kind in ((runs, "runs"), (out, "the table")):
        writable(path, kind, folder=True)
    from unnoise import data as pictures
    from unnoise import model as models
    from unnoise.cli.evaluate import run as measured
    from unnoise.data.registry import find
    from unnoise.generate.frames import draw
    from unnoise.recipes.ablation import cells
    from unnoise.training import run as trainings
    from unnoise.training.distributed import ALONE

    settings = with_classes(settings, len(find(settings.config.data.path).classes))
    assert isinstance(settings.config, TrainConfig)
    real = pictures.open(settings.config.data)
    kept = real if held is None else pictures.open(dataclasses.replace(settings.config.data, path=held))
    blocks, found = {}, {}
    table_cells = cells(settings.config)
    for at, cell in enumerate(table_cells, start=1):
        say(f"{at} of {len(table_cells)}: {cell.column}, {cell.row}")
        path = trainings.choose(runs, cell.config, resume=True)
        code = train_with_progress(cell.config, path, ALONE)
        if code:
            return code
        loaded = models.load(path).require_pictures()
        how = Request(sampler=cell.sampler, steps=steps, device=device or "auto")
        ask = EvaluateConfig(count=count, features=features, bits_count=bits, bits_steps=bits_steps)
        entries = [
            entry
            for names, pictures_of in ((FIGURES, real), (("bits",), kept))
            for entry in measured(
                loaded, dataclasses.replace(ask, metrics=names), how, pictures_of, home() / "features"
            )["metrics"]
        ]
        found[cell.row, cell.column] = {entry["id"]: entry["value"] for entry in entries} | {"run": str(path)}
        seeds = tuple(range(shown))
        blocks[cell.row, cell.column] = draw(loaded, dataclasses.replace(how, seeds=seeds)).pixels
    names = list(dict.fromkeys(cell.column for cell in table_cells))
    head = ("objective", *(f"{name}: {figure}" for name in names for figure in ("Frechet", "kernel", "bits")))
    rows = [
        (row, *(f"{found[row, name][key]:.3g}" for name in names for key in ("frechet", "kernel", "bits")))
        for row in dict.fromkeys(cell.row for cell in table_cells)
    ]
    from unnoise.io.images import sheet
    from unnoise.io.png import write_png

    out.mkdir(parents=True, exist_ok=True)
    write_png(out / "pictures.png", sheet(blocks), None)
    document = {"cells": [{"row": row, "column": column, **cell} for (row, column), cell in found.items()]}
    note = (
        f"{settings.config.fit.images:,} pictures of training each; {count:,} drawn in {steps} steps of ancestral "
        f"sampling; bits a number of {bits} pictures."
    )
    write_tables(out, document, head, rows, [note])
    answer(document, out, head, rows, [note], markdown=markdown, json=json)
    return 0
