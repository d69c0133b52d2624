"""`unnoise table guidance`: the setting of `compare` that shows fidelity against diversity, a row for each scale."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from unnoise.cli.console import asking
from unnoise.cli.options import option, with_settings
from unnoise.cli.paths import existing, existing_model, new_file, writable
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
    SHOWN,
    SPACINGS,
    STEPS,
    TableOptions,
    axes_of,
    scales_of,
)
from unnoise.cli.tables.output import finish
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import RequestOptions


@with_settings(RequestOptions, **SAMPLED | dict.fromkeys(("classifier", "classifier_scale")))
@with_settings(EvaluateConfig, **MEASURED | {"evaluator": Parameter()})
@with_settings(TableOptions, **COMMON | {"shown": None})
def guidance(
    model: MODEL,
    /,
    *,
    guidance: GUIDANCE = "1,1.5,2,3,5,8",
    classifier: Annotated[
        Path | None, option("a noisy classifier: also the unconditional model guided by it alone")
    ] = None,
    classifier_scales: Annotated[
        str, option("scales of the classifier, separated by commas; 0 is no guidance")
    ] = "1,2,5,15,30,60",
    samplers: SAMPLERS = "auto",
    steps: STEPS = "20",
    eta: ETAS = "0",
    spacing: SPACINGS = "auto",
    shown: SHOWN = 10,
    out: OUT = Path("table-guidance"),
    **values: Any,
) -> None:
    """Compare guidance scales, for the same seeds: fidelity against diversity.

    A model of captions is conditioned on those of real pictures. Whether its pictures agree with them is measured by
    a program that finds the shapes in a picture, for the set shapes, and by --evaluator, a contrastive run, for others.

    Writes into --out: pictures.png (a row for each scale), plot.png (with matplotlib), table.md and table.json.
    """
    existing_model(model)
    with asking():
        axes = replace(axes_of(samplers, steps, eta, "1", spacing), guidance=scales_of(guidance, "--guidance"))
        scales = scales_of(classifier_scales, "--classifier-scales")
        if classifier is not None:
            existing(classifier, "classifier")
        new_file(writable(out, "the table", folder=True) / "table.json", "the table", values.get("overwrite", False))
    from unnoise.evaluation.tables import guidance_metrics, guidance_table
    from unnoise.evaluation.variants import guidance_variants

    comparison = prepare(model, {**values, "shown": shown})
    request = comparison.request
    with asking():
        metrics = guidance_metrics(comparison.model, comparison.config, request, comparison.pictures)
    comparison = replace(comparison, config=replace(comparison.config, metrics=metrics))
    variants = guidance_variants(request, axes, classifier=str(classifier or ""), classifier_scales=scales)
    results = run(comparison, variants)
    finish(guidance_table(results, comparison.config), out, comparison.options, model=str(model))
