"""What a training remembers: the weights, the optimizer's moments, the averages of the weights, and how far it is.

An average forgets with a half-life h in pictures: after a batch of B the weights enter with 1 - 2^(-B/h). While few
pictures are seen, h is at most `ema_rampup` of them, so that the average is not of the beginning (Karras et al. 2022,
App. F.2; the first step of an average is the weights themselves). Everything here is float32, and everything is in a
checkpoint, under the names of the parameters.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from unnoise.config.training import Fit
from unnoise.errors import UserError
from unnoise.training.distributed import ALONE, Processes, here, put, shard, whole
from unnoise.training.muon import Muon, matrices

MOMENTS = ("step", "exp_avg", "exp_avg_sq", "momentum")  # torch's names in Adam's state, and Muon's


class TrainState:
    """The memory of one training of `net`, which it changes in place. `dtype` is what the network computes in.

    With a `dtype` other than float32 the network's parameters become copies, rounded from the float32 ones kept here.
    """

    def __init__(
        self, net: nn.Module, how: Fit, *, dtype: torch.dtype = torch.float32, processes: Processes = ALONE
    ) -> None:
        self.net = net
        self.how = how
        self.step = 0
        self.skips = 0  # steps in a row that were not finite
        net.float()
        if how.fsdp and processes.world > 1:
            shard(net, dtype)
            dtype = torch.float32  # what computes is gathered in `dtype`; what is held is float32
        named = {name: p for name, p in net.named_parameters() if p.requires_grad}
        self.names = list(named)
        self._params = list(named.values())  # the optimizer's: the network's own, or the float32 ones behind its copies
        self._copies: list[nn.Parameter] = []
        if dtype != torch.float32:
            self._copies = self._params
            self._params = [nn.Parameter(p.detach().clone()) for p in self._copies]
            for p in net.parameters():  # buffers stay as they are
                p.data = p.data.to(dtype)
        self.weights: list[Tensor] = [p.detach() for p in self._params]
        self.averages = {h: [here(w).clone() for w in self.weights] for h in how.ema}
        muons = matrices(net) if how.optimizer == "muon" else set()
        self._optimizers = optimizers(how, dict(zip(self.names, self._params)), muons, processes)

    @property
    def device(self) -> torch.device:
        return self.weights[0].device

    @property
    def adds_up_in_place(self) -> bool:
        """Whether the gradients of a batch's parts meet in the network itself, not in the float32 copies."""
        return not self._copies

    # --- a step ---

    def collect(self) -> None:
        """Add the gradients of a part of a batch to those in float32."""
        if not self._copies:
            return
        for master, copy in zip(self._params, self._copies):
            if copy.grad is not None:
                grad = copy.grad.float()
                master.grad = grad if master.grad is None else master.grad.add_(grad)
                copy.grad = None

    def gradient_norm(self) -> Tensor:
        """The norm over all parameters, ()."""
        grads = [p.grad for p in self._params if p.grad is not None]
        norm: Tensor = torch.nn.utils.get_total_norm(grads)
        return whole(norm)

    @torch.no_grad()
    def update(self, lr: float, norm: float) -> None:
        """Clip, step, average; then forget the gradients."""
        if self.how.clip is not None and norm > self.how.clip:
            torch._foreach_mul_([here(p.grad) for p in self._params if p.grad is not None], self.how.clip / norm)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
        self.forget()
        self.skips = 0
        if self._copies:
            torch._foreach_copy_([p.data for p in self._copies], self.weights)
        held = [here(w) for w in self.weights]
        for half_life, average in self.averages.items():
            torch._foreach_lerp_(average, held, self._share(half_life))

    def _share(self, half_life: float) -> float:
        """How much of an average the weights after this step make up."""
        if self.step == 0:
            return 1.0
        seen = (self.step + 1) * self.how.batch
        if self.how.ema_rampup is not None:
            half_life = min(half_life, self.how.ema_rampup * seen)
        return 1.0 - math.pow(0.5, self.how.batch / half_life)

    def forget(self) -> None:
        """Drop the gradients."""
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        for copy in self._copies:
            copy.grad = None

    # --- what is kept ---

    def state(self) -> dict[str, Tensor]:
        """The weights and buffers of the network, float32, in one piece each. Every process must ask."""
        return self._named(self.weights)

    def average(self, half_life: int) -> dict[str, Tensor]:
        """The same with the average of this half-life in place of the weights."""
        return self._named([_like(a, w) for a, w in zip(self.averages[half_life], self.weights)])

    def moments(self) -> dict[str, Tensor]:
        """The optimizer's memory: "name/exp_avg", ...; nothing before the first step."""
        states = {p: state for optimizer in self._optimizers for p, state in optimizer.state.items()}
        return {
            f"{name}/{key}": whole(states[p][key]).detach()
            for name, p in zip(self.names, self._params)
            for key in MOMENTS
            if key in states.get(p, {})
        }

    def _named(self, values: Iterable[Tensor]) -> dict[str, Tensor]:
        trained = {name: whole(value).detach() for name, value in zip(self.names, values)}
        others = {n: whole(t).detach() for n, t in self.net.state_dict(keep_vars=True).items() if n not in trained}
        return trained | {n: t.float() if t.is_floating_point() else t for n, t in others.items()}

    @torch.no_grad()
    def load(
        self,
        step: int,
        weights: Mapping[str, Tensor],
        averages: Mapping[int, Mapping[str, Tensor]],
        moments: Mapping[str, Tensor],
        skips: int = 0,
    ) -> None:
        """Be again what a checkpoint holds. Every process must have all of it; names and shapes must be those here."""
        self.step, self.skips = step, skips
        for name, weight in zip(self.names, self.weights):
            put(weights[name], weight)
        if self._copies:
            torch._foreach_copy_([p.data for p in self._copies], self.weights)
        for name, tensor in self.net.state_dict(keep_vars=True).items():
            if name not in self.names:
                put(weights[name], tensor)
        for half_life, average in self.averages.items():
            for name, mine, weight in zip(self.names, average, self.weights):
                put(averages[half_life][name], _like(mine, weight))
        names = dict(zip(self._params, self.names))
        for optimizer in self._optimizers:
            optimizer.state.clear()
            for p in (p for group in optimizer.param_groups for p in group["params"]):
                optimizer.state[p] = self._moments_of(names[p], p, moments)

    def _moments_of(self, name: str, p: nn.Parameter, moments: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the optimizer remembers of one parameter; nothing where it never stepped."""
        state: dict[str, Tensor] = {}
        for key in MOMENTS:
            if (kept := moments.get(f"{name}/{key}")) is None:
                continue
            if key == "step":
                state[key] = kept.clone().to(self.device, torch.float32)
            else:
                state[key] = torch.zeros_like(p)
                put(kept, state[key])
        return state


def optimizers(
    how: Fit, params: Mapping[str, nn.Parameter], muons: Collection[str], processes: Processes = ALONE
) -> list[torch.optim.Optimizer]:
    """Adam for all parameters; or, for those named in `muons`, Muon, and Adam for the others."""
    if how.fsdp and muons:
        raise UserError("muon needs whole matrices, and fit.fsdp holds them in parts: set fit.optimizer to adamw")
    kind = torch.optim.Adam if how.optimizer == "adam" else torch.optim.AdamW
    others = [p for name, p in params.items() if name not in muons]
    # fused is the fastest on CPU (3 to 5 times the loop over tensors) and CUDA
    found: list[torch.optim.Optimizer] = [
        kind(others, lr=how.lr, betas=how.betas, eps=how.eps, weight_decay=how.weight_decay, fused=True)
    ]
    if mine := [p for name, p in params.items() if name in muons]:
        found.append(Muon(mine, lr=how.lr, weight_decay=how.weight_decay, processes=processes))
    return found


def _like(local: Tensor, tensor: Tensor) -> Tensor:
    """A local part as the sharded tensor that `tensor` is."""
    if not isinstance(tensor, DTensor):
        return local
    return DTensor.from_local(local, tensor.device_mesh, tensor.placements, shape=tensor.shape, stride=tensor.stride())
