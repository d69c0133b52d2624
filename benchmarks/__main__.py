"""Run the benchmarks and write benchmarks/results/latest.md and .json.

python -m benchmarks                # on a quiet machine: under 10 minutes on two cores, with AVX2 alone too
python -m benchmarks --quick        # fewer rounds and sizes: 3 minutes
python -m benchmarks --only draw    # a part: draw, train, curves, memory, stable-diffusion
python -m benchmarks --only bits    # or solvers, guidance, coder: each for a page of docs/, and run alone
OMP_NUM_THREADS=1 python -m benchmarks --clock cpu     # where other programs run too: ratios of processor time
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import bits, coder, draw, guidance, memory, solvers, stable_diffusion, train_step
from benchmarks.timing import CLOCKS
from unnoise.nn import norm

RESULTS = Path(__file__).parent / "results"
PARTS = {  # of every run: (what measures it, seconds that it may take; it measures fewer rounds on a slow machine)
    "draw": (draw.run, 160.0),
    "train": (train_step.run, 100.0),
    "curves": (train_step.curves, 50.0),
    "memory": (memory.run, 120.0),
    "stable-diffusion": (stable_diffusion.run, 150.0),
}
PAGES = {"bits": bits.run, "solvers": solvers.run, "guidance": guidance.run, "coder": coder.run}  # of a page in docs/


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
        flags = next(line for line in lines if line.startswith("flags")).split()
    except (OSError, StopIteration):
        return platform.processor()
    fast = [flag for flag in ("avx512_bf16", "amx_bf16", "amx_int8") if flag in flags]
    return f"{name} ({', '.join(fast) or 'no bfloat16 instructions'})"


def about(clock: str) -> dict[str, Any]:
    """The machine and the versions."""
    names = ("unnoise", "torch", "diffusers", "openvino", "denoising-diffusion-pytorch")
    there, why = norm.compiled()
    return {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "clock": clock,
        "load before": round(os.getloadavg()[0], 1),
        "compiled norm": "yes" if there else why,
        "date": time.strftime("%Y-%m-%d"),
        **{name: version(name) for name in names},
    }


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def table(rows: list[dict[str, Any]]) -> list[str]:
    head = ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
    return head + ["| " + " | ".join(map(shown, row.values())) + " |" for row in rows]


def shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {shown(each)}" for name, each in value.items())
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    return str(value)


def line(facts: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items()) + "\n"


def markdown(part: dict[str, Any]) -> str:
    lines = [f"## {part['title']}", "", *table(part["rows"]), ""]
    lines += [f"- {name}: {shown(value)}" for name, value in part.get("notes", {}).items()]
    for name, shares in part.get("profile", {}).items():
        rest = 1 - shares["convolution"]
        said = ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items())
        lines.append(
            f"- where the time of {name} goes: {said}; without all but convolutions {1 / (1 - rest):.2f} times"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=(*PARTS, *PAGES), action="append")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    parser.add_argument("--out", type=Path, default=RESULTS / "latest")
    asked = parser.parse_args()
    facts, parts, begin = about(asked.clock), {}, time.perf_counter()
    print(line(facts), flush=True)
    for name in asked.only or PARTS:
        if name in PAGES:
            parts[name] = PAGES[name](quick=asked.quick, clock=asked.clock)
        else:
            run, seconds = PARTS[name]
            parts[name] = run(quick=asked.quick, clock=asked.clock, seconds=seconds)
        print(markdown(parts[name]), flush=True)
    facts["minutes"] = round((time.perf_counter() - begin) / 60, 1)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.with_suffix(".json").write_text(json.dumps({"about": facts, **parts}, indent=1) + "\n")
    text = [line(facts), *map(markdown, parts.values())]
    asked.out.with_suffix(".md").write_text("\n".join(text))
    print(f"written: {asked.out.with_suffix('.md')}")


if __name__ == "__main__":
    main()
