"""`unnoise table inversion`: real pictures to noise and back, as in table 2 of Song et al. 2020."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from unnoise.cli.console import asking, existing, writable
from unnoise.cli.options import keys_of, option, within
from unnoise.cli.progress import Progress
from unnoise.cli.tables.options import AS_JSON, AS_MARKDOWN, DATA, MODEL, OUT, chosen_from, numbers, opened, scales_of
from unnoise.cli.tables.output import answer, write_tables
from unnoise.config import renamed
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request
from unnoise.errors import unknown

if TYPE_CHECKING:
    from unnoise.generate.inversion import Reconstruction


def inversion(
    model: MODEL,
    /,
    *,
    steps: Annotated[str, option("numbers of steps, with commas between")] = "10,20,50,100",
    conventions: Annotated[str, option("own, target, exact, with commas between")] = "own,target,exact",
    guidance: Annotated[str, option("scales, with commas between; 1 is no guidance")] = "1",
    count: Annotated[
        int, option("real pictures taken", "--num", "-n", validator=within(1, 1_000_000, "pictures"))
    ] = 32,
    spacing: Annotated[
        str, Parameter(name="--timestep-spacing", alias="--grid-spacing", help="how the steps lie in time")
    ] = "even",
    data: DATA = None,
    out: OUT = Path("table-inversion"),
    precision: Annotated[str, option("of the network")] = "float32",
    device: Annotated[str, option("auto, cpu, cuda, cuda:1, mps")] = "auto",
    batch: Annotated[int, option("pictures at once", validator=within(1, 1_000_000, "pictures"))] = 64,
    markdown: AS_MARKDOWN = False,
    json: AS_JSON = False,
) -> None:
    """Real pictures to noise and back, as in table 2 of Song et al. 2020: the squared error that is left.

    Both ways each picture is told its own class, caption and numbers, as far as the model hears them. With guidance the
    error grows, for the way to noise no longer undoes the way back: ask for --guidance 1,2,3.
    """
    existing(model, "model")
    with asking():
        counts = numbers(steps, "--steps")
        scales = scales_of(guidance, "--guidance")
        ways = chosen_from(conventions, ("own", "target", "exact"), "convention of inversion")
        spacing = renamed.SPACINGS.get(spacing, spacing)
        if spacing not in (spacings := keys_of("samplers/timesteps.py", "SPACINGS")):
            raise unknown("timestep spacing", spacing, spacings)
        writable(out, "the table", folder=True)
    loaded, real = opened(model, data)
    from unnoise import data as pictures
    from unnoise.evaluation import validate
    from unnoise.evaluation.conditions import all_told_of
    from unnoise.generate.inversion import prepare_inversion, reconstruct
    from unnoise.generate.job import place

    some = real.batch([int(row) for row in pictures.order(0, 0, len(real))[:count]])
    found: list[Reconstruction] = []
    base = Request(sampler="ddim", spacing=spacing, precision=precision, device=device, batch=batch)  # type: ignore[arg-type]
    cells = [(way, count, scale) for scale in scales for way in ways for count in counts]
    requests = [dataclasses.replace(base, steps=number, guidance=scale) for _, number, scale in cells]
    with asking():
        validate.check(loaded, EvaluateConfig(metrics=()), base, real)
        cond = all_told_of(loaded, real, some, base)
        placed = place(loaded, device, precision)
        for how in requests:
            prepare_inversion(placed, dataclasses.replace(how, seeds=tuple(range(len(some.x)))), cond)
    with Progress(len(cells), "there and back", unit="way") as bar:
        for at, ((way, number, _), how) in enumerate(zip(cells, requests, strict=True), start=1):
            found.append(reconstruct(placed, some.x, cond, how, convention=way))
            bar.step(at, f"{way}, {number} steps: {found[-1].error:.2g}")
    head = ("convention", "guidance", *(f"S = {number}" for number in counts))
    rows = [
        (way, f"{scale:g}", *(f"{s.error:.2g}" for s in found if (s.convention, s.guidance) == (way, scale)))
        for scale in scales
        for way in ways
    ]
    worst = max((s.residual for s in found if s.convention == "exact"), default=0.0)
    note = (
        f"Squared error a number, pictures in [0, 1]; {len(some.x)} pictures, S steps there and S back"
        + (f"; the exact convention missed a step by {worst:.1g} at most" if "exact" in ways else "")
        + "."
    )
    words = [note]
    out.mkdir(parents=True, exist_ok=True)
    from unnoise.codec import to_bytes

    shown = min(8, len(some.x))
    blocks = {("the picture", ""): to_bytes(some.x[:shown])}
    most = max(counts)
    blocks |= {(f"{s.convention}, guidance {s.guidance:g}", ""): s.pictures[:shown] for s in found if s.steps == most}
    from unnoise.io.images import sheet
    from unnoise.io.png import write_png

    write_png(out / "pictures.png", sheet(blocks, across=shown), None)
    document = {
        "model": str(model),
        "cells": [{k: v for k, v in s._asdict().items() if k != "pictures"} for s in found],
    }
    write_tables(out, document, head, rows, words)
    answer(document, out, head, rows, words, markdown=markdown, json=json)
