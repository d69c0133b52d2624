"""Exact steps of the probability flow, if what changes along it were a polynomial in l = log(alpha / sigma).

With f the picture (or the noise) in x_t, h = l_s - l_t, u = (l - l_t) / h from 0 to 1, and k = -h (or +h),

    x_s = (DDIM's step) - A k integral_0^1 e^{k (1 - u)} (f(u) - f(0)) du,    A = alpha_s (or sigma_s)

Everything that DPM-Solver, DPM-Solver++ and UniPC add to DDIM is a polynomial for f, and so a sum of differences
f(r_j) - f(0) at places u = r_j where it is known. Eq. 3.4 of Lu et al. 2022a, eq. 8 of Lu et al. 2022b.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unnoise.schedules import Level

FAR = 30.0  # log(alpha / sigma) beyond which nothing changes any more, to 13 digits: also where it is infinite


def places(levels: Level) -> tuple[Tensor, list[Tensor]]:
    """h, and the places of the others; `levels` are at (s, t, others...)."""
    ratio = levels.log_ratio.clamp(-FAR, FAR)
    h = ratio[0] - ratio[1]
    return h, [(other - ratio[1]) / h for other in ratio[2:]]


def moments(k: Tensor, count: int) -> list[Tensor]:
    """k integral_0^1 e^{k (1 - u)} u^j du for j = 0 .. count."""
    found = [torch.expm1(k)]
    for j in range(1, count + 1):
        found.append(j * found[-1] / k - 1)
    return found


def interpolated(found: Sequence[Tensor], nodes: Sequence[Tensor]) -> list[Tensor]:
    """What multiplies each f(r_j) - f(0), for the polynomial through all of them and (0, f(0)); `found` are moments."""
    result = []
    for j, node in enumerate(nodes):
        product, scale = [torch.ones_like(node)], node  # product: of (u - r_l) over the others, ascending in u
        for other in (*nodes[:j], *nodes[j + 1 :]):
            zero = torch.zeros_like(node)
            product = [a - other * b for a, b in zip([zero, *product], [*product, zero])]
            scale = scale * (node - other)
        total = sum((c * moment for c, moment in zip(product, found[1:])), torch.zeros_like(node))
        result.append(total / scale)
    return result


def between(levels: Level, fraction: float) -> Tensor:
    """log(alpha / sigma) at u = `fraction` of the way; `levels` are at (s, t)."""
    ratio = levels.log_ratio.clamp(-FAR, FAR)
    return torch.lerp(ratio[1], ratio[0], fraction)
