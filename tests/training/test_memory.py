"""A step without memory is one sentence with the settings in use and one fix; the fix is a setting that is accepted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.helpers.tiny_training import FIT, TinyConfig, batches, changed, make_net, objective
from unnoise.config.training import Fit
from unnoise.errors import UserError
from unnoise.training.loop import fit
from unnoise.training.memory import memory_errors
from unnoise.training.player import Player
from unnoise.training.train_state import TrainState

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB")
WINDOWS = RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried to allocate")
APPLE = RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB, other allocations: 1.2 GB)")


def fail(error: BaseException | None = None) -> None:
    """Raises `error`, or that of this machine's own allocator."""
    if error is None:
        torch.empty(2**50)
    else:
        raise error


def message(
    error: BaseException | None, config: Fit, *, unet: bool = False, world: int = 1, pairs: bool = False
) -> str:
    net = make_net()
    if unet:
        net.checkpointing = config.gradient_checkpointing
    dtype = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
    player = Player(net, config, lambda batch, rows: batch, compares_rows=pairs)
    with pytest.raises(UserError) as found, memory_errors(player, TrainState(net, config, dtype=dtype), world):
        fail(error)
    return str(found.value)


@pytest.mark.parametrize("error", [None, CUDA, WINDOWS, APPLE, MemoryError()], ids=str)
def test_every_allocators_error_names_the_settings_in_use(error: BaseException | None) -> None:
    assert message(error, FIT, unet=True) == (
        "step 1 needs more memory than is free on cpu: set fit.accumulate=4, which computes a batch in more parts with "
        "the same result. It computed 4 pictures at once, with fit.batch=8, fit.accumulate=2, "
        "fit.gradient_checkpointing=false and fit.precision=float32"
    )


def test_the_first_fix_is_the_one_that_is_left_and_costs_least() -> None:
    single = replace(FIT, accumulate=8)
    kept = replace(single, gradient_checkpointing=True)
    assert "set fit.accumulate=3" in message(CUDA, replace(FIT, batch=12, accumulate=1), world=4)  # 2 leave a rest
    assert "set fit.gradient_checkpointing=true" in message(CUDA, single, unet=True)
    assert "set fit.precision=bfloat16" in message(CUDA, kept, unet=True)
    assert "choose a smaller network" in message(CUDA, replace(kept, precision="bfloat16"), unet=True)
    assert "choose a smaller network" in message(CUDA, single)  # no network of ours: nothing is computed again
    assert "set fit.batch=4." in message(CUDA, replace(FIT, accumulate=1), pairs=True)


def test_another_error_stays_what_it_is() -> None:
    player = Player(make_net(), FIT, lambda batch, rows: batch)
    with pytest.raises(RuntimeError, match="shapes"), memory_errors(player, TrainState(player.net, FIT), 1):
        raise RuntimeError("shapes do not match")


def test_a_training_that_runs_out_of_memory_ends_with_it() -> None:
    config = changed(accumulate=1)
    net = make_net(0.0)
    loss = objective(net)

    def greedy(batch, rows):  # type: ignore[no-untyped-def]
        if rows.places[0] == 16:  # the third step
            fail()
        return loss(batch, rows)

    ticks = fit(Player(net, config.fit, greedy), batches(TinyConfig(), 0))
    with pytest.raises(UserError, match=r"step 3 needs more memory than is free on cpu: set fit.accumulate=2"):
        list(ticks)
