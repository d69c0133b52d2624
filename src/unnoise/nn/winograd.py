"""3x3 convolution of float32 pictures by Winograd's method, compiled: fewer products for the same numbers, to rounding.

    y = A^T [ sum over channels of (G w G^T) * (B^T d B) ] A        for each window d of the picture

F(4x4, 3x3) has 36 products for 16 pixels where the formula has 144, F(2x2, 3x3) 16 for 4 where it has 36 (Lavin & Gray
2016). A step up, each pixel repeated 2x2 and then convolved, is the same with additions alone and 36 products for 16
pixels. On a processor with AVX2 and nothing wider, where the formula itself is at the peak of the arithmetic, a layer
takes a half to a third of the time. The form depends on the size of the picture alone: a sample's bits do not depend on
its batch. Laws (tests/nn/test_winograd.py): the convolution in float64 at every size, within ERROR; a list of tiles
computes those tiles of the whole and nothing else; weights transformed before give the same bits; the gradient of the
weights in float64 at every size, and the same bits for every number of threads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unnoise.nn.compiled import available

# Errors relative to the rms of the output, rms and largest, for random weights and up to 1024 channels. oneDNN's direct
# convolution has 1.1e-6 and 1.7e-5. A pixel that is much larger than the rest spreads its rounding over its tiles.
ERROR = {"F4": (3e-6, 3e-5), "F2": (1e-6, 1e-5), "up": (1e-6, 1e-5)}
SIDE = {"F4": 4, "F2": 2, "up": 4}  # of a tile of the output
_PLANES = {"F4": 36, "F2": 16, "up": 25}  # numbers of a transformed weight, for the 9 of the weight
# Pixels. Below, transforming the weights, once in each call, costs more than it saves (measured for single pictures).
_SMALLEST = {"F4": 11 * 11, "F2": 6 * 6, "up": 6 * 6}
_STORED = 20 << 20  # bytes: a transformed weight up to this size is stored
_FEW = 192  # tiles: with more in a call, transforming the weights is a small part of it


def compiled() -> tuple[bool, str]:
    """Whether the compiled operation is available, which builds it if necessary, and the reason if it is not."""
    return available("winograd", _check_built, _register)


def suits() -> bool:
    """Whether it is faster than torch's convolution on this processor: measured for AVX2 and nothing wider."""
    return torch.backends.cpu.get_cpu_capability() == "AVX2"


def faster() -> bool:
    """Whether it is faster here, and available."""
    return suits() and compiled()[0]


def fits(weight: Tensor) -> bool:
    """Whether a convolution's weight (C', C, 3, 3) has a dtype, a device and numbers of channels that are supported."""
    (outs, channels), kernel = weight.shape[:2], weight.shape[2:]
    supported = weight.device.type == "cpu" and weight.dtype == torch.float32
    return supported and kernel == (3, 3) and channels % 8 == 0 and outs % 16 == 0


def form(height: int, width: int) -> str | None:
    """The faster form for pictures of this size: F4, F2, or None for the direct convolution."""
    return next((name for name in ("F4", "F2") if height * width >= _SMALLEST[name]), None)


def form_up(height: int, width: int) -> str | None:
    """The faster form of a step up from pictures of this size: up, or None for another way."""
    return "up" if height * width >= _SMALLEST["up"] else None


