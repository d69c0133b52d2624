"""Retained memory is not requested again: counted in page faults, which do not depend on the machine's speed."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, numpy as np
from unnoise.acceleration import allocator
{before}
def faults(rounds):
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        [np.ones({elements}, np.float32) for _ in range(6)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begin
faults(20)
print(faults(5))
"""


def faults(before: str, elements: int = 6_000_000) -> int:  # 24 MB
    code = CODE.format(before=before, elements=elements)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_retained_memory_causes_no_page_faults():
    assert faults("assert allocator.retain()") < 100
    assert faults("allocator.retain()", elements=20_000_000) < 100, "also beyond the largest threshold of the heap"
    usual = faults("")
    assert usual > 10_000, "if the system retains memory by itself, `retain` has no effect"
    assert faults("allocator.retain(); assert allocator.release()") > 10_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_preparing_a_network_for_the_cpu_retains_memory():
    code = "from torch import nn; from unnoise.acceleration.placement import Placement, prepare; "
    assert faults(code + "prepare(nn.Conv2d(1, 1, 1), Placement('cpu'))") < 100
    assert faults(code + "prepare(nn.Conv2d(1, 1, 1), Placement('meta'))") > 10_000


def test_without_glibc_nothing_is_done(monkeypatch):
    from unnoise.acceleration import allocator

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not allocator.retain()
    assert not allocator.release()
