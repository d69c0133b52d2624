"""Whether drawn pictures show what they were told: figures of pictures whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers.random_weights import randomised
from unnoise import data, nn
from unnoise.cli.main import main
from unnoise.conditions import Cond
from unnoise.config.cards import ModelCard
from unnoise.config.data import DataConfig
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.networks import ControlConfig, TextConfig, UNetConfig
from unnoise.config.request import Request  # fmt: skip
from unnoise.data import Dataset
from unnoise.data.shapes import caption_correct, mask_iou, read
from unnoise.denoiser import make_diffusion
from unnoise.errors import UserError
from unnoise.evaluation import alignment, sweep
from unnoise.evaluation.conditions import all_told_of, prompts_for
from unnoise.evaluation.evaluate import evaluate
from unnoise.evaluation.report import markdown
from unnoise.generate.frames import Frame
from unnoise.generate.inversion import reconstruct
from unnoise.generate.job import Job
from unnoise.metrics.classifier import Accuracy, ClassifierEvaluator, save_classifier
from unnoise.model import Model
from unnoise.nn.classifier import Classifier, Shape
from unnoise.text.tokenizer import Tokenizer
from unnoise.training.distributed import ALONE

pytest.importorskip("tokenizers")
COUNT = 24


@pytest.fixture(scope="module")
def pictures() -> Dataset:
    return data.open(DataConfig(path="shapes-two:test", size=24, channels=3, control="edges"))


def model_of(pictures: Dataset, *, controls: bool = False) -> Model:
    text = TextConfig(vocabulary=300, length=20, width=8, depth=1, heads=2)
    config = UNetConfig(
        size=24, channels=(8, 8), blocks=1, attention=(False, True), groups=4, text=text,
        controls=(ControlConfig(hint=(4,), scale=1),) if controls else (),
    )  # fmt: skip
    words = Tokenizer.learn(pictures.source.captions or (), vocabulary=300, length=20)
    card = ModelCard(net=config, process=DiffusionConfig(schedule="cosine"), size=(24, 24))
    return Model(make_diffusion(nn.build(config), card.process).eval(), card, text=words)


def drawing(monkeypatch: pytest.MonkeyPatch, pictures: Dataset, change) -> list[tuple[Request, Cond]]:
    """In place of drawing: the real pictures, changed. What was asked for."""
    asked = []

    def frames(job: Job) -> Iterator[Frame]:
        asked.append((job.request, job.cond))
        x: Tensor = change(pictures.batch(data.order(0, 0, len(pictures))[:COUNT].tolist()).x)
        yield Frame(slice(0, COUNT), 1, 1, x)

    monkeypatch.setattr(alignment, "frames", frames)
    return asked


def measured(model: Model, pictures: Dataset, names=("caption", "mask"), **how) -> list[dict]:
    steps = alignment.measure(names, model, EvaluateConfig(count=COUNT), Request(**how), pictures, ALONE)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_the_real_pictures_show_all_that_they_are_told(pictures, monkeypatch) -> None:
    asked = drawing(monkeypatch, pictures, lambda x: x)
    caption, mask = measured(model_of(pictures), pictures)
    assert (caption["value"], caption["real"], caption["n"], mask["value"], mask["n"]) == (1, 1, COUNT, 1, COUNT)
    assert set(caption["parts"]) >= {"all", "number", "kind", "colour", "background", "relation"}
    ((request, cond),) = asked
    rows = data.order(0, 0, len(pictures))[:COUNT].tolist()
    assert request.prompts == tuple(pictures.caption(row) for row in rows)
    assert cond.tokens is not None
    assert cond.control == ()  # the model takes none


def test_turned_pictures_are_wrong_where_words_tell_places(pictures, monkeypatch) -> None:
    """Mirrored, left and right change places: colours and kinds stay right. Against the judge, row by row."""
    drawing(monkeypatch, pictures, lambda x: x.flip(-1))
    caption, mask = measured(model_of(pictures), pictures)
    batch = pictures.batch(data.order(0, 0, len(pictures))[:COUNT].tolist())
    images = ((batch.x.flip(-1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    truth = [caption_correct(text, image) for text, image in zip(batch.caption or (), images)]
    for name, part in caption["parts"].items():
        told = [row[name] for row in truth if name in row]
        assert (part["right"], part["of"]) == (sum(told), len(told))
    assert caption["parts"]["colour"]["value"] == 1
    assert 0.2 < caption["parts"]["relation"]["value"] < 0.8  # above and below stay
    p = caption["value"]
    assert caption["error"] == pytest.approx((p * (1 - p) / COUNT) ** 0.5)
    real = ((batch.x + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    overlaps = []
    for image, original in zip(images, real):
        whole = torch.zeros(24, 24, dtype=torch.bool).numpy()
        for shape in read(original).shapes:
            whole |= shape.mask
        overlaps.append(mask_iou(image, whole))
    assert mask["value"] == pytest.approx(sum(overlaps) / COUNT)
    assert mask["value"] < 0.6


def test_a_model_with_a_control_is_shown_the_drawings(pictures, monkeypatch) -> None:
    asked = drawing(monkeypatch, pictures, lambda x: x)
    measured(model_of(pictures, controls=True), pictures, control_scale=(0.5,))
    ((_, cond),) = asked
    rows = data.order(0, 0, len(pictures))[:COUNT].tolist()
    assert torch.equal(cond.control[0], pictures.batch(rows).control)
    assert cond.control_scale is not None
    assert cond.control_scale.tolist() == [[0.5]] * COUNT


def test_a_guess_is_followed_more_strongly_the_deeper(pictures, monkeypatch) -> None:
    """As where pictures are drawn: 0.825 from each of the net's five places to the next, the whole in the middle."""
    asked = drawing(monkeypatch, pictures, lambda x: x)
    measured(model_of(pictures, controls=True), pictures, control_scale=(0.5,), guess=True)
    ((_, cond),) = asked
    assert cond.control_scale is not None
    wanted = 0.5 * 0.825 ** torch.arange(4, -1, -1)
    assert torch.allclose(cond.control_scale, wanted.expand(COUNT, 1, 5))


