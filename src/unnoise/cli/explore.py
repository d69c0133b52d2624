"""`unnoise invert`, `unnoise interpolate`, `unnoise vary`: pictures and their noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from unnoise.cli.console import UsageError, asking, emit, existing, say, show, table, writable
from unnoise.cli.options import flag, option, parse_names, parse_numbers, parse_seeds, with_settings, within
from unnoise.cli.progress import Progress
from unnoise.cli.sample import ALL, TOLD, VALUE, WHICH, numbers_of, rows_for, save_tensor
from unnoise.config.request import Request
from unnoise.generate.describe import known_card

if TYPE_CHECKING:
    from torch import Tensor

    from unnoise.generate.frames import Start
    from unnoise.model import Model

MODEL = Annotated[Path, option("a run, a model directory, a checkpoint, or a diffusers folder")]
AS_JSON = Annotated[bool, flag("one JSON document on stdout")]
LABEL = Annotated[str | None, option("the class that all pictures are told; 'none': no class")]
PROMPTS = Parameter(
    alias="--prompt", help="words, for a model that hears them: for all pictures, or for each", group=WHICH
)
SHOWN = {"prompts": PROMPTS, **{name: Parameter(group=WHICH) for name in ("image", "mask")}}
MIXED = {**ALL, **TOLD, **SHOWN, **dict.fromkeys(("seeds", "labels", "previews"))}
PLAIN = {**MIXED, **dict.fromkeys(("eta", "sampler", "dynamic_threshold"))}


@with_settings(Request, **PLAIN | {"clip": None})
def invert(
    model: MODEL,
    /,
    *pictures: Annotated[Path, option("picture files")],
    label: LABEL = None,
    value: VALUE = (),
    convention: Annotated[
        str, Parameter(choices=("own", "target", "exact"), help="where the noise is looked up")
    ] = "exact",
    noise: Annotated[
        Path | None, option("a .safetensors file for the noise, and what it was found with", "--out", "-o")
    ] = None,
    sheet: Annotated[
        Path | None, option("a PNG: the pictures, their noise, what is drawn from it, eight times the error", "--grid")
    ] = None,
    json: AS_JSON = False,
    **asked: Any,
) -> None:
    """Find the noise from which DDIM draws a picture, and draw it again.

    'exact' solves each step, so that DDIM leads back; 'own' and 'target' are the quick conventions of others.
    """
    existing(model, "model")
    for path in pictures:
        existing(path, "picture")
    if not pictures:
        raise UsageError("no picture to invert. Write: unnoise invert MODEL picture.png")
    for file, what in ((noise, "the noise"), (sheet, "the sheet")):
        if file is not None:
            writable(file, what)
    with asking():
        rows_for([(0, label)], (), known_card(model))
        values = numbers_of(value)
    say(f"loading {model} ...")
    import torch

    from unnoise import model as models
    from unnoise.codec import to_bytes
    from unnoise.generate.conditions import full_condition
    from unnoise.generate.frames import check, generate, steered
    from unnoise.generate.inversion import from_noise
    from unnoise.generate.inversion import invert as find_noise

    loaded = models.load(model)
    with asking():
        loaded.require_pictures()
        loaded = steered(loaded, asked.get("classifier", ""))
        x = torch.cat([read(path, loaded) for path in pictures])
    labels = (label or "none",) * len(x) if loaded.classes else ()
    if asked.get("precision", "auto") == "auto":
        asked["precision"] = "float32"  # rounding cannot be undone
    how = Request(seeds=tuple(range(len(x))), labels=labels, values=values, sampler="ddim", clip=False, **asked)
    with asking():
        check(loaded, how)
        cond = full_condition(loaded, how)
    say("finding the noise ...")
    found = find_noise(loaded, x, cond, how, convention=convention)
    back = finished(generate(loaded, how, from_noise(loaded, found.noise, how), cond), len(x), "drawing it again")
    errors = ((back - x) / 2).square().flatten(1).mean(1).tolist()
    rows = [
        (path.name, f"{error:.2g}", f"{miss:.2g}", f"{one.std().item():.3f}")
        for path, error, miss, one in zip(pictures, errors, found.residual.tolist(), found.noise, strict=True)
    ]
    if noise is not None:
        found_with = {"model": str(model), "label": label, "values": values, "convention": convention, **asked}
        save_tensor(noise, "noise", found.noise, found_with)
    if sheet is not None:
        from unnoise.io.images import sheet as draw_sheet
        from unnoise.io.png import write_png

        wrong = (8 * (back - x)).clamp(-1, 1)
        lines = {"picture": x, "noise / 2": found.noise / 2, "drawn again": back, "error x 8": wrong}
        blocks = {(name, ""): to_bytes(loaded.codec.decode(part)) for name, part in lines.items()}
        write_png(sheet, draw_sheet(blocks, across=len(x)), None)
    if json:
        emit({"model": model, "convention": convention, "pictures": [str(p) for p in pictures], "squared_error": errors,
              "residual": found.residual.tolist(), "noise": noise, "sheet": sheet})  # fmt: skip
    else:
        show(table(rows, head=("picture", "squared error", "residual", "deviation of the noise"), ragged=True))
        if max(found.residual.tolist()) > 1e-2:
            say("a step has no exact inverse for this picture: more --steps make the steps smaller")


@with_settings(Request, **PLAIN)
def interpolate(
    model: MODEL,
    /,
    *pictures: Annotated[Path, option("two picture files to go between, instead of seeds")],
    seeds: Annotated[str, option("two seeds for a strip, four for the corners of a plane", "--seed")] = "0,1",
    labels: Annotated[str, option("a class for all, or one for each end", "--label")] = "",
    value: VALUE = (),
    across: Annotated[
        int, option("pictures from one end to the other", "--count", "-n", validator=within(2, 1000, "both ends"))
    ] = 9,
    down: Annotated[int, option("lines of a plane", validator=within(2, 1000, "both ends"))] = 5,
    strength: Annotated[
        float, option("how much of two pictures is drawn anew", validator=within(0.01, 1, "a share of the way"))
    ] = 0.5,
    linear: Annotated[
        bool, flag("mix two noisy pictures linearly, as Ho et al. 2020 do: too little noise in the middle")
    ] = False,
    grid_file: Annotated[Path, Parameter(name=("--grid", "--out", "-o"), help="the PNG to write")] = Path(
        "between.png"
    ),
    json: AS_JSON = False,
    **asked: Any,
) -> None:
    """Go from one picture to another: a strip between two seeds, a plane between four, or between two pictures.

    Between seeds the noise turns along the great circle, and DDIM draws what lies on it. Pictures are noised up to
    --strength, mixed there, and drawn again with DDPM.
    """
    existing(model, "model")
    for path in pictures:
        existing(path, "picture")
    writable(grid_file, "the grid")
    with asking():
        ends = [seed for seed, _ in parse_seeds(seeds)]
        names = parse_names(labels)
        asked["values"] = numbers_of(value)
        rows_for([(0, name) for name in names], (), known_card(model))
        if len(pictures) not in (0, 2):
            raise UsageError(f"{len(pictures)} pictures to go between: give two, or none and --seeds")
        if not pictures and len(ends) not in (2, 4):
            raise UsageError(f"--seeds: {len(ends)} seeds to go between: give two for a strip, or four for a plane")
        if len(names) > 1 and len(names) != (2 if pictures else len(ends)):
            raise UsageError(f"--labels: {len(names)} classes; give one for all, or one for each end")
    say(f"loading {model} ...")
    from unnoise import model as models
    from unnoise.generate.interpolation import between, between_pictures

    loaded = models.load(model)
    with asking():
        loaded.require_pictures()
    start: Start
    lines = down if len(ends) == 4 and not pictures else 1
    if pictures:
        with asking():
            a, b = (read(path, loaded)[0] for path in pictures)
        start = between_pictures(loaded, a, b, across, t=strength, seed=ends[0], keep_variance=not linear)
        how = Request(seeds=(ends[0],) * across, sampler="ddpm", **asked)
    else:
        how = Request(seeds=tuple(range(across * lines)), sampler="ddim", **asked)
        with asking():
            start = between(loaded, how, ends, across, lines)
    how = dataclasses.replace(how, labels=spread(names, across, lines) if names else whole(loaded, len(how.seeds)))
    keep(loaded, how, start, grid_file, across, [], json=json)


@with_settings(Request, **MIXED)
def vary(
    model: MODEL,
    /,
    *,
    seed: Annotated[int, option("of the picture whose way is shared")] = 0,
    label: LABEL = None,
    value: VALUE = (),
    shared: Annotated[
        str, option("up to which times, from 1 (nothing is shared) to 0, with commas between")
    ] = "1,0.75,0.5,0.25",
    count: Annotated[int, option("pictures of each", "--num", "-n", validator=within(1, 10_000, "pictures"))] = 8,
    grid_file: Annotated[Path, Parameter(name=("--grid", "--out", "-o"), help="the PNG to write")] = Path("varied.png"),
    json: AS_JSON = False,
    **asked: Any,
) -> None:
    """Draw many pictures that share the first part of their way: what is coarse is settled first.

    Figure 7 of Ho et al. 2020. With a sampler that adds noise: ddpm unless another is named.
    """
    existing(model, "model")
    writable(grid_file, "the grid")
    with asking():
        times = parse_numbers(shared, "--shared", 0.001, 1, "1,0.75,0.5,0.25")
        rows_for([(0, label)], (), known_card(model))
        asked["values"] = numbers_of(value)
    say(f"loading {model} ...")
    import torch

    from unnoise import model as models
    from unnoise.generate import interpolation
    from unnoise.generate.frames import check

    loaded = models.load(model)
    with asking():
        loaded.require_pictures()
    if asked.get("sampler", "auto") == "auto":
        asked["sampler"] = "ddpm"
    named = (label,) * count if label else whole(loaded, count)
    how = Request(seeds=tuple(range(seed, seed + count)), labels=named, **asked)
    with asking():
        check(loaded, how)
    parts = []
    for t in times:
        frames = finished_frames(loaded, how, interpolation.shared(loaded, how, t), f"shared up to t = {t:g}")
        parts.append(frames)
    names = [f"from t = {t:g}" for t in times]
    write_grid(grid_file, torch.cat(parts), count, names)
    done(grid_file, len(times) * count, json=json)


# ------------------------------------------------------------------------------------------------------ parts


def read(path: Path, model: Model) -> Tensor:
    """A picture file in the model's size and channels: (1, C, H, W) in [-1, 1]. UserError where it cannot be read."""
    import torch

    from unnoise.codec import from_bytes
    from unnoise.data.decode import cover
    from unnoise.data.source import Unreadable
    from unnoise.errors import UserError

    try:
        pixels = cover(path.read_bytes(), *model.card.size, model.card.channels)
    except (OSError, Unreadable) as error:
        raise UserError(f"{path} is not a picture that can be read: {error}") from error
    return from_bytes(torch.tensor(pixels)[None])


