"""The state of a training: weights, the optimizer's moments, averages of the weights (EMA), and the step count.

An average has a half-life h in pictures: after a batch of B pictures the weights enter it with 1 - 2^(-B/h). After n
pictures h is at most `ema_rampup` n, so that early weights do not stay in the average (Karras et al. 2022, App. F.2;
after its first step an average equals the weights). Everything here is float32, and everything is in a checkpoint,
under the names of the parameters.
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
    """The state of the training of one network, `net`, which is changed in place and computes in `dtype`.

    With a `dtype` other than float32 the network's parameters become rounded copies of the float32 weights held here.
    """

    def __init__(
        self, net: nn.Module, config: Fit, *, dtype: torch.dtype = torch.float32, processes: Processes = ALONE
    ) -> None:
        self.net = net
        self.config = config
        self.dtype = dtype  # of the network's computation
        self.step = 0
        self.skips = 0  # steps in a row that were not finite
        net.float()
        if config.fsdp and processes.world > 1:
            shard(net, dtype)
            dtype = torch.float32  # parameters are gathered in `dtype` and held in float32
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
        self.averages = {h: [here(w).clone() for w in self.weights] for h in config.ema}
        muons = matrices(net) if config.optimizer == "muon" else set()
        self._optimizers = optimizers(config, dict(zip(self.names, self._params)), muons, processes)

    @property
    def device(self) -> torch.device:
        return self.weights[0].device

    @property
    def adds_up_in_place(self) -> bool:
        """Whether the gradients of a batch's parts add up in the network itself, not in the float32 weights."""
        return not self._copies

    # --- a step ---

    def collect(self) -> None:
        """Adds the gradients of a part of a batch to the float32 gradients."""
        if not self._copies:
            return
        for master, copy in zip(self._params, self._copies):
            if copy.grad is not None:
                grad = copy.grad.float()
                master.grad = grad if master.grad is None else master.grad.add_(grad)
                copy.grad = None

    def gradients(self) -> list[Tensor]:
        """The float32 gradients, of the parameters that have one."""
        return [p.grad for p in self._params if p.grad is not None]

    def gradient_norm(self) -> Tensor:
        """Norm of the gradient over all parameters, ()."""
        norm: Tensor = torch.nn.utils.get_total_norm(self.gradients())
        return whole(norm)

    @torch.no_grad()
    def update(self, lr: float, norm: float) -> None:
        """Clips the gradients, updates weights and averages, and clears the gradients."""
        if self.config.clip is not None and norm > self.config.clip:
            torch._foreach_mul_([here(grad) for grad in self.gradients()], self.config.clip / norm)
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
            torch._foreach_lerp_(average, held, self._ema_weight(half_life))

    def _ema_weight(self, half_life: float) -> float:
        """The weight with which the weights after this step enter an average."""
        if self.step == 0:
            return 1.0
        images = (self.step + 1) * self.config.batch
        if self.config.ema_rampup is not None:
            half_life = min(half_life, self.config.ema_rampup * images)
        return 1.0 - math.pow(0.5, self.config.batch / half_life)

    def forget(self) -> None:
        """Clears the gradients."""
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        for copy in self._copies:
            copy.grad = None

    # --- what a checkpoint contains ---

    def state(self) -> dict[str, Tensor]:
        """Returns the weights and buffers of the network, float32 and unsharded. Every process must call it."""
        return self._named(self.weights)

    def average(self, half_life: int) -> dict[str, Tensor]:
        """Returns the same with the average of this half-life in place of the weights."""
        return self._named([_like(a, w) for a, w in zip(self.averages[half_life], self.weights)])

    def moments(self) -> dict[str, Tensor]:
        """Returns the optimizer's state as "name/exp_avg", ...; empty before the first step."""
        states = {p: state for optimizer in self._optimizers for p, state in optimizer.state.items()}
        return {
            f"{name}/{key}": whole(states[p][key]).detach()
            for name, p in zip(self.names, self._params)
            for key in MOMENTS
            if key in states.get(p, {})
        }

    def expected(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Returns tensors with the names and shapes of `state`, and with all those that `moments` may have."""
        shapes = {name: torch.empty(p.shape, device="meta") for name, p in zip(self.names, self._params)}
        rest = {n: t for n, t in self.net.state_dict().items() if n not in shapes}
        others = {n: torch.empty(t.shape, dtype=t.dtype, device="meta") for n, t in rest.items()}
        once = torch.empty((), device="meta")
        moments = {f"{n}/{key}": once if key == "step" else like for n, like in shapes.items() for key in MOMENTS}
        return shapes | others, moments

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
        """Restores what a checkpoint contains. Every process passes all of it; names and shapes must match."""
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
        """The optimizer's state of one parameter; empty where it was never updated."""
        state: dict[str, Tensor] = {}
        for key in MOMENTS:
            if (saved := moments.get(f"{name}/{key}")) is None:
                continue
            if key == "step":
                state[key] = saved.clone().to(self.device, torch.float32)
            else:
                state[key] = torch.zeros_like(p)
                put(saved, state[key])
        return state


def optimizers(
    config: Fit, params: Mapping[str, nn.Parameter], muons: Collection[str], processes: Processes = ALONE
) -> list[torch.optim.Optimizer]:
    """Returns Adam for all parameters, or Muon for those named in `muons` and Adam for the others."""
    if config.fsdp and muons:
        raise UserError("muon needs unsharded matrices, and fit.fsdp shards them: set fit.optimizer to adamw")
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    others = [p for name, p in params.items() if name not in muons]
    # fused is the fastest on CPU (3 to 5 times the loop over tensors) and CUDA
    found: list[torch.optim.Optimizer] = [
        kind(others, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, fused=True)
    ]
    if mine := [p for name, p in params.items() if name in muons]:
        found.append(Muon(mine, lr=config.lr, weight_decay=config.weight_decay, processes=processes))
    return found


def _like(local: Tensor, tensor: Tensor) -> Tensor:
    """Returns a local part as a sharded tensor, laid out as `tensor` is."""
    if not isinstance(tensor, DTensor):
        return local
    return DTensor.from_local(local, tensor.device_mesh, tensor.placements, shape=tensor.shape, stride=tensor.stride())
