"""Checkpoints: directories that are published by one rename, with a manifest of every byte.

    write into .tmp-...   fsync its files   fsync it   rename to step-00001200   fsync the parent   prune older ones

Three laws (tests/io/test_checkpoint.py): after a kill at any instant the newest published checkpoint is whole; a full
disk leaves the older ones unchanged; a changed byte is detected before it is used, and its file is named. The files are
safetensors and JSON, so that reading them cannot run code. torch is imported only where tensors are written or read.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from unnoise.errors import UserError
from unnoise.io.atomic import DISK_ERRORS
from unnoise.io.hashing import sha256
from unnoise.io.json_files import read_json
from unnoise.io.reading import is_inside
from unnoise.io.units import human
from unnoise.io.weights import Different, load_tensors, read_header

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "manifest.json"
STATE = "state.json"
_NAME = re.compile(r"step-(\d+)")


class CannotSave(UserError):
    """A checkpoint could not be written; the earlier ones are unchanged."""


class Damaged(UserError):
    """A checkpoint is incomplete, or differs from what was written."""

    def __init__(self, directory: Path, file: str, why: str) -> None:
        self.directory, self.file = directory, file
        super().__init__(f"{directory / file}: {why}")


def name(step: int) -> str:
    """The name of the checkpoint of a step: `step-00001200`."""
    return f"step-{step:08d}"


def publish(directory: Path, write: Callable[[Path], None], *, needed: int = 0) -> None:
    """Creates `directory` with all files that `write` puts into the temporary directory that it is called with.

    A whole checkpoint of that name is left as it is, because the same step has the same bits. `needed` is a lower bound
    of the bytes, checked before anything is written. Raises CannotSave with path, reason, bytes needed and free.
    """
    temporary = directory.parent / f".tmp-{directory.name}.{_writer(os.getpid())}"
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
    if code is None and "os error" in str(error):  # the form of safetensors' message for a failed write
        code = int(re.search(r"os error (\d+)", str(error))[1])  # type: ignore[index]
    reason = DISK_ERRORS.get(code or 0, str(error))
    existing = next(p for p in (directory.parent, *directory.parent.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    older = newest(directory.parent)
    untouched = f"; {older} is unchanged" if older else ""
    return f"cannot save {directory}: {reason}; at least {human(needed)}B needed, {human(free)}B free{untouched}"


def _seal(directory: Path) -> None:
    """Writes the manifest and flushes all files to the disk."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    entries = {str(path.relative_to(directory)): _entry(path) for path in files}
    manifest = directory / MANIFEST
    manifest.write_text(json.dumps({"files": entries, "sha256": _digest_of(entries)}, indent=1))
    mode = manifest.stat().st_mode & 0o777  # by the umask; safetensors makes its files private
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


# --- verification ---


