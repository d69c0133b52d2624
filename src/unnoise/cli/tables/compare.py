"""`unnoise compare`: several samplers from the same noise, and which to take for a budget of time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from unnoise.cli.console import asking, existing, writable
from unnoise.cli.options import keys_of, option, with_settings
from unnoise.cli.tables.options import (
    AS_JSON,
    AS_MARKDOWN,
    DATA,
    DRAWN,
    EACH,
    MEASURED,
    MODEL,
    OUT,
    SHOW,
    chosen_from,
    numbers,
    opened,
    settings,
)
from unnoise.cli.tables.output import answer, curves, keep
from unnoise.cli.tables.run import as_document, figure, place, run
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request


@with_settings(Request, **DRAWN)
@with_settings(EvaluateConfig, **MEASURED)
def compare(
    model: MODEL,
    /,
    *,
    samplers: Annotated[
        str, option("which, with commas between; 'all' that this model can use")
    ] = "ddim,heun,dpm++2m,unipc",
    steps: Annotated[str, option("numbers of steps, with commas between")] = "5,10,20,50",
    data: DATA = None,
    out: OUT = Path("compared"),
    count: EACH = 1000,
    shown: SHOW = 4,
    markdown: AS_MARKDOWN = False,
    json: AS_JSON = False,
    **asked: Any,
) -> None:
    """Draw with several samplers from the same noise, measure each, and say which to take for a budget of time.

    Writes into --out: pictures.png, plot.png (with matplotlib), table.md and table.json.
    """
    existing(model, "model")
    with asking():
        names = samplers_named(samplers)
        counts = numbers(steps, "--steps")
        writable(out, "the comparison", folder=True)
    from unnoise.evaluation.sweep import enough, for_budget, sampler_ways

    ask, how = settings({**asked, "count": count})
    loaded, real = opened(model, data)
    if samplers == "all" and not loaded.diffusion.learned_variance:
        names = tuple(name for name in names if name != "ddpm-learned")
    results = run(loaded, real, ask, sampler_ways(how, samplers=names, steps=counts), shown)
    head = ("sampler", "steps", "calls", "Frechet", "kernel", "ms a picture")
    rows = [
        (r.way.row, r.way.column, f"{r.calls}", figure(r, "frechet"), figure(r, "kernel"), f"{1e3 * r.seconds:.3g}")
        for r in results
    ]
    best, chosen = for_budget(results), enough(results)
    words = [f"up to {r.calls} calls: {r.way.row} in {r.way.column} steps ({figure(r)})" for r in best]
    advice = (
        f"The cheapest within 5 % of the best: --sampler {chosen.way.row} --steps {chosen.way.column}" if chosen else ""
    )
    keep(out, results, head, rows, [*words, advice])
    curves(out, results, f"Frechet distance ({ask.count:,} pictures)")
    document = {"model": str(model), **as_document(results), "best": [place(r.way) for r in best]}
    answer(document, out, head, rows, [*words, advice], markdown=markdown, json=json)


def samplers_named(text: str) -> tuple[str, ...]:
    valid = keys_of("samplers/__init__.py", "SAMPLERS")
    return valid if text == "all" else chosen_from(text, valid, "sampler")
