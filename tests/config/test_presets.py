"""Every preset is in range, comes back from YAML, and says where its numbers come from."""

from __future__ import annotations

import pytest

from unnoise import data
from unnoise.config import convert, presets, validate
from unnoise.config.training import TrainConfig
from unnoise.recipes.model_card import describe


@pytest.mark.parametrize("name", presets.PRESETS)
def test_a_preset_is_in_range_and_cites_its_source(name):
    config = presets.PRESETS[name]()
    validate.check(config)
    assert config.name == name
    assert len(config.about) > 20
    assert convert.from_dict(TrainConfig, convert.to_dict(config)) == config


def test_half_lives_are_the_papers_decay():
    """0.9999 a step for 887,185 pictures in steps of 128 leaves half."""
    assert 0.9999 ** (presets.half_life(0.9999, 128) / 128) == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize(("name", "sampler"), [("fashion", "ddim"), ("fashion-ve", "ddim"), ("fashion-edm", "heun")])
def test_a_model_draws_with_what_the_docs_say_to_take(name, sampler):
    config = presets.PRESETS[name]()
    assert describe(config, data.open(config.data)).sampler == sampler
