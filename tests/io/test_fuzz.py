"""Mutated files of every kind: whatever their bytes are, they are read, or refused with a sentence.

`python -m tools.fuzz` does the same for as long as it is let, with limits of memory and time.
"""

from __future__ import annotations

import pytest

from tests.helpers.fuzzing import TARGETS, faults, originals

SLOW = {"model": 8, "run": 8, "pipeline": 12}  # inputs of those that build a network
COUNT = 40


@pytest.mark.filterwarnings("ignore")  # of Pillow and pyarrow, about odd files
@pytest.mark.parametrize("name", TARGETS)
def test_a_mutated_file_is_read_or_refused(name: str) -> None:
    seeds = [f"0 {i}" for i in range(SLOW.get(name, COUNT))]
    for seed, error in faults(name, seeds, originals(name)):
        raise AssertionError(f"{name}, seed {seed!r}") from error
