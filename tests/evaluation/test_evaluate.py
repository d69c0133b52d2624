"""An evaluation reports the values of its metrics; several processes report the same as one; impossible evaluations are
refused before anything is sampled."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.helpers.tiny_training import launch
from tests.test_model import NET, small
from unnoise import data
from unnoise.cli.measuring import as_text
from unnoise.cli.train_settings import settings_from_options
from unnoise.codec import from_bytes, to_bytes
from unnoise.config.data import DataConfig
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request
from unnoise.errors import UserError
from unnoise.evaluation.evaluate import Clock, Sampled, evaluate, measure, unaugmented
from unnoise.evaluation.evaluators import Evaluators, find_evaluators
from unnoise.evaluation.report import markdown, sampling_settings
from unnoise.evaluation.sample_metrics import metric_names
from unnoise.generate.frames import sample
from unnoise.metrics.classifier import Accuracy, ClassifierEvaluator, check_pictures, save_classifier
from unnoise.metrics.features import Features
from unnoise.metrics.frechet import frechet, moments
from unnoise.metrics.kernel import kernel, kernel_of_subsets
from unnoise.metrics.precision_recall import density_coverage, precision_recall
from unnoise.model import Model
from unnoise.nn.classifier import Classifier, Shape
from unnoise.training.distributed import ALONE, Processes

TOY = DataConfig(path="toy", size=16, channels=1)
ASK = EvaluateConfig(count=120, subsets=5, subset_size=50)


def pooled(x: Tensor) -> Tensor:
    """Four features of each picture: the mean of each quarter."""
    return torch.nn.functional.adaptive_avg_pool2d(x.mean(1, keepdim=True), 2).flatten(1)


FEATURES = Features("quarters", 4, "0", False, pooled)


def classifier(classes: tuple[str, ...], size: int = 16) -> ClassifierEvaluator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Classifier(Shape(size, 1, len(classes), 8, 16)).eval().requires_grad_(False)
        for p in net.parameters():
            p.normal_(0, 0.3)
    return ClassifierEvaluator(net, classes, "toys", Accuracy(0.9, 200, "toy:test", dict.fromkeys(classes, 0.9)))


def pictures(count: int = 120) -> Sampled:
    batch = data.open(replace(TOY, path="toy:test")).batch(range(count))
    return Sampled((batch.x + 0.1).clamp(-1, 1), batch.label)


def report(
    parts: list[Sampled], ask: EvaluateConfig = ASK, evaluators: Evaluators | None = None, **how: Any
) -> dict[str, Any]:
    real = how.pop("real", None) or data.open(TOY)
    steps = list(
        measure(
            parts,
            real.classes,
            ask,
            evaluators or Evaluators(FEATURES, None),
            real,
            about={"steps": 3},
            **{"cache": None} | how,
        )
    )
    assert all(step.report is None for step in steps[:-1])
    assert all(0 <= step.done <= step.total for step in steps)
    found = steps[-1].report
    assert found is not None
    return found


def figures(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["id"]: entry for entry in found["metrics"]}


def test_values_are_those_of_the_metrics_in_features_of_bytes() -> None:
    real = data.open(TOY)
    sampled = pictures()
    found = report([Sampled(sampled.x[:50], None), Sampled(to_bytes(sampled.x[50:]), None)])
    every = torch.from_numpy(data.order(0, 0, len(real)).copy())
    a = pooled(real.batch(every.tolist()).x)
    b = pooled(from_bytes(to_bytes(sampled.x)))
    half = a[:500], a[500:]
    f = figures(found)
    assert f["frechet"]["value"] == pytest.approx(frechet(moments(a), moments(b)), rel=1e-6)
    assert f["frechet"]["real"] == pytest.approx(frechet(moments(half[0]), moments(half[1])), rel=1e-6)
    assert f["kernel"]["value"] == pytest.approx(kernel(a, b).value, rel=1e-6)
    assert f["kernel"]["real"] == pytest.approx(kernel(*half).value, rel=1e-6)
    assert f["kernel"]["error"] == pytest.approx(kernel(a, b).error, rel=1e-6)
    parts = kernel_of_subsets(a, b, subsets=5, size=50, generator=torch.Generator().manual_seed(0))
    assert f["kernel"]["subsets"]["value"] == pytest.approx(parts.value, abs=5 * parts.error)
    assert (f["kernel"]["subsets"]["subsets"], f["kernel"]["subsets"]["size"]) == (5, 50)
    assert (f["precision"]["value"], f["recall"]["value"]) == pytest.approx(precision_recall(a, b, k=3))
    assert (f["density"]["value"], f["coverage"]["value"]) == pytest.approx(density_coverage(a, b, k=5))
    assert (f["precision"]["real"], f["recall"]["real"]) == pytest.approx(precision_recall(*half, k=3))
    assert (f["density"]["real"], f["coverage"]["real"]) == pytest.approx(density_coverage(*half, k=5))
    for entry in f.values():
        assert (entry["n"], entry["n_real"], entry["n_floor"], entry["features"]) == (120, 1000, 500, "quarters")
    assert f["frechet"]["name"] == "Frechet distance"
    assert "accuracy" not in f
    assert any("no class accuracy" in warning for warning in found["warnings"])
    assert found["drawn"] == {"steps": 3}
    assert set(found["seconds"]) == {"real", "drawing", "features", "measuring"}
    assert json.loads(json.dumps(found)) == found


def test_the_unbiased_value_and_the_warning_of_few_pictures() -> None:
    few = [report([Sampled(each, None)]) for each in pictures(180).x.split(30)]
    assert "30 pictures are few for 4 features" in few[0]["warnings"][0]
    assert sum(each["metrics"][0]["unbiased"] - each["metrics"][0]["value"] for each in few) < 0
    assert not any("few" in w for w in report([Sampled(pictures(40).x, None)])["warnings"])


def test_fid_is_the_name_in_inception_features_only() -> None:
    f = figures(report([pictures()], evaluators=Evaluators(replace(FEATURES, fid=True), None)))
    assert (f["frechet"]["name"], f["kernel"]["name"]) == ("FID", "KID")


def test_accuracy_has_that_of_real_pictures_beside_it() -> None:
    """The classifier's classes are in another order than the model's: they are matched by name."""
    classes = data.open(TOY).classes
    j = classifier(classes[::-1])
    sampled = pictures()
    ask = replace(ASK, metrics=("accuracy",))
    found = report(
        [Sampled(sampled.x[:70], sampled.label[:70]), Sampled(sampled.x[70:], sampled.label[70:])],
        ask,
        Evaluators(FEATURES, j),
    )  # type: ignore[index]
    seen = j(from_bytes(to_bytes(sampled.x)))[0]
    right = [j.classes[s] == classes[a] for s, a in zip(seen.tolist(), sampled.label.tolist())]
    assert 0 < sum(right) < 120
    assert found["class_accuracy"] == pytest.approx(sum(right) / 120)
    assert found["class_accuracy_real"] == 0.9
    assert found["class_accuracy_each"].keys() == found["class_accuracy_real_each"].keys() == set(classes)
    assert figures(found)["accuracy"] == {
        "id": "accuracy", "name": "class accuracy", "better": "up", "value": found["class_accuracy"], "real": 0.9,
        "n": 120, "n_floor": 200, "features": "classifier toys", "real_data": "toy:test",
    }  # fmt: skip
    strangers = report([sampled], ask, Evaluators(FEATURES, classifier(("a", "b", "c", "d"))))
    assert "other classes" in strangers["warnings"][0]
    assert "no class was requested" in report([Sampled(sampled.x, None)], ask, Evaluators(FEATURES, j))["warnings"][0]


@pytest.mark.parametrize(
    ("value", "n", "weak"),
    [
        (0.57, 400, True),
        (0.57, 100_000, True),
        (1.0, 10, True),
        (0.9, 20, True),
        (0.9, 200, False),
        (0.81, 9_000, False),
    ],
)
def test_a_weak_classifier_has_a_warning(value: float, n: int, weak: bool) -> None:
    """Weak is one that is often wrong on real pictures, and one that was tested on too few to know it."""
    sampled = pictures()
    judge = replace(classifier(data.open(TOY).classes), accuracy=Accuracy(value, n))
    found = report([sampled], replace(ASK, metrics=("accuracy",)), Evaluators(FEATURES, judge))["warnings"]
    assert any(f"right on {value:.0%} of {n:,} held-out real pictures" in each for each in found) is weak


def test_low_coverage_has_a_warning_and_few_pictures_have_none() -> None:
    """Half of one class, however many pictures, is low; a subset of the real ones is not, however small it is."""
    ask = replace(ASK, metrics=("precision", "coverage"))
    real = data.open(TOY)
    some = data.order(5, 0, len(real))[:60].tolist()
    one = [int(row) for row in np.flatnonzero(real.labels() == 0)[:3]] * 40
    for rows, low in ((some, False), (one, True)):
        found = report([Sampled(real.batch(rows).x, None)], ask)
        assert any("coverage" in each and "is low" in each for each in found["warnings"]) is low
        assert figures(found)["precision"]["value"] > 0.7
        assert ("Warning: coverage" in as_text(found)) is low


def test_a_refused_evaluation_names_a_whole_command(tmp_path: Path) -> None:
    """With size and channels: the words after `unnoise` train a classifier of such pictures."""
    folder = tmp_path / "my pictures"
    folder.mkdir()
    for i in range(30):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{i}.png")
    real = data.open(DataConfig(str(folder), size=8, channels=3))
    with pytest.raises(UserError) as refused:
        find_evaluators(replace(ASK, features="auto"), (), real)
    (command,) = re.findall(r"\(unnoise (train .*?)\) and", str(refused.value))
    _, preset, *words = shlex.split(command)
    options = dict(zip(words[::2], words[1::2])) | {"--set": tuple(b for a, b in pairwise(words) if a == "--set")}
    config = settings_from_options(preset, data=options["--data"], sets=options["--set"]).config
    assert (config.data.path, config.data.size, config.data.channels) == (str(folder), 8, 3)
    (folder / "0.png").write_bytes(b"")  # too few of them: the broken ones are listed
    for i in range(15, 30):
        (folder / f"{i}.png").unlink()
    few = data.open(replace(real.config, max_broken=1.0))
    with pytest.raises(UserError, match=r"^14 real pictures are too few .*\n  0\.png: empty \(0 bytes\)$"):
        find_evaluators(ASK, (), few)
    other = classifier(("a", "b"))
    with pytest.raises(UserError, match=r"--set data\.size=8 --set data\.channels=3$"):
        check_pictures(torch.empty(0, 3, 8, 8), other.net.shape, other.name)


def test_real_features_are_computed_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def counted(x: Tensor) -> Tensor:
        calls.append(len(x))
        return pooled(x)

    evaluators = Evaluators(replace(FEATURES, extract=counted), None)

    def made(evaluators: Evaluators = evaluators, ask: EvaluateConfig = ASK, real: data.Dataset | None = None) -> int:
        calls.clear()
        values.append(report([pictures()], ask, evaluators, cache=tmp_path / "deep", real=real)["metrics"])
        return sum(calls) - 120

    values: list[Any] = []
    assert made() == 1000
    assert made() == 0
    assert values[0] == values[1]
    assert made(Evaluators(replace(evaluators.features, fingerprint="1"), None)) == 1000  # other weights
    assert made(ask=replace(ASK, real=300)) == 300  # fewer of them
    assert made(real=data.open(replace(TOY, path="toy:test"))) == 200  # other pictures
    for file in (tmp_path / "deep").iterdir():
        assert file.suffix == ".safetensors"
        file.write_bytes(file.read_bytes()[:-1])
    assert made() == 1000  # a truncated file is computed again
    assert values[-1] == values[0]
    (tmp_path / "file").write_text("")
    report([pictures()], cache=tmp_path / "file" / "below")  # a cache that cannot be written is skipped


def test_real_pictures_are_not_augmented() -> None:
    real = data.open(replace(TOY, flip=True, crop="random"))
    assert (unaugmented(real).config.flip, unaugmented(real).config.crop) == (False, "center")
    assert unaugmented(data.open(TOY)).config == TOY
    assert report([pictures()], real=real)["metrics"] == report([pictures()])["metrics"]


# --- with a model ---


def toy_model() -> Model:
    """A model of 16x16 pictures of four classes with fixed random weights."""
    made = small(replace(NET, size=16, classes=4), ("disc", "square", "cross", "ring"))
    return Model(made.diffusion, replace(made.card, size=(16, 16)))


HOW = Request.of(steps=2, batch=16, precision="float32")


def test_classes_are_sampled_with_their_frequency_in_the_data(tmp_path: Path) -> None:
    real = data.open(TOY)
    save_classifier(tmp_path / "judge", classifier(real.classes))
    ask = replace(ASK, count=30, seed=5, features=str(tmp_path / "judge"))
    steps = list(evaluate(toy_model(), ask, HOW, real, cache=tmp_path))
    found = steps[-1].report
    assert found is not None
    assert [(s.done, s.total) for s in steps if s.stage == "drawing"] == [(16, 30), (30, 30)]
    assert found["n"] == 30
    assert found["drawn"] == {
        "sampler": toy_model().card.sampler, "steps": 2, "spacing": "auto", "eta": 0.0, "guidance": 1.0,
        "clip": True, "precision": "float32",
    }  # fmt: skip
    assert set(found["class_accuracy_each"]) == set(real.classes)
    assert found["pictures_per_second"] > 0
    labels = tuple(name for name, n in zip(real.classes, (8, 7, 8, 7)) for _ in range(n))
    evaluators = find_evaluators(ask, real.classes, real)

    def direct(labels: tuple[str, ...]) -> float:
        sampled = sample(toy_model(), HOW.but(seeds=tuple(range(5, 35)), labels=labels))
        return float(
            figures(report([Sampled(sampled.pixels, None)], ask, evaluators, cache=tmp_path))["frechet"]["value"]
        )

    value = figures(found)["frechet"]["value"]
    assert direct(labels) == pytest.approx(value, rel=2e-3)  # another batch may round a byte otherwise
    assert direct(("disc",)) != pytest.approx(value, rel=2e-3)
    one = list(evaluate(toy_model(), ask, HOW.but(labels=("ring",)), real, cache=tmp_path))[-1].report
    assert one is not None
    assert list(one["class_accuracy_each"]) == ["ring"]


def test_report_has_all_settings_that_change_its_pictures() -> None:
    """Every field of a request that is not of one picture or of one machine, where it is set."""
    changed = {
        "labels": ("a",), "prompts": ("words",), "negative_prompt": "others", "image": "a.png", "mask": "b.png",
        "controls": ("c.png",), "control_scale": (2.0,), "guess": True, "sampler": "ddpm", "steps": 7,
        "spacing": "karras",
        "eta": 0.5, "guidance": 3.0, "guidance_rescale": 0.7, "guidance_interval": (0.1, 2.0), "classifier": "guide",
        "classifier_scale": 8.0, "clip": False, "dynamic_threshold": 0.99, "precision": "float32",
    }  # fmt: skip
    apart = {"seeds": (1,), "values": {"age": (3.0,)}, "batch": 3, "device": "cpu", "previews": 2}
    assert set(changed) | set(apart) == set(Request().flat())
    assert sampling_settings(toy_model(), Request.of(**changed, **apart)) == changed  # type: ignore[arg-type]


def test_impossible_evaluations_are_refused_before_anything_is_sampled(tmp_path: Path) -> None:
    real = data.open(TOY)
    save_classifier(tmp_path / "judge", classifier(real.classes))
    save_classifier(tmp_path / "small", classifier(real.classes, size=8))
    save_classifier(tmp_path / "other", classifier(("a", "b")))
    good = replace(ASK, features=str(tmp_path / "judge"))

    def refused(match: str, ask: EvaluateConfig = good, how: Request = HOW, model: Model | None = None) -> None:
        with pytest.raises(UserError, match=match):
            next(evaluate(model or toy_model(), ask, how, real, cache=None))

    refused("did you mean 'frechet'", replace(good, metrics=("frechat",)))
    refused("use --count 10 or more", replace(good, count=9))
    refused("use 20 or more", replace(good, real=19))
    refused("needs pictures of 8x8 pixels", replace(good, features=str(tmp_path / "small")))
    refused("8x8 pixels with 1 channel, those of toy 16x16", model=small())
    refused("does not have the classes cross, disc, ring, square", replace(good, evaluator=str(tmp_path / "other")))
    refused("no features to compare toy in", ASK)
    refused("no class 'dics'", how=HOW.but(labels=("dics",)))
    refused("one label for all pictures", how=HOW.but(labels=("disc", "ring")))
    refused(
        r"leave --prompts out; it supports --label \(4 classes",
        how=HOW.but(prompts=("a",)),
    )
    with pytest.raises(UserError, match="0 sampled pictures"):
        report([])


def test_metrics_by_their_other_names() -> None:
    assert metric_names(("fid", "kid", "frechet", "recall")) == ("frechet", "kernel", "recall")
    assert metric_names(("bits", "ode-bits", "bpd")) == ("bpd", "ode-bpd")


def test_markdown_has_each_value_and_its_number_of_pictures() -> None:
    text = markdown(report([pictures()]))
    row = next(line for line in text.splitlines() if line.startswith("| Frechet"))
    assert "(n = 500)" in row
    assert "| 120 | quarters |" in row
    assert "unbiased" in row
    assert "120 sampled pictures against 1,000 real ones (toy)" in text
    assert "Warning: no class accuracy" in text


def test_clock_counts_every_second_once(monkeypatch: pytest.MonkeyPatch) -> None:
    times: Iterator[float] = iter((10.0, 11.0, 15.0, 16.5))
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    clock = Clock()
    for name in ("a", "b", "a"):
        clock.lap(name)
    assert clock.seconds == {"a": 2.5, "b": 4.0}


# --- several processes ---


def test_all_processes_get_the_report_of_one(tmp_path: Path) -> None:
    whole = shared(ALONE, str(tmp_path / "cache-1"))
    children = launch(tmp_path, share, str(tmp_path / "cache-3"), world=3)
    assert [child.end(120) for child in children] == [0, 0, 0], [child.said() for child in children]
    reports = [json.loads(child.said().splitlines()[-1]) for child in children]
    assert reports[0] == reports[1] == reports[2]
    for ours, theirs in zip(whole["metrics"], reports[0]["metrics"], strict=True):
        assert theirs["value"] == pytest.approx(ours["value"], rel=1e-4, abs=1e-6), ours["id"]
        assert theirs["n"] == ours["n"] == 41
    assert len(list((tmp_path / "cache-3").glob("*.safetensors"))) == 1


def share(who: Processes, cache: str) -> None:
    print(json.dumps(shared(who, cache)), flush=True)


def shared(who: Processes, cache: str) -> dict[str, Any]:
    model = toy_model()
    real = data.open(TOY)
    folder = Path(cache).parent / f"judge-{who.rank}"
    save_classifier(folder, classifier(real.classes))
    ask = replace(ASK, count=41, features=str(folder))
    found = list(evaluate(model, ask, HOW, real, cache=Path(cache), processes=who))[-1].report
    assert found is not None
    return {"metrics": found["metrics"], "warnings": found["warnings"]}
