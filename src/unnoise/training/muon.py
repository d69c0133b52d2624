"""Muon: a step for weight matrices in which every direction counts the same.

    m <- b m + (1 - b) g,    u = (1 - b) g + b m,    w <- w - lr 0.2 sqrt(max(rows, columns)) orthogonal(u)

orthogonal(U S V^T) is U f(f(... S)) V^T, with f(s) = 3.4445 s - 4.7750 s^3 + 2.0315 s^5 five times over: all singular
values come out near one, without a decomposition (Jordan et al. 2024). The factor gives an entry the size that Adam
gives it, so that one learning rate serves both (Liu et al. 2025, arXiv 2502.16982). A convolution's matrix is
(out, in x height x width). torch.optim.Muon takes no convolutions and computes in bfloat16, which is slow where the
machine has none; this one computes in float32, on all matrices of a shape at once.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
QUINTIC = (3.4445, -4.7750, 2.0315)
TIMES = 5
NARROWEST = 32  # a side below this is the pixels' or a gate's, no matrix of the inside
TINY = 1e-7  # keeps a gradient of zero at zero


def matrices(net: nn.Module) -> set[str]:
    """Names of the weights that Muon is for: linear maps and convolutions with NARROWEST rows and columns or more.

    Tables, norms, biases, and the layers that read and write pixels, are Adam's.
    """
    found = set()
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and min(module.weight.flatten(1).shape) >= NARROWEST:
            found.add(f"{name}.weight" if name else "weight")
    return found


def orthogonal(updates: Tensor) -> Tensor:
    """(N, rows, columns), each with its singular values brought near one: between 0.7 and 1.2, but for the tiniest."""
    tall = updates.shape[1] > updates.shape[2]
    u = updates.mT if tall else updates
    u = u / (u.norm(dim=(1, 2), keepdim=True) + TINY)
    a, b, c = QUINTIC
    for _ in range(TIMES):
        gram = u @ u.mT
        u = torch.baddbmm(u, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), u, beta=a)
    return u.mT if tall else u


class Muon(torch.optim.Optimizer):
    """Over parameters of two axes or more. The state of each is its `momentum`; `weight_decay` is decoupled."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault(tuple(p.flatten(1).shape), []).append(p)
            for shape, params in alike.items():
                self._step(params, shape, group["lr"], group["weight_decay"])

    def _step(self, params: list[Tensor], shape: tuple[int, ...], lr: float, decay: float) -> None:
        for p in params:
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        momenta = [self.state[p]["momentum"] for p in params]
        grads = [p.grad for p in params if p.grad is not None]
        torch._foreach_lerp_(momenta, grads, 1 - MOMENTUM)
        ahead = torch._foreach_lerp(grads, momenta, MOMENTUM)  # Nesterov's
        updates = orthogonal(torch.stack([u.reshape(shape) for u in ahead]))
        if decay:
            torch._foreach_mul_(params, 1 - lr * decay)
        scale = lr * 0.2 * max(shape) ** 0.5
        torch._foreach_add_(params, [u.reshape(p.shape) for u, p in zip(updates, params)], alpha=-scale)
