"""A field carries the help text of its option; a default is what it would be without the text."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import pytest

from unnoise.cli.options import default_of
from unnoise.config import cards, data, diffusion, evaluation, networks, request, training
from unnoise.config.field import help_texts, setting

CONFIGS = [
    value
    for module in (cards, data, diffusion, evaluation, networks, request, training)
    for value in vars(module).values()
    if dataclasses.is_dataclass(value) and isinstance(value, type) and value.__module__ == module.__name__
]


@dataclass(frozen=True)
class Described:
    eta: float = setting(0.5, "how random")
    options: dict[str, int] = setting({"k": 1}, "by name")
    plain: int = 3


@dataclass(frozen=True)
class Plain:
    eta: float = 0.5
    options: dict[str, int] = field(default_factory=lambda: {"k": 1})
    plain: int = 3


def test_a_text_does_not_change_the_value() -> None:
    assert dataclasses.asdict(Described()) == dataclasses.asdict(Plain())
    assert dataclasses.asdict(Described(0.1, {}, 4)) == dataclasses.asdict(Plain(0.1, {}, 4))
    assert [default_of(f) for f in dataclasses.fields(Described)] == [0.5, {"k": 1}, 3]


def test_texts_are_found_by_the_name_of_the_field() -> None:
    assert help_texts(Described) == {"eta": "how random", "options": "by name"}
    assert help_texts(Plain) == {}


def test_instances_do_not_share_a_dictionary() -> None:
    one, other = Described(), Described()
    one.options["k"] = 2
    assert other.options == Described().options == {"k": 1}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_every_text_is_a_line_without_a_full_stop(config: type) -> None:
    for name, text in help_texts(config).items():
        assert text
        assert text == text.strip(), name
        assert "\n" not in text, name
        assert not text.endswith("."), name
