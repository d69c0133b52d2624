"""The condition of labels: the null class is a row, whatever the classes are called."""

from __future__ import annotations

import pytest
import torch

from unnoise.errors import UserError
from unnoise.text.conditioner import Conditioner

NAMES = [("disc", "none", "ring"), ("none", "all"), ("none",), ("a", "b"), ("3", "2", "1")]


@pytest.mark.parametrize("classes", NAMES)
def test_the_null_class_is_found_by_its_row(classes: tuple[str, ...]) -> None:
    known = Conditioner(classes, null_class=len(classes))
    null = torch.full((2,), len(classes))
    assert torch.equal(known.null(2).label, null)  # type: ignore[arg-type]
    assert torch.equal(known.encode(labels=["none"] * 2).label, null)  # type: ignore[arg-type]
    assert torch.equal(known.encode(values={}, prompts=["", ""]).label, null)  # type: ignore[arg-type]
    assert torch.equal(known.label_rows(["none", "none"]), null)  # type: ignore[arg-type]
    assert known.name(len(classes)) == "none"


@pytest.mark.parametrize("classes", NAMES)
def test_without_a_null_class_there_is_no_null_condition(classes: tuple[str, ...]) -> None:
    for ask in (lambda: Conditioner(classes).null(1), lambda: Conditioner(classes).encode(labels=["none"])):
        with pytest.raises(UserError, match="no null class"):
            ask()
