"""Finds the source that a path names: a set that comes with the package, or a folder or file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from unnoise.data.archive import SUFFIXES as ARCHIVES
from unnoise.data.archive import archive
from unnoise.data.arrays import arrays
from unnoise.data.decode import SUFFIXES as PICTURES
from unnoise.data.emoji import emoji
from unnoise.data.fashion import fashion
from unnoise.data.folder import folder
from unnoise.data.idx import idx, is_idx
from unnoise.data.shapes.source import source as shapes
from unnoise.data.source import Source
from unnoise.data.table import table
from unnoise.data.toy import toy
from unnoise.errors import UserError, unknown

SETS: dict[str, Callable[[str, int], Source]] = {  # (split, size); sets that are rendered have that size
    "fashion": lambda split, size: fashion(split),
    "toy": lambda split, size: toy(split),
    "emoji": lambda split, size: emoji(split),
    "shapes": partial(shapes, "shapes"),
    "shapes-one": partial(shapes, "shapes-one"),
    "shapes-two": partial(shapes, "shapes-two"),
}
PICKLES = frozenset((".pkl", ".pickle", ".pt", ".pth", ".th", ".ckpt", ".bin", ".joblib"))
KINDS = "a folder of pictures, .npz, .npy, IDX (.gz, .xz), .parquet, .zip or .tar"


def find(path: str, size: int = 32) -> Source:
    """The source that `path` names; a split may follow, as in `fashion:test`. Rendered sets are rendered at `size`.

    Raises UserError if there is none.
    """
    name, _, split = path.partition(":")
    if name in SETS:
        if split not in ("", "train", "test"):
            raise unknown(f"split of {name}", split, ("train", "test"))
        return SETS[name](split or "train", size)
    where, split = Path(path), ""
    if not where.exists() and ":" in path:
        head, _, split = path.rpartition(":")
        where = Path(head)
    if not where.exists():
        raise UserError(
            f"there is no {where}, and no set of that name comes with unnoise ({', '.join(SETS)}); "
            "check the path given as data"
        )
    return _at(where, split)


def find_controls(control: str) -> Source | None:
    """The source of control images if `DataConfig.control` is a path on the disk, otherwise None."""
    return _at(Path(control), "") if control and Path(control).exists() else None


def _at(path: Path, split: str) -> Source:
    lower = path.name.lower()
    suffix = Path(lower).suffix
    if suffix == ".parquet" or (path.is_dir() and any(path.rglob("*.parquet"))):
        return table(path, split)
    if suffix == ".npz":
        return replace(arrays(path, split), file=lambda i: path)
    if split:
        raise UserError(f"{path} has no splits to select {split!r} from; give the path of that part alone")
    if path.is_dir():
        return folder(path)
    if suffix == ".npy":
        return replace(arrays(path), file=lambda i: path)
    if lower.endswith(ARCHIVES):
        return archive(path)
    if is_idx(path):
        return replace(idx(path), file=lambda i: path)
    if suffix in PICTURES:
        raise UserError(f"{path} is one picture; give the folder that contains it")
    if suffix in PICKLES:
        raise UserError(f"{path} looks like a pickle, which could run code and is never read; give {KINDS}")
    raise UserError(f"{path} is in no format that can be read; give {KINDS}")
