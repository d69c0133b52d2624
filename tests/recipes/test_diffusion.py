"""The recipe, whole, on the toy set: its loss is the paper's, it learns, resumes bit for bit, and leaves a model."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from tests.helpers.tiny_training import contents, same
from unnoise import data, model, nn
from unnoise.config.convert import override
from unnoise.config.files import load
from unnoise.config.networks import UNetConfig
from unnoise.config.presets import PRESETS, toy
from unnoise.config.training import Fit, LogConfig, TrainConfig
from unnoise.denoiser import Estimate, make_diffusion
from unnoise.errors import UserError
from unnoise.likelihood.bound import bound_term
from unnoise.recipes.conditioning import placeholder_conditioner
from unnoise.recipes.cost import _count, cost
from unnoise.recipes.diffusion import objective, train
from unnoise.recipes.initialization import init_network
from unnoise.schedules import make_schedule
from unnoise.training import run
from unnoise.training.player import SampleRNG

SMALL = replace(
    toy(),
    name="small",
    data=replace(toy().data, size=8),
    net=replace(UNetConfig(), size=8, in_channels=1, out_channels=1, channels=(8, 8), blocks=1, groups=4, classes=4,
                attention=(False, True), dropout=0.2),
    fit=Fit(images=12 * 16, batch=16, accumulate=2, lr=3e-3, warmup=4, ema=(64, 16), ema_rampup=0.5),
    log=LogConfig(log_every=4, checkpoint_steps=5, grid_every=6, grid_rows=2, grid_steps=2),
)  # fmt: skip
EXACT = override(SMALL, {"precision": "float32"})


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    path = tmp_path_factory.mktemp("straight")
    list(train(SMALL, path))
    return path


# --- the objective ---


class Perfect(torch.nn.Module):
    """Returns a given output, and records its inputs."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.answer = answer
        self.asked: list = []

    def forward(self, x, time, cond):
        self.asked.append((x, time, cond))
        return self.answer * self.scale


def rows_of(count: int) -> SampleRNG:
    return SampleRNG(0, tuple(range(count)), count)


def test_the_loss_is_the_squared_error_of_the_noise_at_a_uniform_step():
    """Eq. 14 of Ho et al. 2020, written out; T = 1000 steps, told as 0..999, all of them in equal shares."""
    pictures = data.open(SMALL.data)
    batch, rows = pictures.batch(range(256)), rows_of(256)
    answer = torch.randn(256, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    net = Perfect(answer)
    loss = objective(make_diffusion(net, EXACT.process), EXACT, placeholder_conditioner(EXACT))(batch, rows)
    eps = rows.normal((1, 8, 8), "noise")
    torch.testing.assert_close(loss, (answer - eps).square().mean((1, 2, 3)))
    ((x_t, time, cond),) = net.asked
    assert torch.equal(time, time.round())
    assert time.min() >= 0
    assert time.max() <= 999
    level = make_schedule("cosine", {})((time.double() + 1) / 1000)
    torch.testing.assert_close(x_t, level.mix(batch.x, eps))
    quarters = torch.histc(time, bins=4, min=0, max=1000)
    assert quarters.tolist() == [64, 64, 64, 64]  # stratified
    dropped = cond.label == 4
    assert torch.equal(cond.label[~dropped], batch.label[~dropped])
    assert 0.04 < dropped.double().mean() < 0.16  # 0.1 +- 3 standard errors


def test_a_learned_variance_is_taught_by_the_bound_and_the_mean_is_not():
    """L_hybrid (Nichol & Dhariwal 2021, eq. 16): its gradient for eps is L_simple's; the bound adds T/1000 bits."""
    config = override(EXACT, {"learned_variance": "true", "net.out_channels": "2", "steps": "50"})
    pictures = data.open(config.data)
    batch, rows = pictures.batch(range(32)), rows_of(32)
    answer = 0.3 * torch.randn(32, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    answer.requires_grad_()
    net = Perfect(answer)
    diffusion = make_diffusion(net, config.process)
    loss = objective(diffusion, config, placeholder_conditioner(config))(batch, rows)
    loss.sum().backward()
    eps = rows.normal((1, 8, 8), "noise")
    simple = (answer[:, :1] - eps).square().mean((1, 2, 3))
    (for_eps,) = torch.autograd.grad(simple.sum(), answer)
    torch.testing.assert_close(answer.grad[:, :1], for_eps[:, :1])
    assert answer.grad[:, 1:].abs().min() > 0
    (x_t, time, _) = net.asked[0]
    t = (time.double() + 1) / 50
    estimate = diffusion.predicts.mean(x_t, answer[:, :1], diffusion.schedule(t))
    bound = bound_term(batch.x, Estimate(estimate, (answer[:, 1:] + 1) / 2), t, diffusion.schedule, 50)
    torch.testing.assert_close(loss, simple + 0.05 * bound, rtol=1e-4, atol=1e-5)


def test_without_classes_there_is_no_label():
    config = override(EXACT, {"net.classes": "0"})
    net = Perfect(torch.zeros(4, 1, 8, 8))
    loss = objective(make_diffusion(net, config.process), config, placeholder_conditioner(config))
    loss(data.open(config.data).batch(range(4)), rows_of(4))
    assert net.asked[0][2].label is None


def test_a_network_is_a_function_of_its_seed():
    a, b, other = init_network(SMALL), init_network(SMALL), init_network(override(SMALL, {"seed": "1"}))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))
    assert not all(torch.equal(p, q) for p, q in zip(a.parameters(), other.parameters()))


# --- the course ---


