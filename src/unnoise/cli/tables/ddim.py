"""`unnoise table ddim`: the setting of `compare` that is table 1 of Song et al. 2020, steps by eta."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from unnoise.cli.console import asking
from unnoise.cli.options import option, with_settings
from unnoise.cli.paths import existing_model, new_file, writable
from unnoise.cli.tables.comparison import prepare, run
from unnoise.cli.tables.options import (
    COMMON,
    ETAS,
    GUIDANCE,
    MEASURED,
    MODEL,
    OUT,
    SAMPLED,
    SPACINGS,
    STEPS,
    TableOptions,
    axes_of,
)
from unnoise.cli.tables.output import finish
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import RequestOptions


@with_settings(RequestOptions, **SAMPLED)
@with_settings(EvaluateConfig, **MEASURED)
@with_settings(TableOptions, **COMMON)
def ddim(
    model: MODEL,
    /,
    *,
    steps: STEPS = "10,20,50,100",
    eta: ETAS = "0,0.2,0.5,1",
    sigma_hat: Annotated[bool, option("also DDPM's larger variance")] = True,
    guidance: GUIDANCE = "1",
    spacing: SPACINGS = "ddim-uniform,ddim-quadratic",
    out: OUT = Path("table-ddim"),
    **values: Any,
) -> None:
    """Compare numbers of steps and eta, as in table 1 of Song et al. 2020: the Frechet distance for the same seeds.

    Estimates are clipped unless --no-clip is set; the authors clip in the row sigma-hat alone.
    """
    existing_model(model)
    with asking():
        axes = axes_of("ddim", steps, eta, guidance, spacing)
        new_file(writable(out, "the table", folder=True) / "table.json", "the table", values.get("overwrite", False))
    from unnoise.evaluation.tables import ddim_table
    from unnoise.evaluation.variants import ddim_variants
    from unnoise.generate.job import starts_in_a_picture

    comparison = prepare(model, values)
    base = comparison.request
    results = run(comparison, ddim_variants(base, axes, sigma_hat=sigma_hat))
    early = {
        name: starts_in_a_picture(comparison.model, base.but(steps=max(axes.steps), spacing=name))
        for name in axes.spacings
    }
    notes = [f"{name}: {warning}." for name, warning in early.items() if warning]
    finish(ddim_table(results, comparison.config, notes), out, comparison.options, model=str(model))
