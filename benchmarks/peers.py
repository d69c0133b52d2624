"""The contenders: ours by default; diffusers by default, tuned by hand, and converted to OpenVINO; lucidrains'.

The last has a network of equal cost; all others have the same weights: the 35.7M U-Net of DDPM on CIFAR-10, random
everywhere.
"""

from __future__ import annotations

import copy
import logging
import sys
import tempfile
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import in_turn
from unnoise import nn as networks
from unnoise.acceleration.placement import fast_bfloat16
from unnoise.conditions import NOTHING
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import UNetConfig
from unnoise.formats import diffusers as format_

SLOW = not fast_bfloat16("cpu")
"""No instructions for bfloat16: it is not tried, and sizes are smaller, so that all ends within ten minutes."""
CONFIG = UNetConfig()  # the defaults are DDPM's for CIFAR-10


def our_network(config: UNetConfig) -> networks.UNet:
    """Random weights of a sane size everywhere, also where a new-born network has zeros."""
    net = networks.UNet(config)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in net.named_parameters():
        if parameter.ndim > 1:
            fan = parameter[0].numel()
            parameter.data = torch.randn(parameter.shape, generator=generator) * (0.7 / fan**0.5)
        elif "norm" not in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.01
    return net.eval()


def their_network(net: networks.UNet) -> nn.Module:
    """diffusers' UNet2DModel with the same weights, through its own folder format."""
    from diffusers import UNet2DModel

    with tempfile.TemporaryDirectory() as folder:
        format_.write(Path(folder), net.config, net.state_dict(), DiffusionConfig(), ())
        theirs = UNet2DModel.from_pretrained(Path(folder) / "unet", low_cpu_mem_usage=False)
    return theirs.eval()


class Tuning(NamedTuple):
    """Settings that a knowing user would try by hand."""

    dtype: torch.dtype
    memory_format: torch.memory_format

    def __str__(self) -> str:
        return f"{self.dtype} {self.memory_format}".replace("torch.", "")


TUNINGS = tuple(
    Tuning(dtype, layout)
    for dtype in ((torch.float32,) if SLOW else (torch.float32, torch.bfloat16))
    for layout in (torch.contiguous_format, torch.channels_last)
)


def tuned(net: nn.Module, how: Tuning) -> nn.Module:
    """A copy of diffusers' network with these settings."""
    logging.getLogger("diffusers").setLevel(logging.ERROR)  # it warns about nothing: its list of exceptions is empty
    return copy.deepcopy(net).to(how.dtype).to(memory_format=how.memory_format)  # type: ignore[call-overload]


def fastest(way: Callable[[Tuning], Callable[[], object]], clock: str) -> Tuning:
    """The tuning of which `way` makes the fastest call on this machine: of two calls each, in turn; one if slow."""
    seconds = in_turn({str(how): way(how) for how in TUNINGS}, rounds=2, clock=clock, limit=30)
    return min(TUNINGS, key=lambda how: seconds[str(how)])


def tried() -> str:
    """The tunings among which `fastest` chooses."""
    left_out = "; bfloat16 is left out: this processor has no instructions for it" if SLOW else ""
    return ", ".join(map(str, TUNINGS)) + left_out


def openvino(net: nn.Module, batch: int, dtype: torch.dtype) -> Callable[[Tensor, Tensor], Tensor] | None:
    """diffusers' network converted to OpenVINO, for this batch at 32x32, with torch's threads; None where absent.

    Static shapes and the performance hint latency: the settings with which it is fastest for one call at a time.
    """
    try:
        import openvino as ov
    except ImportError as problem:
        print(f"openvino is not here ({problem}); left out")
        return None

    class Sample(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.net(x, t).sample  # type: ignore[no-any-return]

    x, t = start(batch), torch.zeros(batch)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: the shapes are fixed
        model = ov.convert_model(Sample().eval(), example_input=(x, t), input=[tuple(x.shape), tuple(t.shape)])
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "bf16" if dtype == torch.bfloat16 else "f32",
    }
    compiled = ov.Core().compile_model(model, "CPU", settings)
    return lambda x, t: torch.from_numpy(compiled([x.numpy(), t.expand(len(x)).float().numpy()])[0].copy())


def lucidrains(flops: float, steps: int) -> Any:
    """GaussianDiffusion of denoising-diffusion-pytorch around the U-Net whose cost is nearest; None where absent."""
    for name in ("torchvision", "torchvision.transforms", "torchvision.utils", "torchvision.models", "pytorch_fid"):
        if name not in sys.modules:  # it needs them for training and scores, not for drawing
            module = types.ModuleType(name)
            module.__getattr__ = lambda attribute: _Anything()  # type: ignore[method-assign]
            module.__path__ = []  # type: ignore[attr-defined]
            sys.modules[name] = module
    for name in ("pytorch_fid.inception", "pytorch_fid.fid_score", "torchvision.datasets"):
        module = types.ModuleType(name)
        module.__getattr__ = lambda attribute: _Anything()  # type: ignore[method-assign]
        sys.modules.setdefault(name, module)
    try:
        from denoising_diffusion_pytorch import GaussianDiffusion, Unet
        from denoising_diffusion_pytorch import denoising_diffusion_pytorch as inside

        inside.tqdm = lambda steps, **_: steps  # no bar in a table
    except ImportError as problem:
        print(f"denoising-diffusion-pytorch is not here ({problem}); left out")
        return None
    costs = {}
    for dim in (96, 112, 128, 144, 160):
        net = Unet(dim=dim, dim_mults=(1, 2, 2, 2), flash_attn=True)
        costs[dim] = abs(cost(lambda x, net=net: net(x, torch.zeros(1))) - flops)
    best = min(costs, key=costs.__getitem__)
    net = Unet(dim=best, dim_mults=(1, 2, 2, 2), flash_attn=True)
    return GaussianDiffusion(net, image_size=32, timesteps=1000, sampling_timesteps=steps).eval()


class _Anything:
    def __call__(self, *args: object, **how: object) -> _Anything:
        return self

    def __getattr__(self, name: str) -> _Anything:
        return self


@torch.no_grad()
def cost(call: Any) -> float:
    """Floating point operations of a call on one picture."""
    with FlopCounterMode(display=False) as counter:
        call(torch.randn(1, 3, 32, 32))
    return float(counter.get_total_flops())


def our_cost(net: networks.UNet) -> float:
    return cost(lambda x: net(x, torch.zeros(1), NOTHING))


def start(batch: int) -> Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(1))