def test_it_learns(straight):
    losses = [line["loss"] for line in run.metrics(straight)]
    assert losses[0] > 0.8
    assert losses[-1] < 0.75 * losses[0]


def test_what_it_leaves_can_be_drawn_from(straight):
    loaded = model.load(straight)
    assert loaded.card.classes == ("disc", "square", "cross", "ring")
    assert loaded.card.info["images"] == 192
    pictures = loaded.sample(labels=("ring",), seeds=(1,), steps=2)
    assert pictures.pixels.shape == (1, 1, 8, 8)
    newest = straight / "checkpoints" / "step-00000012"
    weights = {k: v for k, v in contents(straight).items() if k.startswith("model.safetensors")}
    assert weights  # the average, in float32
    assert all(value.dtype == torch.float32 for value in weights.values())
    assert json.loads((newest / "state.json").read_text())["images"] == 192


def test_it_draws_on_its_way(straight):
    files = sorted(path.name for path in (straight / "samples").iterdir())
    assert files == ["step-00000006.png", "step-00000012.png"]
    with Image.open(straight / "samples" / files[-1]) as sheet:
        line = 56 + 3  # a picture of 8 pixels, seven times as large, and the gap
        assert sheet.height == 4 * line + 3  # a line a class
        assert sheet.width > 2 * line + 3  # a column a seed, and the names of the classes at the left


def test_it_says_which_pictures(straight):
    facts = json.loads((straight / "data.json").read_text())
    assert facts["count"] == 1000
    assert facts["classes"] == ["disc", "square", "cross", "ring"]
    assert len(facts["fingerprint"]) == 64


def test_data_takes_less_than_three_percent(straight):
    lines = run.metrics(straight)[1:]
    assert sum(line["waiting"] for line in lines) / len(lines) < 0.03


@pytest.mark.parametrize("stop", [5, 10])
def test_it_resumes_bit_for_bit(stop, straight, tmp_path):
    for tick in train(SMALL, tmp_path):
        if tick.step == stop + 1:
            break
    assert [tick.step for tick in train(SMALL, tmp_path)] == list(range(stop + 1, 13))
    assert same(contents(tmp_path), contents(straight))
    first, second = (straight / "samples" / "step-00000012.png", tmp_path / "samples" / "step-00000012.png")
    with Image.open(first) as whole, Image.open(second) as resumed:
        assert whole.tobytes() == resumed.tobytes()
        assert whole.info["unnoise"].replace(str(straight), str(tmp_path)) == resumed.info["unnoise"]  # the recipe


def test_other_pictures_are_refused(tmp_path):
    config = override(SMALL, {"images": "16", "net.classes": "0"})
    list(train(config, tmp_path))
    with pytest.raises(UserError, match="the pictures are not those"):
        list(train(override(config, {"data.path": "fashion"}), tmp_path))
    assert load(tmp_path / "config.yaml", TrainConfig) == config


@pytest.mark.parametrize("kind", ["gradient_checkpointing", "workers"])
def test_how_it_is_computed_changes_no_bit(kind, tmp_path):
    values = {
        "gradient_checkpointing": {"gradient_checkpointing": "true"},
        "workers": {"workers": "2", "cache_bytes": "0"},
    }
    short = override(EXACT, {"images": "64", "log.grid_every": "0"})
    list(train(short, tmp_path / "a"))
    list(train(override(short, values[kind]), tmp_path / "b"))
    assert same(contents(tmp_path / "a"), contents(tmp_path / "b"))


def test_the_transformer_trains_too(tmp_path):
    config = override(EXACT, {"net.kind": "dit", "width": "16", "depth": "1", "heads": "2", "images": "48"})
    ticks = list(train(config, tmp_path))
    assert ticks[-1].loss < 2
    assert model.load(tmp_path).card.net.kind == "dit"


# --- before it starts ---


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"net.classes": "7"}, r"net\.classes 7 should be 4, the classes of toy \(disc, square, cross, ring\)"),
        ({"net.out_channels": "3"}, r"net\.out_channels 3 should be 1"),
        ({"null_class": "false"}, r"cond_dropout needs net\.null_class"),
        ({"predicts": "epsilon"}, "no prediction 'epsilon'.*eps"),
        ({"schedule": "cosin"}, "no schedule 'cosin'.*'cosine'"),
        ({"weight": "simpel"}, "did you mean 'simple'"),
        ({"draw": "unifrom"}, "did you mean 'uniform'"),
        ({"data.path": "nowhere"}, "nowhere"),
        ({"device": "cuda:99"}, "cuda:99"),
    ],
    ids=str,
)
def test_what_cannot_start_says_why_and_leaves_nothing(values, message, tmp_path):
    with pytest.raises(UserError, match=message):
        next(train(override(SMALL, values), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_cost_is_known_before_it_starts():
    found = cost(override(SMALL, {"batch": "4", "accumulate": "1"}), timed=1)
    assert found.parameters == sum(p.numel() for p in init_network(SMALL).parameters())
    assert found.images == 192
    assert found.steps == 48
    assert found.seconds == pytest.approx(192 / found.images_per_second)
    assert json.dumps(found.as_dict())


def test_operations_are_those_of_the_convolutions():
    """The 35.7M network of DDPM takes 6.0 to 6.3 thousand million multiply-adds a picture, as published counts say."""
    config: TrainConfig = PRESETS["cifar10-ddpm"]()
    with torch.device("meta"):
        net = nn.build(config.net)
    flops, _ = _count(net, config)
    assert 2 * 6.0e9 < flops < 2 * 6.3e9