def lay_out(weight: Tensor) -> Tensor:
    """A weight (C', C, 3, 3) as (C' / 16, 9, C, 16), which `convolve` reads."""
    outs, channels = weight.shape[:2]
    return weight.reshape(outs // 16, 16, channels, 9).permute(0, 3, 2, 1).contiguous()


def laid_back(weight: Tensor) -> Tensor:
    """The inverse of `lay_out`."""
    panels, _, channels, _ = weight.shape
    return weight.permute(0, 3, 2, 1).reshape(panels * 16, channels, 3, 3)


class Transformed:
    """The transformed weights of one layer, stored by form at the first call in which they save time.

    A call of few tiles takes 0.7 to 0.8 of the time with them. They need 4 times the memory of the weight for F4, 2.8
    for up, 1.8 for F2; a large weight is not stored.
    """

    def __init__(self) -> None:
        self._stored: dict[str, Tensor] = {}

    def of(self, weight: Tensor, x: Tensor, form: str) -> Tensor:
        """The weight for `convolve` of x in this form: transformed, or `weight` itself, which is as of `lay_out`."""
        stored = self._stored.get(form)
        if stored is None and self._pays(weight, x, form):
            stored = self._stored[form] = transform(weight, form)
        return weight if stored is None else stored

    def _pays(self, weight: Tensor, x: Tensor, form: str) -> bool:
        step = 4 if form == "F4" else 2  # pixels of x for each tile, along a side
        tiles = len(x) * -(-x.shape[2] // step) * -(-x.shape[3] // step)
        return tiles <= _FEW and weight.nbytes // 9 * _PLANES[form] <= _STORED


def transform(weight: Tensor, form: str) -> Tensor:
    """A weight as of `lay_out`, transformed for one form: `convolve` takes either, and gives the same bits."""
    transformed: Tensor = torch.ops.unnoise.winograd_transform(weight, form)
    return transformed


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, form: str) -> Tensor:
    """(B, C, H, W) -> (B, C', H, W), or for `up` (B, C', 2H, 2W), in channels_last.

    The weight is as of `lay_out`, or as of `transform` for this form.
    """
    y: Tensor = torch.ops.unnoise.winograd(x, weight, bias, form)
    return y


def convolve_tiles(x: Tensor, weight: Tensor, bias: Tensor | None, form: str, *, at: Tensor, y: Tensor) -> None:
    """The tiles numbered `at`, (N,), of `convolve`, written to `y` in place; the rest of `y` does not change.

    Tiles are numbered by sample, then row, then column, in squares of SIDE pixels of the output, cut off at the right
    and below. `y` is contiguous in channels_last. Raises RuntimeError for a number that does not exist.
    """
    torch.ops.unnoise.winograd_tiles(x, weight, bias, form, at, y)


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """dL/dw (C', C, 3, 3) from dL/dy (B, C', H, W) and x (B, C, H, W), by F(4x4, 3x3) transposed, summed over B."""
    return laid_back(torch.ops.unnoise.winograd_weight_gradient(grad, x))


def _register() -> None:
    """Register the shapes of the result, for torch.compile."""

    def shape(x: Tensor, weight: Tensor, bias: Tensor | None, form: str) -> Tensor:
        scale = 2 if form == "up" else 1
        outs = 16 * weight.shape[0 if weight.dim() == 4 else 1]
        y = x.new_empty(len(x), outs, scale * x.shape[2], scale * x.shape[3])
        return y.to(memory_format=torch.channels_last)

    torch.library.register_fake("unnoise::winograd", shape)


def _check_built() -> None:
    """Compares the built operation with torch in float64 on small pictures. Raises AssertionError if they differ."""
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode(False), torch.no_grad():
        x, w = torch.randn(2, 24, 9, 6, generator=generator), torch.randn(32, 24, 3, 3, generator=generator)
        bias = torch.randn(32, generator=generator)
        for name in ERROR:
            exact = F.interpolate(x.double(), scale_factor=2.0) if name == "up" else x.double()
            right = F.conv2d(exact, w.double(), bias.double(), padding=1)
            _check(name, convolve(x, lay_out(w), bias, name), right)
    with torch.inference_mode(False), torch.enable_grad():
        exact, grad = w.double().requires_grad_(), torch.randn(2, 32, 9, 6, generator=generator)
        (right,) = torch.autograd.grad(F.conv2d(x.double(), exact, padding=1), exact, grad.double())
        _check("the gradient of the weights", weight_gradient(grad, x), right)


def _check(name: str, found: Tensor, right: Tensor) -> None:
    error = ((found - right).norm() / right.norm()).item()
    if not error < 1e-5:
        raise AssertionError(f"{name} is off by {error:.1e}")
