"""Conditions are rows: they are replaced, joined and cut per row, whatever they speak of."""

from __future__ import annotations

import pytest
import torch

from unnoise.conditions import NOTHING, Cond


def several(first: int, count: int) -> Cond:
    """Rows that speak of everything, each of its own number."""
    n = torch.arange(first, first + count)
    return Cond(
        label=n,
        value=n[:, None] * torch.tensor([1.0, 10.0]),
        tokens=n[:, None] + torch.tensor([0, 100, 200]),
        text=n.float()[:, None, None].expand(-1, 3, 2),
        mask=(n[:, None] + torch.arange(3)) % 2 == 0,
        pooled=n.float()[:, None].expand(-1, 4),
        concat=n.float()[:, None, None, None].expand(-1, 1, 2, 2),
        control=(
            n.float()[:, None, None, None].expand(-1, 3, 2, 2),
            -n.float()[:, None, None, None].expand(-1, 3, 4, 4),
        ),
        control_scale=n.float()[:, None] * torch.tensor([1.0, 0.5]),
        encoded=(n.float()[:, None, None].expand(-1, 3, 6), n.float()[:, None, None].expand(-1, 3, 8)),
    )


def equal(a: Cond, b: Cond) -> bool:
    mine, others = a._flat(), b._flat()
    return [name for name, _ in mine] == [name for name, _ in others] and all(
        torch.equal(x, y) for (_, x), (_, y) in zip(mine, others)
    )


def test_rows_are_replaced_one_by_one() -> None:
    mixed = several(0, 4).where(torch.tensor([True, False, False, True]), several(10, 4))
    for row, number in enumerate((10, 1, 2, 13)):
        assert equal(mixed[row : row + 1], several(number, 1))


def test_a_row_alone_replaces_any_number_of_rows() -> None:
    dropped = several(0, 4).where(torch.tensor([True, False, False, True]), several(7, 1))
    for row, number in enumerate((7, 1, 2, 7)):
        assert equal(dropped[row : row + 1], several(number, 1))


def test_what_the_other_does_not_speak_of_stays() -> None:
    mixed = several(0, 2).where(torch.tensor([True, False]), Cond(label=torch.tensor([5, 6])))
    assert mixed.label is not None
    assert mixed.label.tolist() == [5, 1]
    assert equal(Cond(**{**vars(mixed), "label": torch.arange(2)}), several(0, 2))
    with pytest.raises(ValueError, match="with and without label"):
        NOTHING.where(torch.tensor([True]), Cond(torch.tensor([1])))
    assert NOTHING.where(torch.tensor([True]), NOTHING)._flat() == []


def test_rows_are_joined_and_cut() -> None:
    joined = several(0, 2).then(several(2, 3))
    assert equal(joined, several(0, 5))
    assert equal(joined[1:4], several(1, 3))
    assert equal(joined[torch.tensor([2, 3])], several(2, 2))
    assert joined.rows == 5
    assert NOTHING.then(NOTHING)._flat() == []
    assert NOTHING[:3].label is None
    assert NOTHING.rows is None
    with pytest.raises(ValueError, match="with and without"):
        joined.then(NOTHING)
    with pytest.raises(ValueError, match=r"with and without control.1"):
        joined.then(Cond(**{**vars(joined), "control": joined.control[:1]}))


def test_all_of_it_goes_to_a_device() -> None:
    moved = several(0, 2).to("meta")
    assert [name for name, _ in moved._flat()] == [name for name, _ in several(0, 2)._flat()]
    assert all(tensor.is_meta for _, tensor in moved._flat())
