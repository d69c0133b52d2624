"""Class names that labels cannot name are changed in the same way wherever classes are read."""

from __future__ import annotations

import pytest

from unnoise.config.cards import ModelCard, NoisyClassifierCard
from unnoise.config.class_names import unreserved


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (("a", "none", "b"), ("a", "none_", "b")),
        (("none", "none_", "all"), ("none__", "none_", "all_")),
        (("", " ", "none "), ("_", " _", "none _")),
        (("None", "ALL", "nothing"), ("None", "ALL", "nothing")),
        ((), ()),
    ],
)
def test_reserved_names_get_an_underscore(given: tuple[str, ...], named: tuple[str, ...]) -> None:
    assert unreserved(given) == named
    assert unreserved(named) == named
    assert len(set(named)) == len(set(given))
    assert ModelCard(classes=given).classes == NoisyClassifierCard(classes=given).classes == named
