"""Finds the source that a path names: a set that comes with the package, or a folder or file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from unnoise.config.class_names import unreserved
from unnoise.data.archive import SUFFIXES as ARCHIVES
from unnoise.data.archive import archive
from unnoise.data.arrays import arrays
from unnoise.data.decode import SUFFIXES as PICTURES
from unnoise.data.emoji import emoji
from unnoise.data.fashion import fashion
from unnoise.data.folder import files_in, folder
from unnoise.data.idx import idx, is_idx
from unnoise.data.metadata import FILES as METADATA
from unnoise.data.plain_text import escaped
from unnoise.data.shapes.source import source as shapes
from unnoise.data.source import Source
from unnoise.data.table import has_pictures, shards_in, table
from unnoise.data.toy import toy
from unnoise.errors import UserError, unknown
from unnoise.io.reading import check_regular

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
    return _with_names(_at(where, split))


def _with_names(source: Source) -> Source:
    """The source with class names that a label can name, and a note about those that were changed."""
    names = tuple(map(escaped, source.classes))
    classes = unreserved(names)
    renamed = [f"{old!r} is called {new!r}" for old, new in zip(names, classes) if old != new]
    notes = [f"class {one}, because the labels '', 'none' and 'all' have another meaning" for one in renamed]
    return replace(source, classes=classes, notes=(*source.notes, *notes))


def find_controls(control: str) -> Source | None:
    """The source of control images if `DataConfig.control` is a path on the disk, otherwise None."""
    return _at(Path(control), "") if control and Path(control).exists() else None


def _at(path: Path, split: str) -> Source:
    lower = path.name.lower()
    suffix = Path(lower).suffix
    if path.is_dir():
        return _in_folder(path, split)
    check_regular(path)
    if suffix == ".parquet":
        return table(path, [path], split)
    if suffix == ".npz":
        return replace(arrays(path, split), file=lambda i: path)
    if split:
        raise _no_splits(path, split)
    if suffix == ".npy":
        return replace(arrays(path), file=lambda i: path)
    if lower.endswith(ARCHIVES):
        return archive(path)
    if is_idx(path):
        return replace(idx(path), file=lambda i: path)
    if path.name in METADATA:
        raise UserError(f"{path} describes pictures in other files: give the folder that contains them")
    if suffix in PICTURES:
        raise UserError(f"{path} is one picture; give the folder that contains it")
    if suffix in PICKLES:
        raise UserError(f"{path} looks like a pickle, which could run code and is never read; give {KINDS}")
    raise UserError(f"{path} is in no format that can be read; give {KINDS}")


def _in_folder(path: Path, split: str) -> Source:
    """The pictures in the parquet tables of a folder, or in its files."""
    files = files_in(path)
    shards = shards_in(files)
    if shards and (not files.pictures() or has_pictures(shards[0])):
        return table(path, shards, split, files)
    if split:
        raise _no_splits(path, split)
    return folder(path, files)


def _no_splits(path: Path, split: str) -> UserError:
    return UserError(f"{path} has no splits to select {split!r} from; give the path of that part alone")