def verify(directory: Path, *, largest: float = math.inf) -> None:
    """Reads every byte. Raises Damaged with the file that is missing or differs from the manifest.

    Of files of more than `largest` bytes only the size is compared.
    """
    manifest = directory / MANIFEST
    if not manifest.is_file():
        raise Damaged(directory, MANIFEST, "missing: this checkpoint is unfinished")
    try:
        manifest_data = read_json(manifest)
        entries = manifest_data["files"]
        whole = manifest_data["sha256"] == _digest_of(entries) and all(
            is_inside(f) and int(e["bytes"]) >= 0 for f, e in entries.items()
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise Damaged(directory, MANIFEST, "not what was written")
    for file, entry in entries.items():
        path = directory / file
        if not path.is_file():
            raise Damaged(directory, file, "missing")
        if path.stat().st_size != entry["bytes"]:
            raise Damaged(directory, file, f"has {path.stat().st_size:,} bytes, not the {entry['bytes']:,} written")
        if entry["bytes"] <= largest and _entry(path) != entry:
            raise Damaged(directory, file, "not what was written: its SHA-256 differs from the manifest's")


def problems(directory: Path, *, largest: float = math.inf) -> str:
    """The reason why a checkpoint is damaged, as text; empty if it is whole. `largest` is as in `verify`."""
    try:
        verify(directory, largest=largest)
    except Damaged as e:
        return str(e)
    return ""


def steps(folder: Path) -> dict[int, Path]:
    """The published checkpoints by step, the newest first. Other files in the folder are ignored."""
    if not folder.is_dir():
        return {}
    named = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    found = {int(match[1]): path for match, path in named if match and (path / MANIFEST).is_file()}
    return dict(sorted(found.items(), reverse=True))


def newest(folder: Path) -> Path | None:
    """The newest published checkpoint; None if there is none."""
    return next(iter(steps(folder).values()), None)


def sound(folder: Path, *, largest: float = math.inf) -> Path | None:
    """The newest checkpoint, verified; None if there is none. `largest` is as in `verify`.

    If it is damaged, raises UserError with the file and the newest whole checkpoint: to continue from an older one
    loses work, so the user has to decide.
    """
    found = list(steps(folder).values())
    if not found:
        return None
    wrong = problems(found[0], largest=largest)
    if not wrong:
        return found[0]
    whole = next((path for path in found[1:] if not problems(path, largest=largest)), None)
    fix = f"remove {found[0]} to continue from {whole}, which is whole" if whole else "no older checkpoint is whole"
    raise UserError(f"the newest checkpoint is damaged: {wrong}; {fix}")


def read_state(directory: Path) -> dict[str, Any]:
    """The state.json of a checkpoint: at least its step, its images and its seconds. Raises Damaged without them."""
    try:
        state = json.loads((directory / STATE).read_text(encoding="utf-8"))
        if all(isinstance(state[name], (int, float)) for name in ("step", "images", "seconds")):
            return dict(state)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise Damaged(directory, STATE, "missing, or not the state of a training")


def stray(folder: Path) -> list[str]:
    """The names of other files among the checkpoints: unfinished checkpoints, foreign files."""
    if not folder.is_dir():
        return []
    known = {path.name for path in steps(folder).values()}
    return sorted(path.name for path in folder.iterdir() if path.name not in known)


# --- removal ---


def prune(folder: Path, keep: int) -> None:
    """Removes all but the newest `keep` checkpoints. Each is renamed before its files are removed."""
    for path in list(steps(folder).values())[keep:]:
        _discard(path)


def _discard(path: Path) -> None:
    gone = path.parent / f".del-{path.name}.{_writer(os.getpid())}"
    shutil.rmtree(gone, ignore_errors=True)
    os.rename(path, gone)
    shutil.rmtree(gone, ignore_errors=True)


def clean(folder: Path, *, alone: bool = False) -> list[str]:
    """Removes what terminated processes left half written or half removed, and returns the names.

    Only processes of this machine can be checked; `alone` means that no other process can be writing here.
    """
    if not folder.is_dir():
        return []
    left = [path for path in folder.iterdir() if path.name.startswith((".tmp-", ".del-"))]
    removed = [path for path in left if alone or _dead(path.name)]
    for path in removed:
        shutil.rmtree(path, ignore_errors=True)
    return sorted(path.name for path in removed)


def _writer(pid: int) -> str:
    return f"{socket.gethostname()}.{pid}"


def _dead(name: str) -> bool:
    _, _, pid = name.rpartition(".")
    if not (pid.isascii() and pid.isdigit()) or not name.endswith(_writer(int(pid))):
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
    """Writes tensors to a safetensors file."""
    from safetensors.torch import save_file

    save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, path)


def read(path: Path, wanted: Mapping[str, Tensor] | None = None, *, partial: bool = False) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU, with today's names.

    With `wanted`, names, shapes and kinds of numbers are compared before a tensor is loaded; with `partial` the file
    may lack some. Raises Damaged with the file, and with the tensor that differs.
    """
    try:
        read_header(path)  # the library accepts shapes of any length, and waits for a pipe
        return load_tensors(path, wanted, partial=partial)
    except Different as e:
        raise Damaged(path.parent, path.name, str(e)) from None
    except (UserError, SafetensorError, OSError) as e:
        why = str(e).replace(str(path), "the file", 1)
        raise Damaged(path.parent, path.name, f"cannot be read: {why}") from None


def size(tensors: Mapping[str, Tensor]) -> int:
    """The size of all tensors together, in bytes."""
    return sum(value.numel() * value.element_size() for value in tensors.values())
