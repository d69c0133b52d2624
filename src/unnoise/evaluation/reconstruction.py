"""Real pictures to noise and back, at every setting: table 2 of Song et al. 2020.

for found in reconstructions(model, pictures, batch, base, settings): ...       # a Reconstruction for each
table = reconstruction_table(x, [...])
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from unnoise import data
from unnoise.codec import to_bytes
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request
from unnoise.data import Dataset
from unnoise.evaluation import validate
from unnoise.evaluation.conditions import conditions_and_control
from unnoise.evaluation.tables import Grid, Table
from unnoise.evaluation.variants import InversionAxes
from unnoise.generate.inversion import Reconstruction, prepare_inversion, reconstruct
from unnoise.generate.job import place
from unnoise.model import Model

SHOWN = 8  # pictures on a line of the sheet


def real_pictures(pictures: Dataset, count: int) -> data.Batch:
    """`count` pictures of a set, the same ones each time."""
    return pictures.batch([int(row) for row in data.order(0, 0, len(pictures))[:count]])


def reconstructions(
    model: Model, pictures: Dataset, batch: data.Batch, base: Request, axes: InversionAxes
) -> Iterator[Reconstruction]:
    """The reconstruction of `batch` at each of `axes.settings()`, with the class, caption and values of each picture.

    Raises UserError for a setting that cannot be run, before the first one is.
    """
    settings = axes.settings()
    requests = [base.but(steps=steps, guidance=scale) for _, steps, scale in settings]
    validate.check(model, EvaluateConfig(metrics=()), base, pictures)
    cond = conditions_and_control(model, pictures, batch, base)
    placed, seeds = place(model, base.device, base.precision), tuple(range(len(batch.x)))
    for request in requests:
        prepare_inversion(placed, replace(request, seeds=seeds), cond)
    for (convention, _, _), request in zip(settings, requests, strict=True):
        yield reconstruct(placed, batch.x, cond, request, convention=convention)


def reconstruction_table(x: Tensor, found: Sequence[Reconstruction], axes: InversionAxes) -> Table:
    """The squared error by convention, guidance and steps; on the sheet the pictures `x` and what came back."""
    head = ("convention", "guidance", *(f"S = {steps}" for steps in axes.steps))
    rows = [
        (name, f"{scale:g}", *(f"{r.error:.2g}" for r in found if (r.convention, r.guidance) == (name, scale)))
        for scale in axes.guidance
        for name in axes.conventions
    ]
    worst = max((r.residual for r in found if r.convention == "exact"), default=0.0)
    note = (
        f"Mean squared error per component, pictures in [0, 1]; {len(x)} pictures, S steps to noise and S back"
        + (
            f"; the largest residual of a step of the exact convention is {worst:.1g}"
            if "exact" in axes.conventions
            else ""
        )
        + "."
    )
    shown, most = min(SHOWN, len(x)), max(axes.steps)
    cells = {("the picture", ""): to_bytes(x[:shown])}
    cells |= {(f"{r.convention}, guidance {r.guidance:g}", ""): r.pictures[:shown] for r in found if r.steps == most}
    document = {"cells": [{key: value for key, value in r._asdict().items() if key != "pictures"} for r in found]}
    return Table(Grid(head, rows), cells, document, [note], across=shown)