def test_pictures_are_drawn_for_the_captions_of_real_ones_by_lot(pictures) -> None:
    """Those of an order that is always the same, again from its beginning where it ends; or the one that is named."""
    first = pictures.source.only(np.arange(len(pictures)) < 5)
    few, model = Dataset(first, replace(pictures.config, control="")), model_of(pictures)
    rows = data.order(0, 0, 5).tolist()
    assert sorted(rows) == list(range(5))
    assert prompts_for(model, 12, Request(), few) == tuple(few.caption(row) for row in [*rows, *rows, *rows[:2]])
    assert len(set(prompts_for(model, 5, Request(), few))) > 1
    assert prompts_for(model, 3, Request(prompts=("a",)), few) == ("a",) * 3


def test_it_stands_in_the_report(pictures, monkeypatch) -> None:
    drawing(monkeypatch, pictures, lambda x: x)
    ask = EvaluateConfig(metrics=("caption", "mask"), count=COUNT)
    *_, last = evaluate(model_of(pictures), ask, Request(guidance=2.0), pictures, cache=None)
    report = last.report
    assert report is not None
    assert [entry["id"] for entry in report["metrics"]] == ["caption", "mask"]
    assert report["n"] == COUNT
    assert report["drawn"]["guidance"] == 2.0
    text = markdown(report)
    assert "of the real pictures 100.0% are read right" in text
    assert "24 pictures drawn for the captions" in text


