"""Conditions are rows: they are dropped, joined and cut per row."""

from __future__ import annotations

import pytest
import torch

from unnoise.conditions import NOTHING, Cond


def test_rows_are_dropped_one_by_one() -> None:
    cond = Cond(torch.tensor([0, 1, 2, 3]))
    dropped = cond.drop(torch.tensor([True, False, False, True]), null=10).label
    assert dropped is not None
    assert dropped.tolist() == [10, 1, 2, 10]
    assert NOTHING.drop(torch.tensor([True]), null=10) is NOTHING


def test_rows_are_joined_and_cut() -> None:
    joined = Cond(torch.tensor([1, 2])).then(Cond(torch.tensor([3])))
    assert joined.label is not None
    assert joined.label.tolist() == [1, 2, 3]
    assert joined[1:].label.tolist() == [2, 3]  # type: ignore[union-attr]
    assert joined[torch.tensor([2, 0])].label.tolist() == [3, 1]  # type: ignore[union-attr]
    assert NOTHING.then(NOTHING).label is None
    assert NOTHING[:3].label is None
    with pytest.raises(ValueError, match="with and without"):
        joined.then(NOTHING)
