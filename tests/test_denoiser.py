"""Laws of predictions, losses and draws: the truth, predicted in any row, is the picture; losses mean one thing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.worlds import Gaussian, Oracle
from unnoise.conditions import Cond
from unnoise.config.diffusion import DiffusionConfig
from unnoise.denoiser import (
    EPSILON,
    FLOW,
    PREDICTIONS,
    SAMPLE,
    SCORE,
    VELOCITY,
    Diffusion,
    Prediction,
    edm,
    make_diffusion,
    posterior_mean,
)
from unnoise.errors import UserError
from unnoise.losses import (
    TIME_SAMPLERS,
    WEIGHTS,
    bound_weight,
    check,
    constant,
    edm_weight,
    flow_matching,
    log_normal,
    make_time_sampler,
    make_weight,
    min_snr,
    output_weight,
    p2,
    simple,
    snr_plus_one,
    stratified,
    table_steps,
    truncated_snr,
)
from unnoise.schedules import (
    EDM,
    Cosine,
    CosineContinuous,
    Flow,
    LinearBeta,
    Schedule,
    VarianceExploding,
    ZeroTerminalSNR,
    posterior,
)

SCHEDULES: list[Schedule] = [LinearBeta(), Cosine(), CosineContinuous(), Flow(), EDM(), VarianceExploding()]
ROWS = ["eps", "x0", "v", "flow", "edm", "score", "posterior-mean"]


def row(name: str, schedule: Schedule) -> Prediction:
    return PREDICTIONS[name](schedule, 1000)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("name", ROWS)
def test_exact_outputs_give_the_picture_for_every_prediction(name: str, schedule: Schedule) -> None:
    generator = torch.Generator().manual_seed(1)
    x, eps = torch.randn(2, 5, 3, 4, 4, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.001, 0.05, 0.3, 0.7, 0.98], dtype=torch.float64)
    level = schedule(t)
    predicts = row(name, schedule)
    mean = predicts.mean(level.mix(x, eps), predicts.target(x, eps, level), level)
    assert torch.allclose(mean, x, atol=1e-9)


@pytest.mark.parametrize("name", ["eps", "x0", "v", "flow", "edm", "score"])
def test_at_time_zero_the_estimate_is_the_state(name: str) -> None:
    x = torch.randn(2, 3, dtype=torch.float64)
    for schedule in SCHEDULES:
        assert torch.equal(row(name, schedule).mean(x, torch.ones_like(x), schedule.at(0.0)), x)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("name", ROWS)
def test_the_output_weight_is_the_plain_error_of_the_output(name: str, schedule: Schedule) -> None:
    predicts = row(name, schedule)
    level = schedule(torch.tensor([0.01, 0.3, 0.9], dtype=torch.float64))
    off = torch.ones(3, 1, dtype=torch.float64)
    moved = predicts.mean(0 * off, off, level) - predicts.mean(0 * off, 0 * off, level)
    assert torch.allclose(output_weight(predicts)(level) * moved.square()[:, 0], torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("schedule", [EDM(), VarianceExploding(), LinearBeta()], ids=str)
def test_the_input_of_a_score_network_has_unit_noise(schedule: Schedule) -> None:
    level = schedule(torch.tensor([0.01, 0.3, 1.0], dtype=torch.float64))
    shown = SCORE.c_in(level) * (level.alpha.square() + level.sigma.square()).sqrt()
    assert torch.allclose(shown, torch.ones(3, dtype=torch.float64))


def test_rows_are_the_papers() -> None:
    """Each row at one level, by its own definition."""
    schedule = LinearBeta()
    level = schedule.at(0.4)
    alpha, sigma, x, eps = level.alpha.item(), level.sigma.item(), 0.3, -1.1
    x_t = alpha * x + sigma * eps

    def target(predicts: Prediction) -> float:
        return predicts.target(*torch.tensor([[x], [eps]], dtype=torch.float64), level).item()

    assert target(EPSILON) == pytest.approx(eps)
    assert target(SAMPLE) == pytest.approx(x)
    assert target(VELOCITY) == pytest.approx(alpha * eps - sigma * x)
    assert target(FLOW) == pytest.approx(eps - x)
    kernel = posterior(level, schedule.at(0.399))
    assert target(posterior_mean(schedule, 1000)) == pytest.approx((kernel.x_coef * x + kernel.x_t_coef * x_t).item())
    # EDM: F = (x - c_skip z) / c_out, z = x + ratio eps, from the paper's table
    ratio, spread = sigma / alpha, 0.5
    c_skip = spread**2 / (ratio**2 + spread**2)
    c_out = ratio * spread / math.sqrt(ratio**2 + spread**2)
    assert target(edm(spread)) == pytest.approx((x - c_skip * (x + ratio * eps)) / c_out)
    # c_in z, and a quarter of log sigma
    assert (edm(spread).c_in(level) * x_t).item() == pytest.approx((x_t / alpha) / math.sqrt(ratio**2 + spread**2))
    clock = edm(spread).c_noise
    assert clock is not None
    assert clock(torch.tensor(0.4), level).item() == pytest.approx(math.log(ratio) / 4)


@pytest.mark.parametrize("schedule", [LinearBeta(), Cosine(), Flow(), EDM()], ids=str)
@pytest.mark.parametrize("name", ["eps", "x0", "v", "flow", "edm"])
def test_a_network_with_exact_outputs_denoises_exactly(name: str, schedule: Schedule) -> None:
    """Input scale, clock, output row: all of them stand between this oracle and its truth."""
    world, predicts = Gaussian(), row(name, schedule)
    if name in ("eps", "score", "edm") and schedule == Flow():
        pytest.skip("refused: these do not determine the picture at the end of the straight schedule")

    def time(clock: Tensor) -> Tensor:
        return schedule.time(-4 * clock.double()) if name == "edm" else (clock.double() + 1) / 1000

    net = Oracle(world, schedule, predicts, time)
    diffusion = Diffusion(net, schedule, predicts)
    x_t = torch.randn(4, 3, dtype=torch.float64)
    t = torch.tensor([0.01, 0.2, 0.5, 0.9], dtype=torch.float64)
    expected = world.denoise(x_t, schedule(t))
    assert torch.allclose(diffusion(x_t, t).mean, expected, atol=1e-4)  # the time is passed in float32
    assert torch.equal(diffusion.given(Cond())(x_t, t).mean, diffusion(x_t, t).mean)


def test_the_clock_of_a_discrete_network_counts_its_steps() -> None:
    times: list[Tensor] = []

    class Records(nn.Module):
        def forward(self, x: Tensor, time: Tensor, cond: Cond) -> Tensor:
            times.append(time)
            return x

    diffusion = Diffusion(Records(), LinearBeta())
    diffusion(torch.zeros(3, 1), torch.tensor([0.001, 0.5, 1.0], dtype=torch.float64))
    diffusion(torch.zeros(2, 1), torch.tensor(0.25, dtype=torch.float64))
    assert times[0].tolist() == [0, 499, 999]
    assert times[1].tolist() == [249, 249]
    assert times[0].dtype == torch.float32


class Wrong(nn.Module):
    """A network that is wrong by a known amount."""

    def __init__(self, truth: Tensor, by: float) -> None:
        super().__init__()
        self.truth, self.by = truth, by

    def forward(self, x: Tensor, time: Tensor, cond: Cond) -> Tensor:
        return self.truth + self.by


@pytest.mark.parametrize("schedule", [LinearBeta(), Flow(), EDM()], ids=str)
@pytest.mark.parametrize("name", ROWS)
def test_loss_is_the_weighted_error_of_the_picture(name: str, schedule: Schedule) -> None:
    generator = torch.Generator().manual_seed(3)
    if name in ("eps", "score", "edm") and schedule == Flow():
        pytest.skip("refused: these do not determine the picture at the end of the straight schedule")
    x, eps = torch.randn(2, 3, 2, 4, 4, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.02, 0.4, 0.9], dtype=torch.float64)
    level = schedule(t)
    predicts = row(name, schedule)
    net = Wrong(predicts.target(x, eps, level), 0.3)
    diffusion = Diffusion(net, schedule, predicts)
    mean = diffusion(level.mix(x, eps), t).mean
    for weight in (simple, constant, min_snr(5), edm_weight()):
        loss = diffusion.loss(x, t, noise=eps, weight=weight)
        expected = weight(level) * (x - mean).square().flatten(1).mean(1)
        assert torch.allclose(loss, expected, rtol=1e-7)


def test_the_plain_losses_of_the_papers_are_their_weights() -> None:
    """||out - target||^2 for eps, v, x0, flow and EDM: an error of 1 in the network's own output costs 1."""
    t = torch.tensor([0.02, 0.4, 0.9], dtype=torch.float64)
    x = torch.zeros(3, 4, dtype=torch.float64)
    for schedule, name, weight in (
        (LinearBeta(), "eps", simple),
        (LinearBeta(), "x0", constant),
        (CosineContinuous(), "v", snr_plus_one),
        (Flow(), "flow", flow_matching),
        (EDM(), "edm", edm_weight()),
    ):
        predicts = row(name, schedule)
        net = Wrong(predicts.target(x, x, schedule(t)), 1.0)
        loss = Diffusion(net, schedule, predicts).loss(x, t, noise=x, weight=weight)
        assert torch.allclose(loss, torch.ones(3, dtype=torch.float64)), name


