"""A saved classifier loads bit for bit; a damaged one is an error; the shipped one has the accuracy on its card."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from unnoise import data
from unnoise.config.data import DataConfig
from unnoise.config.training import ClassifierConfig, Fit, LogConfig
from unnoise.errors import UserError
from unnoise.metrics.classifier import (
    Accuracy,
    ClassifierEvaluator,
    accuracy,
    load_classifier,
    save_classifier,
    shipped,
)
from unnoise.metrics.features import classifier_features, find_features
from unnoise.nn.classifier import Classifier, Shape, shifted
from unnoise.recipes import classifier as recipe
from unnoise.recipes import evaluator_training
from unnoise.training.loop import Tick
from unnoise.training.run import open_run


@pytest.fixture
def classifier() -> ClassifierEvaluator:
    torch.manual_seed(0)
    net = Classifier(Shape(size=9, channels=3, classes=2, width=8, features=16)).eval().requires_grad_(False)
    return ClassifierEvaluator(
        net, ("cat", "dog"), "pets", Accuracy(0.75, 8, "held", {"cat": 1.0, "dog": 0.5}), {"fit": {"lr": 0.1}}
    )


@pytest.mark.parametrize("half", [False, True])
def test_saved_and_loaded_is_the_same_bit_for_bit(classifier: ClassifierEvaluator, tmp_path: Path, half: bool) -> None:
    if half:
        classifier.net.load_state_dict({k: v.half().float() for k, v in classifier.net.state_dict().items()})
    save_classifier(tmp_path / "run" / "classifier", classifier)
    save_classifier(tmp_path / "run" / "classifier", classifier)  # in place of the first
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["classifier"]
    stored = load_file(tmp_path / "run" / "classifier" / "model.safetensors")
    assert {v.dtype for v in stored.values()} == {torch.float16 if half else torch.float32}
    for path in (tmp_path / "run" / "classifier", tmp_path / "run"):
        found = load_classifier(path)
        assert (found.classes, found.name, found.accuracy, found.trained) == (
            classifier.classes,
            classifier.name,
            classifier.accuracy,
            classifier.trained,
        )
        assert found.net.shape == classifier.net.shape
        assert found.fingerprint == classifier.fingerprint
        for name, value in classifier.net.state_dict().items():
            assert torch.equal(found.net.state_dict()[name], value)
        x = torch.randn(5, 3, 9, 9)
        assert torch.equal(found(x)[1], classifier(x)[1])


def test_damage_is_an_error_that_names_the_file(classifier: ClassifierEvaluator, tmp_path: Path) -> None:
    save_classifier(tmp_path / "c", classifier)
    weights, card = tmp_path / "c" / "model.safetensors", tmp_path / "c" / "classifier.json"
    whole, content = weights.read_bytes(), json.loads(card.read_text())

    def refused(match: str) -> None:
        with pytest.raises(UserError, match=match):
            load_classifier(tmp_path / "c")

    weights.write_bytes(whole[:-7])
    refused("cannot be read")
    state = classifier.net.state_dict()
    save_file({k: v for k, v in state.items() if k != "head.bias"}, weights)
    refused("head.bias")
    save_file({**state, "more": torch.zeros(1)}, weights)
    refused("more")
    save_file({**state, "head.bias": torch.zeros(3)}, weights)
    refused("head.bias")
    weights.unlink()
    refused("incomplete")
    weights.write_bytes(whole)
    load_classifier(tmp_path / "c")
    for wrong, match in (
        ({"format": "unnoise-classifier-0"}, "another version"),
        ({"colour": 1}, "colour"),
        ({"shape": {"size": 9}}, "channels"),
        ({"classes": ["cat"]}, "1 names for 2 classes"),
    ):
        card.write_text(json.dumps(content | wrong))
        refused(match)
    card.write_text("{")
    refused("cannot be read")
    card.unlink()
    refused("no classifier.json")
    with pytest.raises(UserError, match="valid: fashion"):
        load_classifier("fashoin")


def test_the_fingerprint_depends_on_every_weight(classifier: ClassifierEvaluator) -> None:
    before = classifier.fingerprint
    classifier.net.blocks[3].conv_2.bias[5] += 1e-3
    assert classifier.fingerprint != before


def test_a_picture_is_classified_independently_of_others(classifier: ClassifierEvaluator) -> None:
    """No statistics are shared between pictures: the same beside others, in another order, or in parts."""
    x = torch.randn(7, 3, 9, 9)
    whole = classifier(x)[1]
    torch.testing.assert_close(classifier(x[3:4])[1], whole[3:4])
    torch.testing.assert_close(classifier(x.flip(0))[1], whole.flip(0))
    torch.testing.assert_close(classifier(x, batch=2)[1], whole)
    assert torch.equal(classifier.net(x).argmax(1), classifier(x)[0])
    with pytest.raises(UserError, match="9x9 pixels with 3 channels, not 9x8 with 3"):
        classifier(x[..., 1:])


def test_shifted_moves_whole_pictures() -> None:
    x = torch.arange(2 * 16.0).view(2, 1, 4, 4)
    moved = shifted(x, torch.tensor([1, 0]), torch.tensor([0, -2]), 2)
    assert torch.equal(moved[0, 0], x[0, 0][[0, 0, 1, 2]])
    assert torch.equal(moved[1, 0], x[1, 0][:, [2, 3, 3, 3]])
    assert torch.equal(shifted(x, torch.zeros(2).long(), torch.zeros(2).long(), 2), x)
    draws = evaluator_training._pixels(torch.linspace(0, 0.999999, 5000, dtype=torch.float64), 2)
    assert draws.unique().tolist() == [-2, -1, 0, 1, 2]
    assert torch.equal((draws + 2).bincount(), torch.full((5,), 1000))


def test_accuracy_is_the_fraction_of_right_classes() -> None:
    predicted, labels = torch.tensor([0, 1, 1, 2, 0]), torch.tensor([0, 0, 1, 2, 2])
    found = accuracy(predicted, labels, ("a", "b", "c", "d"), data="x")
    assert found == Accuracy(3 / 5, 5, "x", {"a": 0.5, "b": 1.0, "c": 0.5})
    with pytest.raises(ValueError, match="at least one picture"):
        accuracy(predicted[:0], labels[:0], ("a",))


# --- the shipped one ---


def test_the_shipped_classifier_has_the_accuracy_on_its_card() -> None:
    assert shipped() == ("fashion",)
    classifier = load_classifier("fashion")
    held = data.open(DataConfig(path="fashion:test"))
    assert classifier.classes == held.classes
    found = recipe.measure(classifier, held, "fashion:test")
    assert found.n == 2000
    assert found.value >= 0.88
    assert found.value == pytest.approx(classifier.accuracy.value, abs=2 / 2000)  # other machines round otherwise
    assert classifier.accuracy.data == "fashion:test"
    folder = Path(recipe.__file__).parents[1] / "metrics" / "weights" / "fashion-classifier"
    assert sum(p.stat().st_size for p in folder.iterdir()) <= 2**20


def test_features_are_found_by_name(classifier: ClassifierEvaluator, tmp_path: Path) -> None:
    save_classifier(tmp_path / "c", classifier)
    x = torch.randn(2, 3, 9, 9)
    found = find_features(str(tmp_path / "c"))
    assert (found.name, found.dim, found.fid) == ("classifier pets", 16, False)
    assert torch.equal(found(x), classifier_features(classifier)(x))
    assert found(x[:0]).shape == (0, 16)
    assert find_features("fashion").dim == 128
    with pytest.raises(UserError, match="valid: inception, efficientnet, fashion"):
        find_features("inceptoin")


# --- its training ---


def tiny(**fit: object) -> ClassifierConfig:
    how = Fit(images=640, batch=32, lr=3e-3, warmup=2, decay="cosine", ema=(100,), optimizer="adamw", **fit)  # type: ignore[arg-type]
    return ClassifierConfig(name="toy", data=DataConfig(path="toy", size=16, channels=1), width=8, features=16, fit=how)


def trained(config: ClassifierConfig, path: Path, most: int | None = None) -> list[Tick]:
    with open_run(path, config) as run:
        return list(islice(recipe.train(config, run), most))


def test_training_learns_saves_its_accuracy_and_is_reproducible(tmp_path: Path) -> None:
    config = tiny()
    ticks = trained(config, tmp_path / "a")
    assert ticks[-1].images == 640
    assert sum(t.loss for t in ticks[-4:]) < sum(t.loss for t in ticks[:4])
    judge = load_classifier(tmp_path / "a")
    _, held, name = recipe.train_and_test(config)
    assert recipe.measure(judge, held, name) == judge.accuracy
    assert judge.accuracy.value > 1.5 / len(judge.classes)
    assert "held-out pictures (toy:test)" in (tmp_path / "a" / "log.txt").read_text()
    stored = load_file(tmp_path / "a" / "classifier" / "model.safetensors")
    assert {v.dtype for v in stored.values()} == {torch.float16}  # rounded before it was measured
    trained(tiny(seed=1), tmp_path / "c")
    assert load_classifier(tmp_path / "c").fingerprint != judge.fingerprint


def test_stopped_and_resumed_is_the_same_classifier(tmp_path: Path) -> None:
    config = replace(tiny(), log=LogConfig(grid_every=0, checkpoint_steps=7))
    trained(config, tmp_path / "whole")
    trained(config, tmp_path / "parts", most=10)  # the checkpoint of step 7 is there, three steps are lost
    assert not (tmp_path / "parts" / "classifier").exists()
    assert [tick.step for tick in trained(config, tmp_path / "parts")] == list(range(8, 21))
    assert trained(config, tmp_path / "parts") == []
    found = [load_classifier(tmp_path / name).fingerprint for name in ("whole", "parts")]
    assert found[0] == found[1]


def test_held_out_pictures_are_never_trained_on(tmp_path: Path) -> None:
    for name, grey in (("dark", 20), ("light", 200)):
        (tmp_path / name).mkdir()
        for i in range(40):
            Image.fromarray(np.full((8, 8), grey + i, np.uint8)).save(tmp_path / name / f"{i:02}.png")
    config = replace(tiny(), data=DataConfig(path=str(tmp_path), size=8, channels=1))
    taught, held, name = recipe.train_and_test(config)
    greys = [{int(p.pixels(i).flat[0]) for i in range(len(p))} for p in (taught, held)]
    assert not greys[0] & greys[1]
    assert len(taught) + len(held) == len(greys[0] | greys[1]) == 80
    assert 1 <= len(held) <= 20
    assert "random fraction" in name
    for part in (taught, held):
        batch = part.batch(range(len(part)))
        assert batch.label is not None
        assert torch.equal(batch.label == 1, batch.x[:, 0, 0, 0] > 0)  # each with its own label
    again = recipe.train_and_test(config)[1]
    assert [again.name(i) for i in range(len(again))] == [held.name(i) for i in range(len(held))]
    with pytest.raises(UserError, match=r"held_out 0\.0 of \d+ pictures leaves 0 to test with"):
        recipe.train_and_test(replace(config, held_out=0.0))


@pytest.mark.parametrize("name", ["width", "features"])
def test_widths_that_groups_do_not_divide_are_errors(name: str) -> None:
    config = replace(ClassifierConfig(data=DataConfig(path="toy", size=16, channels=1)), **{name: 12})
    with pytest.raises(UserError, match=f"{name} 12: .* multiple of 8"):
        recipe.init_network(config, data.open(config.data))


def test_pictures_without_classes_are_an_error(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((30, 8, 8), np.uint8))
    with pytest.raises(UserError, match="no classes"):
        recipe.train_and_test(replace(tiny(), data=DataConfig(path=str(tmp_path / "x.npy"), size=8, channels=1)))