def whole(model: Model, count: int) -> tuple[str, ...]:
    """No class, for each picture, where the model knows classes and can do without."""
    return ("none",) * count if model.classes else ()


def spread(names: Sequence[str], across: int, down: int) -> tuple[str, ...]:
    """The class of the nearest end, for each place of a strip or a plane."""
    if len(names) == 1:
        return (names[0],) * (across * down)
    corners = names if len(names) == 4 else [*names, *names]
    return tuple(
        corners[2 * (2 * row >= down and down > 1) + (2 * column >= across)]
        for row in range(down)
        for column in range(across)
    )


def finished_frames(model: Model, how: Request, start: Start, what: str) -> Tensor:
    from unnoise.generate.frames import generate

    return finished(generate(model, how, start), len(how.seeds), what)


def finished(frames: Any, count: int, what: str) -> Tensor:
    """The pictures at the end of a drawing, with a bar: (B, C, H, W)."""
    import torch

    parts: list[Tensor] = []
    with Progress(count, what, unit="picture") as bar:
        for frame in frames:
            if frame.done and frame.pictures is not None:
                parts.append(frame.pictures)
                bar.step(sum(map(len, parts)))
    return torch.cat(parts)


def keep(model: Model, how: Request, start: Start, path: Path, columns: int, names: list[str], *, json: bool) -> None:
    from unnoise.generate.frames import check

    with asking():
        check(model, how)
    write_grid(path, finished_frames(model, how, start, "drawing"), columns, names)
    done(path, len(how.seeds), json=json)


def write_grid(path: Path, pictures: Tensor, columns: int, names: list[str]) -> None:
    from unnoise.cli.sample import as_bytes
    from unnoise.io.images import grid
    from unnoise.io.png import write_png

    write_png(path, grid(list(as_bytes(pictures)), columns=columns, rows=names), None)


def done(path: Path, count: int, *, json: bool) -> None:
    if json:
        emit({"grid": path, "pictures": count})
    else:
        show(str(path))
