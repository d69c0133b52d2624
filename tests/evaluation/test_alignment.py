"""Agreement of pictures with their conditions, on pictures whose truth is known."""

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
from unnoise.evaluation import alignment, sweep, tables, variants
from unnoise.evaluation.conditions import conditions_and_control, prompts_for
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


def sampling(monkeypatch: pytest.MonkeyPatch, pictures: Dataset, change) -> list[tuple[Request, Cond]]:
    """Replaces sampling by the real pictures after `change`; the list fills with the requests and conditions."""
    calls = []

    def frames(job: Job) -> Iterator[Frame]:
        calls.append((job.request, job.cond))
        x: Tensor = change(pictures.batch(data.order(0, 0, len(pictures))[:COUNT].tolist()).x)
        yield Frame(slice(0, COUNT), 1, 1, x)

    monkeypatch.setattr(alignment, "frames", frames)
    return calls


def measured(model: Model, pictures: Dataset, names=("caption", "mask"), **how) -> list[dict]:
    steps = alignment.measure(names, model, EvaluateConfig(count=COUNT), Request.of(**how), pictures, ALONE)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_real_pictures_agree_with_their_captions(pictures, monkeypatch) -> None:
    calls = sampling(monkeypatch, pictures, lambda x: x)
    caption, mask = measured(model_of(pictures), pictures)
    assert (caption["value"], caption["real"], caption["n"], mask["value"], mask["n"]) == (1, 1, COUNT, 1, COUNT)
    assert set(caption["parts"]) >= {"all", "number", "kind", "colour", "background", "relation"}
    ((request, cond),) = calls
    rows = data.order(0, 0, len(pictures))[:COUNT].tolist()
    assert request.prompt.prompts == tuple(pictures.caption(row) for row in rows)
    assert cond.tokens is not None
    assert cond.control == ()  # the model has no control network


