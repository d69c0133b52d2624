"""What a training minimises: the bound's terms with their gradients, and a draw of times that follows the losses."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.helpers.tiny_training import contents, launch, same
from tests.recipes.test_diffusion import SMALL, Perfect, rows_of
from unnoise import data
from unnoise.conditions import Cond
from unnoise.config.convert import override
from unnoise.config.diffusion import DiffusionConfig
from unnoise.denoiser import Denoiser, make_diffusion
from unnoise.errors import UserError
from unnoise.io import checkpoint
from unnoise.likelihood import table, whole_bound
from unnoise.likelihood.bound import learned, small
from unnoise.losses import LossAwareSampler, make_objective, table_steps
from unnoise.recipes.conditioning import placeholder_conditioner
from unnoise.recipes.diffusion import objective, train
from unnoise.schedules import LinearBeta, over, posterior
from unnoise.training.distributed import Processes

STEPS = 8
BOUND = override(
    SMALL,
    {"precision": "float32", "objective": "bound", "steps": str(STEPS), "dropout": "0", "log.grid_every": "0"},
)
LEARNED = override(BOUND, {"learned_variance": "true", "net.out_channels": "2"})
EVERY = 32  # rows: four of each step, for draws are stratified


def answer(channels: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (0.1 * torch.randn(EVERY, channels, 8, 8, generator=generator)).requires_grad_()


@pytest.mark.parametrize("config", [BOUND, LEARNED], ids=["small", "learned"])
def test_the_bound_is_that_of_the_terms(config):
    """T times a term of the whole bound, for the same picture, noise and network."""
    batch, rows = data.open(config.data).batch(range(EVERY)), rows_of(EVERY)
    net = Perfect(answer(config.net.out_channels))
    diffusion = make_diffusion(net, config.process)
    loss = objective(diffusion, config, placeholder_conditioner(config))(batch, rows)
    ((_, time, cond),) = net.asked
    eps = rows.normal((1, 8, 8), "noise")
    variance = learned if config.process.learned_variance else small
    for row in range(EVERY):
        step = STEPS - 1 - round(time[row].item())  # of a chain that begins with the noisiest
        net.answer = answer(config.net.out_channels)[row : row + 1]

        def given(rows: torch.Tensor, row: int = row) -> Denoiser:
            return diffusion.given(Cond(cond.label[row : row + 1]))

        one = table(diffusion.schedule, STEPS)[torch.tensor([step])]
        (progress,) = whole_bound(
            given, batch.x[row : row + 1], one, lambda at, t, row=row: eps[row : row + 1], variance=variance, clip=False
        )
        assert loss[row].item() == pytest.approx(STEPS * progress.found.terms.item(), rel=2e-5)
    assert sorted(set(time.tolist())) == list(range(STEPS))


def test_the_gradient_of_the_bound_goes_through_the_mean():
    """d/d mean of a divergence is x_coef^2 (mean - x) / variance: eq. 8 of Ho et al. 2020, written out for eps."""
    batch, rows = data.open(BOUND.data).batch(range(EVERY)), rows_of(EVERY)
    out = answer(1)
    net = Perfect(out)
    diffusion = make_diffusion(net, BOUND.process)
    objective(diffusion, BOUND, placeholder_conditioner(BOUND))(batch, rows).sum().backward()
    k = net.asked[0][1].double() + 1
    level, before = diffusion.schedule(k / STEPS), diffusion.schedule((k - 1) / STEPS)
    kernel = posterior(level, before)
    eps = rows.normal((1, 8, 8), "noise")
    # the mean's error is sigma / alpha that of eps
    factor = kernel.x_coef.square() / kernel.small * (level.sigma / level.alpha).square() * STEPS / 64 / math.log(2)
    inner = k > 1
    expected = over(factor[inner], out) * (out.detach() - eps)[inner]
    torch.testing.assert_close(out.grad[inner], expected, rtol=1e-4, atol=1e-5)
    assert out.grad[~inner].abs().min() >= 0
    assert out.grad[~inner].abs().max() > 0


def test_the_bound_teaches_mean_and_variance():
    batch, rows = data.open(LEARNED.data).batch(range(EVERY)), rows_of(EVERY)
    out = answer(2)
    loss = objective(make_diffusion(Perfect(out), LEARNED.process), LEARNED, placeholder_conditioner(LEARNED))
    loss(batch, rows).sum().backward()
    assert torch.isfinite(out.grad).all()
    assert (out.grad.abs().sum((0, 2, 3)) > 0).all()
    assert (out.grad.flatten(2).abs().sum(2) > 0).all()  # each row, both


def test_training_on_the_bound_brings_it_down(tmp_path):
    config = override(LEARNED, {"images": "640", "accumulate": "1", "lr": "0.01"})
    losses = [tick.loss for tick in train(config, tmp_path)]
    assert sum(losses[-8:]) < 0.5 * sum(losses[:8])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "simple"),
        ({"learned_variance": True}, "hybrid"),
        ({"learned_variance": True, "objective": "simple"}, "simple"),
        ({"objective": "bound"}, "bound"),
    ],
)
def test_what_is_minimised_where_nothing_is_said(values, expected):
    assert make_objective(DiffusionConfig(**values)) == expected


def test_a_hybrid_without_a_variance_to_learn_is_refused(tmp_path):
    with pytest.raises(UserError, match="learned_variance"):
        next(train(override(SMALL, {"objective": "hybrid"}), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


# --- a draw that follows the losses ---


def taught(steps: int = 5, rounds: int = 12) -> LossAwareSampler:
    """The loss of step k is reported as k, `rounds` times."""
    draw = LossAwareSampler(steps)
    t = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    for _ in range(rounds):
        draw.record(t, t * steps)
        draw.settle(lambda rows: rows)
    return draw


def test_the_chances_are_the_root_mean_square_of_the_last_ten_losses():
    """Eq. 18 of Nichol & Dhariwal 2021, with a thousandth of the uniform; what is older than ten is forgotten."""
    draw = LossAwareSampler(3)
    t = torch.tensor([1 / 3, 2 / 3, 1.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    losses = torch.rand(14, 3, generator=generator, dtype=torch.float64)
    for row in losses:
        draw.record(t, row)
        draw.settle(lambda rows: rows)
    size = losses[-10:].square().mean(0).sqrt()
    assert torch.allclose(draw.chances(), 0.999 * size / size.sum() + 0.001 / 3, rtol=1e-12)
    assert draw.chances().sum().item() == pytest.approx(1, abs=1e-12)


def test_times_are_drawn_by_chance_and_the_weight_takes_it_back():
    """Evenly spread uniforms fall on each step by its share; the weighted mean is the plain one."""
    draw, schedule = taught(), LinearBeta()
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    t = draw(u, schedule)
    shares = torch.bincount((t * 5).round().long(), minlength=6)[1:] / len(u)
    assert torch.allclose(shares.double(), draw.chances(), atol=2e-5)
    assert (t - (t * 5).round() / 5).abs().max() == 0
    values = torch.tensor([3.0, -1.0, 0.5, 7.0, 2.0], dtype=torch.float64)[(t * 5).round().long() - 1]
    assert (values * draw.weight(t)).mean().item() == pytest.approx(11.5 / 5, abs=1e-3)
    assert draw(torch.tensor([1 - 1e-16], dtype=torch.float64), schedule).item() == 1


def test_it_is_uniform_until_every_step_has_ten():
    schedule = LinearBeta()
    u = torch.rand(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    draw = taught(rounds=9)
    t = torch.tensor([1, 2, 3, 4], dtype=torch.float64) / 5
    draw.record(t, t)
    draw.settle(lambda rows: rows)
    assert not draw.ready  # the fifth has nine
    assert torch.equal(draw(u, schedule), table_steps(5)(u, schedule))
    assert torch.equal(draw.weight(u.ceil()), torch.ones(500, dtype=torch.float64))
    draw.record(torch.ones(1, dtype=torch.float64), torch.ones(1))
    draw.settle(lambda rows: rows)
    assert draw.ready


def test_reported_losses_count_after_the_step_and_a_bad_step_not_at_all():
    draw = taught()
    before = draw.chances()
    draw.record(torch.ones(3, dtype=torch.float64), torch.full((3,), 100.0))
    assert torch.equal(draw.chances(), before)
    draw.forget()
    draw.record(torch.ones(1, dtype=torch.float64), torch.full((1,), 100.0))
    draw.settle(lambda rows: rows)
    once = taught()
    once.record(torch.ones(1, dtype=torch.float64), torch.full((1,), 100.0))
    once.settle(lambda rows: rows)
    assert torch.equal(draw.chances(), once.chances())
    assert draw.chances()[4] > before[4]


IMPORTANT = override(BOUND, {"draw": "importance", "images": "480", "checkpoint_steps": "8", "log.keep": "9"})


def test_a_training_that_was_stopped_draws_the_same_times(tmp_path):
    """30 steps, ready after some 10: stopped after 20 it goes on bit for bit, its history too."""
    losses = [tick.loss for tick in train(IMPORTANT, tmp_path / "whole")]
    stopped = train(IMPORTANT, tmp_path / "parts")
    first = [next(stopped).loss for _ in range(20)]
    stopped.close()
    second = [tick.loss for tick in train(IMPORTANT, tmp_path / "parts")]
    assert len(second) == 14  # from the checkpoint at 16
    assert first + second[4:] == losses
    assert first[16:] == second[:4]
    assert same(contents(tmp_path / "whole"), contents(tmp_path / "parts"))
    newest = checkpoint.newest(tmp_path / "whole" / "checkpoints")
    count = checkpoint.read(newest / "memory.safetensors")["count"]
    assert count.sum().item() == 480
    assert count.min() >= 10
    assert count.max() > 60  # uniform would be 60 each


def test_the_parts_of_a_batch_are_one_step(tmp_path):
    """What is drawn in the second part does not depend on the first: losses are those of a batch in one part."""
    short = override(IMPORTANT, {"images": "160"})
    whole = [tick.loss for tick in train(override(short, {"accumulate": "1"}), tmp_path / "one")]
    parts = [tick.loss for tick in train(override(short, {"accumulate": "4"}), tmp_path / "four")]
    assert parts == pytest.approx(whole, rel=2e-3)


def together(who: Processes, path: str) -> None:
    for _ in train(override(IMPORTANT, {"images": "160"}), Path(path), processes=who):
        pass


@pytest.mark.slow
def test_two_processes_share_their_reported_losses(tmp_path):
    children = launch(tmp_path / "said", together, str(tmp_path / "two"), world=2)
    assert [child.end(120) for child in children] == [0, 0], [child.said() for child in children]
    list(train(override(IMPORTANT, {"images": "160"}), tmp_path / "one"))
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert torch.equal(one["memory.safetensors:count"], two["memory.safetensors:count"])
    torch.testing.assert_close(two["memory.safetensors:losses"], one["memory.safetensors:losses"], rtol=5e-3, atol=1e-4)


def test_estimates_far_off_still_teach():
    """A new-born network may say anything: the decoder's gradient stays finite, in float32, many deviations away."""
    config = override(BOUND, {"predicts": "x0"})
    out = (50 * torch.randn(EVERY, 1, 8, 8, generator=torch.Generator().manual_seed(0))).requires_grad_()
    batch = data.open(config.data).batch(range(EVERY))
    goal = objective(make_diffusion(Perfect(out), config.process), config, placeholder_conditioner(config))
    loss = goal(batch, rows_of(EVERY))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(out.grad).all()
