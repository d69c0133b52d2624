"""Generated pictures beside the real ones that are nearest to them: a test for memorized training pictures."""

from __future__ import annotations

from typing import Any, NamedTuple

from PIL import Image

from unnoise import data
from unnoise.codec import from_bytes, to_bytes
from unnoise.data import Dataset
from unnoise.io.images import grid
from unnoise.metrics.contrastive import ContrastiveEvaluator
from unnoise.metrics.nearest import nearest

REFERENCE = 256  # real pictures whose distance to their own nearest neighbour is reported


class Neighbours(NamedTuple):
    """A sheet with a line per generated picture, the same for JSON, and a sentence."""

    sheet: Image.Image
    about: dict[str, Any]
    summary: str


def compare(
    generated: Dataset, real: Dataset, count: int, embed: ContrastiveEvaluator | None, *, scale: int | None = None
) -> Neighbours:
    """Each generated picture and its `count` nearest real ones: by pixels, or by the embeddings of `embed`.

    Both sets have the same size and channels. Raises UserError for pictures that `embed` cannot take.
    """
    features = embed.pictures if embed is not None else None
    x = from_bytes(to_bytes(generated.batch(list(range(len(generated)))).x))
    found = nearest(x, real, count, features=features)
    some = data.order(0, 0, len(real))[:REFERENCE].tolist()
    others = nearest(real.batch(some).x, real, 2, features=features).distance[:, 1]
    pictures, names = [], []
    lines: list[dict[str, Any]] = []
    for place, (rows, distances) in enumerate(zip(found.row.tolist(), found.distance.tolist(), strict=True)):
        pictures += [_pixels(x[place]), *map(_pixels, real.batch(rows).x)]
        names.append(f"{generated.name(place)}, {distances[0]:.3g}")
        near = [
            {"name": real.name(row), "caption": real.caption(row), "distance": distance}
            for row, distance in zip(rows, distances, strict=True)
        ]
        lines.append({"name": generated.name(place), "nearest": near})
    by = "pixels" if embed is None else "embeddings"
    about = {"count": len(real), "by": by, "pictures": lines, "real_median": others.median().item()}
    unit = "grey levels (RMSE)" if embed is None else "embedding distance"
    least = min(lines, key=lambda line: line["nearest"][0]["distance"])
    first = least["nearest"][0]
    summary = (
        f"nearest of {len(real):,} real pictures, in {unit}: median {found.distance[:, 0].median():.3g}, smallest "
        f"{first['distance']:.3g} ({least['name']}: {first['caption'] or first['name']}); real pictures are "
        f"{others.median():.3g} from their nearest neighbour (median)"
    )
    return Neighbours(grid(pictures, columns=count + 1, rows=names, scale=scale), about, summary)


def _pixels(x: Any) -> Any:
    """(C, H, W) in [-1, 1] as (H, W, C) bytes."""
    return to_bytes(x).permute(1, 2, 0).contiguous().numpy()
