"""Drawn pictures beside the real ones that are nearest to them, so that what was learned by heart is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unnoise.cli.console import UsageError

if TYPE_CHECKING:
    from PIL import Image

    from unnoise.cli.sample import Drawn
    from unnoise.data import Dataset
    from unnoise.metrics.contrastive import ContrastiveEvaluator
    from unnoise.model import Model

REFERENCE = 256  # real pictures whose own nearest others say what near is


class Beside(NamedTuple):
    """A sheet with a line a drawn picture, and what is on it, for JSON and for people."""

    sheet: Image.Image
    about: dict[str, Any]
    said: str


@dataclass(frozen=True)
class Among:
    """The set whose nearest pictures are looked for, `count` each, and what sees them: a judge, or their pixels."""

    real: Dataset
    count: int
    judge: ContrastiveEvaluator | None


def among(model: Model, path: str, count: int, judge: Path | None) -> Among:
    """The set at `path`, in the model's size. Raises UserError where there are fewer, or the judge takes others."""
    import torch

    from unnoise import data
    from unnoise.cli.measuring import data_for
    from unnoise.metrics import contrastive

    real = data.open(data_for(model, path))
    if len(real) < count:
        raise UsageError(f"{len(real)} pictures in {path}, fewer than --nearest-count {count}: ask for fewer")
    loaded = contrastive.load(judge) if judge is not None else None
    if loaded is not None:
        loaded.pictures(torch.empty(0, *real.shape))
    return Among(real, count, loaded)


def beside(drawn: Sequence[Drawn], those: Among, path: str, *, judge: Path | None, scale: int | None) -> Beside:
    """Each drawn picture and the nearest of the set at `path`: by pixels, or as a judge sees them."""
    import numpy as np
    import torch

    from unnoise import data
    from unnoise.cli.sample import as_bytes
    from unnoise.codec import from_bytes
    from unnoise.io.images import grid
    from unnoise.metrics.nearest import nearest

    real, count = those.real, those.count
    features = those.judge.pictures if those.judge is not None else None
    x = from_bytes(torch.from_numpy(np.stack([each.pixels for each in drawn])).permute(0, 3, 1, 2))
    found = nearest(x, real, count, features=features)
    some = data.order(0, 0, len(real))[:REFERENCE].tolist()
    others = nearest(real.batch(some).x, real, 2, features=features).distance[:, 1]

    pictures, names = [], []
    lines: list[dict[str, Any]] = []
    for each, rows, distances in zip(drawn, found.row.tolist(), found.distance.tolist(), strict=True):
        pictures += [each.pixels, *as_bytes(real.batch(rows).x)]
        seed, label = each.row
        names.append(f"{seed}{'' if label is None else ' ' + label}, {distances[0]:.3g}")
        near = [
            {"name": real.name(row), "caption": real.caption(row), "distance": distance}
            for row, distance in zip(rows, distances, strict=True)
        ]
        lines.append({"seed": seed, "label": label, "nearest": near})
    unit = "grey levels (RMSE)" if judge is None else f"the sphere of {judge}"
    least = min(lines, key=lambda line: line["nearest"][0]["distance"])
    about = {
        "data": path, "count": len(real), "by": "pixels" if judge is None else str(judge), "pictures": lines,
        "real_median": others.median().item(),
    }  # fmt: skip
    first = least["nearest"][0]
    said = (
        f"nearest of {len(real):,} pictures of {path}, in {unit}: median {found.distance[:, 0].median():.3g}, least "
        f"{first['distance']:.3g} (seed {least['seed']}: {first['caption'] or first['name']}); real pictures lie "
        f"{others.median():.3g} from their nearest other (median)"
    )
    return Beside(grid(pictures, columns=count + 1, rows=names, scale=scale), about, said)
