"""Training on a device that is not the CPU: the losses of the CPU, and a host that waits once a step.

The device is pretended (tests/helpers/pretend_device.py). It has no float64, as MPS, and waits are counted, as on CUDA.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.networks import PLAIN
from tests.helpers.pretend_device import DEVICE, PINNED, SENT, PretendDevice
from tests.helpers.random_weights import randomised
from unnoise import nn, transfer
from unnoise.acceleration.placement import Placement, prepare
from unnoise.conditions import NOTHING
from unnoise.config.cards import ModelCard, NoisyClassifierCard, ValueRange
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import ControlConfig, DiTConfig, TextConfig, UNetConfig
from unnoise.config.training import Fit, NoisyClassifierConfig, TrainConfig
from unnoise.data import Batch, scaled
from unnoise.denoiser import make_diffusion
from unnoise.errors import UserError
from unnoise.guidance.noisy_classifier import NoisyClassifier
from unnoise.model import make_conditioner
from unnoise.nn.noisy_classifier import EncoderClassifier
from unnoise.noise import generator
from unnoise.recipes import noisy_classifier
from unnoise.recipes.diffusion import objective
from unnoise.text.tokenizer import Tokenizer
from unnoise.training.loop import Tick, fit
from unnoise.training.player import Player, SampleRNG
from unnoise.training.train_state import TrainState

CPU = Placement("cpu", torch.float32)
BATCH, STEPS = 4, 2
PLAIN_NET = replace(PLAIN, dropout=0.0)
TEXT = Tokenizer.learn(["a red cat", "a blue dog"], vocabulary=300, length=8)
LABELS = {"label": torch.arange(BATCH) % 3}
NUMBERS = {"value": torch.rand(BATCH, 2, dtype=torch.float64, generator=generator("values"))}
WORDS = {"caption": ("a red cat", "a blue dog", "a cat", "a dog")}
IMAGES = {"control": torch.randint(0, 256, (BATCH, 3, 8, 8), dtype=torch.uint8, generator=generator("control"))}


@dataclass(frozen=True)
class Case:
    net: UNetConfig | DiTConfig
    process: DiffusionConfig = DiffusionConfig()
    inputs: dict[str, Any] = field(default_factory=dict)
    fit: Fit = Fit(images=BATCH * STEPS, batch=BATCH, ema=(100,), warmup=1)
    dtype: torch.dtype = torch.float32
    reads: int = 1  # a step


MUON = replace(Case(PLAIN).fit, optimizer="muon", accumulate=2)
WIDE = replace(PLAIN_NET, channels=(32, 32), classes=3)  # matrices for Muon
CASES = {
    "simple": Case(PLAIN_NET),
    "classes": Case(replace(PLAIN_NET, classes=3), DiffusionConfig(cond_dropout=0.5), LABELS),
    "numbers": Case(replace(PLAIN_NET, classes=3, values=2), DiffusionConfig(cond_dropout_each=0.4), LABELS | NUMBERS),
    "captions": Case(
        replace(PLAIN_NET, text=TextConfig(vocabulary=300, length=8, width=12, depth=1, heads=2)),
        DiffusionConfig(cond_dropout=0.5),
        WORDS,
    ),
    "control images": Case(replace(PLAIN_NET, controls=(ControlConfig(hint=(4,), scale=1),)), inputs=IMAGES),
    "hybrid": Case(replace(PLAIN_NET, out_channels=6), DiffusionConfig(learned_variance=True)),
    "bound": Case(PLAIN_NET, DiffusionConfig(objective="bound")),
    "importance": Case(
        PLAIN_NET, DiffusionConfig(time_sampler="importance", steps=2, predicts="v", schedule="cosine"), reads=2
    ),
    "edm": Case(PLAIN_NET, DiffusionConfig(schedule="edm", predicts="edm", weight="edm", time_sampler="edm")),
    "flow": Case(
        PLAIN_NET, DiffusionConfig(schedule="flow", predicts="flow", weight="flow", time_sampler="logit-normal")
    ),
    "upscaling": Case(replace(PLAIN_NET, concat_channels=3), DiffusionConfig(concat="low_res", concat_factor=2)),
    "filling": Case(replace(PLAIN_NET, concat_channels=4), DiffusionConfig(concat="masked")),
    "dit": Case(DiTConfig(size=8, width=16, depth=2, heads=2, classes=3), DiffusionConfig(cond_dropout=0.5), LABELS),
    "bfloat16": Case(replace(PLAIN_NET, classes=3), inputs=LABELS, dtype=torch.bfloat16),
    "muon": Case(WIDE, inputs=LABELS, fit=MUON),
    "muon in bfloat16": Case(WIDE, inputs=LABELS, fit=MUON, dtype=torch.bfloat16),
}


def batches(inputs: dict[str, Any]) -> Iterator[Batch]:
    """Batches of bytes, as a training on a graphics card gets them."""
    for step in range(STEPS):
        x = torch.randint(0, 256, (BATCH, 3, 8, 8), dtype=torch.uint8, generator=generator("pictures", step))
        rows = {"label": None, "caption": None, "index": tuple(range(BATCH))} | inputs
        yield Batch(x=x, **rows)


def trained(
    case: Case, placement: Placement, after: Callable[[Tick], None] = lambda tick: None
) -> tuple[list[float], list[Tensor]]:
    """The losses of a training, and its state at the end, saved and loaded once more."""
    classes = tuple("wxyz"[: case.net.classes])
    values = tuple(ValueRange(name) for name in "ab") if "value" in case.inputs else ()
    card = ModelCard(net=case.net, process=case.process, size=(8, 8), classes=classes, values=values)
    net = prepare(randomised(nn.build(case.net)), placement)
    state = TrainState(net, case.fit, dtype=case.dtype)
    text = TEXT if case.net.text is not None else None
    config = TrainConfig(net=case.net, process=case.process, fit=case.fit)
    goal = objective(make_diffusion(net, case.process), config, make_conditioner(card, text))
    player = Player(
        net, case.fit, replace(goal, memory_format=placement.memory_format), goal.memory, {"noise": (3, 8, 8)}
    )
    losses = []
    for tick in fit(player, batches(case.inputs), states=state):
        losses.append(tick.loss)
        after(tick)
    saved = {name: value.cpu() for name, value in state.state().items()}
    state.load(
        state.step, saved, {100: state.average(100)}, {name: value.cpu() for name, value in state.moments().items()}
    )
    return losses, [value.cpu() for value in (*state.state().values(), *state.average(100).values())]


@pytest.mark.parametrize("name", CASES)
def test_a_training_has_the_losses_of_the_cpu(name: str) -> None:
    """And the same weights and averages at the end; a step waits for its loss and norm alone."""
    case, waits = CASES[name], []
    right, weights = trained(case, CPU)
    with PretendDevice(doubles=False) as device:

        def after(tick: Tick) -> None:
            waits.append(device.waits)
            device.seen.clear()

        found, found_weights = trained(case, Placement(DEVICE, case.dtype), after)
    assert [sum(each.values()) for each in waits[1:]] == [case.reads] * (STEPS - 1), waits
    close = {"rtol": 1e-4, "atol": 1e-4} if case.dtype == torch.float32 else {"rtol": 5e-2, "atol": 5e-2}
    assert found == pytest.approx(right, rel=close["rtol"])
    for mine, theirs in zip(found_weights, weights, strict=True):
        torch.testing.assert_close(mine, theirs, **close)


def test_batch_and_noise_are_pinned_once_and_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """By another thread than the one that computes; the copies of both do not wait, nor do those of the levels."""
    threads: dict[str, set[int]] = {"pictures": set(), "noise": set()}
    normal, pin = SampleRNG.normal, transfer.pin

    def watched_normal(self: SampleRNG, shape: Sequence[int], name: str) -> Tensor:
        if name not in self.ready:
            threads["noise"].add(threading.get_ident())
        return normal(self, shape, name)

    def watched_pin(x: Tensor, device: torch.device | str) -> Tensor:
        if x.dtype == torch.uint8 and not x.is_pinned():
            threads["pictures"].add(threading.get_ident())
        return pin(x, device)

    monkeypatch.setattr(SampleRNG, "normal", watched_normal)
    monkeypatch.setattr("unnoise.training.ahead.pin", watched_pin)
    monkeypatch.setattr(transfer, "pin", watched_pin)
    with PretendDevice() as device:
        trained(CASES["simple"], Placement(DEVICE, torch.float32, channels_last=False))
    assert threads["noise"] == threads["pictures"] != {threading.get_ident()}
    assert len(threads["noise"]) == 1
    assert device.count(SENT) == device.count(PINNED) == STEPS * (2 + 6)


def test_nothing_is_made_ahead_on_a_cpu() -> None:
    asked = []

    def counted() -> Iterator[Batch]:
        for batch in batches({}):
            asked.append(batch)
            yield batch

    net = randomised(nn.build(PLAIN_NET))
    player = Player(
        net,
        CASES["simple"].fit,
        lambda batch, rows: net(scaled(batch).x, torch.zeros(BATCH), NOTHING).flatten(1).mean(1),
    )
    for tick in fit(player, counted()):
        assert len(asked) == tick.step


def test_an_exception_of_the_data_is_raised_at_its_step() -> None:
    def broken() -> Iterator[Batch]:
        yield next(batches({}))
        raise UserError("a picture that cannot be read")

    with PretendDevice():
        net = prepare(randomised(nn.build(PLAIN_NET)), Placement(DEVICE, torch.float32))
        loss = lambda batch, rows: net(scaled(batch).x, torch.zeros(BATCH, device=DEVICE), NOTHING).flatten(1).mean(1)  # noqa: E731
        steps = fit(Player(net, CASES["simple"].fit, loss), broken(), states=TrainState(net, CASES["simple"].fit))
        assert next(steps).step == 1
        with pytest.raises(UserError, match="cannot be read"):
            next(steps)


def test_a_noisy_classifier_has_the_losses_of_the_cpu() -> None:
    config = NoisyClassifierConfig(net=replace(PLAIN, classes=3), fit=CASES["simple"].fit)

    def losses(placement: Placement) -> list[float]:
        net = prepare(randomised(EncoderClassifier(config.net)), placement)
        card = NoisyClassifierCard(net=config.net, process=config.process, classes=tuple("wxy"))
        loss = noisy_classifier.objective(NoisyClassifier(net, card), config, placement.memory_format)
        player = Player(net, config.fit, lambda batch, rows: loss(scaled(batch), rows))
        return [tick.loss for tick in fit(player, batches(LABELS), states=TrainState(net, config.fit))]

    right = losses(CPU)
    with PretendDevice(doubles=False):
        found = losses(Placement(DEVICE, torch.float32, channels_last=False))
    assert found == pytest.approx(right, rel=1e-4)
