"""`unnoise table inversion`: real pictures to noise and back, as in table 2 of Song et al. 2020."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from unnoise.cli.console import asking, started
from unnoise.cli.options import keys_of, option, with_settings, within
from unnoise.cli.paths import existing_model, new_file, writable
from unnoise.cli.progress import Progress
from unnoise.cli.sampling_options import SAMPLING
from unnoise.cli.tables.comparison import load
from unnoise.cli.tables.options import (
    COMMON,
    GUIDANCE,
    MODEL,
    OUT,
    STEPS,
    TableOptions,
    chosen,
    numbers,
    one_of,
    scales_of,
)
from unnoise.cli.tables.output import finish
from unnoise.config import renamed
from unnoise.config.request import Request, RequestOptions
from unnoise.errors import unknown

PLACEMENT = {field.name: None for field in fields(RequestOptions)} | {
    name: SAMPLING[name] for name in ("device", "batch")
}


@with_settings(RequestOptions, **PLACEMENT)
@with_settings(TableOptions, **COMMON | {"count": None, "shown": None})
def inversion(
    model: MODEL,
    /,
    *,
    steps: STEPS = "10,20,50,100",
    conventions: Annotated[str, option("own, target, exact, separated by commas")] = "own,target,exact",
    guidance: GUIDANCE = "1",
    count: Annotated[int, option("real pictures", "--num", "-n", validator=within(1, 1_000_000, "pictures"))] = 32,
    spacing: Annotated[str, Parameter(name="--timestep-spacing", help="spacing of the times")] = "even",
    precision: Annotated[str, option("of the network: float32, bfloat16, or auto")] = "float32",
    out: OUT = Path("table-inversion"),
    **values: Any,
) -> None:
    """Invert real pictures and sample them again, as in table 2 of Song et al. 2020: the squared error that remains.

    Each picture is inverted and sampled with its own class, caption and values, where the model uses them. Guidance
    makes the error larger, since inversion does not undo a guided step: compare with --guidance 1,2,3.
    """
    existing_model(model)
    from unnoise.evaluation.variants import CONVENTIONS, InversionAxes

    with asking():
        axes = InversionAxes(
            chosen(conventions, one_of(CONVENTIONS, "convention of inversion")),
            tuple(numbers(steps, "--steps")),
            scales_of(guidance, "--guidance"),
        )
        spacing = renamed.SPACINGS.get(spacing, spacing)
        if spacing not in (valid := keys_of("samplers/timesteps.py", "SPACINGS")):
            raise unknown("timestep spacing", spacing, valid)
        new_file(writable(out, "the table", folder=True) / "table.json", "the table", values.get("overwrite", False))
    own = {field.name for field in fields(TableOptions)}
    options = TableOptions(**{key: value for key, value in values.items() if key in own})
    placement = {key: value for key, value in values.items() if key not in own}
    loaded, pictures = load(model, options.data)
    from unnoise.evaluation.reconstruction import real_pictures, reconstruction_table, reconstructions

    base = Request.of(sampler="ddim", spacing=spacing, precision=precision, **placement)
    batch, found = real_pictures(pictures, count), []
    with Progress(len(axes.settings()), "inversion", unit="setting") as bar:
        for at, result in enumerate(started(reconstructions(loaded, pictures, batch, base, axes)), start=1):
            found.append(result)
            bar.step(at, f"{result.convention}, {result.steps} steps: {result.error:.2g}")
    finish(reconstruction_table(batch.x, found, axes), out, options, model=str(model))
