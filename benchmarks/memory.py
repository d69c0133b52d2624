"""Peak memory of sampling and training, each in a process of its own; and seconds from a command to a first picture."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import peers, train_step

ROOT = Path(__file__).parent.parent
LIBRARIES = ("unnoise", "diffusers", "diffusers tuned")


def peak(what: str, library: str) -> None:
    """Runs once or twice in this (child) process and prints its peak resident set, in MiB.

    diffusers is tuned with the dtype that is fast on this machine, in channels_last.
    """
    import torch

    from unnoise.acceleration.placement import best

    how = peers.Tuning(best("cpu").dtype, torch.channels_last) if library == "diffusers tuned" else None
    if what == "draw":
        from benchmarks import draw
        from unnoise.acceleration.placement import place
        from unnoise.denoiser import Diffusion
        from unnoise.schedules import LinearBeta

        net = peers.our_network(peers.CONFIG)
        if library == "unnoise":
            call = draw.ours(place(Diffusion(net, LinearBeta()).eval(), best("cpu")), 2)
        else:
            theirs = peers.their_network(net)
            call = draw.theirs(theirs if how is None else peers.tuned(theirs, how), 2, how)
        call(peers.start(16))
    else:
        net = peers.our_network(peers.CONFIG)
        one = train_step.ours(net) if library == "unnoise" else train_step.theirs(peers.their_network(net), how)
        for _ in range(2):
            one()
    del torch
    print(own_peak())


def own_peak() -> float:
    """The peak resident set in MiB, from Linux's VmHWM: that of getrusage includes the parent's before exec."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(*, quick: bool, clock: str, seconds: float) -> dict[str, Any]:
    rows = []
    for what in ("draw", "train"):
        row: dict[str, Any] = {"what": f"{what}, batch {16 if what == 'draw' else train_step.BATCH}"}
        for library in LIBRARIES:
            code = f"from benchmarks import memory; memory.peak({what!r}, {library!r})"
            out = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
            ).stdout
            row[f"{library}, MiB"] = float(out.split()[-1])
        rows.append(row)
    first = first_picture(rounds=1 if quick or peers.SLOW else 3)
    return {"title": "peak memory of a process", "rows": rows, "notes": {"seconds to a first picture": first}}


def first_picture(*, rounds: int) -> dict[str, float]:
    """Seconds from `unnoise sample` to a picture on disk, 10 steps, and those of a process that uses diffusers."""
    from unnoise.config.cards import ModelCard
    from unnoise.config.diffusion import DiffusionConfig
    from unnoise.denoiser import make_diffusion
    from unnoise.model import Model

    net = peers.our_network(peers.CONFIG)
    with tempfile.TemporaryDirectory() as folder:
        model, theirs = Path(folder) / "model", Path(folder) / "theirs"
        model.mkdir()
        Model(make_diffusion(net, DiffusionConfig()), ModelCard(net=peers.CONFIG)).save(model)
        from unnoise.formats import diffusers as format_

        format_.write(theirs, peers.CONFIG, net.state_dict(), DiffusionConfig(), ())
        ours = [sys.executable, "-m", "unnoise.cli.main", "sample", str(model), "--steps", "10", "--out"]
        code = (
            "from diffusers import DDIMPipeline; "
            f"p = DDIMPipeline.from_pretrained({str(theirs)!r}); p.set_progress_bar_config(disable=True); "
            f"p(num_inference_steps=10).images[0].save({folder + '/theirs.png'!r})"
        )
        found: dict[str, list[float]] = {"unnoise": [], "diffusers": []}
        for turn in range(rounds):
            for name, command in (
                ("unnoise", [*ours, f"{folder}/{turn}"]),
                ("diffusers", [sys.executable, "-c", code]),
            ):
                begin = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                found[name].append(time.perf_counter() - begin)
    return {name: sorted(values)[len(values) // 2] for name, values in found.items()}
