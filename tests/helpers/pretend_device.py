"""A device that is not the CPU, for machines that have none.

Tensors of the device "pretend" report that they lie there; the CPU holds their numbers, so results are real. The device
is PyTorch's "privateuseone", with the device guard that PyTorch has for backends in Python. It stands for CUDA and MPS:

* an operation on tensors of two devices raises RuntimeError, as there; numbers and tensors () of the CPU may take part;
* float64 on the device raises TypeError where `doubles` is false, as on MPS;
* whatever crosses between the devices is counted, by the project's file and line (`PretendDevice.seen`).

    with PretendDevice() as device:
        net.to(DEVICE)(x.to(DEVICE))
    assert device.waits == {}

It does not show kernels that are missing, slow, inexact (TF32) or not deterministic on a real device, nor NCCL.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType
from typing import Any, Self
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
DEVICE = f"{NAME}:0"

READ, TO_HOST, TO_DEVICE, INDEX, MASK = "read", "copy to the host", "copy to the device", "index copied", "size read"
SENT, PINNED = "copy to the device, not waiting", "pinned"
WAITS = (READ, TO_HOST, TO_DEVICE, INDEX, MASK)
"""What makes the host wait: a number is read, a copy blocks, an index is copied, the size of a result is read."""

_READS = ("_local_scalar_dense", "equal", "is_nonzero", "_linalg_check_errors")
_SIZES = ("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount", "repeat_interleave")
_INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")
_JOINED = ("cat", "stack")  # which take no tensors () of the CPU


class Held(torch.Tensor):
    """A tensor of the pretended device; `held` has its numbers."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> Held:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[no-any-return, attr-defined]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
            requires_grad=False,
        )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, new: Held) -> None:
        torch._C.TensorBase.data.__set__(self, new)  # type: ignore[attr-defined]
        self.held = new.held

    def __deepcopy__(self, memo: dict[int, Any]) -> Held:
        copied = Held(self.held.detach().clone()).requires_grad_(self.requires_grad)
        copied.__dict__.update({name: value for name, value in self.__dict__.items() if name != "held"})
        memo[id(self)] = copied
        return copied  # type: ignore[return-value]

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"Held({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})  # in a thread without the mode


def host(x: Tensor) -> Tensor:
    """Returns the numbers of a tensor of either device, on the CPU, without counting a wait."""
    return x.held.detach() if isinstance(x, Held) else x.detach()


class PretendDevice(TorchDispatchMode):
    """The device exists while the block runs. `doubles`: whether it has float64, as CUDA has and MPS has not.

    `seen` counts what crosses to or from it: (what, "file:line") -> times. One block at a time.
    """

    def __init__(self, *, doubles: bool = True) -> None:
        super().__init__()
        self.doubles = doubles
        self.seen: Counter[tuple[str, str]] = Counter()
        self.pinned: list[Tensor] = []  # which keeps their addresses from being used again

    @property
    def waits(self) -> dict[tuple[str, str], int]:
        """What made the host wait, and how often."""
        return {key: times for key, times in self.seen.items() if key[0] in WAITS}

    def count(self, what: str) -> int:
        """How often this was seen, on all lines."""
        return sum(times for (each, _), times in self.seen.items() if each == what)

    def __enter__(self) -> Self:
        global _current
        assert _current is None, "one pretended device at a time"
        _current = self
        self._patches = ExitStack()
        self._patches.enter_context(mock.patch.object(torch.Tensor, "pin_memory", _pin))  # in every thread
        self._patches.enter_context(mock.patch.object(torch.Tensor, "is_pinned", _is_pinned))
        self._patches.enter_context(_Lists())
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        global _current
        super().__exit__(*error)
        self._patches.close()
        _current = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


_current: PretendDevice | None = None


class _Backend:
    """What torch.pretend is: a device is available while a block runs. PyTorch registers it for the whole process."""

    def is_available(self) -> bool:
        return _current is not None

    def is_initialized(self) -> bool:
        return _current is not None

    def device_count(self) -> int:
        return int(_current is not None)

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def get_rng_state(self, device: object = None) -> Tensor:
        return torch.empty(0, dtype=torch.uint8)  # the device draws no numbers of its own

    def set_rng_state(self, state: Tensor, device: object = None) -> None:
        pass


class _Hook(torch._C._acc.PrivateUse1Hooks):  # type: ignore[misc, name-defined]
    def is_available(self) -> bool:
        return _current is not None

    def has_primary_context(self, device: int) -> bool:
        return True

    def is_built(self) -> bool:
        return True


_setup_privateuseone_for_python_backend(NAME, backend_module=_Backend(), hook=_Hook())