def test_weights_by_hand() -> None:
    level = LinearBeta().at(0.3)
    snr = (level.alpha**2 / level.sigma**2).item()
    assert simple(level).item() == pytest.approx(snr)
    assert truncated_snr(level).item() == pytest.approx(max(snr, 1))
    assert truncated_snr(LinearBeta().at(0.8)).item() == 1
    assert snr_plus_one(level).item() == pytest.approx(snr + 1)
    assert min_snr(2)(LinearBeta().at(0.1)).item() == 2
    assert min_snr(5)(LinearBeta().at(0.8)).item() == pytest.approx(simple(LinearBeta().at(0.8)).item())
    assert p2(1, 0.5)(level).item() == pytest.approx(snr / math.sqrt(1 + snr))


def test_the_bounds_weights_are_the_posteriors() -> None:
    """The mean part of the KL with the posterior's variance: x_coef^2 / (2 small), for every step but the first."""
    schedule = LinearBeta()
    t = torch.tensor([2, 10, 100, 999, 1000], dtype=torch.float64) / 1000
    kernel = posterior(schedule(t), schedule(t - 1 / 1000))
    expected = kernel.x_coef.square() / (2 * kernel.small)
    assert torch.allclose(bound_weight(schedule, 1000)(schedule(t)), expected, rtol=1e-6)
    first = schedule.at(1 / 1000)
    assert bound_weight(schedule, 1000)(first).item() == pytest.approx(first.snr.item() / 2)


