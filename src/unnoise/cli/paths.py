"""Paths of options, checked before the work: what must exist, and what must be writable."""

from __future__ import annotations

from pathlib import Path

from unnoise.cli.console import UsageError, asking
from unnoise.io.whatis import is_checkpoint, is_model, not_a


def existing(path: Path, what: str) -> Path:
    """`path`, if it exists. Raises UsageError, which names the closest match in its folder, if it does not."""
    if path.exists():
        return path
    import difflib

    folder = path.parent
    if not folder.is_dir():
        raise UsageError(f"no {what} at {path}: there is no folder {folder}. Check the path and the current folder")
    names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    near = difflib.get_close_matches(path.name, names, n=1)
    if near:
        raise UsageError(f"no {what} at {path}; did you mean {folder / near[0]}?")
    entries = ", ".join(sorted(names)[:8]) or "nothing"
    raise UsageError(f"no {what} at {path}; the folder {folder} has: {entries}{' ...' if len(names) > 8 else ''}")


def existing_model(path: Path, *, allow_pickle: bool = False) -> Path:
    """`path`, if it has the files of a model or is a checkpoint file with one.

    Raises UsageError, which says what the path is instead, and for a pickle unless `allow_pickle`.
    """
    if is_checkpoint(existing(path, "model")):
        from unnoise.formats.single_file.contents import check_checkpoint

        with asking():
            check_checkpoint(path, allow_pickle=allow_pickle)
    elif not is_model(path):
        raise UsageError(str(not_a("a model", path)))
    if (path / "checkpoints").is_dir() and not any((path / "checkpoints").glob("step-*")):
        raise UsageError(f"{path} has no checkpoint yet: train until one is saved")
    return path


def existing_described(path: Path) -> Path:
    """`path`, if it may be described: a file, or a folder with the settings of a run or of a model."""
    known = ("config.yaml", "model.json", "autoencoder.json", "model_index.json", "config.json")
    if existing(path, "file, run or model").is_dir() and not any((path / name).is_file() for name in known):
        raise UsageError(str(not_a("a run or a model", path)))
    return path


def writable(path: Path, what: str, *, folder: bool = False) -> Path:
    """`path`, if a file, or a `folder` of files, can be written there. Raises UsageError before any work is done."""
    import tempfile

    try:
        if path.exists() and path.is_dir() != folder:
            kind, fix = ("a file", "a folder") if folder else ("a folder", "a file in it, or another file")
            raise UsageError(f"cannot write {what} to {path}: it is {kind}. Give {fix}")
        ancestor = path
        while not ancestor.exists() and ancestor != ancestor.parent:
            ancestor = ancestor.parent
        if ancestor is not path and not ancestor.is_dir():
            raise UsageError(f"cannot write {what} to {path}: {ancestor} is a file, not a folder")
        with tempfile.TemporaryDirectory(dir=ancestor if ancestor.is_dir() else ancestor.parent, prefix=".unnoise-"):
            return path
    except OSError as error:
        raise UsageError(f"cannot write {what} to {path}: {error.strerror or error}. Give another path") from None


def new_file(path: Path, what: str, overwrite: bool, *, suffix: str = "") -> Path:
    """`path`, if a file with this suffix can be written there.

    Raises UsageError for another suffix, and where a file exists, unless `overwrite`.
    """
    if suffix and path.suffix.lower() != suffix and not path.is_dir():
        kind = "PNG" if suffix == ".png" else suffix.removeprefix(".")
        raise UsageError(f"{path.name}: {what} is written as {kind}: give a name that ends in {suffix}")
    writable(path, what)
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists already: give another name, or add --overwrite")
    return path
