"""Settings of a training: each kind has one recipe, and every value comes from a preset, a file, the data or a user."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import get_args

import pytest

from unnoise.config import convert, files
from unnoise.config.autoencoders import KLConfig
from unnoise.config.cards import AutoencoderCard, LatentsConfig
from unnoise.config.networks import height_width
from unnoise.config.presets import ALL
from unnoise.config.training import AnyConfig, TrainConfig
from unnoise.errors import UserError
from unnoise.formats.autoencoders import CARD, FORMAT
from unnoise.recipes.registry import RECIPES, recipe_of
from unnoise.recipes.settings import from_file, load, resolve, with_classes, with_implied


def test_every_kind_of_training_has_one_recipe() -> None:
    kinds = [recipe.config for recipe in RECIPES.values()]
    assert set(kinds) == set(get_args(AnyConfig))
    assert len(kinds) == len(set(kinds))
    for recipe in RECIPES.values():
        assert recipe_of(recipe.config()) is recipe


def write_autoencoder(config: AnyConfig) -> None:
    """The card of the autoencoder that a training in latents names, where it names it."""
    if not isinstance(config, TrainConfig) or not config.autoencoder:
        return
    (side, _), pixels = height_width(config.net.size), config.data.channels
    levels = int(math.log2(config.data.size // side)) + 1
    net = KLConfig(
        in_channels=pixels,
        latent_channels=config.net.in_channels,
        channels=(32,) * levels,
        attention=(False,) * levels,
    )
    card = AutoencoderCard(net, LatentsConfig(factor=net.factor, picture_channels=pixels))
    folder = Path(config.autoencoder) / "autoencoder"
    folder.mkdir(parents=True)
    (folder / CARD).write_text(json.dumps(FORMAT | {"card": convert.to_dict(card)}))


@pytest.mark.parametrize("name", ALL)
def test_a_preset_is_complete(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data implies nothing that the preset does not have; its file is of its kind and has its values."""
    monkeypatch.chdir(tmp_path)
    write_autoencoder(ALL[name]())
    settings = load(name)
    assert with_implied(settings) is settings
    recipe_of(settings.config).check(settings.config)
    assert resolve(name, {}) == settings
    (tmp_path / "preset.yaml").write_text(files.dumps(settings.config))
    assert from_file(tmp_path / "preset.yaml").config == settings.config


def test_the_data_implies_the_networks_inputs_unless_a_user_sets_them() -> None:
    smaller = resolve(
        "fashion", {"--set": {"data.size": "16", "data.channels": "3", "process.learned_variance": "true"}}
    )
    flat = convert.flat(smaller.config)
    assert (flat["net.size"], flat["net.in_channels"], flat["net.out_channels"]) == (16, 3, 6)
    assert smaller.origins["net.size"] == "as data.size"
    assert smaller.origins["net.out_channels"] == "as data.channels"
    with pytest.raises(UserError, match=r"net.size 28 should be data.size 16"):
        resolve("toy", {"--set": {"net.size": "28"}})
    contrastive = resolve("emoji-contrastive", {"--set": {"data.size": "16"}})
    assert convert.flat(contrastive.config)["net.size"] == 16
    noisy = resolve("fashion-noisy-classifier", {"--set": {"data.channels": "3"}})
    assert convert.flat(noisy.config)["net.out_channels"] == 3


@pytest.mark.parametrize(
    ("name", "follows"),
    [("fashion", True), ("fashion-noisy-classifier", True), ("emoji", False), ("classifier", False)],
)
def test_the_number_of_classes_is_the_datas_where_the_network_has_classes(name: str, follows: bool) -> None:
    """Not with text, which replaces classes; and a classifier reads its classes from the data in any case."""
    settings = load(name)
    found = with_classes(settings, 7)
    assert (found is not settings) == follows
    if follows:
        assert convert.flat(found.config)["net.classes"] == 7
        explicit = settings.override({"net.classes": 3}, "--set")
        assert with_classes(explicit, 7) is explicit


def test_captions_are_needed_where_the_network_is_conditioned_on_text() -> None:
    needed = {name for name, make in ALL.items() if recipe_of(make()).has_captions(make())}
    in_latents = {"shapes-latent", "emoji64-latent"}
    assert needed == {"shapes-text", "shapes-text-core", "shapes-control", "emoji", "my-captions", *in_latents}


def test_a_source_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'fashion'"):
        load("fashoin")
    with pytest.raises(UserError, match="is an empty folder, not a preset or a run"):
        load(str(tmp_path))
