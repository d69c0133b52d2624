"""`unnoise interpolate`: strips and planes between pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from unnoise.cli.console import UsageError, asking, say
from unnoise.cli.loading import load
from unnoise.cli.options import flag, option, with_settings, within
from unnoise.cli.parse import parse_names, parse_seeds
from unnoise.cli.paths import existing, existing_model, new_file
from unnoise.cli.requests import rows_for, values_of
from unnoise.cli.sampling_options import FROM_ONE, JSON, MODEL, ONE_GRID, OVERWRITE, VALUE
from unnoise.config.request import Request, RequestOptions
from unnoise.generate.describe import known_card


@with_settings(RequestOptions, **FROM_ONE)
def interpolate(
    model: MODEL,
    /,
    *pictures: Annotated[Path, option("two picture files to interpolate, instead of seeds")],
    seeds: Annotated[str, option("two seeds for a strip, four for the corners of a plane", "--seed")] = "0,1",
    labels: Annotated[str, option("a class for all, or one for each end", "--label")] = "",
    value: VALUE = (),
    across: Annotated[
        int, option("pictures from one end to the other", "--count", "-n", validator=within(2, 1000, "both ends"))
    ] = 9,
    down: Annotated[int, option("lines of a plane", validator=within(2, 1000, "both ends"))] = 5,
    strength: Annotated[
        float, option("time up to which two pictures are noised", validator=within(0.01, 1, "1 is noise alone"))
    ] = 0.5,
    linear: Annotated[
        bool, flag("mix two noisy pictures linearly, as Ho et al. 2020: too little noise in the middle")
    ] = False,
    overwrite: OVERWRITE = False,
    grid_file: Annotated[Path, ONE_GRID] = Path("between.png"),
    json: JSON = False,
    **settings: Any,
) -> None:
    """Interpolate: a strip between two seeds, a plane between four, or a strip between two pictures.

    Between seeds the noise is interpolated on the sphere and sampled with DDIM. Pictures are noised up to --strength,
    mixed there, and sampled with DDPM.
    """
    existing_model(model)
    for path in pictures:
        existing(path, "picture")
    new_file(grid_file, "the grid", overwrite, suffix=".png")
    with asking():
        ends, names = [seed for seed, _ in parse_seeds(seeds)], parse_names(labels)
        settings["values"] = values_of(value)
        rows_for([(0, name) for name in names], (), known_card(model))
        check_ends(pictures, ends, names)
    say(f"loading {model} ...")
    from unnoise.cli.sampling import finished, unconditional, with_bar, write_grid
    from unnoise.generate.conditions import input_picture
    from unnoise.generate.interpolation import between, between_pictures
    from unnoise.generate.job import prepare

    loaded = load(model)
    lines = down if len(ends) == 4 and not pictures else 1
    count = across * lines
    with asking():
        loaded.require_pictures()
        chosen = nearest_end(names, across, lines) if names else unconditional(loaded, count)
        if pictures:
            a, b = (input_picture(path, loaded)[0] for path in pictures)
            start = between_pictures(loaded, a, b, across, t=strength, seed=ends[0], keep_variance=not linear)
            job = prepare(loaded, Request.of(seeds=(ends[0],) * across, sampler="ddpm", labels=chosen, **settings))
        else:
            job = prepare(loaded, Request.of(seeds=tuple(range(count)), sampler="ddim", labels=chosen, **settings))
            start = between(job, ends, across, lines)
    pictures_of_grid = finished(with_bar(job.starting(start)))
    write_grid(grid_file, pictures_of_grid, across, [], as_json=json)


def check_ends(pictures: Sequence[Path], ends: Sequence[int], names: Sequence[str]) -> None:
    """Raises UsageError for numbers of pictures, seeds or classes that do not make a strip or a plane."""
    if len(pictures) not in (0, 2):
        raise UsageError(f"{len(pictures)} pictures to interpolate: give two, or none and --seeds")
    if not pictures and len(ends) not in (2, 4):
        raise UsageError(f"--seeds: {len(ends)} seeds to interpolate: give two for a strip, or four for a plane")
    if len(names) > 1 and len(names) != (2 if pictures else len(ends)):
        raise UsageError(f"--labels: {len(names)} classes: give one for all, or one for each end")


def nearest_end(names: Sequence[str], across: int, down: int) -> tuple[str, ...]:
    """The class of the nearest end, for each place of a strip or a plane."""
    if len(names) == 1:
        return (names[0],) * (across * down)
    corners = names if len(names) == 4 else [*names, *names]
    return tuple(
        corners[2 * (2 * row >= down and down > 1) + (2 * column >= across)]
        for row in range(down)
        for column in range(across)
    )
