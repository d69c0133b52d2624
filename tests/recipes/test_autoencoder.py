"""The training of an autoencoder: which loss moves which weights, exact resuming, several processes, and its scale."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.helpers import tiny_training
from tests.helpers.tiny_autoencoder import TINY, VQ, changed, ticks, train
from unnoise import data
from unnoise.acceleration.placement import Placement
from unnoise.config.training import AutoencoderTrainConfig
from unnoise.errors import UserError
from unnoise.formats import autoencoders
from unnoise.metrics.perceptual import Perceptual
from unnoise.nn.autoencoder import AutoencoderKL
from unnoise.nn.perceptual import VGG16, FeatureDistance
from unnoise.recipes.autoencoder import Objective, check, check_features, make_players
from unnoise.recipes.autoencoder_result import init_network, latent_statistics
from unnoise.training import run as runs
from unnoise.training.player import SampleRNG

BEFORE, AFTER = 1, 2  # steps from 0: the discriminator starts with the third


def players(config: AutoencoderTrainConfig) -> Objective:
    """The objective, with a perceptual distance of random features."""
    torch.manual_seed(0)
    found = Perceptual("random", FeatureDistance(VGG16(1)))
    return make_players(config, Placement(), found if config.loss.perceptual else None)[0]


def losses_at(step: int, objective: Objective, *, judge: bool = False) -> Mapping[str, Tensor]:
    batch = data.open(objective.config.data).batch(range(4))
    rows = SampleRNG(0, tuple(range(4 * step, 4 * step + 4)), 4)
    return (objective.judge if judge else objective.autoencoder)(batch, rows)


def gradient(loss: Tensor, weight: Tensor) -> float:
    (found,) = torch.autograd.grad(loss.mean(), [weight], retain_graph=True, allow_unused=True)
    return 0.0 if found is None else found.abs().max().item()


@pytest.mark.parametrize("net", [TINY.net, VQ])
def test_each_term_reaches_the_weights_that_it_should(net: object) -> None:
    objective = players(changed(net=net, loss__perceptual=1.0, loss__kl=1e-3))
    found = losses_at(AFTER, objective)
    regular = "kl" if net == TINY.net else "codebook"
    assert list(found) == ["l1", "perceptual", regular, "adversarial"]
    last, first = objective.net.decoder.conv_out.weight, objective.net.encoder.conv_in.weight
    assert all(gradient(found[name], last) > 0 for name in ("l1", "perceptual", "adversarial"))
    assert gradient(found[regular], last) == 0
    assert all(gradient(each, first) > 0 for each in found.values())


@pytest.mark.parametrize("name", ["perceptual", "kl", "adversarial"])
def test_a_term_without_weight_is_left_out(name: str) -> None:
    found = losses_at(AFTER, players(changed(loss__perceptual=1.0) if name != "perceptual" else TINY))
    assert (name in found) == (name != "perceptual")
    assert name not in losses_at(AFTER, players(changed(**{f"loss__{name}": 0.0})))


def test_both_adversarial_losses_are_zero_before_the_start() -> None:
    objective = players(TINY)
    found, judged = losses_at(BEFORE, objective), losses_at(BEFORE, objective, judge=True)
    assert found["adversarial"].tolist() == [0] * 4
    assert {name: each.tolist() for name, each in judged.items()} == {"real": [0] * 4, "fake": [0] * 4}
    assert objective.discriminator is not None
    for weight in objective.discriminator.parameters():
        assert gradient(judged["real"] + judged["fake"], weight) == 0
    assert losses_at(AFTER, objective)["adversarial"].abs().min() > 0
    assert min(each.min() for each in losses_at(AFTER, objective, judge=True).values()) > 0


def test_no_gradient_of_one_player_reaches_the_other(tmp_path: Path) -> None:
    objective = players(TINY)
    assert objective.discriminator is not None
    judged = sum(losses_at(AFTER, objective, judge=True).values(), torch.zeros(()))
    assert all(gradient(judged, weight) == 0 for weight in objective.net.parameters())
    # the loop freezes the discriminator in the autoencoder's turn: with a rate of 0 it stays as it was
    for _ in ticks(changed(discriminator__lr=0.0), tmp_path / "run"):
        pass
    after = {name: each for name, each in tiny_training.contents(tmp_path / "run").items() if "discriminator-w" in name}
    for name, weight in players(TINY).discriminator.state_dict().items():  # type: ignore[union-attr]
        assert torch.equal(after[f"discriminator-weights.safetensors:{name}"], weight)


def test_the_discriminator_learns_which_are_real() -> None:
    objective, judged = players(TINY), []
    batch, rows = data.open(TINY.data).batch(range(4)), SampleRNG(0, tuple(range(8, 12)), 4)
    assert objective.discriminator is not None
    for net in objective.discriminator.net:
        net.register_forward_pre_hook(lambda module, args: judged.append(args[0]) if args[0].shape[1] == 1 else None)
    objective.judge(batch, rows)
    assert torch.equal(judged[0], batch.x)  # the first of the two, whose loss is "real"


def test_the_adversarial_gradient_is_a_fraction_of_the_reconstructions() -> None:
    objective = players(changed(loss__adversarial=0.25))
    found, last = losses_at(AFTER, objective), objective.net.decoder.conv_out.weight
    norms = {name: torch.autograd.grad(each.mean(), last, retain_graph=True)[0].norm() for name, each in found.items()
             if name in ("l1", "adversarial")}  # fmt: skip
    assert (norms["adversarial"] / norms["l1"]).item() == pytest.approx(0.25, rel=0.05)  # less by 1e-4 in the norm


@pytest.mark.parametrize("net", [TINY.net, VQ])
def test_resuming_is_exact(net: object, tmp_path: Path) -> None:
    config = changed(net=net)
    whole = [tick.loss for tick in ticks(config, tmp_path / "whole")]
    interrupted = changed(net=net, log__checkpoint_steps=1)
    first = []
    for tick in ticks(interrupted, tmp_path / "parts"):
        first.append(tick.loss)
        if tick.step == 4:  # the discriminator has made two updates
            break
    rest = [tick.loss for tick in ticks(interrupted, tmp_path / "parts")]
    assert first + rest == whole
    assert tiny_training.same(tiny_training.contents(tmp_path / "whole"), tiny_training.contents(tmp_path / "parts"))
    cards = [tmp_path / name / "autoencoder" / "autoencoder.json" for name in ("whole", "parts")]
    results = [json.loads(card.read_text())["card"] for card in cards]
    assert results[0]["latents"] == results[1]["latents"]
    assert results[0]["info"] == results[1]["info"]


@pytest.mark.slow
def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    for _ in ticks(TINY, tmp_path / "alone"):
        pass
    for child in tiny_training.launch(tmp_path / "said", train, str(tmp_path / "two"), {}, world=2):
        assert child.end() == 0, child.said()
    one, two = (runs.metrics(tmp_path / name) for name in ("alone", "two"))
    assert len(one) == len(two) == 6
    names = [name for name in one[0] if "loss" in name or "grad_norm" in name]
    assert {"loss/adversarial", "discriminator/loss/fake", "discriminator/grad_norm"} <= set(names)
    for mine, theirs in zip(one, two):
        assert {name: theirs[name] for name in names} == pytest.approx({name: mine[name] for name in names}, rel=2e-3)


def test_the_scale_is_that_of_sampled_latents(tmp_path: Path) -> None:
    config = changed(measured=70)
    for _ in ticks(config, tmp_path / "run"):
        pass
    folder = tmp_path / "run" / "autoencoder"
    card = json.loads((folder / "autoencoder.json").read_text())["card"]
    loaded = autoencoders.load(folder)  # as a training in latents does
    net = loaded.net
    assert isinstance(net, AutoencoderKL)
    assert loaded.card.preview is not None
    assert loaded.codec.factor == 2
    assert card["info"]["latents"]["n"] == 70
    pictures = data.open(config.data)
    posterior = net.posterior(pictures.batch(data.order(0, 0, len(pictures))[:70].tolist()).x)
    spread = posterior.mean.double().var(correction=0) + posterior.logvar.double().exp().mean()  # the law of variance
    assert card["latents"]["scale"] == pytest.approx(1 / spread.sqrt().item(), rel=0.02)
    held_out = net.encode(pictures.batch(range(500, 900)).x, torch.randn(400, 2, 6, 6))
    assert 0.9 < card["latents"]["scale"] * held_out.std().item() < 1.1
    assert f"scale {card['latents']['scale']:.5g} = 1 / " in (tmp_path / "run" / "log.txt").read_text()


def test_the_spread_of_the_noise_is_measured_too() -> None:
    net = init_network(TINY)
    assert isinstance(net, AutoencoderKL)
    net.quant_conv.weight.data.zero_()  # type: ignore[union-attr]
    net.quant_conv.bias.data.copy_(torch.tensor([3.0, -1.0, 2 * torch.tensor(2.0).log(), 2 * torch.tensor(0.5).log()]))  # type: ignore[union-attr]
    found = latent_statistics(net, data.open(TINY.data), 2000, seed=0)
    assert found.channel_std == pytest.approx([2.0, 0.5], rel=0.01)  # of noise alone, around 3 and -1
    assert found.mean == pytest.approx(1, abs=0.02)
    assert found.std == pytest.approx((4 + (4 + 0.25) / 2) ** 0.5, rel=0.01)


def test_another_perceptual_distance_when_resuming(tmp_path: Path) -> None:
    for tick in ticks(TINY, tmp_path / "run"):
        assert tick.step
    state = next((tmp_path / "run" / "checkpoints").glob("step-*")) / "state.json"
    assert json.loads(state.read_text())["perceptual"] == "none"
    with (
        runs.open_run(tmp_path / "run", TINY) as run,
        pytest.raises(UserError, match="'none', and this machine has 'LPIPS"),
    ):
        check_features(run, "LPIPS (VGG16)")


@pytest.mark.parametrize(
    ("values", "world", "message"),
    [
        ({"data__size": 16}, 1, "net.size 12 .* should be data.size 16"),
        ({"data__size": 13, "net__size": 13}, 1, "data.size 13 is no multiple of 2, .*: set it to 12"),
        ({"discriminator__layers": 3}, 1, "with 3 layers needs pictures of 24 pixels, and data.size is 12"),
        ({"discriminator__norm": "batch"}, 4, "norm batch needs two pictures .* there is 1: raise fit.batch to 8"),
        ({"fit__compile": True}, 1, "fit.compile is not available"),
        ({"fit__fsdp": True}, 2, "fit.fsdp is not available"),
    ],
)
def test_settings_that_cannot_start(values: dict[str, object], world: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(changed(**values), world)
    check(changed(discriminator__norm="batch"), 2)
