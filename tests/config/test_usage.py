"""A class is given by its name, or by its number in plain digits; nothing else is a class."""

from __future__ import annotations

import pytest

from unnoise.cli.requests import prompted, rows_for
from unnoise.config.cards import ModelCard
from unnoise.config.networks import UNetConfig
from unnoise.config.usage import class_row
from unnoise.errors import UserError
from unnoise.text.conditioner import Conditioner

CLASSES = ("cat", "dog", "7", *map(str, range(20, 28)))
ROWS = {"cat": 0, "dog": 1, "0": 0, "1": 1, "7": 2, "10": 10, "20": 3}  # a name comes before a number
OTHERS = ("01", "+1", "-1", " 1", "1 ", "1.0", "1_0", "\u00b2", "\u0661", "", "11", "28", "cats", "9" * 5_000)


@pytest.mark.parametrize("label", [*ROWS, *OTHERS], ids=lambda label: label[:5].encode().hex())
def test_one_rule_decides_which_class_a_label_is(label: str) -> None:
    row = ROWS.get(label)
    assert class_row(label, CLASSES) == row
    conditioner = Conditioner(classes=CLASSES, null_class=len(CLASSES))
    card = ModelCard(net=UNetConfig(classes=len(CLASSES)), classes=CLASSES)
    if row is not None:
        rows = conditioner.label_rows([label])
        assert rows is not None
        assert rows.tolist() == [row]
        assert rows_for([(5, None)], (label,), card) == [(5, label)]
    else:
        for refused in (lambda: conditioner.label_rows([label]), lambda: rows_for([(5, None)], (label,), card)):
            with pytest.raises(UserError, match="no class"):
                refused()


@pytest.mark.parametrize("number", ["01", "+1", "\u00b2", "2"])
def test_the_number_of_a_prompt_follows_the_same_rule(number: str) -> None:
    assert prompted([(5, "1")], ("a", "b")) == [(5, "b")]
    with pytest.raises(UserError, match="0 to 1"):
        prompted([(5, number)], ("a", "b"))
