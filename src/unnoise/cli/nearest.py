"""`unnoise nearest`: generated pictures beside the real ones that are nearest to them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from unnoise.cli.console import UsageError, asking, emit, say, show
from unnoise.cli.options import OVERWRITE, flag, option, within
from unnoise.cli.paths import existing, new_file
from unnoise.cli.requests import present
from unnoise.errors import UserError

if TYPE_CHECKING:
    from unnoise.config.data import DataConfig


def nearest(
    pictures: Annotated[Path, option("generated pictures: a folder or an archive")],
    /,
    *,
    data: Annotated[str, option("real pictures: a set's name, or a path")],
    count: Annotated[int, option("nearest real pictures per picture", "-n", validator=within(1, 100, "pictures"))] = 3,
    features: Annotated[
        Path | None, option("a contrastive run: distances between its embeddings; default: between pixels")
    ] = None,
    grid_file: Annotated[Path, Parameter(name=("--grid", "--out", "-o"), help="the PNG to write")] = Path(
        "nearest.png"
    ),
    overwrite: OVERWRITE = False,
    scale: Annotated[int | None, option("enlarge by this factor", validator=within(1, 64, "times"))] = None,
    json: Annotated[bool, flag("one JSON document on stdout")] = False,
) -> None:
    """Show generated pictures beside the nearest real ones, so that memorized training pictures are seen.

    Also reports how far real pictures are from their own nearest neighbours: a generated picture much nearer than that
    was memorized.
    """
    existing(pictures, "pictures")
    if features is not None:
        existing(features, "contrastive run")
    new_file(grid_file, "the grid", overwrite, suffix=".png")
    with asking():
        present(data)
    say(f"comparing with {data} ...")
    from unnoise import data as sets
    from unnoise.evaluation.neighbours import compare
    from unnoise.io.png import write_png
    from unnoise.metrics import contrastive

    with asking():
        generated = sets.open(config_of(pictures))
        config = generated.config
        real = sets.open(type(config)(path=data, size=config.size, channels=config.channels))
        if len(real) < count:
            raise UsageError(f"{len(real)} pictures in {data}, fewer than --count {count}: use a smaller count")
        embed = contrastive.load(features) if features is not None else None
        found = compare(generated, real, count, embed, scale=scale)
    write_png(grid_file, found.sheet, None)
    if json:
        emit({"pictures": str(pictures), "data": data, "grid": grid_file, **found.about})
    else:
        show(str(grid_file))
        say(found.summary)


def config_of(path: Path) -> DataConfig:
    """The pictures at `path` in their own size and channels, which are those of the first one."""

    from unnoise.config.data import DataConfig
    from unnoise.data.registry import find
    from unnoise.data.source import Unreadable, reason
    from unnoise.io.picture_files import open_picture

    source = find(str(path))
    try:
        first = source.read(0)
        if isinstance(first, bytes):
            picture = open_picture(first)
            return DataConfig(path=str(path), size=min(picture.size), channels=1 if picture.mode in ("1", "L") else 3)
    except (OSError, Unreadable, UserError) as error:
        raise UserError(f"{source.names[0]} in {path} cannot be read: {reason(error)}") from None
    return DataConfig(path=str(path), size=min(first.shape[:2]), channels=1 if first.ndim == 2 else first.shape[2])
