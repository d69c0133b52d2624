"""`unnoise doctor`: what this machine has, what is fast on it, what is missing, and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from unnoise.cli.console import emit, say, show, table
from unnoise.cli.options import flag, option
from unnoise.io.units import human

OPTIONAL = {  # package: (what it is for, the extra that brings it)
    "imageio-ffmpeg": ("MP4 animations", "video"),
    "torchmetrics": ("Inception features for the Frechet distance", "eval"),
    "pyarrow": ("pictures in parquet files", "data"),
    "tensorboard": ("curves of a training in a browser", "track"),
    "ninja": ("building the compiled operation", "compile"),
    "psutil": ("memory in a training's log", ""),
}

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile", "asimd", "bf16")


@dataclass(frozen=True)
class Speed:
    """A 3x3 convolution, 128 to 128 channels, 32x32 pixels, batch 16: what most of a U-Net's time goes into."""

    dtype: str
    layout: str
    tflops: float


def doctor(
    *,
    probe: Annotated[bool, option("measure how fast each number format is (about two seconds)")] = True,
    json: Annotated[bool, flag("one JSON document on stdout")] = False,
) -> None:
    """Say what this machine has, what is fast on it, and what is missing."""
    say("looking at this machine ...")
    found = examine(probe=probe)
    if json:
        emit(found)
    else:
        show(describe(found))


