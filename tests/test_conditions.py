"""Conditions are rows: they are replaced, concatenated and selected per row, whatever fields they have."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from unnoise.conditions import NOTHING, Cond, Encoded, EncodedControl


def several(first: int, count: int) -> Cond:
    """Rows with every field, each filled with the row's own number."""
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
        encoded=Encoded(
            pooled=n.float()[:, None].expand(-1, 5),
            keys_values=(n.float()[:, None, None].expand(-1, 3, 6), -n.float()[:, None, None].expand(-1, 3, 8)),
            controls=(
                EncodedControl(n.float()[:, None, None, None].expand(-1, 2, 2, 2)),
                EncodedControl(
                    -n.float()[:, None, None, None].expand(-1, 2, 2, 2), (n.float()[:, None, None].expand(-1, 3, 4),)
                ),
            ),
        ),
    )


def equal(a: Cond, b: Cond) -> bool:
    mine, others = a.tensors(), b.tensors()
    return [name for name, _ in mine] == [name for name, _ in others] and all(
        torch.equal(x, y) for (_, x), (_, y) in zip(mine, others)
    )


def test_rows_are_replaced_one_by_one() -> None:
    mixed = several(0, 4).where(torch.tensor([True, False, False, True]), several(10, 4))
    for row, number in enumerate((10, 1, 2, 13)):
        assert equal(mixed[row : row + 1], several(number, 1))


def test_one_row_replaces_any_number_of_rows() -> None:
    dropped = several(0, 4).where(torch.tensor([True, False, False, True]), several(7, 1))
    for row, number in enumerate((7, 1, 2, 7)):
        assert equal(dropped[row : row + 1], several(number, 1))


def test_a_field_that_the_other_lacks_is_unchanged() -> None:
    mixed = several(0, 2).where(torch.tensor([True, False]), Cond(label=torch.tensor([5, 6])))
    assert mixed.label is not None
    assert mixed.label.tolist() == [5, 1]
    assert equal(Cond(**{**vars(mixed), "label": torch.arange(2)}), several(0, 2))
    with pytest.raises(ValueError, match="with and without label"):
        NOTHING.where(torch.tensor([True]), Cond(torch.tensor([1])))
    assert NOTHING.where(torch.tensor([True]), NOTHING).tensors() == []


def test_rows_are_concatenated_and_selected() -> None:
    joined = several(0, 2).cat(several(2, 3))
    assert equal(joined, several(0, 5))
    assert equal(joined[1:4], several(1, 3))
    assert equal(joined[torch.tensor([2, 3])], several(2, 2))
    assert joined.rows == 5
    assert NOTHING.cat(NOTHING).tensors() == []
    assert NOTHING[:3].label is None
    assert NOTHING.rows is None
    with pytest.raises(ValueError, match="with and without"):
        joined.cat(NOTHING)
    with pytest.raises(ValueError, match=r"with and without control.1"):
        joined.cat(Cond(**{**vars(joined), "control": joined.control[:1]}))
    assert joined.encoded is not None
    fewer = replace(joined, encoded=replace(joined.encoded, controls=joined.encoded.controls[:1]))
    with pytest.raises(ValueError, match=r"with and without encoded.controls.1.hint"):
        joined.cat(fewer)
    with pytest.raises(ValueError, match=r"with and without encoded.controls.1.hint"):
        fewer.where(torch.ones(5, dtype=torch.bool), joined)


def test_every_tensor_is_moved_to_a_device() -> None:
    moved = several(0, 2).to("meta")
    assert [name for name, _ in moved.tensors()] == [name for name, _ in several(0, 2).tensors()]
    assert all(tensor.is_meta for _, tensor in moved.tensors())


def test_every_tensor_has_the_name_of_its_place() -> None:
    names = [name for name, _ in several(0, 2).tensors()]
    assert names == [
        *("label", "value", "tokens", "text", "mask", "pooled", "concat", "control.0", "control.1", "control_scale"),
        *("encoded.pooled", "encoded.keys_values.0", "encoded.keys_values.1", "encoded.controls.0.hint"),
        *("encoded.controls.1.hint", "encoded.controls.1.keys_values.0"),
    ]
    assert len(several(0, 2)[:1].encoded.controls[1].keys_values[0]) == 1  # type: ignore[union-attr]