def test_edm_begins_with_a_loss_of_one() -> None:
    """Data of the standard deviation of the preconditioning, a network with output 0: the expected loss is 1."""
    generator = torch.Generator().manual_seed(0)
    x = 0.5 * torch.randn(6, 200_000, generator=generator, dtype=torch.float64)
    eps = torch.randn(6, 200_000, generator=generator, dtype=torch.float64)
    t = EDM().time(-torch.tensor([0.01, 0.1, 0.5, 2.0, 10, 70], dtype=torch.float64).log())
    diffusion = Diffusion(Wrong(torch.zeros_like(x), 0.0), EDM(), edm())
    loss = diffusion.loss(x, t, noise=eps, weight=edm_weight())
    assert torch.allclose(loss, torch.ones(6, dtype=torch.float64), atol=0.02)


def test_learned_variance_takes_the_second_half_of_the_channels() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor, time: Tensor, cond: Cond) -> Tensor:
            return torch.cat([x, torch.full_like(x, 0.5)], 1)

    diffusion = Diffusion(Net(), LinearBeta(), learned_variance=True)
    estimate = diffusion(torch.randn(2, 3, 4, 4), torch.tensor([0.1, 0.2]))
    assert estimate.mean.shape == (2, 3, 4, 4)
    assert estimate.variance_fraction is not None
    assert torch.equal(estimate.variance_fraction, torch.full((2, 3, 4, 4), 0.75))


