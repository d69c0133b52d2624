"""`unnoise doctor`: reports the machine, the speed of its number formats, missing packages, and what to change."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from unnoise.cli import machine
from unnoise.cli.console import emit, say, show, table
from unnoise.cli.machine import OPTIONAL
from unnoise.cli.options import flag, option
from unnoise.io.units import human


def doctor(
    *,
    probe: Annotated[bool, option("measure the speed of each number format (about two seconds)")] = True,
    json: Annotated[bool, flag("print one JSON document")] = False,
) -> None:
    """Report the machine, the speed of its number formats, missing packages, and what to change."""
    say("examining this machine ...")
    found = examine(probe=probe)
    if json:
        emit(found)
    else:
        show(describe(found))


def examine(*, probe: bool) -> dict[str, Any]:
    """The whole report as a JSON document."""
    import torch

    cpu = machine.cpu_facts()
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
        "memory_gb": machine.memory_gb(),
        "disk_free_gb": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
        "gpus": machine.gpus(),
        "compiled": machine.compiled_operation(),
        "packages": {
            name: {"version": machine.version_of(name), "for": what, "extra": extra}
            for name, (what, extra) in OPTIONAL.items()
        },
        "features": machine.features(),
        "bench": machine.measurements(),
        "speed": [vars(speed) for speed in (machine.speeds() if probe else [])],
    }
    found["advice"] = advice(found)
    return found


def advice(found: dict[str, Any]) -> list[str]:
    """Suggestions, one sentence each."""
    lines = []
    cpu, speed = found["cpu"], {(s["dtype"], s["layout"]): s["tflops"] for s in found["speed"]}
    if not found["gpus"] and cpu["threads"] < (cpu["usable_cores"] or 1):
        lines.append(
            f"torch uses {cpu['threads']} of {cpu['usable_cores']} cores; "
            + ("unset OMP_NUM_THREADS" if cpu["OMP_NUM_THREADS"] else "set OMP_NUM_THREADS to use more")
        )
    if speed:
        plain, half = speed[("float32", "channels_last")], speed[("bfloat16", "channels_last")]
        if half > 1.2 * plain:
            lines.append(f"bfloat16 is {half / plain:.1f} times as fast as float32 here; --precision auto uses it")
        else:
            lines.append("bfloat16 is not faster than float32 here; --precision auto stays with float32")
    if not found["compiled"]["present"]:
        lines.append(
            f"the compiled operation is not available ({found['compiled']['why']}): everything works, but more slowly"
        )
    if found["disk_free_gb"] < 2:
        lines.append(f"only {found['disk_free_gb']} GB are free on this disk: a training run may not fit")
    return lines


def describe(found: dict[str, Any]) -> str:
    """The report of `examine` as text."""
    cpu = found["cpu"]
    facts = [
        ("unnoise", found["unnoise"]),
        ("python", f"{found['python']} ({sys.executable})"),
        ("torch", found["torch"]),
        ("system", found["system"]),
        ("processor", cpu["name"]),
        ("", f"{cpu['usable_cores']} usable cores, torch uses {cpu['threads']} threads, {cpu['torch_sees']}"),
        ("", f"supports {', '.join(cpu['has']) or 'none of the relevant instruction sets'}"),
        ("memory", f"{found['memory_gb']} GB"),
        ("disk here", f"{found['disk_free_gb']} GB free"),
    ]
    for gpu in found["gpus"] or [{"name": "none"}]:
        facts.append(("GPU", gpu["name"] + (f", {gpu['memory_gb']} GB" if "memory_gb" in gpu else "")))
    built = found["compiled"]
    facts.append(("compiled op", "available" if built["present"] else f"not available: {built['why']}"))
    features = found["features"]
    facts.append(("classifiers", ", ".join(features["classifiers"]) or "none"))
    facts.append(
        ("Inception", features["inception"] or "no weights found; give a file with `evaluate --features PATH`")
    )
    parts = [table(facts, ragged=True)]
    if found["speed"]:
        rows = [(s["dtype"], s["layout"], f"{human(s['tflops'] * 1e12)}FLOP/s") for s in found["speed"]]
        parts.append("3x3 convolution, measured now\n" + table(rows, indent="  "))
    if found["bench"]:
        stored = [tuple(entry.values()) for entry in found["bench"]]
        parts.append("measured by `unnoise bench`\n" + table(stored, indent="  ", ragged=True))
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
