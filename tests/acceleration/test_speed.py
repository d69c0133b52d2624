"""The speed of an operation is that of its work, whatever launches it and waits for it."""

from __future__ import annotations

import pytest
import torch

from unnoise.acceleration import speed


def test_a_convolution_has_a_speed_between_a_toy_and_a_supercomputer() -> None:
    found = speed.measure(torch.float32, torch.channels_last, "cpu", seconds=0.01)
    assert (found.dtype, found.layout) == ("float32", "channels_last")
    assert 1e-4 < found.tflops < 1e3


def test_the_wait_for_a_gpu_is_not_part_of_its_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device with an operation of 100 us, which is launched in 5 us, and whose wait takes 60 us."""
    now = work_done = 0.0

    def call() -> None:
        nonlocal now, work_done
        now += 5e-6
        work_done = max(now, work_done) + 100e-6

    def wait() -> None:
        nonlocal now
        now = max(now, work_done) + 60e-6

    def clock() -> float:
        nonlocal now
        now += 1e-7
        return now

    monkeypatch.setattr(speed.time, "perf_counter", clock)
    assert speed.fastest(call, wait, seconds=0.4) == pytest.approx(100e-6, rel=0.01)
