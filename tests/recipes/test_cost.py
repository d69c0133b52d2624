"""What a training costs is compared with the machine before time is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from unnoise.config.presets import PRESETS
from unnoise.config.training import Fit
from unnoise.errors import UserError
from unnoise.io.units import human
from unnoise.recipes import cost as costs
from unnoise.recipes.cost import available_memory, check_memory, cost


@pytest.mark.parametrize("available", [1_000, 1_001, 1_200, 2_000, 5_999, 6_999, 7_000])
def test_the_accumulation_that_is_named_fits_and_is_the_smallest(available: int) -> None:
    """A state of 1,000 bytes, and 100 bytes for each of 60 pictures: all divisors of 60 are tried by hand."""
    fit = Fit(batch=60)
    enough = [parts for parts in range(1, 61) if 60 % parts == 0 and 1_000 + 60 // parts * 100 <= available]
    if 1 in enough:
        check_memory(1_000, 100, fit, available)
        return
    with pytest.raises(UserError) as refused:
        check_memory(1_000, 100, fit, available)
    message = str(refused.value)
    assert f"60 pictures needs about {human(7_000)}B of memory, and {human(available)}B are available" in message
    if enough:
        assert message.endswith(f"set fit.accumulate={min(enough)}, which computes a batch in parts")
        check_memory(1_000, 100, replace(fit, accumulate=min(enough)), available)
    else:
        assert message.endswith("choose a smaller network")


def test_unknown_memory_is_not_compared() -> None:
    check_memory(10**18, 10**18, Fit(), None)
    assert available_memory("mps") is None


def test_the_memory_of_this_machine_is_that_of_linux() -> None:
    total = 1024 * int(Path("/proc/meminfo").read_text().split()[1])
    found = available_memory("cpu")
    assert found is not None
    assert 0 < found <= total


def test_processes_on_gpus_share_a_batch_and_those_on_cpus_share_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """And with gradient checkpointing the activations, which are hardly kept, do not count."""
    config = PRESETS["toy"]()
    config = replace(config, device="cpu", fit=replace(config.fit, batch=1024, precision="float32"))
    monkeypatch.setattr(costs, "_rate", lambda *_: 100.0)
    needed = cost(config).memory
    monkeypatch.setattr(costs, "available_memory", lambda device: needed // 2)
    for processes in (1, 4):
        with pytest.raises(UserError, match="a training step of 1,024 pictures"):
            cost(config, processes=processes)
    cost(replace(config, fit=replace(config.fit, gradient_checkpointing=True)))
    gpu = replace(costs.best("cpu", "float32"), device="cuda:0")
    monkeypatch.setattr(costs, "best", lambda *_: gpu)
    with pytest.raises(UserError, match="a training step of 1,024 pictures"):
        cost(config)
    asked = []
    monkeypatch.setattr(costs, "_rate", lambda *how: asked.append(how[2]) or 100.0)
    cost(config, processes=4)
    assert asked == [256]  # a GPU is timed on the pictures that it will compute at once, which fill it
