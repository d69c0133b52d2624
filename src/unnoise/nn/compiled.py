"""The compiled operation of csrc/: built once a machine, kept, checked before it is used, and quietly absent.

A build happens in a folder of its own and is published by one rename, under a lock that the system drops with its
holder: two processes may build at once, and either may be killed. What is published is named by everything it depends
on (source, flags, torch, processor), so that a new torch or another machine on the same disk builds its own. A source
that does not compile here, or computes wrong numbers, leaves a note with the reason and is not tried again.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils import cpp_extension

SOURCE = Path(__file__).parent / "csrc" / "group_norm.cpp"
NAME = "unnoise_group_norm"


class Absent(Exception):
    """The compiled operation cannot be had here; the message says why."""


def load(check: Callable[[], None]) -> None:
    """Make torch.ops.unnoise.* exist: from the last build, or by building (10 s to a minute).

    `check` runs once a build, with the operations loaded, and raises AssertionError if they are wrong. Raises Absent.
    """
    if not SOURCE.exists():
        raise Absent(f"{SOURCE.name} is not part of this installation")
    try:
        home = folder()
        home.mkdir(parents=True, exist_ok=True)
        with _locked(home / "lock"):
            _load(home, check)
    except OSError as error:
        raise Absent(f"it could not be kept or loaded: {error}") from error


def folder() -> Path:
    """Where the library for this source, torch and processor is, or will be."""
    known = (SOURCE.read_text(), *_flags(), torch.__version__, sys.platform, _processor())
    key = hashlib.sha256("\n".join(known).encode()).hexdigest()[:16]
    # TORCH_EXTENSIONS_DIR is torch's own setting for all that its loader builds
    root = os.environ.get("TORCH_EXTENSIONS_DIR") or cpp_extension.get_default_build_root()
    return Path(root) / f"{NAME}-{key}"


def _load(home: Path, check: Callable[[], None]) -> None:
    library, note = home / f"{NAME}.so", home / "failed.txt"
    if library.exists():
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        return
    if note.exists():
        raise Absent(f"{note.read_text().strip()} (remove {note} to try again)")
    for unfinished in home.glob("build-*"):  # its builder held the lock and is gone
        shutil.rmtree(unfinished, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=home) as build, _tools():
        try:
            cpp_extension.load(
                NAME, [str(SOURCE)], extra_cflags=_flags(), build_directory=build, is_python_module=False, verbose=False
            )
            check()
        except (RuntimeError, AssertionError, OSError) as error:
            reason = str(error).strip().splitlines() or [repr(error)]
            wrong = next((line for line in reason if "error:" in line), reason[0])
            note.write_text(f"it did not build or gave wrong numbers: {wrong[:300]}\n")
            raise Absent(note.read_text().strip()) from error
        built = next(Path(build).glob(f"{NAME}*.so"))
        built.replace(library)  # what is mapped stays mapped


def _flags() -> list[str]:
    native = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    # threads are torch's own: at::parallel_for. Neither flag changes what a finite number becomes.
    return ["-O3", native, "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]


def _processor() -> str:
    """What -march=native will look at."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    kinds = ("model name", "cpu family", "model\t", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(kinds)}))


@contextmanager
def _tools() -> Iterator[None]:
    """A compiler and ninja are in reach. Raises Absent."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), before))  # ninja of this environment
    try:
        compiler: str = cpp_extension.get_cxx_compiler()  # type: ignore[no-untyped-call]
        if shutil.which(compiler) is None:
            raise Absent(f"no C++ compiler ({compiler}) on this machine")
        if shutil.which("ninja") is None:
            raise Absent('no ninja; pip install "unnoise[compile]"')
        yield
    finally:
        os.environ["PATH"] = before


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone with this folder, among the processes of this machine, where the system can say so."""
    with open(path, "w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        except (ImportError, OSError):  # Windows, some network disks: two may build, and the last rename wins
            pass
        yield
