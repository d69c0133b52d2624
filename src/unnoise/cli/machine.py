"""Facts about this machine: processor, memory, GPUs, packages, and the speed of each number format."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

OPTIONAL = {  # package: (its use, the extra that installs it)
    "imageio-ffmpeg": ("MP4 animations", "video"),
    "torchmetrics": ("Inception features for the Frechet distance", "eval"),
    "pyarrow": ("pictures in parquet files", "data"),
    "tensorboard": ("training curves in a browser", "track"),
    "ninja": ("building the compiled operation", "compile"),
    "psutil": ("memory in the training log", ""),
}

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile", "asimd", "bf16")


@dataclass(frozen=True)
class Speed:
    """The speed of a 3x3 convolution, 128 to 128 channels, 32x32 pixels, batch 16: a typical one of a U-Net."""

    dtype: str
    layout: str
    tflops: float


def cpu_facts() -> dict[str, Any]:
    """The processor's name, and which of FLAGS it supports."""
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
    """Whether the compiled operations that this processor uses are available, and if not, why."""
    from unnoise.nn import norm, winograd

    used = {"fused normalisation": norm.compiled} | ({"Winograd": winograd.compiled} if winograd.suits() else {})
    results = {name: compiled() for name, compiled in used.items()}
    absent = {name: why for name, (present, why) in results.items() if not present}
    return {"present": not absent, "why": "; ".join(f"{name}: {why}" for name, why in absent.items())}


def version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def features() -> dict[str, Any]:
    """The networks for features and accuracy that are available without a download."""
    from unnoise.metrics.classifier import shipped
    from unnoise.metrics.inception import find_weights

    weights = find_weights()
    return {"classifiers": sorted(shipped()), "inception": str(weights) if weights else None}


def measurements() -> list[dict[str, str]]:
    """The precisions that `unnoise bench` has stored, each with a note where it is not used here."""
    from unnoise.acceleration import choices

    found = [{"model": path.name, "device": "", "precision": "", "note": ""} for path in choices.files()]
    for path, entry in zip(choices.files(), found):
        try:
            choice = choices.read(path)
            entry |= {"model": choice.model, "device": choice.device, "precision": choice.precision}
            ours = choice.machine == choices.machine(choice.device)
            entry["note"] = choice.date if ours else "not used: of another machine or another torch"
        except (ValueError, OSError, RuntimeError, AssertionError) as error:  # damaged; a GPU that is not here
            entry["note"] = f"not used: {error}"
    return found


def speeds() -> list[Speed]:
    """The measured speed of each number format and memory layout."""
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
    """The speed in the fastest of the calls within `seconds`."""
    import torch

    from unnoise.acceleration.measure import fastest

    batch, channels, size = 16, 128, 32
    conv: Any = torch.nn.Conv2d(channels, channels, 3, padding=1, device=device)
    conv = conv.to(dtype=dtype, memory_format=layout)
    x = torch.randn(batch, channels, size, size, device=device).to(dtype=dtype, memory_format=layout)
    with torch.inference_mode():
        conv(x)
        best = fastest(lambda: conv(x), device, seconds=seconds)
    work = 2 * batch * channels * channels * 9 * size * size
    name = "channels_last" if layout == torch.channels_last else "contiguous"
    return Speed(str(dtype).removeprefix("torch."), name, round(work / best / 1e12, 3))
