"""The machine that a training runs on, and the versions of its packages, for the record. No torch is imported."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import socket
from typing import Any


def machine() -> dict[str, Any]:
    """Returns versions, system, processor, cores, host and process, as far as known without torch."""
    versions = {}
    for package in ("unnoise", "torch", "numpy", "pillow", "safetensors"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "versions": versions,
    }


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as f:
        for line in f:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
