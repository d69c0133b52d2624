"""Settings that decide memory and time have ranges, which hold in every file."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from unnoise import nn
from unnoise.config import autoencoders, cards, diffusion, limits, networks
from unnoise.config.convert import from_dict, to_dict
from unnoise.config.networks import ControlConfig, UNetConfig
from unnoise.config.presets import ALL
from unnoise.errors import UserError
from unnoise.nn.classifier import Shape

KINDS = {kind.__name__: kind for home in (autoencoders, cards, diffusion, networks) for kind in vars(home).values()
         if dataclasses.is_dataclass(kind)} | {"Shape": Shape}  # fmt: skip
NUMBERS = [(kind, name) for kind, fields in limits.RANGES.items() for name in fields]


def test_every_limit_is_of_a_field() -> None:
    for kind, fields in (limits.RANGES | limits.LENGTHS).items():
        assert set(fields) <= {field.name for field in dataclasses.fields(KINDS[kind])}


def test_every_whole_number_of_a_network_has_a_range() -> None:
    """A new field of a network, a process or a card that is a number joins the table, or this list."""
    dropouts = {"dropout", "cond_dropout", "cond_dropout_each"}
    free = {"norm_eps", "low", "high", "usual", "null", "scale", "shift", "mean", "std", "weight", "bias", *dropouts}
    for name, kind in KINDS.items():
        for field in dataclasses.fields(kind):
            number = any(word in str(field.type) for word in ("int", "float")) and "dict" not in str(field.type)
            assert not number or field.name in limits.RANGES.get(name, {}) or field.name in free, field.name


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
@pytest.mark.parametrize("far", [10**9, 10**5000, -(10**9)], ids=["large", "huge", "negative"])
def test_a_number_out_of_its_range_is_refused_with_its_key(kind: str, name: str, far: int) -> None:
    old = getattr(KINDS[kind](), name)
    value: Any = [far] if isinstance(old, tuple) else far
    value = [far, far] if name == "size" and isinstance(old, tuple) else value
    with pytest.raises(UserError, match=rf"model\.json: {name}"):
        from_dict(KINDS[kind], {name: value}, "model.json")


@pytest.mark.parametrize("name", ALL)
def test_every_preset_is_within(name: str) -> None:
    config = ALL[name]()
    assert from_dict(type(config), to_dict(config)) == config


def test_a_long_list_is_refused() -> None:
    with pytest.raises(UserError, match="has 300,000 entries, of at most 16"):
        from_dict(UNetConfig, {"channels": [32] * 300_000})


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": (32,) * 16, "attention": (True,) * 16, "size": 2**15, "blocks": 64},
        {"transformers": 64, "blocks": 64},
        {"controls": (ControlConfig(),) * 64, "blocks": 8},
    ],
)
def test_a_network_of_very_many_blocks_is_not_built(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="blocks, more than 1,024"):
        nn.build(UNetConfig(**wrong))
