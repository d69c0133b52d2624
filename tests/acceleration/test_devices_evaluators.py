"""The networks of an evaluation compute on the device of its model, and find what they find on the CPU.

The device is pretended (tests/helpers/pretend_device.py).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.evaluation.test_evaluate import ASK, HOW, TOY, classifier, pictures, toy_model
from tests.helpers.pretend_device import DEVICE, PretendDevice
from tests.recipes.test_contrastive import NET, SAID, born
from unnoise import data
from unnoise.acceleration.placement import Placement
from unnoise.config.cards import ContrastiveCard
from unnoise.evaluation.evaluate import evaluate
from unnoise.metrics.classifier import save_classifier
from unnoise.metrics.contrastive import ContrastiveEvaluator
from unnoise.text.tokenizer import Tokenizer


def test_a_classifier_computes_on_its_device() -> None:
    evaluator, x = classifier(("disc", "square")), pictures(5).x
    right = evaluator(x)
    with PretendDevice():
        found = evaluator.to(DEVICE)(x)
        assert next(evaluator.net.parameters()).device.type == "pretend"
    assert torch.equal(found[0], right[0])
    torch.testing.assert_close(found[1], right[1])


def test_a_contrastive_model_computes_on_its_device() -> None:
    judge = ContrastiveEvaluator(born(), Tokenizer.learn(SAID, vocabulary=300, length=8), ContrastiveCard(net=NET))
    x = torch.rand(3, NET.in_channels, NET.size, NET.size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    right = judge.similarity(x, SAID[:3]), judge.distinct(SAID[:2], SAID)[0]
    with PretendDevice():
        judge.to(DEVICE)
        found = judge.similarity(x, SAID[:3]), judge.distinct(SAID[:2], SAID)[0]
    for ours, theirs in zip(found, right, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_an_evaluation_places_its_evaluators_beside_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, real = toy_model(), data.open(TOY)
    save_classifier(tmp_path / "judge", classifier(real.classes))
    ask = replace(ASK, count=41, features=str(tmp_path / "judge"))

    def report() -> list[dict[str, Any]]:
        found = list(evaluate(model, ask, HOW, real, cache=None))[-1].report
        assert found is not None
        return found["metrics"]  # type: ignore[no-any-return]

    right = report()
    monkeypatch.setattr("unnoise.generate.job.best", lambda *_: Placement(DEVICE, torch.float32))
    with PretendDevice() as device:
        found = report()
    assert any(line.startswith("metrics/classifier.py") for _, line in device.seen), device.seen
    for ours, theirs in zip(found, right, strict=True):
        assert ours["value"] == pytest.approx(theirs["value"], rel=1e-3), ours["id"]
