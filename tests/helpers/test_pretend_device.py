"""The pretended device raises what a real one raises, and counts what makes the host wait."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
import torch

from tests.helpers.pretend_device import (
    DEVICE,
    INDEX,
    MASK,
    PINNED,
    READ,
    SENT,
    TO_DEVICE,
    TO_HOST,
    PretendDevice,
    host,
)


def test_an_operation_on_two_devices_raises() -> None:
    with PretendDevice():
        x = torch.ones(3, device=DEVICE)
        for wrong in (
            lambda: x + torch.ones(3),
            lambda: torch.stack([x[0], torch.tensor(1.0)]),
            lambda: x.copy_(torch.ones(3)) + torch.ones(1),
            lambda: torch.randn(3, device=DEVICE, generator=torch.Generator()),
        ):
            with pytest.raises(RuntimeError, match=r"on pretend and on the CPU|generator of the CPU"):
                wrong()
        assert host(x + torch.tensor(1.0)).tolist() == [2, 2, 2]


def test_float64_raises_where_there_is_none() -> None:
    with PretendDevice(doubles=False), pytest.raises(TypeError, match="float64"):
        torch.ones(3, device=DEVICE).double()
    with PretendDevice():
        assert torch.ones(3, device=DEVICE).double().dtype == torch.float64


def test_what_makes_the_host_wait_is_counted() -> None:
    """Each line once for every event in the list beside it."""
    with PretendDevice() as device:
        x = torch.zeros(3, device=DEVICE)
        for what, read in (
            ([READ], lambda: x[0].item()),
            ([READ], lambda: x.tolist()),
            ([READ], lambda: bool((x > 0).any())),
            ([READ], lambda: torch.equal(x, x)),
            ([TO_HOST], lambda: x.cpu()),
            ([TO_HOST], lambda: torch.zeros(3).copy_(x)),
            ([TO_DEVICE], lambda: torch.tensor([1.0], device=DEVICE)),
            ([TO_DEVICE], lambda: torch.zeros(3).to(DEVICE, non_blocking=True)),  # not pinned: the host waits
            ([PINNED, SENT], lambda: torch.zeros(3).pin_memory().to(DEVICE, non_blocking=True)),
            ([PINNED, TO_DEVICE], lambda: torch.zeros(3).pin_memory().to(DEVICE)),
            ([PINNED, TO_DEVICE], lambda: torch.zeros(6).pin_memory()[::2].to(DEVICE, non_blocking=True)),
            ([MASK], lambda: x[x > 0]),
            ([INDEX], lambda: x[[0, 1]]),
            ([], lambda: x * 2 + torch.full((3,), 0.5, device=DEVICE)),
        ):
            device.seen.clear()
            read()
            found: Counter[str] = Counter()
            for (each, line), times in device.seen.items():
                found[each] += times
                assert line == "elsewhere"
            assert found == Counter(what)


def test_gradients_and_other_threads_use_the_device() -> None:
    with PretendDevice() as device:
        weight = torch.nn.Parameter(torch.ones(3, device=DEVICE))
        weight.square().sum().backward()
        assert host(weight.grad).tolist() == [2, 2, 2]
        assert device.waits == {}
        thread = threading.Thread(target=lambda: torch.zeros(3).pin_memory())
        thread.start()
        thread.join()
        assert device.count(PINNED) == 1


def test_outside_of_the_block_nothing_can_be_pinned() -> None:
    with PretendDevice():
        pass
    assert torch.Tensor.pin_memory is torch._C.TensorBase.pin_memory
