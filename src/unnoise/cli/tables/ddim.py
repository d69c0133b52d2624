"""`unnoise table ddim`: steps by eta, as in table 1 of Song et al. 2020."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from unnoise.cli.console import asking, existing, table, writable
from unnoise.cli.options import keys_of, option, parse_numbers, with_settings
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
from unnoise.cli.tables.run import as_document, figure, run
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request


@with_settings(Request, **DRAWN)
@with_settings(EvaluateConfig, **MEASURED)
def ddim(
    model: MODEL,
    /,
    *,
    steps: Annotated[str, option("numbers of steps, with commas between")] = "10,20,50,100",
    etas: Annotated[str, option("shares of new noise, with commas between")] = "0,0.2,0.5,1",
    sigma_hat: Annotated[bool, option("DDPM's larger variance too")] = True,
    grids: Annotated[str, option("how the steps lie in time, with commas between")] = "ddim-uniform,ddim-quadratic",
    data: DATA = None,
    out: OUT = Path("table-ddim"),
    count: EACH = 1000,
    shown: SHOW = 4,
    markdown: AS_MARKDOWN = False,
    json: AS_JSON = False,
    **asked: Any,
) -> None:
    """Steps by eta, as in table 1 of Song et al. 2020: the Frechet distance of the same seeds.

    Estimates are clipped unless --no-clip; the authors clip in the row sigma-hat alone.
    """
    existing(model, "model")
    with asking():
        counts = numbers(steps, "--steps")
        shares = parse_numbers(etas, "--etas", 0, 1, "0,0.5,1")
        spacings = chosen_from(grids, keys_of("samplers/timesteps.py", "SPACINGS"), "timestep spacing")
        writable(out, "the table", folder=True)
    from unnoise.evaluation.sweep import ddim_ways
    from unnoise.generate.job import starts_in_a_picture

    ask, how = settings({**asked, "count": count})
    ways = ddim_ways(how, steps=counts, etas=shares, sigma_hat=sigma_hat, grids=spacings)
    loaded, real = opened(model, data)
    results = run(loaded, real, ask, ways, shown)
    early = {
        spacing: starts_in_a_picture(loaded, replace(how, steps=max(counts), spacing=spacing)) for spacing in spacings
    }
    names = list(dict.fromkeys(r.way.row for r in results))
    head = ("Frechet distance", *(f"S = {count}" for count in counts))
    rows = [(name, *(figure(r) for r in results if r.way.row == name)) for name in names]
    kernel = [(name, *(figure(r, "kernel") for r in results if r.way.row == name)) for name in names]
    note = (
        f"{ask.count:,} pictures each, seeds {ask.seed} to {ask.seed + ask.count - 1}; guidance {how.guidance:g}, "
        f"{'clipped' if how.clip else 'not clipped'}."
    )
    second = ("kernel distance", *head[1:])
    notes = [note, *(f"{spacing}: {said}." for spacing, said in early.items() if said)]
    keep(out, results, head, rows, notes, also=(second, kernel))
    curves(out, results, "Frechet distance")
    document = {"model": str(model), **as_document(results)}
    answer(document, out, head, rows, [table(kernel, head=second, ragged=True), *notes], markdown=markdown, json=json)