def examine(*, probe: bool) -> dict[str, Any]:
    """Everything `doctor` knows, as a JSON document."""
    import torch

    cpu = cpu_facts()
    found: dict[str, Any] = {
        "unnoise": metadata.version("unnoise"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "torch": torch.__version__,
        "cpu": {
            **cpu,
            "torch_sees": torch.backends.cpu.get_cpu_capability(),
            "cores": os.cpu_count(),
            "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads": torch.get_num_threads(),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        },
        "memory_gb": memory_gb(),
        "disk_free_gb": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
        "gpus": gpus(),
        "compiled": compiled_operation(),
        "packages": {
            name: {"version": version_of(name), "for": what, "extra": extra} for name, (what, extra) in OPTIONAL.items()
        },
        "features": features(),
        "speed": [vars(speed) for speed in (speeds() if probe else [])],
    }
    found["advice"] = advice(found)
    return found


def cpu_facts() -> dict[str, Any]:
    """The processor's name and those of its abilities that matter here."""
    name = platform.processor() or platform.machine()
    flags: tuple[str, ...] = ()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {"name": name, "has": []}
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = tuple(value.split())
            break
    return {"name": name, "has": [flag for flag in FLAGS if flag in flags]}


def memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (ValueError, OSError, AttributeError):
        return None


def gpus() -> list[dict[str, Any]]:
    import torch

    if not torch.cuda.is_available():
        return [{"name": "Apple GPU (mps)"}] if torch.backends.mps.is_available() else []
    found = []
    for i in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(i)
        found.append(
            {
                "name": about.name,
                "memory_gb": round(about.total_memory / 1e9, 1),
                "capability": f"{about.major}.{about.minor}",
                "bfloat16": torch.cuda.is_bf16_supported(),
            }
        )
    return found


def compiled_operation() -> dict[str, Any]:
    """Whether the fused normalisation is there, and if not, why."""
    try:
        from unnoise.nn.norm import compiled
    except ImportError:
        return {"present": False, "why": "this build of unnoise has none"}
    present, why = compiled()
    return {"present": present, "why": why}


def version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def features() -> dict[str, Any]:
    """Which networks can judge pictures here without a download."""
    from unnoise.metrics.classifier import shipped
    from unnoise.metrics.inception import find_weights

    weights = find_weights()
    return {"classifiers": sorted(shipped()), "inception": str(weights) if weights else None}


def speeds() -> list[Speed]:
    """Each number format and layout, measured."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return [
        measure(dtype, layout, device)
        for dtype, layout in (
            (torch.float32, torch.contiguous_format),
            (torch.float32, torch.channels_last),
            (torch.bfloat16, torch.channels_last),
        )
    ]


def measure(dtype: Any, layout: Any, device: str, *, seconds: float = 0.4) -> Speed:
    """The best of repeated runs within `seconds`: other programs only ever make a run slower."""
    import torch

    batch, channels, size = 16, 128, 32
    conv: Any = torch.nn.Conv2d(channels, channels, 3, padding=1, device=device)
    conv = conv.to(dtype=dtype, memory_format=layout)
    x = torch.randn(batch, channels, size, size, device=device).to(dtype=dtype, memory_format=layout)
    best, end = float("inf"), 0.0
    with torch.inference_mode():
        conv(x)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            conv(x)
            if device == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
    work = 2 * batch * channels * channels * 9 * size * size
    name = {torch.channels_last: "channels_last"}.get(layout, "contiguous")
    return Speed(str(dtype).removeprefix("torch."), name, round(work / best / 1e12, 3))


def advice(found: dict[str, Any]) -> list[str]:
    """What a person can do to have it better."""
    said = []
    cpu, speed = found["cpu"], {(s["dtype"], s["layout"]): s["tflops"] for s in found["speed"]}
    if not found["gpus"] and cpu["threads"] < (cpu["usable_cores"] or 1):
        said.append(
            f"torch uses {cpu['threads']} of {cpu['usable_cores']} cores; "
            + ("unset OMP_NUM_THREADS" if cpu["OMP_NUM_THREADS"] else "set OMP_NUM_THREADS to use more")
        )
    if speed:
        plain, half = speed[("float32", "channels_last")], speed[("bfloat16", "channels_last")]
        if half > 1.2 * plain:
            said.append(f"bfloat16 is {half / plain:.1f} times as fast as float32 here; --precision auto uses it")
        else:
            said.append("bfloat16 is not faster than float32 here; --precision auto stays with float32")
    if not found["compiled"]["present"]:
        said.append(f"the compiled operation is absent ({found['compiled']['why']}): everything works, somewhat slower")
    if found["disk_free_gb"] < 2:
        said.append(f"only {found['disk_free_gb']} GB free on this disk: a training may not fit")
    return said


def describe(found: dict[str, Any]) -> str:
    """What `examine` found, to read."""
    cpu = found["cpu"]
    facts = [
        ("unnoise", found["unnoise"]),
        ("python", f"{found['python']} ({sys.executable})"),
        ("torch", found["torch"]),
        ("system", found["system"]),
        ("processor", cpu["name"]),
        ("", f"{cpu['usable_cores']} usable cores, torch uses {cpu['threads']} threads, {cpu['torch_sees']}"),
        ("", f"has {', '.join(cpu['has']) or 'none of the abilities that matter here'}"),
        ("memory", f"{found['memory_gb']} GB"),
        ("disk here", f"{found['disk_free_gb']} GB free"),
    ]
    for gpu in found["gpus"] or [{"name": "none"}]:
        facts.append(("GPU", gpu["name"] + (f", {gpu['memory_gb']} GB" if "memory_gb" in gpu else "")))
    built = found["compiled"]
    facts.append(("compiled op", "present" if built["present"] else f"absent: {built['why']}"))
    judges = found["features"]
    facts.append(("classifiers", ", ".join(judges["classifiers"]) or "none"))
    facts.append(
        ("Inception", judges["inception"] or "no weights on this disk; `evaluate --features PATH` takes a file")
    )
    parts = [table(facts, ragged=True)]
    if found["speed"]:
        rows = [(s["dtype"], s["layout"], f"{human(s['tflops'] * 1e12)}FLOP/s") for s in found["speed"]]
        parts.append("convolution 3x3, measured now\n" + table(rows, indent="  "))
    rows = [
        (name, about["version"] or "missing", about["for"] + hint(about)) for name, about in found["packages"].items()
    ]
    parts.append("optional packages\n" + table(rows, indent="  "))
    if found["advice"]:
        parts.append("\n".join(f"* {line}" for line in found["advice"]))
    return "\n\n".join(parts)


def hint(about: dict[str, Any]) -> str:
    if about["version"] or not about["extra"]:
        return ""
    return f"   pip install 'unnoise[{about['extra']}]'"
