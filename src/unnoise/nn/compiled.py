"""The compiled operations of csrc/: each is built once per machine, cached, checked before use, and optional.

Each source is a library of its own, so that one that cannot be built leaves the others. A build runs in a folder of its
own and is published by one rename, under a lock that the system releases with its process: two processes may build at
once, and either may be killed. The published library is named by everything that it depends on (source, flags, torch,
processor), so that a new torch or another machine on the same disk builds its own. If the source does not compile here,
or computes wrong numbers, a note with the reason is stored and no further build is tried.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils import cpp_extension

SOURCES = Path(__file__).parent / "csrc"  # NAME.cpp each, with their headers

_known: dict[str, str] = {}  # by source, why it is absent, or "" if it is loaded
_lock = threading.Lock()


class Absent(Exception):
    """The compiled operation is not available here; the message has the reason."""


def available(name: str, check: Callable[[], None], register: Callable[[], None]) -> tuple[bool, str]:
    """Whether csrc/NAME.cpp is loaded, and the reason if it is not; the first call in a process loads or builds it.

    `register` runs once, after loading. See `load` for `check`.
    """
    with _lock:
        if name not in _known:
            try:
                load(name, check)
                register()
                _known[name] = ""
            except Absent as why:
                _known[name] = str(why)
    return not _known[name], _known[name]


def load(name: str, check: Callable[[], None]) -> None:
    """Loads torch.ops.unnoise.*, from the last build or by building it (10 s to a minute). Raises Absent.

    `check` runs once per build, with the operations loaded, and raises AssertionError if they are wrong.
    """
    if not _source(name).exists():
        raise Absent(f"{_source(name).name} is not part of this installation")
    try:
        home = folder(name)
        home.mkdir(parents=True, exist_ok=True)
        with _locked(home / "lock"):
            _load(name, home, check)
    except OSError as error:
        raise Absent(f"it could not be stored or loaded: {error}") from error


def _source(name: str) -> Path:
    return SOURCES / f"{name}.cpp"


def folder(name: str) -> Path:
    """The folder of the library for this source, torch and processor."""
    files = [_source(name), *sorted(SOURCES.glob("*.h"))]
    depends_on = (*(file.read_text() for file in files), *_flags(), torch.__version__, sys.platform, processor())
    key = hashlib.sha256("\n".join(depends_on).encode()).hexdigest()[:16]
    # TORCH_EXTENSIONS_DIR is torch's own setting for everything that its loader builds
    root = os.environ.get("TORCH_EXTENSIONS_DIR") or cpp_extension.get_default_build_root()
    return Path(root) / f"unnoise_{name}-{key}"


def _load(name: str, home: Path, check: Callable[[], None]) -> None:
    library, note = home / f"unnoise_{name}.so", home / "failed.txt"
    if library.exists():
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        return
    if note.exists():
        raise Absent(f"{note.read_text().strip()} (remove {note} to try again)")
    for unfinished in home.glob("build-*"):  # whoever built it held the lock and has ended
        shutil.rmtree(unfinished, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=home) as build, _tools():
        try:
            cpp_extension.load(
                f"unnoise_{name}",
                [str(_source(name))],
                extra_cflags=_flags(),
                build_directory=build,
                is_python_module=False,
                verbose=False,
            )
            check()
        except (RuntimeError, AssertionError, OSError) as error:
            reason = str(error).strip().splitlines() or [repr(error)]
            wrong = next((line for line in reason if "error:" in line), reason[0])
            note.write_text(f"it did not build or computed wrong numbers: {wrong[:300]}\n")
            raise Absent(note.read_text().strip()) from error
        built = next(Path(build).glob(f"unnoise_{name}*.so"))
        built.replace(library)  # a mapped file stays mapped


def _flags() -> list[str]:
    native = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    # threads are torch's own: at::parallel_for. Neither flag changes what a finite number becomes.
    return ["-O3", native, "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]


def processor() -> str:
    """The features of the processor that -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    kinds = ("model name", "cpu family", "model\t", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(kinds)}))


@contextmanager
def _tools() -> Iterator[None]:
    """Puts ninja on the PATH and checks for a compiler. Raises Absent."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), before))  # ninja of this environment
    try:
        compiler: str = cpp_extension.get_cxx_compiler()  # type: ignore[no-untyped-call]
        if shutil.which(compiler) is None:
            raise Absent(f"no C++ compiler ({compiler}) on this machine")
        if shutil.which("ninja") is None:
            raise Absent('no ninja on this machine: pip install "unnoise[compile]"')
        yield
    finally:
        os.environ["PATH"] = before


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock among the processes of this machine, where the system has file locks."""
    with open(path, "w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        except (ImportError, OSError):  # Windows, some network disks: two processes may build, and the last rename wins
            pass
        yield
