"""`unnoise vary`: pictures that share their first sampling steps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from unnoise.cli.console import asking, say
from unnoise.cli.loading import load
from unnoise.cli.options import option, with_settings, within
from unnoise.cli.parse import parse_numbers
from unnoise.cli.paths import existing_model, new_file
from unnoise.cli.requests import rows_for, values_of
from unnoise.cli.sampling_options import JSON, LABEL, MODEL, ONE_GRID, OVERWRITE, SEVERAL, VALUE
from unnoise.config.request import Request, RequestOptions, check_seed
from unnoise.generate.describe import known_card


@with_settings(RequestOptions, **SEVERAL)
def vary(
    model: MODEL,
    /,
    *,
    seed: Annotated[int, option("seed of the picture whose first sampling steps are shared")] = 0,
    label: LABEL = None,
    value: VALUE = (),
    shared: Annotated[
        str, option("times down to which the steps are shared, from 1 (none) to 0 (all), comma-separated")
    ] = "1,0.75,0.5,0.25",
    count: Annotated[int, option("pictures for each time", "--num", "-n", validator=within(1, 10_000, "pictures"))] = 8,
    overwrite: OVERWRITE = False,
    grid_file: Annotated[Path, ONE_GRID] = Path("varied.png"),
    json: JSON = False,
    **settings: Any,
) -> None:
    """Generate pictures that share their first sampling steps, in which the coarse content is decided.

    Figure 7 of Ho et al. 2020. Needs a sampler that adds noise: ddpm unless another is named.
    """
    existing_model(model)
    new_file(grid_file, "the grid", overwrite, suffix=".png")
    with asking():
        check_seed(seed, "--seed")
        times = parse_numbers(shared, "--shared", 0.001, 1, "1,0.75,0.5,0.25")
        rows_for([(0, label)], (), known_card(model))
        settings["values"] = values_of(value)
    say(f"loading {model} ...")
    import torch

    from unnoise.cli.sampling import finished, unconditional, with_bar, write_grid
    from unnoise.generate.interpolation import shared as share
    from unnoise.generate.job import prepare

    loaded = load(model)
    if settings.get("sampler", "auto") == "auto":
        settings["sampler"] = "ddpm"
    with asking():
        loaded.require_pictures()
        chosen = (label,) * count if label else unconditional(loaded, count)
        job = prepare(loaded, Request.of(seeds=tuple(range(seed, seed + count)), labels=chosen, **settings))
    parts = [finished(with_bar(job.starting(share(job, t)), f"shared up to t = {t:g}")) for t in times]
    write_grid(grid_file, torch.cat(parts), count, [f"from t = {t:g}" for t in times], as_json=json)
