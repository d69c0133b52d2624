"""Run the benchmarks and write benchmarks/results/latest.md and .json.

    python -m benchmarks                # all of it, on a quiet machine
    python -m benchmarks --quick        # fewer rounds
    python -m benchmarks --only draw    # one of: draw, train, memory, curves
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import draw, memory, train_step

RESULTS = Path(__file__).parent / "results"
PARTS = {"draw": draw.run, "train": train_step.run, "memory": memory.run}


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
        flags = next(line for line in lines if line.startswith("flags")).split()
    except (OSError, StopIteration):
        return platform.processor()
    fast = [flag for flag in ("avx512_bf16", "amx_bf16", "amx_int8") if flag in flags]
    return f"{name} ({', '.join(fast) or 'no bfloat16 instructions'})"


def about() -> dict[str, Any]:
    versions = {}
    for name in ("unnoise", "torch", "diffusers", "denoising-diffusion-pytorch"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "-"
    from unnoise.nn import group_norm

    return {"cpu": processor(), "threads": torch.get_num_threads(), "compiled operation": group_norm.compiled(),
            "date": time.strftime("%Y-%m-%d"), **versions}  # fmt: skip


def markdown(about: dict[str, Any], parts: dict[str, Any]) -> str:
    lines = [", ".join(f"{key} {value}" for key, value in about.items()), ""]
    for part in parts.values():
        rows = part["rows"]
        lines += [f"## {part['title']}", "", "| " + " | ".join(rows[0]) + " |", "| " + " --- |" * len(rows[0])]
        for row in rows:
            cells = (f"{v:.3g}" if isinstance(v, float) and v < 100 else f"{v:.0f}" if isinstance(v, float) else str(v) for v in row.values())  # noqa: E501
            lines.append("| " + " | ".join(cells) + " |")
        for key in ("error", "first"):
            if key in part:
                what = {"error": "grey levels off the float32 pictures", "first": "seconds to a first picture"}[key]
                lines += ["", f"{what}: " + ", ".join(f"{name} {value:.3g}" for name, value in part[key].items())]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=(*PARTS, "curves"), action="append")
    parser.add_argument("--out", type=Path, default=RESULTS / "latest")
    asked = parser.parse_args()
    parts = {}
    for name in asked.only or PARTS:
        print(f"{name} ...", flush=True)
        parts[name] = train_step.curves() if name == "curves" else PARTS[name](quick=asked.quick)
        print(markdown({}, {name: parts[name]}), flush=True)
    facts = about()
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.with_suffix(".json").write_text(json.dumps({"about": facts, **parts}, indent=1))
    asked.out.with_suffix(".md").write_text(markdown(facts, parts))
    print(f"written: {asked.out.with_suffix('.md')}")


if __name__ == "__main__":
    main()
