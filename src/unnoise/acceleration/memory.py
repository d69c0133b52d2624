"""Memory of a device: how much is available, and the peak of what this process has used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def available_memory(device: str) -> int | None:
    """Bytes that this process can allocate on a device: of Linux, of the container's limit, or of the GPU.

    None where it is not known.
    """
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    return min(_free_memory(), default=None) if device == "cpu" else None


def _free_memory() -> Iterator[int]:
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        yield 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    with suppress(OSError, ValueError):  # the limit of a container, "max" where there is none
        group = Path("/sys/fs/cgroup")
        used = next(line for line in (group / "memory.stat").read_text().splitlines() if line.startswith("anon "))
        yield int((group / "memory.max").read_text()) - int(used.split()[1])


def reset_peak(device: str) -> bool:
    """Begins a new peak at what is used now. False, without effect, where the peak is not known."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        return True
    with suppress(OSError):
        _RESET.write_text("5")  # resets VmHWM: proc_pid_clear_refs(5)
        return device == "cpu"
    return False


def peak(device: str) -> int | None:
    """The most bytes since `reset_peak`: of the process on a CPU, of tensors on a GPU. None if it is not known."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    return _status("VmHWM") if device == "cpu" else None


def used(device: str) -> int | None:
    """The bytes that are used now, as `peak` counts them."""
    if device.startswith("cuda"):
        return int(torch.cuda.memory_allocated(device))
    return _status("VmRSS") if device == "cpu" else None


def _status(name: str) -> int | None:
    with suppress(OSError, StopIteration):
        lines = _STATUS.read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(name + ":")).split()[1])
    return None
