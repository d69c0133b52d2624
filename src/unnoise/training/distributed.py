"""Several processes, one training: who does which part, and how they agree.

Under torchrun each process holds a share of every batch and of every set of seeds. What they must agree on (to stop, to
save, that a step is bad) is one small reduction at the end of a step. `ALONE` is the same with nobody to ask.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from unnoise.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together. `local` is its place on its own machine: which graphics card."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """The one that writes files."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over processes; `values` is left alone."""
        if self.world == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total

    def any(self, flag: bool) -> bool:
        """Whether any process says yes: all get the same answer."""
        return flag if self.world == 1 else bool(self.sum(torch.tensor([float(flag)], device=_device())).item())

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of a list that all know: contiguous, so that `gather` gives the list's order back."""
        edges = [len(items) * r // self.world for r in (self.rank, self.rank + 1)]
        return items[edges[0] : edges[1]]

    def gather(self, rows: Tensor) -> Tensor:
        """Every process's rows (n, ...), in the order of ranks, on all of them. The n may differ."""
        if self.world == 1:
            return rows
        counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(self.world)]
        dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
        most = max(int(c) for c in counts)
        padded = rows.new_zeros(most, *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(parts, padded)
        return torch.cat([part[: int(c)] for part, c in zip(parts, counts)])

    def tell(self, text: str) -> str:
        """What the first process says, on all of them."""
        if self.world == 1:
            return text
        data = torch.tensor(list(text.encode()) if self.first else [], dtype=torch.uint8, device=_device())
        return bytes(self.gather(data).tolist()).decode()

    def barrier(self) -> None:
        """Wait for the others."""
        self.any(False)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What one process does while the others wait: an error of one is an error of all; nobody waits for ever."""
        try:
            yield
        except BaseException:
            self.any(True)
            raise
        if self.any(False):
            raise UserError("another process of this training failed; its message says why")


ALONE = Processes()


def _device() -> torch.device:
    """Where small tensors must be for the processes to exchange them."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


@contextmanager
def processes(environ: Mapping[str, str], device: str = "cpu") -> Iterator[Processes]:
    """The processes that torchrun started, from what it says in the environment; ALONE where it did not.

    Adds nothing to a process alone. NCCL between graphics cards, gloo between CPUs.
    """
    if int(environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    mine = Processes(int(environ["RANK"]), int(environ["WORLD_SIZE"]), int(environ.get("LOCAL_RANK", "0")))
    if device == "cuda":
        torch.cuda.set_device(mine.local)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=timedelta(minutes=30))
    try:
        yield mine
    except SystemExit as end:
        end.__traceback__ = end.__context__ = None  # its frames hold the network
        raise
    finally:
        gc.collect()  # a sharded network holds the group, in cycles; gloo aborts where its end is not the group's last
        dist.destroy_process_group()


# --- sharded tensors: the same code for a tensor that is here and one that is spread over processes ---


def shard(net: nn.Module, dtype: torch.dtype) -> None:
    """Spread a network's parameters over all processes, block by block (FSDP2, in place).

    A block is an innermost module of a ModuleList with a forward of its own. The parameters stay float32; they are
    gathered in `dtype` to compute with, and gradients are reduced in float32.
    """
    for p in net.parameters():
        p.data = p.data.contiguous()  # FSDP2 takes no channels_last
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in [b for each in net.modules() if isinstance(each, nn.ModuleList) for b in each]:
        innermost = not any(isinstance(inner, nn.ModuleList) for inner in block.modules())
        if innermost and type(block).forward is not nn.Module.forward and any(True for _ in block.parameters()):
            fully_shard(block, mp_policy=policy)
    fully_shard(net, mp_policy=policy)
    if dtype != torch.float32:  # the picture alone: the time keeps its digits
        net.register_forward_pre_hook(lambda module, args: (args[0].to(dtype), *args[1:]))


def here(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The tensor in one piece. Every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def put(value: Tensor, into: Tensor) -> None:
    """Overwrite `into` by a tensor in one piece that every process has."""
    if isinstance(into, DTensor):
        value = distribute_tensor(value.to(into.device), into.device_mesh, into.placements, src_data_rank=None)
    here(into).copy_(here(value))
