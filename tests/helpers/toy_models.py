"""Models of the toy set with random weights, and a classifier of it, for tests of comparisons and tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from unnoise import data, nn
from unnoise.config.cards import ModelCard
from unnoise.config.data import DataConfig
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import UNetConfig
from unnoise.denoiser import make_diffusion
from unnoise.metrics.classifier import Accuracy, ClassifierEvaluator, save_classifier
from unnoise.model import Model
from unnoise.nn.classifier import Classifier, Shape

TOY = DataConfig(path="toy", size=16, channels=1)
NET = UNetConfig(
    size=16, in_channels=1, out_channels=1, channels=(8, 16), blocks=1, attention=(False, False), groups=4, classes=4
)


def save_toy_models(base: Path) -> None:
    """Writes `model` (of the four classes), `plain` (unconditional) and `judge` (a classifier) into `base`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.build(NET)
        for p in net.parameters():
            torch.nn.init.normal_(p, std=0.1)
        net_of_judge = Classifier(Shape(16, 1, 4, 8, 16)).eval()
        for p in net_of_judge.parameters():
            p.data.normal_(0, 0.3)
    classes = data.open(TOY).classes
    process = DiffusionConfig(schedule="cosine", predicts="x0")
    card = ModelCard(net=NET, process=process, size=(16, 16), channels=1, classes=classes, info={"data": "toy"})
    Model(make_diffusion(net.eval(), process).eval(), card).save(base / "model")
    plain = replace(NET, classes=0)
    Model(make_diffusion(nn.build(plain).eval(), process).eval(), replace(card, net=plain, classes=())).save(
        base / "plain"
    )
    known = ClassifierEvaluator(
        net_of_judge.requires_grad_(False), classes, "toys", Accuracy(0.9, 200, "toy:test", dict.fromkeys(classes, 0.9))
    )
    save_classifier(base / "judge", known)