class _Lists(TorchFunctionMode):
    """Sees what the dispatcher does not: `tolist`, `torch.tensor(list, device=...)`, and an index that is a list."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.tolist and isinstance(args[0], Held):
            _note(READ)
            return host(args[0]).tolist()
        if func is torch.Tensor.new_tensor and isinstance(args[0], Held):
            func, args, kwargs = torch.tensor, args[1:], {"dtype": args[0].dtype, "device": DEVICE} | kwargs
        if func in (torch.tensor, torch.as_tensor) and _is_there(kwargs.get("device")):
            made = func(*args, **{name: value for name, value in kwargs.items() if name != "device"})
            return made.to(kwargs["device"])
        if func is torch.quantile and isinstance(args[0], Held):  # it changes a shape in place, which `Held` cannot
            return Held(torch.quantile(host(args[0]), *args[1:], **kwargs))
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[0], Held):
            args = (args[0], _index(args[1]), *args[2:])
        return func(*args, **kwargs)


def _index(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    return torch.tensor(index) if isinstance(index, list) else index


def _pin(x: Tensor, device: object = None) -> Tensor:
    if _current is None:
        raise RuntimeError("there is no device to pin memory for")
    if isinstance(x, Held):
        raise RuntimeError("only dense CPU tensors can be pinned")
    _note(PINNED)
    pinned = x.detach().clone()
    _current.pinned.append(pinned)
    return pinned


def _is_pinned(x: Tensor, device: object = None) -> bool:
    """Whether a tensor of the CPU lies in pinned memory."""
    if isinstance(x, Held) or _current is None:
        return False
    address = x.untyped_storage().data_ptr()
    return any(address == p.untyped_storage().data_ptr() for p in _current.pinned)


def _need_not_wait(x: Tensor) -> bool:
    """Whether a copy to the device need not wait: from pinned memory, and without gaps."""
    return _is_pinned(x) and torch.ops.aten.is_non_overlapping_and_dense(x)


def _is_there(device: object) -> bool:
    return device is not None and torch.device(device).type == NAME  # type: ignore[arg-type]


def _line() -> str:
    """The innermost line of the project that is running."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        before, found, path = frame.f_code.co_filename.rpartition("/unnoise/")
        if found and before.endswith("src"):
            return f"{path}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


def _note(what: str) -> None:
    if _current is not None:
        _current.seen[what, _line()] += 1


def _tensors(values: Any) -> list[Tensor]:
    """The tensors in the arguments of an operation, or in its results."""
    if isinstance(values, torch.Tensor):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, tuple | list):
        return []
    return [tensor for value in values for tensor in _tensors(value)]


def _map(change: Callable[[Tensor], Tensor], values: Any) -> Any:
    """The same arguments, or results, with each tensor changed."""
    if isinstance(values, torch.Tensor):
        return change(values)
    if isinstance(values, dict):
        return {name: _map(change, value) for name, value in values.items()}
    return type(values)(_map(change, value) for value in values) if isinstance(values, tuple | list) else values


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Runs an operation on the numbers that are held; a result is on the device where it would be."""
    name = func._schema.name.partition("::")[2]
    given = _tensors((args, kwargs))
    mine = any(isinstance(x, Held) for x in given)
    there = _is_there(kwargs["device"]) if kwargs.get("device") is not None else mine
    _check(name, args, kwargs, given, there=there)
    _count(name, args, kwargs, mine=mine, there=there)
    kwargs = {key: value for key, value in kwargs.items() if key != "pin_memory"}
    here = kwargs | ({"device": torch.device("cpu")} if kwargs.get("device") is not None else {})
    raw_args, raw_kwargs = _map(lambda x: x.held if isinstance(x, Held) else x, (args, here))
    found = func(*raw_args, **raw_kwargs)
    written = _written(func, args, kwargs)
    if written is not None:
        assert not isinstance(written, Held) or written.shape == written.held.shape, f"{name} changes a shape in place"
        return written
    if not there or name in _READS:
        return found
    doubles = _current is None or _current.doubles
    if not doubles and any(x.dtype == torch.float64 for x in _tensors(found)):
        raise TypeError(f"{name}: this device has no float64 ({_line()})")
    return _map(Held, found)


def _written(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The argument that an operation writes to and returns; None where it returns something new."""
    returns = func._schema.returns
    if len(returns) != 1 or returns[0].alias_info is None or not returns[0].alias_info.is_write:
        return None
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            return args[place] if place < len(args) else kwargs[argument.name]
    return None


def _check(name: str, args: Any, kwargs: dict[str, Any], given: list[Tensor], *, there: bool) -> None:
    """Raises where the devices of an operation differ, as on a real device."""
    mine = [x for x in given if isinstance(x, Held)]
    if there and not mine and kwargs.get("generator") is not None:
        raise RuntimeError(f"{name}: a generator of the CPU for a tensor on {NAME} ({_line()})")
    if not mine or name in ("_to_copy", "copy_"):
        return
    others = [x for x in given if not isinstance(x, Held) and (x.ndim > 0 or name in _JOINED)]
    if name in _INDEXED and isinstance(args[0], Held):  # indices of the CPU are copied; so are no values but numbers
        others = [x for x in _tensors(args[2:]) if not isinstance(x, Held) and x.ndim > 0]
    if others:
        raise RuntimeError(f"{name}: tensors on {NAME} and on the CPU together ({_line()})")


def _count(name: str, args: Any, kwargs: dict[str, Any], *, mine: bool, there: bool) -> None:
    """Counts what crosses between the devices in this operation."""
    if name in ("_to_copy", "copy_"):
        source, target = (args[0], there) if name == "_to_copy" else (args[1], isinstance(args[0], Held))
        if source.numel() == 0:
            return  # nothing is copied
        waiting = not (kwargs.get("non_blocking") or (name == "copy_" and args[2:] == (True,)))
        if isinstance(source, Held) and not target:
            _note(TO_HOST)
        elif target and not isinstance(source, Held):
            _note(TO_DEVICE if waiting or not _need_not_wait(source) else SENT)
    elif mine and name in _READS:
        _note(READ)
    elif mine and name in _SIZES:
        _note(MASK)
    elif mine and name in _INDEXED:
        indices = _tensors(args[1])
        if any(not isinstance(x, Held) for x in indices):
            _note(INDEX)
        if any(x.dtype in (torch.bool, torch.uint8) for x in indices):
            _note(MASK)
