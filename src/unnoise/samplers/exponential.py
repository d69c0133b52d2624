"""Exact steps of the probability flow, if what changes along it were a polynomial in l = log(alpha / sigma).

With f the picture (or the noise) in x_t, h = l_s - l_t, u = (l - l_t) / h from 0 to 1, and k = -h (or +h),

    x_s = (DDIM's step) - A k integral_0^1 e^{k (1 - u)} (f(u) - f(0)) du,    A = alpha_s (or sigma_s)

Everything that DPM-Solver, DPM-Solver++ and UniPC add to DDIM is a polynomial for f, and so a sum of differences
f(r_j) - f(0) at places u = r_j where it is known. Eq. 3.4 of Lu et al. 2022a, eq. 8 of Lu et al. 2022b.
"""

from __future__ import annotations

from collections.abc import Sequence

from unnoise.schedules import Level
from unnoise.schedules.level import Number, expm1, nonzero

FAR = 30.0  # log(alpha / sigma) beyond which nothing changes any more, to 13 digits: also where it is infinite


def places(at: Level[Number], to: Level[Number], others: Sequence[Level[Number]]) -> tuple[Number, list[Number]]:
    """Returns h, and the places r_j of the others: 0 is t, 1 is s."""
    start = log_ratio(at)
    h = nonzero(log_ratio(to) - start)
    return h, [(log_ratio(other) - start) / h for other in others]


def log_ratio(level: Level[Number]) -> Number:
    """log(alpha / sigma), finite."""
    ratio = level.log_ratio
    return min(max(ratio, -FAR), FAR) if isinstance(ratio, float) else ratio.clamp(-FAR, FAR)


def moments(k: Number, count: int) -> list[Number]:
    """k integral_0^1 e^{k (1 - u)} u^j du for j = 0 .. count."""
    found = [expm1(k)]
    for j in range(1, count + 1):
        found.append(j * found[-1] / k - 1)
    return found


def interpolated(found: Sequence[Number], nodes: Sequence[Number]) -> list[Number]:
    """Returns what multiplies each f(r_j) - f(0) in the integral of the polynomial through all of them and (0, f(0)).

    `found` are moments. The polynomial is Lagrange's: of each node the product of (u - r_l) over the others, over its
    value at the node.
    """
    result = []
    for j, node in enumerate(nodes):
        product: list[Number] = [1.0]  # its coefficients, ascending in u
        scale = node
        for other in (*nodes[:j], *nodes[j + 1 :]):
            product = [a - other * b for a, b in zip([0.0, *product], [*product, 0.0])]
            scale = scale * (node - other)
        result.append(sum(c * moment for c, moment in zip(product, found[1:])) / scale)
    return result
