"""Training in several processes: how work is split, and how results are exchanged.

Under torchrun each process computes a part of every batch and of every list of seeds. Decisions that all processes must
make alike (to stop, to save, that a step is not finite) need one small reduction at the end of a step. `ALONE` is a
single process, where every exchange is the identity.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    """This process among those that train together. `local` is its rank on its own machine: which GPU it uses."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Returns the sum over processes; `values` is not changed."""
        if self.world == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total

    def any(self, flag: bool) -> bool:
        """Returns whether the flag is true in any process."""
        return flag if self.world == 1 else bool(self.sum(torch.tensor([float(flag)], device=_device())).item())

    def split(self, items: Sequence[T]) -> Sequence[T]:
        """Returns this process's contiguous part of a list; `gather` concatenates the parts in the list's order."""
        edges = [len(items) * r // self.world for r in (self.rank, self.rank + 1)]
        return items[edges[0] : edges[1]]

    def gather(self, rows: Tensor) -> Tensor:
        """Concatenates the rows (n, ...) of all processes, in the order of ranks, in all of them. The n may differ."""
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

    def run(self, steps: Iterable[T], stop: Callable[[], bool]) -> list[T] | None:
        """Takes this process's steps, one at a time, while the others take theirs; returns them.

        `stop` is called before each step. As soon as it is true in any process, all return None. The processes may
        have different numbers of steps.
        """
        found, later = [], iter(steps)
        while True:
            flags = torch.zeros(2) if self.world == 1 else torch.zeros(2, device=_device())
            flags[0] = stop()
            if not flags[0] and (step := next(later, None)) is not None:
                found.append(step)
                flags[1] = 1
            stopped, working = self.sum(flags).tolist()
            if stopped or not working:
                return None if stopped else found

    def broadcast(self, text: str) -> str:
        """Returns the text of the first process, in all of them."""
        if self.world == 1:
            return text
        data = torch.tensor(list(text.encode()) if self.first else [], dtype=torch.uint8, device=_device())
        return bytes(self.gather(data).tolist()).decode()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work that fails in all processes where it fails in one, so that none waits for ever.

        In the others a UserError with the message of the failed process is raised.
        """
        try:
            yield
        except BaseException as error:
            self._failure(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
            raise
        if message := self._failure(""):
            raise UserError(message)

    def _failure(self, message: str) -> str:
        """Returns the message of the first process that has one, in all processes; "" where none has."""
        if self.world == 1 or not self.any(bool(message)):
            return message
        data = torch.tensor(list(f"{message}\0".encode()), dtype=torch.uint8, device=_device())
        return next(filter(None, bytes(self.gather(data).tolist()).decode().split("\0")))


ALONE = Processes()


def _device() -> torch.device:
    """The device on which small tensors are exchanged."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


@contextmanager
def processes(environ: Mapping[str, str], device: str = "cpu") -> Iterator[Processes]:
    """Joins the processes that torchrun started, according to `environ`; yields ALONE where there is one process.

    The backend is NCCL between GPUs and gloo between CPUs.
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
        end.__traceback__ = end.__context__ = None  # its frames reference the network
        raise
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise UserError("another process of this training has ended: its own message has the reason") from None
        raise
    finally:
        gc.collect()  # a sharded network references the group, in cycles; gloo aborts where the group ends first
        dist.destroy_process_group()


# --- sharded tensors: the same code for a tensor in one process and one that is sharded over several ---


def shard(net: nn.Module, dtype: torch.dtype) -> None:
    """Shards a network's parameters over all processes, block by block (FSDP2, in place).

    A block is an innermost module of a ModuleList with a forward of its own. The parameters stay float32; they are
    gathered in `dtype` for computation, and gradients are reduced in float32.
    """
    for p in net.parameters():
        p.data = p.data.contiguous()  # FSDP2 does not support channels_last
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in [b for each in net.modules() if isinstance(each, nn.ModuleList) for b in each]:
        innermost = not any(isinstance(inner, nn.ModuleList) for inner in block.modules())
        if innermost and type(block).forward is not nn.Module.forward and any(True for _ in block.parameters()):
            fully_shard(block, mp_policy=policy)
    fully_shard(net, mp_policy=policy)
    if dtype != torch.float32:  # only the picture: the time stays in full precision
        net.register_forward_pre_hook(lambda module, args: (args[0].to(dtype), *args[1:]))


def here(tensor: Tensor) -> Tensor:
    """Returns the local part of a tensor, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Returns the unsharded tensor. Every process must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def put(value: Tensor, into: Tensor) -> None:
    """Overwrites `into` with an unsharded tensor of its shape that every process has."""
    assert value.shape == into.shape, f"{tuple(value.shape)} is not {tuple(into.shape)}"
    if isinstance(into, DTensor):
        value = distribute_tensor(value.to(into.device), into.device_mesh, into.placements, src_data_rank=None)
    here(into).copy_(here(value))
