"""A step of Stable Diffusion 1's U-Net: ours, diffusers by default, and diffusers tuned by hand, with the same weights.

Tuned is our dtype and channels_last; both of theirs use torch's scaled_dot_product_attention, which is diffusers'
default. Also the time saved by encoding text once per sampling, and the peak memory of each in a process of its own.
"""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.memory import own_peak
from benchmarks.timing import in_turn, milliseconds
from unnoise.acceleration.placement import Placement, best, place, prepare
from unnoise.acceleration.prepack import pack
from unnoise.conditions import Cond
from unnoise.denoiser import Diffusion
from unnoise.formats import names, unet2d_condition
from unnoise.nn import UNet
from unnoise.schedules import ScaledLinear

ROOT = Path(__file__).parent.parent
SETTINGS = {  # as Stable Diffusion 1's file has them; the rest are the class's defaults: 859,520,964 parameters
    "sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8, "act_fn": "silu",
    "center_input_sample": False, "downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0,
    "mid_block_scale_factor": 1, "norm_eps": 1e-5, "norm_num_groups": 32,
}  # fmt: skip
LIBRARIES = ("unnoise", "diffusers", "diffusers tuned")
Step = Callable[[Tensor, Tensor, Tensor], Tensor]


def network() -> Any:
    """diffusers' network with its initial weights, none of which are zero."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(**SETTINGS).eval().requires_grad_(False)


def our_network(theirs: nn.Module) -> UNet:
    """Our network with the same weights."""
    config = unet2d_condition.from_config(SETTINGS, "benchmark")
    with torch.device("meta"):
        net = UNet(config)
    net.load_state_dict(names.join(names.pieces(net), dict(theirs.state_dict())), assign=True)
    return net.eval().requires_grad_(False)


def ours(net: UNet, placement: Placement) -> tuple[Step, Step, Callable[[Tensor], object]]:
    """A step with encoded text; one that encodes it again; and encoding alone."""
    return _ours(place(Diffusion(net, ScaledLinear()).eval(), placement).net, placement)


def _ours(placed: nn.Module, placement: Placement) -> tuple[Step, Step, Callable[[Tensor], object]]:
    encoded: dict[int, Cond] = {}

    @torch.inference_mode()
    def encode(text: Tensor) -> Cond:
        return placed.encode(Cond(text=text))  # type: ignore[operator,no-any-return]

    @torch.inference_mode()
    def once(x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        if id(text) not in encoded:
            encoded[id(text)] = encode(text)
        out: Tensor = placed(x.to(placement.dtype), t, encoded[id(text)])
        return _done(out)

    @torch.inference_mode()
    def again(x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        out: Tensor = placed(x.to(placement.dtype), t, Cond(text=text))
        return _done(out)

    return once, again, encode


def theirs(net: Any, placement: Placement, *, tuned: bool) -> Step:
    if tuned:
        net = net.to(placement.device, placement.dtype).to(memory_format=torch.channels_last)
    else:
        net = net.to(placement.device)
    dtype = placement.dtype if tuned else torch.float32

    def step(x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        with torch.inference_mode() if tuned else torch.no_grad():
            x = x.to(dtype)
            x = x.contiguous(memory_format=torch.channels_last) if tuned else x
            return _done(net(x, t, text.to(dtype)).sample)

    return step


def _done(out: Tensor) -> Tensor:
    if out.is_cuda:
        torch.cuda.synchronize()
    return out


def inputs(batch: int, size: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 4, size, size, generator=generator)
    text = torch.randn(batch, 77, 768, generator=generator)
    return x.to(device), torch.full((batch,), 500.0, device=device), text.to(device)


def run(*, quick: bool, clock: str, seconds: float) -> dict[str, Any]:
    placement = best("auto")
    quick = quick or placement.dtype == torch.float32  # a step of full size takes half a minute there
    base = network()
    once, again, encode = ours(our_network(base), placement)
    default = theirs(base, placement, tuned=False)
    tuned = theirs(network(), placement, tuned=True)
    gc.collect()
    libraries: dict[str, Step] = {"unnoise": once, "diffusers": default, "diffusers tuned": tuned}
    limit = seconds * 0.3  # of the rows; the rest: weights, errors, peaks
    rows, notes = [], {"dtype": f"{placement.dtype} on {placement.device}; diffusers' default is torch.float32"}
    for batch, size, rounds in ((1, 32, 3),) if quick else ((2, 64, 5), (1, 64, 3)):
        x, t, text = inputs(batch, size, placement.device)
        found = in_turn(
            {name: partial(library, x, t, text) for name, library in libraries.items()},
            rounds=rounds,
            clock=clock,
            limit=limit,
        )
        rows.append({"batch": batch, "latents": f"{size}x{size}", **milliseconds(found)})
        with torch.no_grad():
            exact = default(x, t, text)
            off = {
                name: ((library(x, t, text).float() - exact).norm() / exact.norm()).item()
                for name, library in libraries.items()
            }
        notes[f"relative difference to float32, {size}x{size}"] = off  # type: ignore[assignment]
    times = in_turn(
        {"a step": lambda: once(x, t, text), "a step that encodes again": lambda: again(x, t, text),
         "encoding": lambda: encode(text)}, rounds=rounds, clock=clock, limit=limit / 2,
    )  # fmt: skip
    notes["milliseconds of encoding the text"] = {name: 1e3 * value for name, value in times.items()}  # type: ignore[assignment]
    size = 32 if quick else 64
    peaks = {library: _peak_of(library, size) for library in LIBRARIES}
    notes[f"peak memory of a process, MiB, batch 2, {size}x{size}"] = peaks  # type: ignore[assignment]
    notes["targets"] = "diffusers tuned / unnoise: 1.7 with AVX512-BF16; no more memory than tuned"
    return {"title": "Stable Diffusion 1's U-Net, 859.5M parameters: a step", "rows": rows, "notes": notes}


def peak(library: str, size: int) -> None:
    """Runs two steps in this (child) process and prints its peak resident set, in MiB."""
    placement = best("cpu")
    x, t, text = inputs(2, size, "cpu")
    if library == "unnoise":
        net = UNet(unet2d_condition.from_config(SETTINGS, "benchmark")).eval().requires_grad_(False)
        pack(net.to(placement.dtype, memory_format=torch.channels_last))  # type: ignore[call-overload]
        prepare(net, placement)
        step = _ours(net, placement)[0]
    else:
        step = theirs(network(), placement, tuned=library == "diffusers tuned")
    for _ in range(2):
        step(x, t, text)
    print(own_peak())


def _peak_of(library: str, size: int) -> float:
    code = f"from benchmarks import stable_diffusion; stable_diffusion.peak({library!r}, {size})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return float(out.split()[-1])