def test_eps_at_zero_terminal_snr_is_refused() -> None:
    with pytest.raises(UserError, match="predict v, flow or x0"):
        Diffusion(nn.Identity(), ZeroTerminalSNR(LinearBeta()), EPSILON)
    Diffusion(nn.Identity(), ZeroTerminalSNR(LinearBeta()), VELOCITY)


# --- draws of t ---


def test_uniform_times_are_all_equally_likely() -> None:
    u = (torch.arange(5000, dtype=torch.float64) + 0.5) / 5000
    t = table_steps(10)(u, LinearBeta())
    values, counts = torch.unique(t, return_counts=True)
    assert torch.allclose(values * 10, torch.arange(1, 11, dtype=torch.float64))
    assert (counts == 500).all()


def test_log_normal_draws_are_edms() -> None:
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    t = log_normal()(u, EDM())
    log_sigma = -EDM()(t).log_ratio
    assert log_sigma.mean().item() == pytest.approx(-1.2, abs=1e-3)
    assert log_sigma.std().item() == pytest.approx(1.2, abs=2e-3)


def test_logit_normal_draws() -> None:
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    logits = torch.logit(TIME_SAMPLERS["logit-normal"](1000)(u, Flow()))
    assert logits.mean().abs().item() < 1e-3
    assert logits.std().item() == pytest.approx(1, abs=2e-3)


def test_stratified_draws_fall_one_in_each_part() -> None:
    u = torch.rand(64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    spread = stratified(u, torch.arange(64), 64)
    assert (spread * 64).floor().tolist() == list(range(64))
    assert spread.max() < 1


def test_all_times_lie_between_0_and_1() -> None:
    u = torch.tensor([0.0, 1e-12, 0.5, 1 - 1e-12], dtype=torch.float64)
    for name, make in TIME_SAMPLERS.items():
        for schedule in SCHEDULES:
            t = make(1000)(u, schedule)
            assert (t > 0).all(), name
            assert (t <= 1).all(), name


# --- names ---


def test_processes_are_made_by_name() -> None:
    process = DiffusionConfig(
        schedule="cosine", steps=100, predicts="v", weight="min-snr", weight_options={"gamma": 3.0}
    )
    diffusion = make_diffusion(nn.Identity(), process)
    assert diffusion.schedule == Cosine(100)
    assert make_weight(process, diffusion.schedule)(diffusion.schedule.at(0.01)) == 3
    assert make_time_sampler(process)(torch.tensor([0.005], dtype=torch.float64), diffusion.schedule).item() == 0.01
    middle = make_time_sampler(
        replace(process, time_sampler="edm", time_sampler_options={"mean": math.log(3), "std": 1.0})
    )
    t = middle(torch.tensor([0.5], dtype=torch.float64), diffusion.schedule)
    assert diffusion.schedule(t).log_ratio.item() == pytest.approx(-math.log(3))
    for name in WEIGHTS:
        assert (make_weight(DiffusionConfig(weight=name), LinearBeta())(LinearBeta().at(0.5)) > 0).all()


def test_unknown_names_list_the_valid_ones() -> None:
    with pytest.raises(UserError, match="did you mean 'eps'"):
        make_diffusion(nn.Identity(), DiffusionConfig(predicts="epss"))
    with pytest.raises(UserError, match="did you mean 'min-snr'"):
        make_weight(DiffusionConfig(weight="minsnr"), LinearBeta())
    with pytest.raises(UserError, match="does not take"):
        make_weight(DiffusionConfig(weight="simple", weight_options={"gamma": 1.0}), LinearBeta())
    with pytest.raises(UserError, match=r"time_sampler_options: 'edm' does not take \['sigma'\]"):
        check(DiffusionConfig(time_sampler="edm", time_sampler_options={"sigma": 1.0}))
    with pytest.raises(UserError, match="needs a learned variance"):
        check(DiffusionConfig(objective="hybrid"))
    check(DiffusionConfig())
