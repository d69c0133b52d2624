"""The emoji that come with the package: two styles, a name each, some names held out in both."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unnoise import data
from unnoise.config.data import DataConfig


def test_names_are_held_out_in_both_styles() -> None:
    train = data.open(DataConfig(path="emoji", size=32, channels=3))
    test = data.open(DataConfig(path="emoji:test", size=32, channels=3))
    assert (len(train) + len(test), train.classes, train.broken, test.broken) == (3198, (), (), ())
    assert 0.03 < len(test) / 3198 < 0.07
    seen, held = ({Path(name).stem for name in part.source.names} for part in (train, test))
    assert not seen & held
    styles = {stem: {name.split("/")[0] for name in test.source.names if Path(name).stem == stem} for stem in held}
    assert np.mean([len(found) == 2 for found in styles.values()]) > 0.85  # nearly all are drawn in both


def test_a_caption_contains_style_and_name() -> None:
    train = data.open(DataConfig(path="emoji", size=32, channels=3))
    captions = dict(zip(train.source.names, train.source.captions or ()))
    assert captions["3d/1f42e.webp"] == "a 3d emoji of cow face"
    assert captions["flat/1f42e.webp"] == "a flat emoji of cow face"
    assert all(text.startswith(f"a {name.split('/')[0]} emoji of ") for name, text in captions.items())
    cow = train.batch([train.source.names.index("3d/1f42e.webp")]).x
    assert cow.shape == (1, 3, 32, 32)
    assert (cow[0, :, 0, 0] == 1).all()  # laid over white
