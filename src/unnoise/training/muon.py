"""Muon: an optimizer for weight matrices whose updates have equal singular values.

    m <- b m + (1 - b) g,    u = (1 - b) g + b m,    w <- w - lr 0.2 sqrt(max(rows, columns)) orthogonal(u)

orthogonal(U S V^T) is U f(f(... S)) V^T, with f(s) = 3.4445 s - 4.7750 s^3 + 2.0315 s^5 applied five times: all
singular values become nearly one, without a decomposition (Jordan et al. 2024). The factor gives an entry the size that
it has in Adam, so that one learning rate fits both (Liu et al. 2025, arXiv 2502.16982). A convolution's matrix is
(out, in x height x width). torch.optim.Muon does not support convolutions and computes in bfloat16, which is slow
without hardware support; this one computes in float32, on all matrices of a shape at once, split over the processes.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import Tensor, nn

from unnoise.training.distributed import ALONE, Processes

MOMENTUM = 0.95
QUINTIC = (3.4445, -4.7750, 2.0315)
TIMES = 5
NARROWEST = 32  # a narrower matrix is of the pixels or of a gate
TINY = 1e-7  # so that a gradient of zero stays zero


def matrices(net: nn.Module) -> set[str]:
    """Returns names of the weights for Muon: linear maps and convolutions with NARROWEST rows and columns or more.

    Tables, norms, biases, and the first and last layers are left to Adam.
    """
    found = set()
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and min(module.weight.flatten(1).shape) >= NARROWEST:
            found.add(f"{name}.weight" if name else "weight")
    return found


def orthogonal(updates: Tensor) -> Tensor:
    """Returns matrices (N, rows, columns) with singular values between 0.7 and 1.2, except for the smallest."""
    tall = updates.shape[1] > updates.shape[2]
    u = updates.mT if tall else updates
    u = u / (u.norm(dim=(1, 2), keepdim=True) + TINY)
    a, b, c = QUINTIC
    for _ in range(TIMES):
        gram = u @ u.mT
        u = torch.baddbmm(u, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), u, beta=a)
    return u.mT if tall else u


@lru_cache(maxsize=8)
def assign(shapes: tuple[tuple[int, int], ...], world: int) -> tuple[tuple[int, ...], ...]:
    """Assigns matrices to processes: the most expensive first, each to the process with the least work."""
    cost = [min(shape) ** 2 * max(shape) for shape in shapes]
    work, parts = [0] * world, [list[int]() for _ in range(world)]
    for i in sorted(range(len(shapes)), key=lambda i: -cost[i]):
        least = work.index(min(work))
        work[least] += cost[i]
        parts[least].append(i)
    return tuple(map(tuple, parts))


class Muon(torch.optim.Optimizer):
    """Muon for parameters of two axes or more. Their state is `momentum`; `weight_decay` is decoupled.

    Processes with the same gradients split the matrices between them, and make the same update.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, processes: Processes = ALONE
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.processes = processes

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for p in params:
                if "momentum" not in self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            momenta, grads = [self.state[p]["momentum"] for p in params], [p.grad for p in params]
            torch._foreach_lerp_(momenta, grads, 1 - MOMENTUM)
            ahead = torch._foreach_lerp(grads, momenta, MOMENTUM)  # Nesterov's
            updates = self._orthogonal([u.flatten(1) for u in ahead])
            if group["weight_decay"]:
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            scales = [-group["lr"] * 0.2 * max(u.shape) ** 0.5 for u in updates]
            torch._foreach_add_(params, [u.mul_(s).view_as(p) for u, s, p in zip(updates, scales, params)])

    def _orthogonal(self, updates: list[Tensor]) -> list[Tensor]:
        """Returns each matrix made orthogonal, some of them gathered from other processes."""
        shapes = tuple((len(u), u.shape[1]) for u in updates)
        parts = assign(shapes, self.processes.world)
        alike: dict[tuple[int, int], list[int]] = {}
        for i in parts[self.processes.rank]:
            alike.setdefault(shapes[i], []).append(i)
        for same in alike.values():
            for i, u in zip(same, orthogonal(torch.stack([updates[i] for i in same]))):
                updates[i] = u
        if self.processes.world == 1:
            return updates
        mine = [updates[i].flatten() for i in parts[self.processes.rank]]
        order = [i for part in parts for i in part]
        counts = [sum(updates[i].numel() for i in part) for part in parts]
        whole = self.processes.gather(torch.cat([*mine, updates[0].new_zeros(0)]), counts)
        for i, u in zip(order, torch.split(whole, [updates[i].numel() for i in order])):
            updates[i] = u.view(shapes[i])
        return updates