@pytest.mark.parametrize(
    ("metric", "how", "why"),
    [
        (
            "caption",
            {"prompts": ("a red circle on white",)},
            "for caption pictures are drawn from the .* leave --prompts",
        ),
        (
            "mask",
            {"controls": ("drawing.png",)},
            "for mask pictures are drawn from the captions.* leave --controls out",
        ),
        ("caption", {"labels": ("a",), "controls": ("b.png",)}, "leave --label and --controls out"),
        ("bits", {"controls": ("drawing.png",)}, "for bits no drawings are followed: leave --controls out"),
        ("kernel", {"prompts": ("a red circle", "a blue circle")}, "2 prompts to evaluate; give one for all pictures"),
    ],
)
def test_what_nobody_would_be_told_is_refused(metric: str, how: dict, why: str, pictures) -> None:
    model = model_of(pictures, controls=True)
    with pytest.raises(UserError, match=why):
        next(evaluate(model, EvaluateConfig(metrics=(metric,)), Request(**how), pictures, cache=None))


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A classifier with random weights, to compare pictures in."""
    net = Classifier(Shape(24, 3, 2, 8, 16)).eval().requires_grad_(False)
    folder = tmp_path_factory.mktemp("features")
    save_classifier(folder / "random", ClassifierEvaluator(net, ("a", "b"), "random", Accuracy(0.5, 10)))
    return str(folder / "random")


def test_a_table_tells_captions_and_has_them_read(pictures, features, monkeypatch) -> None:
    """At every scale, to the same seeds. Real pictures in place of drawn ones are all right; mirrored, as often as the
    reader says."""
    asked = []

    def frames(job: Job) -> Iterator[Frame]:
        asked.append(job.request)
        x = pictures.batch(data.order(0, 0, len(pictures))[:COUNT].tolist()).x
        yield Frame(slice(0, COUNT), 1, 1, x if job.request.guidance == 1 else x.flip(-1))

    monkeypatch.setattr(sweep, "frames", frames)
    ask = EvaluateConfig(count=COUNT, real=40, features=features, seed=5)
    names = sweep.guided_figures(model_of(pictures), ask, Request(), pictures)
    assert names == ("frechet", "precision", "recall", "caption")
    ways, ask = sweep.guidance_ways(Request(), scales=(1, 3)), replace(ask, metrics=names)
    found = [at for at in sweep.compare(model_of(pictures), ask, ways, pictures, cache=None, show=2)
             if isinstance(at, sweep.Result)]  # fmt: skip
    batch = pictures.batch(data.order(0, 0, len(pictures))[:COUNT].tolist())
    assert {request.prompts for request in asked} == {batch.caption}
    assert {request.seeds for request in asked} == {tuple(range(5, 5 + COUNT))}
    mirrored = ((batch.x.flip(-1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    p = sum(caption_correct(text, image)["all"] for text, image in zip(batch.caption or (), mirrored)) / COUNT
    assert [result.figure("caption") for result in found] == [1, pytest.approx(p)]
    (entry,) = (e for e in found[1].report["metrics"] if e["id"] == "caption")
    assert (entry["real"], entry["n"]) == (1, COUNT)
    assert entry["error"] == pytest.approx((p * (1 - p) / (COUNT - 1)) ** 0.5)
    assert found[0].captions == tuple((batch.caption or ())[i] for i in (COUNT // 4, 3 * COUNT // 4))


def test_a_table_of_guidance_for_a_model_that_is_told_nothing_is_refused(pictures) -> None:
    told, ask = model_of(pictures), EvaluateConfig()
    plain = data.open(DataConfig(path="toy", size=16, channels=1))
    with pytest.raises(UserError, match="no classes, captions or numbers"):
        sweep.guided_figures(replace(told, text=None), ask, Request(), pictures)
    with pytest.raises(UserError, match="toy has no captions, so there is nothing to guide to"):
        sweep.guided_figures(told, ask, Request(), plain)
    assert sweep.guided_figures(told, ask, Request(prompts=("a red circle",)), plain) == (
        "frechet", "precision", "recall",
    )  # fmt: skip
    classes = replace(told, text=None, card=replace(told.card, classes=("a", "b")))
    assert sweep.guided_figures(classes, ask, Request(), plain)[-1] == "accuracy"


def test_what_cannot_be_judged_is_refused(pictures) -> None:
    model = model_of(pictures)
    emoji = data.open(DataConfig(path="emoji:test", size=24, channels=3))
    with pytest.raises(UserError, match="the exact reader reads the sets shapes"):
        alignment.check(("caption",), model, EvaluateConfig(), emoji)
    with pytest.raises(UserError, match="hears no words"):
        alignment.check(("caption",), replace(model, text=None), EvaluateConfig(), pictures)


def test_the_table_of_inversion_tells_each_picture_its_caption_and_drawing(
    pictures, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = model_of(pictures, controls=True)
    info = {"data": "shapes-two:test", "control": "edges"}
    net = randomised(nn.build(plain.card.net))
    model = replace(
        plain, diffusion=make_diffusion(net, plain.card.process).eval(), card=replace(plain.card, info=info)
    )
    monkeypatch.chdir(tmp_path)
    model.save(Path("model"))
    words = "table inversion model --conventions own --steps 2 --count 3 --json"
    assert main(words.split()) == 0, capsys.readouterr().err
    (cell,) = json.loads(capsys.readouterr().out)["cells"]
    batch = pictures.batch(data.order(0, 0, len(pictures))[:3].tolist())
    how = Request(steps=2, spacing="even", precision="float32")
    told = all_told_of(model, pictures, batch, how)
    assert len(told.control) == 1
    errors = [
        reconstruct(model, batch.x, cond, how, convention="own").error for cond in (told, replace(told, control=()))
    ]
    assert cell["error"] == pytest.approx(errors[0], rel=1e-4)
    assert errors[1] != pytest.approx(errors[0], rel=1e-3)
