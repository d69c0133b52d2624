"""Training in several processes: how work is split, and how results are exchanged.

Under torchrun each process computes a part of every batch and of every list of seeds. Decisions that all processes must
make alike (to stop, to save, that a step is not finite) need one small reduction at the end of a step. `ALONE` is a
single process, where every exchange is the identity.

Tensors are exchanged where they are: those of a GPU by NCCL, those of the CPU by gloo, also between processes that
compute on GPUs.
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
from torch.distributed.device_mesh import init_device_mesh
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

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replaces tensors by their averages over processes, in place. Every process passes tensors of these shapes."""
        if self.world > 1:
            for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
                work.wait()
            torch._foreach_div_(list(tensors), self.world)

    def any(self, flag: bool) -> bool:
        """Returns whether the flag is true in any process."""
        return flag if self.world == 1 else bool(self.sum(torch.tensor([float(flag)])).item())

    def split(self, items: Sequence[T]) -> Sequence[T]:
        """Returns this process's contiguous part of a list; `gather` concatenates the parts in the list's order."""
        edges = [len(items) * r // self.world for r in (self.rank, self.rank + 1)]
        return items[edges[0] : edges[1]]

    def gather(self, rows: Tensor, counts: Sequence[int] | None = None) -> Tensor:
        """Concatenates the rows (n, ...) of all processes, in the order of ranks, in all of them. The n may differ.

        `counts` has the n of each process, where all of them know it; without it they exchange it first.
        """
        if self.world == 1:
            return rows
        if counts is None:
            sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
            dist.all_gather(sizes, torch.tensor([len(rows)]))
            counts = [int(size) for size in sizes]
        assert counts[self.rank] == len(rows), f"{len(rows)} rows, and {counts[self.rank]} are expected"
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts)])

    def run(self, steps: Iterable[T], stop: Callable[[], bool]) -> list[T] | None:
        """Takes this process's steps, one at a time, while the others take theirs; returns them.

        `stop` is called before each step. As soon as it is true in any process, all return None. The processes may
        have different numbers of steps.
        """
        found, later = [], iter(steps)
        while True:
            flags = torch.zeros(2)
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
        data = torch.tensor(list(text.encode()) if self.first else [], dtype=torch.uint8)
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
        data = torch.tensor(list(f"{message}\0".encode()), dtype=torch.uint8)
        return next(filter(None, bytes(self.gather(data).tolist()).decode().split("\0")))


ALONE = Processes()


@contextmanager
def processes(environ: Mapping[str, str], device: str = "auto") -> Iterator[Processes]:
    """Joins the processes that torchrun started, according to `environ`; yields ALONE where there is one process.

    `device` is where they compute: auto (a GPU for each process where there are GPUs), cpu or cuda. From here on "cuda"
    is a process's own GPU. Raises UserError, in all processes, where they would have to share a GPU.
    """
    if int(environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    mine = Processes(int(environ["RANK"]), int(environ["WORLD_SIZE"]), int(environ.get("LOCAL_RANK", "0")))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    own = own_device(device, mine)
    if device == "cuda":
        _check_gpus(int(environ.get("LOCAL_WORLD_SIZE", mine.local + 1)))
        torch.cuda.set_device(own)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=timedelta(minutes=30))
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


def own_device(device: str, mine: Processes) -> str:
    """Returns the device of this process: "cuda" is a GPU for each of several processes. Raises UserError for a device
    that they would have to share."""
    if mine.world == 1 or device == "cpu":
        return device
    if device != "cuda":
        fix = "use --device cuda, and choose GPUs with the environment variable CUDA_VISIBLE_DEVICES"
        fix = fix if device.startswith("cuda") else "start one process, without torchrun"
        raise UserError(f"{mine.world} processes would share device {device}, and each needs its own: {fix}")
    return f"cuda:{mine.local}"


def _check_gpus(local: int) -> None:
    """Raises UserError where this machine has fewer GPUs than processes, of which there are `local`."""
    cards = torch.cuda.device_count()
    if local > cards:
        raise UserError(
            f"torchrun started {local} processes on this machine, and torch finds {cards} GPUs: use --nproc-per-node "
            f"{max(cards, 1)}, or --device cpu"
        )


# --- sharded tensors: the same code for a tensor in one process and one that is sharded over several ---


def shard(net: nn.Module, dtype: torch.dtype) -> None:
    """Shards a network's parameters over all processes, block by block (FSDP2, in place).

    A block is an innermost module of a ModuleList with a forward of its own. The parameters stay float32; they are
    gathered in `dtype` for computation, and gradients are reduced in float32, once for each accumulated part: to add
    them up before would need the memory of the whole gradient in every process.
    """
    device = next(net.parameters()).device.type  # FSDP2's default mesh is of a GPU wherever there is one
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    for p in net.parameters():
        p.data = p.data.contiguous()  # FSDP2 does not support channels_last
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in [b for each in net.modules() if isinstance(each, nn.ModuleList) for b in each]:
        innermost = not any(isinstance(inner, nn.ModuleList) for inner in block.modules())
        if innermost and type(block).forward is not nn.Module.forward and any(True for _ in block.parameters()):
            fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(net, mesh=mesh, mp_policy=policy)
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
