"""Checkpoints that are whole or not there: a directory published by one rename, every byte in its manifest.

    write into .tmp-...   fsync its files   fsync it   rename to step-00001200   fsync the parent   prune older ones

Three laws (tests/io/test_checkpoint.py): a kill at any instant leaves the newest published checkpoint whole; a full
disk leaves the older ones untouched; a byte that is not what was written is found before it is used, and its file is
named. Only safetensors and JSON: nothing that is read here can run.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unnoise.errors import UserError
from unnoise.io.hashing import sha256

MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d+)")
_DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of this user is used up",
    errno.EFBIG: "a file may not become this large here",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "writing is not allowed there",
    errno.EPERM: "writing is not allowed there",
    errno.ENOENT: "the directory has vanished",
    errno.EIO: "the disk does not answer",
}


class CannotSave(UserError):
    """A checkpoint could not be written; what was there is untouched."""


class Damaged(UserError):
    """A checkpoint is not what was written."""

    def __init__(self, directory: Path, file: str, why: str) -> None:
        self.directory, self.file = directory, file
        super().__init__(f"{directory / file}: {why}")


def name(step: int) -> str:
    """step-00001200"""
    return f"step-{step:08d}"


def publish(directory: Path, write: Callable[[Path], None], *, needed: int = 0) -> None:
    """Make `directory`, whole or not at all; `write` puts files into the one it is given.

    One that is there and whole is left: the same step has the same bits. `needed` is a lower bound of the bytes,
    checked before anything is written. Raises CannotSave with path, reason, bytes needed and free.
    """
    temporary = directory.parent / f".tmp-{directory.name}.{_whose(os.getpid())}"
    try:
        if directory.exists():
            if not problems(directory):
                return
            _discard(directory)
        directory.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(directory.parent).free < needed:
            raise OSError(errno.ENOSPC, "checked before")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        write(temporary)
        _seal(temporary)
        os.rename(temporary, directory)
        _sync(directory.parent)
    except (OSError, SafetensorError) as e:
        written = sum(f.stat().st_size for f in temporary.rglob("*") if f.is_file()) if temporary.exists() else 0
        shutil.rmtree(temporary, ignore_errors=True)
        raise CannotSave(_why(directory, e, max(needed, written))) from e
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _why(directory: Path, error: Exception, needed: int) -> str:
    code = error.errno if isinstance(error, OSError) else None
    if code is None and "os error" in str(error):  # what safetensors says of a failed write
        code = int(re.search(r"os error (\d+)", str(error))[1])  # type: ignore[index]
    reason = _DISK.get(code or 0, str(error))
    standing = next(p for p in (directory.parent, *directory.parent.parents) if p.exists())
    free = shutil.disk_usage(standing).free
    kept = newest(directory.parent)
    kept_text = f"; {kept} is untouched" if kept else ""
    return f"cannot save {directory}: {reason}; at least {needed:,} bytes needed, {free:,} free{kept_text}"


def _seal(directory: Path) -> None:
    """Write the manifest and bring everything to the disk."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    entries = {str(path.relative_to(directory)): _entry(path) for path in files}
    manifest = directory / MANIFEST
    manifest.write_text(json.dumps({"files": entries, "sha256": _digest_of(entries)}, indent=1))
    mode = manifest.stat().st_mode & 0o777  # as the umask wishes; safetensors makes its files private
    for path in (*files, manifest):
        path.chmod(mode)
        _sync(path)
    for folder in {directory, *(path.parent for path in files)}:
        _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def _digest_of(entries: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


# --- what is there ---


def verify(directory: Path) -> None:
    """Read every byte. Raises Damaged with the file that is missing, or not what was written."""
    manifest = directory / MANIFEST
    if not manifest.is_file():
        raise Damaged(directory, MANIFEST, "missing: this checkpoint was never finished")
    try:
        held = json.loads(manifest.read_text())
        entries = held["files"]
        whole = held["sha256"] == _digest_of(entries)
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise Damaged(directory, MANIFEST, "not what was written")
    for file, entry in entries.items():
        path = directory / file
        if not path.is_file():
            raise Damaged(directory, file, "missing")
        if path.stat().st_size != entry["bytes"]:
            raise Damaged(directory, file, f"has {path.stat().st_size:,} bytes, not the {entry['bytes']:,} written")
        if _entry(path) != entry:
            raise Damaged(directory, file, "not what was written: its SHA-256 differs from the manifest's")


def problems(directory: Path) -> str:
    """What is wrong with a checkpoint, in words; nothing where it is whole."""
    try:
        verify(directory)
    except Damaged as e:
        return str(e)
    return ""


def steps(folder: Path) -> dict[int, Path]:
    """The published checkpoints, the newest first. Whatever else lies there is left alone."""
    if not folder.is_dir():
        return {}
    named = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    found = {int(match[1]): path for match, path in named if match and (path / MANIFEST).is_file()}
    return dict(sorted(found.items(), reverse=True))


def newest(folder: Path) -> Path | None:
    """The newest published checkpoint."""
    return next(iter(steps(folder).values()), None)


def sound(folder: Path) -> Path | None:
    """The newest checkpoint, verified; None where there is none.

    Where it is damaged, raises UserError that names the file, and the newest one that is whole: to go on from an older
    one is a loss that a person decides.
    """
    found = list(steps(folder).values())
    if not found:
        return None
    wrong = problems(found[0])
    if not wrong:
        return found[0]
    whole = next((path for path in found[1:] if not problems(path)), None)
    fix = f"remove {found[0]} to go on from {whole}, which is whole" if whole else "no older checkpoint is whole"
    raise UserError(f"the newest checkpoint is damaged: {wrong}; {fix}")


def stray(folder: Path) -> list[str]:
    """The names of what lies among the checkpoints and is none: unfinished ones, files of others."""
    if not folder.is_dir():
        return []
    known = {path.name for path in steps(folder).values()}
    return sorted(path.name for path in folder.iterdir() if path.name not in known)


# --- putting away ---


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep`. A name is gone before its files are."""
    for path in list(steps(folder).values())[keep:]:
        _discard(path)


def _discard(path: Path) -> None:
    gone = path.parent / f".del-{path.name}.{_whose(os.getpid())}"
    shutil.rmtree(gone, ignore_errors=True)
    os.rename(path, gone)
    shutil.rmtree(gone, ignore_errors=True)


def clean(folder: Path, *, alone: bool = False) -> list[str]:
    """Remove what writers that are dead left half written or half removed; returns the names.

    A writer is known to be dead by its process on this machine; `alone` says that nobody else can be writing here.
    """
    if not folder.is_dir():
        return []
    left = [path for path in folder.iterdir() if path.name.startswith((".tmp-", ".del-"))]
    removed = [path for path in left if alone or _dead(path.name)]
    for path in removed:
        shutil.rmtree(path, ignore_errors=True)
    return sorted(path.name for path in removed)


def _whose(pid: int) -> str:
    return f"{socket.gethostname()}.{pid}"


def _dead(name: str) -> bool:
    _, _, pid = name.rpartition(".")
    if not pid.isdigit() or not name.endswith(_whose(int(pid))):
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


# --- tensors ---


def save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """A safetensors file."""
    save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, path)


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU, under today's names."""
    try:
        return renamed(load_file(path))
    except (SafetensorError, OSError) as e:
        raise Damaged(path.parent, path.name, f"cannot be read: {e}") from None


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights, averages or moments of an earlier version under today's names: `tell` is `emb_proj` since format 2."""
    return {re.sub(r"(?<!\w)tell\.", "emb_proj.", name): tensor for name, tensor in state.items()}


def size(tensors: Mapping[str, Tensor]) -> int:
    """Bytes."""
    return sum(value.numel() * value.element_size() for value in tensors.values())
