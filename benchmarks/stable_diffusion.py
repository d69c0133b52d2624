"""A step of Stable Diffusion 1's U-Net: ours, diffusers by default, and diffusers tuned by hand, with the same weights.

Tuned is our dtype and channels_last; both of theirs attend by torch's scaled_dot_product_attention, which is diffusers'
default. Also what hearing words once a walk saves, and the peak memory of each way in a process of its own.
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
WAYS = ("unnoise", "diffusers", "diffusers tuned")
Step = Callable[[Tensor, Tensor, Tensor], Tensor]


def network() -> Any:
    """diffusers' network with its weights at birth, which are nowhere zero."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(**SETTINGS).eval().requires_grad_(False)


def our_network(theirs: nn.Module) -> UNet:
    """Ours with the same weights."""
    config = unet2d_condition.from_config(SETTINGS, "benchmark")
    with torch.device("meta"):
        net = UNet(config)
    net.load_state_dict(names.join(names.pieces(net), dict(theirs.state_dict())), assign=True)
    return net.eval().requires_grad_(False)


def ours(net: UNet, how: Placement) -> tuple[Step, Step, Callable[[Tensor], object]]:
    """A step of a walk that has heard the words; one that hears them anew; and hearing alone."""
    return _ours(place(Diffusion(net, ScaledLinear()).eval(), how).net, how)


def _ours(placed: nn.Module, how: Placement) -> tuple[Step, Step, Callable[[Tensor], object]]:
    heard: dict[int, Cond] = {}

    @torch.inference_mode()
    def encode(words: Tensor) -> Cond:
        return placed.encode(Cond(text=words))  # type: ignore[operator,no-any-return]

    @torch.inference_mode()
    def once(x: Tensor, t: Tensor, words: Tensor) -> Tensor:
        if id(words) not in heard:
            heard[id(words)] = encode(words)
        out: Tensor = placed(x.to(how.dtype), t, heard[id(words)])
        return _done(out)

    @torch.inference_mode()
    def anew(x: Tensor, t: Tensor, words: Tensor) -> Tensor:
        out: Tensor = placed(x.to(how.dtype), t, Cond(text=words))
        return _done(out)

    return once, anew, encode


def theirs(net: Any, how: Placement, *, tuned: bool) -> Step:
    if tuned:
        net = net.to(how.device, how.dtype).to(memory_format=torch.channels_last)
    else:
        net = net.to(how.device)
    dtype = how.dtype if tuned else torch.float32

    def step(x: Tensor, t: Tensor, words: Tensor) -> Tensor:
        with torch.inference_mode() if tuned else torch.no_grad():
            x = x.to(dtype)
            x = x.contiguous(memory_format=torch.channels_last) if tuned else x
            return _done(net(x, t, words.to(dtype)).sample)

    return step


def _done(out: Tensor) -> Tensor:
    if out.is_cuda:
        torch.cuda.synchronize()
    return out


def asked(batch: int, size: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 4, size, size, generator=draw)
    words = torch.randn(batch, 77, 768, generator=draw)
    return x.to(device), torch.full((batch,), 500.0, device=device), words.to(device)


def run(*, quick: bool, clock: str) -> dict[str, Any]:
    how = best("auto")
    base = network()
    once, anew, encode = ours(our_network(base), how)
    default = theirs(base, how, tuned=False)
    tuned = theirs(network(), how, tuned=True)
    gc.collect()
    ways: dict[str, Step] = {"unnoise": once, "diffusers": default, "diffusers tuned": tuned}
    rows, notes = [], {"dtype": f"{how.dtype} on {how.device}; diffusers' default is torch.float32"}
    for batch, size, rounds in ((1, 32, 3),) if quick else ((2, 64, 5), (1, 64, 3)):
        x, t, words = asked(batch, size, how.device)
        found = in_turn({name: partial(way, x, t, words) for name, way in ways.items()}, rounds=rounds, clock=clock)
        rows.append({"batch": batch, "latents": f"{size}x{size}", **milliseconds(found)})
        with torch.no_grad():
            exact = default(x, t, words)
            off = {
                name: ((way(x, t, words).float() - exact).norm() / exact.norm()).item() for name, way in ways.items()
            }
        notes[f"relative difference to float32, {size}x{size}"] = off  # type: ignore[assignment]
    heard = in_turn(
        {"a step": lambda: once(x, t, words), "a step that hears anew": lambda: anew(x, t, words),
         "hearing": lambda: encode(words)}, rounds=rounds, clock=clock,
    )  # fmt: skip
    notes["milliseconds of hearing the words"] = {name: 1e3 * value for name, value in heard.items()}  # type: ignore[assignment]
    size = 32 if quick else 64
    peaks = {way: _peak_of(way, size) for way in WAYS}
    notes[f"peak memory of a process, MiB, batch 2, {size}x{size}"] = peaks  # type: ignore[assignment]
    notes["targets"] = "1.15 times tuned, 4 times diffusers (set where bfloat16 is fast), no more memory than tuned"
    return {"title": "Stable Diffusion 1's U-Net, 859.5M parameters: a step", "rows": rows, "notes": notes}


def peak(way: str, size: int) -> None:
    """In a child: two steps, then print the peak resident set in MiB. Each way converts its own only weights."""
    how = best("cpu")
    x, t, words = asked(2, size, "cpu")
    if way == "unnoise":
        net = UNet(unet2d_condition.from_config(SETTINGS, "benchmark")).eval().requires_grad_(False)
        pack(prepare(net, how).to(how.dtype))
        step = _ours(net, how)[0]
    else:
        step = theirs(network(), how, tuned=way == "diffusers tuned")
    for _ in range(2):
        step(x, t, words)
    print(own_peak())


def _peak_of(way: str, size: int) -> float:
    code = f"from benchmarks import stable_diffusion; stable_diffusion.peak({way!r}, {size})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return float(out.split()[-1])