def test_mirrored_pictures_are_wrong_in_their_relations(pictures, monkeypatch) -> None:
    """Left and right change places, colours and kinds stay correct: as the exact reader finds, row by row."""
    sampling(monkeypatch, pictures, lambda x: x.flip(-1))
    caption, mask = measured(model_of(pictures), pictures)
    batch = pictures.batch(data.order(0, 0, len(pictures))[:COUNT].tolist())
    images = ((batch.x.flip(-1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    truth = [caption_correct(text, image) for text, image in zip(batch.caption or (), images)]
    for name, part in caption["parts"].items():
        correct = [row[name] for row in truth if name in row]
        assert (part["right"], part["of"]) == (sum(correct), len(correct))
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


def test_a_control_network_gets_the_control_images_of_real_pictures(pictures, monkeypatch) -> None:
    calls = sampling(monkeypatch, pictures, lambda x: x)
    measured(model_of(pictures, controls=True), pictures, control_scale=(0.5,))
    ((_, cond),) = calls
    rows = data.order(0, 0, len(pictures))[:COUNT].tolist()
    assert torch.equal(cond.control[0], pictures.batch(rows).control)
    assert cond.control_scale is not None
    assert cond.control_scale.tolist() == [[0.5]] * COUNT


def test_guess_scales_control_by_depth(pictures, monkeypatch) -> None:
    """As in sampling: a factor of 0.825 from each of the network's five places to the next, 1 in the middle."""
    calls = sampling(monkeypatch, pictures, lambda x: x)
    measured(model_of(pictures, controls=True), pictures, control_scale=(0.5,), guess=True)
    ((_, cond),) = calls
    assert cond.control_scale is not None
    wanted = 0.5 * 0.825 ** torch.arange(4, -1, -1)
    assert torch.allclose(cond.control_scale, wanted.expand(COUNT, 1, 5))


def test_prompts_are_captions_of_a_random_subset(pictures) -> None:
    """In a fixed random order, from its beginning again where it ends; or the one prompt of the request."""
    first = pictures.source.only(np.arange(len(pictures)) < 5)
    few, model = Dataset(first, replace(pictures.config, control="")), model_of(pictures)
    rows = data.order(0, 0, 5).tolist()
    assert sorted(rows) == list(range(5))
    assert prompts_for(model, 12, Request(), few) == tuple(few.caption(row) for row in [*rows, *rows, *rows[:2]])
    assert len(set(prompts_for(model, 5, Request(), few))) > 1
    assert prompts_for(model, 3, Request.of(prompts=("a",)), few) == ("a",) * 3


def test_report_has_the_entries_and_their_details(pictures, monkeypatch) -> None:
    sampling(monkeypatch, pictures, lambda x: x)
    ask = EvaluateConfig(metrics=("caption", "mask"), count=COUNT)
    *_, last = evaluate(model_of(pictures), ask, Request.of(guidance=2.0), pictures, cache=None)
    report = last.report
    assert report is not None
    assert [entry["id"] for entry in report["metrics"]] == ["caption", "mask"]
    assert report["n"] == COUNT
    assert report["drawn"]["guidance"] == 2.0
    text = markdown(report)
    assert "100.0% of the real pictures are correct" in text
    assert "24 pictures sampled for the captions" in text


@pytest.mark.parametrize(
    ("metric", "how", "why"),
    [
        (
            "caption",
            {"prompts": ("a red circle on white",)},
            "the metrics caption use the captions .* leave --prompts",
        ),
        (
            "mask",
            {"controls": ("edges.png",)},
            "the metrics mask use the captions.* leave --controls out",
        ),
        ("caption", {"labels": ("a",), "controls": ("b.png",)}, "leave --label and --controls out"),
        ("bits", {"controls": ("edges.png",)}, "the metrics bpd do not use control images: leave --controls out"),
        ("kernel", {"prompts": ("a red circle", "a blue circle")}, "one prompt for all pictures.*2 were given"),
    ],
)
def test_conditions_without_effect_are_refused(metric: str, how: dict, why: str, pictures) -> None:
    model = model_of(pictures, controls=True)
    with pytest.raises(UserError, match=why):
        next(evaluate(model, EvaluateConfig(metrics=(metric,)), Request.of(**how), pictures, cache=None))


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A classifier with random weights, to compare pictures in."""
    net = Classifier(Shape(24, 3, 2, 8, 16)).eval().requires_grad_(False)
    folder = tmp_path_factory.mktemp("features")
    save_classifier(folder / "random", ClassifierEvaluator(net, ("a", "b"), "random", Accuracy(0.5, 10)))
    return str(folder / "random")


def test_guidance_table_uses_captions_of_real_pictures_and_reads_them(pictures, features, monkeypatch) -> None:
    """The same seeds and captions at every scale. Real pictures in place of sampled ones are all correct; mirrored
    ones as often as the reader finds."""
    requests = []

    def frames(job: Job) -> Iterator[Frame]:
        requests.append(job.request)
        x = pictures.batch(data.order(0, 0, len(pictures))[:COUNT].tolist()).x
        yield Frame(slice(0, COUNT), 1, 1, x if job.request.guidance.scale == 1 else x.flip(-1))

    monkeypatch.setattr(sweep, "frames", frames)
    ask = EvaluateConfig(count=COUNT, real=40, features=features, seed=5)
    names = tables.guidance_metrics(model_of(pictures), ask, Request(), pictures)
    assert names == ("frechet", "precision", "recall", "caption")
    ways, ask = variants.guidance_variants(Request(), variants.Axes(guidance=(1, 3))), replace(ask, metrics=names)
    found = [at for at in sweep.compare(model_of(pictures), ask, ways, pictures, cache=None, show=2)
             if isinstance(at, sweep.Result)]  # fmt: skip
    batch = pictures.batch(data.order(0, 0, len(pictures))[:COUNT].tolist())
    assert {request.prompt.prompts for request in requests} == {batch.caption}
    assert {request.seeds for request in requests} == {tuple(range(5, 5 + COUNT))}
    mirrored = ((batch.x.flip(-1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    p = sum(caption_correct(text, image)["all"] for text, image in zip(batch.caption or (), mirrored)) / COUNT
    assert [result.metric("caption") for result in found] == [1, pytest.approx(p)]
    (entry,) = (e for e in found[1].report["metrics"] if e["id"] == "caption")
    assert (entry["real"], entry["n"]) == (1, COUNT)
    assert entry["error"] == pytest.approx((p * (1 - p) / (COUNT - 1)) ** 0.5)
    assert found[0].prompts == tuple((batch.caption or ())[i] for i in (COUNT // 4, 3 * COUNT // 4))


def test_guidance_table_refuses_an_unconditional_model(pictures) -> None:
    model, config = model_of(pictures), EvaluateConfig()
    plain = data.open(DataConfig(path="toy", size=16, channels=1))
    with pytest.raises(UserError, match="no classes, captions or values"):
        tables.guidance_metrics(replace(model, text=None), config, Request(), pictures)
    with pytest.raises(UserError, match="toy has no captions, so there is nothing to guide to"):
        tables.guidance_metrics(model, config, Request(), plain)
    assert tables.guidance_metrics(model, config, Request.of(prompts=("a red circle",)), plain) == (
        "frechet", "precision", "recall",
    )  # fmt: skip
    classes = replace(model, text=None, card=replace(model.card, classes=("a", "b")))
    assert tables.guidance_metrics(classes, config, Request(), plain)[-1] == "accuracy"


def test_check_refuses_what_cannot_be_evaluated(pictures) -> None:
    model = model_of(pictures)
    emoji = data.open(DataConfig(path="emoji:test", size=24, channels=3))
    with pytest.raises(UserError, match="the exact reader reads the sets shapes"):
        alignment.check(("caption",), model, EvaluateConfig(), emoji)
    with pytest.raises(UserError, match="not conditioned on text"):
        alignment.check(("caption",), replace(model, text=None), EvaluateConfig(), pictures)


def test_inversion_table_uses_the_caption_and_control_image_of_each_picture(
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
    how = Request.of(steps=2, spacing="even", precision="float32")
    cond = conditions_and_control(model, pictures, batch, how)
    assert len(cond.control) == 1
    errors = [
        reconstruct(model, batch.x, each, how, convention="own").error for each in (cond, replace(cond, control=()))
    ]
    assert cell["error"] == pytest.approx(errors[0], rel=1e-4)
    assert errors[1] != pytest.approx(errors[0], rel=1e-3)
