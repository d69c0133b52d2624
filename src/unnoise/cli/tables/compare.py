"""`unnoise compare`: samplers and their settings from the same noise, and which to use for a budget of time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from unnoise.cli.console import asking
from unnoise.cli.options import with_settings
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
    SAMPLERS,
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
def compare(
    model: MODEL,
    /,
    *,
    samplers: SAMPLERS = "ddim,heun,dpm++2m,unipc",
    steps: STEPS = "5,10,20,50",
    eta: ETAS = "0",
    guidance: GUIDANCE = "1",
    spacing: SPACINGS = "auto",
    out: OUT = Path("compared"),
    **values: Any,
) -> None:
    """Sample from the same noise with each combination of samplers, steps, eta, guidance and timestep spacings.

    Measures each combination and reports which to use for a budget of time. Writes into --out: pictures.png, plot.png
    (with matplotlib), table.md and table.json.
    """
    existing_model(model)
    with asking():
        axes = axes_of(samplers, steps, eta, guidance, spacing)
        new_file(
            writable(out, "the comparison", folder=True) / "table.json", "the table", values.get("overwrite", False)
        )
    from unnoise.evaluation.tables import sampler_table
    from unnoise.evaluation.variants import variants

    comparison = prepare(model, values)
    if samplers == "all" and not comparison.model.diffusion.learned_variance:
        axes = replace(axes, samplers=tuple(name for name in axes.samplers if name != "ddpm-learned"))
    results = run(comparison, variants(comparison.request, axes))
    finish(sampler_table(results, comparison.config), out, comparison.options, model=str(model))
