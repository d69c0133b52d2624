"""Laws of guidance: scale 1 is no guidance, one batch equals two calls, a classifier is Bayes' rule, Gaussians have
closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.worlds import Gaussian, Mixture
from unnoise.conditions import NOTHING, Cond
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import UNetConfig
from unnoise.config.training import TrainConfig
from unnoise.data import Batch
from unnoise.denoiser import EPSILON, SAMPLE, VELOCITY, Denoiser, Diffusion, Estimate, Prediction, edm
from unnoise.guidance import (
    autoguidance,
    chain,
    classifier,
    classifier_free,
    clip_denoised,
    dynamic_threshold,
    gradient,
    guidance_interval,
    rescaled,
    scale_from_w,
)
from unnoise.noise import normal
from unnoise.recipes.conditioning import placeholder_conditioner
from unnoise.recipes.diffusion import objective
from unnoise.samplers import State, ddim, ddpm, heun, large, last, learned, small, walk
from unnoise.samplers.timesteps import even, karras
from unnoise.schedules import EDM, Cosine, Flow, LinearBeta, Schedule, Tabled, posterior
from unnoise.training.player import SampleRNG

T = torch.tensor(0.4, dtype=torch.float64)


class Labelled(nn.Module):
    """A network whose output depends on its input, the time and the label."""

    def forward(self, x: Tensor, time: Tensor, cond: Cond) -> Tensor:
        assert cond.label is not None
        return x * (cond.label[:, None] + 1.0) * 0.1 + 0.01 * time[:, None]


def labelled() -> tuple[Diffusion, Cond, Cond]:
    return Diffusion(Labelled(), LinearBeta()), Cond(torch.tensor([0, 1, 2])), Cond(torch.tensor([3, 3, 3]))


def test_scale_one_is_the_conditional_denoiser_bit_for_bit() -> None:
    diffusion, cond, null = labelled()
    x = torch.randn(3, 5)
    assert torch.equal(classifier_free(diffusion, cond, null, 1.0)(x, T).mean, diffusion.given(cond)(x, T).mean)


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
def test_one_batch_equals_two_calls(scale: float) -> None:
    diffusion, cond, null = labelled()
    x = torch.randn(3, 5)
    with_, without = diffusion.given(cond)(x, T).mean, diffusion.given(null)(x, T).mean
    for t in (T, torch.tensor([0.4, 0.4, 0.4], dtype=torch.float64)):
        assert torch.allclose(
            classifier_free(diffusion, cond, null, scale)(x, t).mean, without + scale * (with_ - without), atol=1e-5
        )


def test_scale_zero_is_the_null_condition() -> None:
    diffusion, cond, null = labelled()
    x = torch.randn(3, 5)
    assert torch.allclose(classifier_free(diffusion, cond, null, 0.0)(x, T).mean, diffusion.given(null)(x, T).mean)


def test_the_learned_variance_is_the_conditional_ones() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor, time: Tensor, cond: Cond) -> Tensor:
            assert cond.label is not None
            return torch.cat([x, cond.label[:, None].expand_as(x).to(x)], 1)

    diffusion = Diffusion(Net(), LinearBeta(), learned_variance=True)
    spread = classifier_free(diffusion, Cond(torch.tensor([0, 1])), Cond(torch.tensor([9, 9])), 2.0)(
        torch.randn(2, 4), T
    ).variance_fraction
    assert spread is not None
    assert spread[:, 0].tolist() == [0.5, 1.0]


class Counted:
    """A denoiser that records the number of rows of each call."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser, self.rows = denoiser, []

    def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
        self.rows.append(len(x_t))
        return self.denoiser(x_t, t)


def counted(denoiser: Denoiser) -> tuple[Denoiser, list[int]]:
    inside = Counted(denoiser)
    return Denoiser(denoiser.schedule, inside), inside.rows


# --- a scale a row ---


def test_each_row_has_its_own_scale() -> None:
    diffusion, cond, null = labelled()
    x, scale = torch.randn(3, 5), torch.tensor([0.0, 1.0, 3.0])
    found = classifier_free(diffusion, cond, null, scale)(x, T).mean
    assert torch.equal(found[0], diffusion.given(null)(x, T).mean[0])  # bit for bit, in a batch that is guided
    assert torch.equal(found[1], diffusion.given(cond)(x, T).mean[1])
    assert torch.allclose(found[2], classifier_free(diffusion, cond, null, 3.0)(x, T).mean[2], atol=1e-6)
    alone = classifier_free(diffusion, cond, null, torch.ones(3))
    rows = []
    diffusion.net.register_forward_hook(lambda net, inputs, out: rows.append(len(out)))
    assert torch.equal(alone(x, T).mean, diffusion.given(cond)(x, T).mean)
    assert rows == [3, 3]  # and not 6: without guidance only one estimate is computed


def test_rows_at_their_own_times_are_guided_at_them() -> None:
    diffusion, cond, null = labelled()
    x, t = torch.randn(3, 5), torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    found = classifier_free(diffusion, cond, null, 2.0)(x, t).mean
    for i in range(3):
        alone = classifier_free(diffusion, cond[i : i + 1], null[i : i + 1], 2.0)(x[i : i + 1], t[i]).mean
        assert torch.allclose(found[i : i + 1], alone, atol=1e-6)


def test_the_papers_w_is_one_less() -> None:
    """Ho & Salimans 2022, eq. 6: (1 + w) conditional - w unconditional."""
    diffusion, cond, null = labelled()
    x, w = torch.randn(3, 5), 0.7
    with_, without = diffusion.given(cond)(x, T).mean, diffusion.given(null)(x, T).mean
    paper = (1 + w) * with_ - w * without
    assert torch.allclose(classifier_free(diffusion, cond, null, scale_from_w(w))(x, T).mean, paper, atol=1e-5)
    assert torch.equal(classifier_free(diffusion, cond, null, scale_from_w(0))(x, T).mean, with_)


def test_null_rows_come_first() -> None:
    diffusion, cond, null = labelled()
    labels: list[Tensor] = []
    diffusion.net.register_forward_pre_hook(lambda net, inputs: labels.append(inputs[2].label))
    classifier_free(diffusion, cond, null, 2.0)(torch.randn(3, 5), T)
    assert labels[0].tolist() == [3, 3, 3, 0, 1, 2]


def test_a_negative_prompt_replaces_the_null_condition() -> None:
    diffusion, cond, null = labelled()
    x, unwanted = torch.randn(3, 5), Cond(torch.tensor([2, 2, 0]))
    with_, without = diffusion.given(cond)(x, T).mean, diffusion.given(unwanted)(x, T).mean
    found = classifier_free(diffusion, cond, unwanted, 2.0)(x, T).mean
    assert torch.allclose(found, 2 * with_ - without, atol=1e-5)
    assert not torch.allclose(found, classifier_free(diffusion, cond, null, 2.0)(x, T).mean, atol=1e-2)


# --- several conditions, weaker models, intervals, contrast ---


def test_a_chain_of_two_is_classifier_free_and_of_three_is_the_papers() -> None:
    """Brooks et al. 2023, eq. 3: null, a picture, a picture and text; s_I = 1.5, s_T = 7."""
    diffusion, cond, null = labelled()
    x, some = torch.randn(3, 5), Cond(torch.tensor([5, 6, 7]))
    two = chain(diffusion, (null, cond), (2.0,))(x, T).mean
    assert torch.equal(two, classifier_free(diffusion, cond, null, 2.0)(x, T).mean)
    nothing, picture, both = (diffusion.given(c)(x, T).mean for c in (null, some, cond))
    paper = nothing + 1.5 * (picture - nothing) + 7 * (both - picture)
    assert torch.allclose(chain(diffusion, (null, some, cond), (1.5, 7.0))(x, T).mean, paper, atol=1e-5)
    rows = chain(diffusion, (null, some, cond), (torch.tensor([1.5, 1, 1]), torch.tensor([7.0, 1, 1])))(x, T).mean
    assert torch.allclose(rows[0], paper[0], atol=1e-5)
    assert torch.allclose(rows[1:], both[1:], atol=1e-5)
    with pytest.raises(ValueError, match="2 conditions have 1 differences"):
        chain(diffusion, (null, cond), (1.0, 2.0))


def test_autoguidance_equals_classifier_free_guidance_of_one_network() -> None:
    diffusion, cond, null = labelled()
    good, poor = diffusion.given(cond), diffusion.given(null)
    x = torch.randn(3, 5)
    assert autoguidance(good, poor, 1.0) is good
    found = autoguidance(good, poor, 2.5)(x, T).mean
    assert torch.allclose(found, classifier_free(diffusion, cond, null, 2.5)(x, T).mean, atol=1e-6)
    with pytest.raises(ValueError, match="different schedules"):
        autoguidance(good, Denoiser(Cosine(), poor.estimate), 2.0)


def test_autoguidance_calls_each_model_once_and_has_the_variance_of_the_good_one() -> None:
    good, calls_good = counted(Denoiser(LinearBeta(), lambda x_t, t: Estimate(x_t, x_t + 1)))
    poor, calls_poor = counted(Denoiser(LinearBeta(), lambda x_t, t: Estimate(2 * x_t, x_t + 2)))
    x = torch.randn(3, 5)
    mean, spread = autoguidance(good, poor, 2.0)(x, T)
    assert torch.allclose(mean, torch.zeros(3, 5), atol=1e-6)  # 2 x + 2 (x - 2 x)
    assert spread is not None
    assert torch.equal(spread, x + 1)
    assert (calls_good, calls_poor) == ([3], [3])


def test_outside_its_interval_guidance_has_no_effect_and_no_cost() -> None:
    schedule = EDM(80.0)  # sigma / alpha = 80 t
    plain, calls_plain = counted(Denoiser(schedule, lambda x_t, t: Estimate(x_t)))
    guided, calls_guided = counted(Denoiser(schedule, lambda x_t, t: Estimate(-x_t)))
    limited = guidance_interval(guided, plain, 0.28, 1.6)
    x = torch.randn(2, 3)
    signs = {}
    for sigma in (0.0, 0.2, 0.28, 1.0, 1.6, 1.7, 80.0):
        t = torch.tensor(sigma / 80, dtype=torch.float64)
        signs[sigma] = torch.equal(limited(x, t).mean, -x)
    assert [sigma for sigma, guided in signs.items() if guided] == [0.28, 1.0, 1.6]
    assert (len(calls_plain), len(calls_guided)) == (4, 3)
    rows = limited(x, torch.tensor([1.0, 20.0], dtype=torch.float64) / 80).mean
    assert torch.equal(rows, torch.stack([-x[0], x[1]]))
    with pytest.raises(ValueError, match="low 2 is above high 1"):
        guidance_interval(guided, plain, 2, 1)


def test_the_interval_is_in_sigma_over_alpha_whatever_the_schedule() -> None:
    """Two schedules, one noise level: the same switch."""
    for schedule in (Cosine(), Flow(), LinearBeta()):
        plain, guided = (Denoiser(schedule, lambda x_t, t, k=k: Estimate(k * x_t)) for k in (1, -1))
        limited = guidance_interval(guided, plain, 0.5, 2.0)
        x = torch.randn(1, 3)
        ratios = [0.45, 0.55, 1.9, 2.1]
        times = [schedule.time(-torch.tensor(ratio, dtype=torch.float64).log()) for ratio in ratios]
        assert [torch.equal(limited(x, t).mean, -x) for t in times] == [False, True, True, False]


@pytest.mark.parametrize("schedule", [LinearBeta(), Cosine()], ids=str)
def test_an_interval_that_ends_on_an_entry_of_a_table_contains_it(schedule: Tabled) -> None:
    """The entries' sigma / alpha as another program computes them, from the product of the betas: up to rounding."""
    plain, guided = (Denoiser(schedule, lambda x_t, t, k=k: Estimate(k * x_t)) for k in (1, -1))
    kept = (1 - schedule.betas()).cumprod(0)
    x = torch.ones(1, 3)
    for k in range(1, 1000, 37):
        ratio = ((1 - kept[k]) / kept[k]).sqrt().item()
        t = torch.tensor((k + 1) / 1000, dtype=torch.float64)
        for low, high in ((ratio, math.inf), (0.0, ratio), (ratio, ratio)):
            assert torch.equal(guidance_interval(guided, plain, low, high)(x, t).mean, -x), (k, low, high)
            beside = guidance_interval(guided, plain, low, high)(x, t + (2e-4 if high == ratio else -2e-4))
            assert torch.equal(beside.mean, x), (k, low, high)


def test_rescaling_gives_the_contrast_of_the_conditional_estimate() -> None:
    """Lin et al. 2023, eq. 14 to 16: each row by itself, over all of its elements."""
    plain = torch.randn(2, 3, 4, 4) * torch.tensor([1.0, 5.0])[:, None, None, None] + 1
    guided = 3 * torch.randn(2, 3, 4, 4) + 2
    full = rescaled(guided, plain, 1.0)
    assert torch.allclose(full.flatten(1).std(1), plain.flatten(1).std(1), atol=1e-5)
    assert torch.allclose(rescaled(guided, plain, 0.7), 0.7 * full + 0.3 * guided, atol=1e-5)
    assert rescaled(guided, plain, 0.0) is guided
    diffusion, cond, null = labelled()
    x = torch.randn(3, 5)
    found = classifier_free(diffusion, cond, null, 4.0, rescale=1.0)(x, T).mean
    assert torch.allclose(found.std(1), diffusion.given(cond)(x, T).mean.std(1), atol=1e-5)


# --- closed forms ---


class Exact(Diffusion):
    """The exact estimate of the world that the label of a row selects."""

    def __init__(self, worlds: list[Gaussian | Mixture], schedule: Schedule) -> None:
        super().__init__(nn.Identity(), schedule, edm())
        self.worlds = worlds

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond = NOTHING) -> Estimate:
        assert cond.label is not None
        level = self.schedule(t)
        each = torch.stack([world.denoise(x_t, level) for world in self.worlds])
        return Estimate(each[cond.label, torch.arange(len(x_t))])


@pytest.mark.parametrize(("s_c", "s_u", "w"), [(1.0, 2.0, 1.0), (1.0, 2.0, 0.5), (0.5, 1.0, 2.0), (1.0, 1.0, 3.0)])
def test_the_guided_flow_has_its_closed_form(s_c: float, s_u: float, w: float) -> None:
    """p(x | c) = N(0, s_c^2), p(x) = N(0, s_u^2): the flow from far out ends at s_c^(1 + w) / s_u^w.

    For 1, 2 and w = 1 that is 0.5; the density p(x | c)^2 / p(x), which guidance is often claimed to sample, has 0.756.
    """
    sigma = 2000.0
    diffusion = Exact([Gaussian(0, s_c), Gaussian(0, s_u)], EDM(sigma_max=sigma))
    guided = classifier_free(diffusion, Cond(torch.tensor([0])), Cond(torch.tensor([1])), scale_from_w(w))
    begin = (s_c**2 + sigma**2) ** ((1 + w) / 2) * (s_u**2 + sigma**2) ** (-w / 2)
    x, ends = torch.tensor([[begin]], dtype=torch.float64), []
    for steps in (1000, 2000):
        times = karras(1e-4, sigma)(diffusion.schedule, steps)
        ends.append(last(walk(guided, x, times, heun(), lambda t, draw: x)).item())
    found = ends[1] + (ends[1] - ends[0]) / 3  # Richardson extrapolation, for order 2
    assert found == pytest.approx(s_c ** (1 + w) * s_u**-w, abs=1e-6)


WORLD = Mixture()
CLASSES = [Mixture((mean,), (1.0,), WORLD.std) for mean in WORLD.means]
SCHEDULES = [Cosine(), LinearBeta(), Flow(), EDM(20.0)]


def posterior_of(label: Tensor, schedule: Schedule) -> object:
    """log p(label | x_t), exactly."""

    def log_prob(x_t: Tensor, t: Tensor) -> Tensor:
        return WORLD.responsibilities(x_t, schedule(t)).log()[torch.arange(len(x_t)), label]

    return log_prob


def noisy(schedule: Schedule, t: Tensor, count: int = 60) -> tuple[Tensor, Tensor]:
    """x_t of the mixture, and a class for each row."""
    label = torch.arange(count) % len(WORLD.means)
    means = torch.tensor(WORLD.means, dtype=torch.float64)[label]
    x = means + WORLD.std * normal(means.shape, "x").double()
    return schedule(t).mix(x, normal(means.shape, "eps").double()), label


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("at", [0.1, 0.4, 0.8])
def test_a_classifier_makes_the_unconditional_denoiser_conditional(schedule: Schedule, at: float) -> None:
    """Bayes: at scale 1 the estimate, and so the score, is that of the class."""
    t = torch.full((60,), at, dtype=torch.float64)
    x_t, label = noisy(schedule, t)
    guided = classifier(WORLD.denoiser(schedule), posterior_of(label, schedule), 1.0)(x_t, t).mean
    level = schedule(t)
    truth = torch.stack([c.denoise(x_t, level) for c in CLASSES])[label, torch.arange(60)]
    assert torch.allclose(guided, truth, atol=1e-9)
    assert torch.allclose(level.score(x_t, guided), level.score(x_t, truth), atol=1e-6)


@pytest.mark.parametrize("scale", [0.5, 2.0, 4.0])
def test_classifier_free_guidance_is_classifier_guidance_where_both_are_exact(scale: float) -> None:
    schedule = Cosine()
    t = torch.linspace(0.1, 0.9, 60, dtype=torch.float64)
    x_t, label = noisy(schedule, t)
    diffusion = Exact([*CLASSES, WORLD], schedule)
    null = Cond(torch.full((60,), 3))
    free = classifier_free(diffusion, Cond(label), null, scale)(x_t, t).mean
    with_classifier = classifier(diffusion.given(null), posterior_of(label, schedule), scale)(x_t, t).mean
    assert torch.allclose(free, with_classifier, atol=1e-6)
    on_top = classifier(diffusion.given(Cond(label)), posterior_of(label, schedule), scale - 1)(x_t, t).mean
    assert torch.allclose(free, on_top, atol=1e-6)  # on a conditional model the classifier adds what w adds


def test_a_classifier_has_a_scale_for_each_row_and_none_at_zero() -> None:
    schedule = Cosine()
    t = torch.full((3,), 0.4, dtype=torch.float64)
    x_t, label = noisy(schedule, t, 3)
    plain, log_prob = WORLD.denoiser(schedule), posterior_of(label, schedule)
    assert classifier(plain, log_prob, 0.0) is plain
    found = classifier(plain, log_prob, torch.tensor([0.0, 1.0, 2.0]))(x_t, t).mean
    for row, scale in enumerate((0.0, 1.0, 2.0)):
        assert torch.allclose(found[row], classifier(plain, log_prob, scale)(x_t, t).mean[row], atol=1e-12)


def test_at_zero_terminal_snr_a_classifier_changes_nothing() -> None:
    plain = WORLD.denoiser(Flow())  # alpha = 0 at t = 1
    x_t, t = torch.randn(2, 2, dtype=torch.float64), torch.ones((), dtype=torch.float64)
    found = classifier(plain, lambda x, t: x.sum(1), 1.0)(x_t, t).mean
    assert torch.equal(found, plain(x_t, t).mean)


def test_a_classifier_leaves_no_gradients_and_works_without_them() -> None:
    schedule = Cosine()
    t = torch.full((6,), 0.4, dtype=torch.float64)
    x_t, label = noisy(schedule, t, 6)
    with torch.no_grad():
        found = gradient(posterior_of(label, schedule))(x_t, t)
    assert not x_t.requires_grad
    assert not found.requires_grad
    nudge = 1e-6
    log_prob = posterior_of(label, schedule)
    for k in range(2):
        step = torch.zeros_like(x_t)
        step[:, k] = nudge
        slope = (log_prob(x_t + step, t) - log_prob(x_t - step, t)) / (2 * nudge)
        assert torch.allclose(found[:, k], slope, atol=1e-5)


# --- ancestral sampling with a classifier ---


def one_step(denoiser: Denoiser, step: object, x: Tensor, t: float, s: float) -> Tensor:
    """The mean of the next state: without noise."""
    at, to = (torch.tensor(each, dtype=torch.float64) for each in (t, s))
    found: Tensor = step(denoiser, State(x, at), to, lambda t, draw: torch.zeros_like(x)).x  # type: ignore[operator]
    return found


@pytest.mark.parametrize("variance", [small, large, learned])
@pytest.mark.parametrize(("t", "s"), [(0.5, 0.4), (0.9, 0.1), (0.05, 0.0)])
def test_algorithm_1_shifts_the_mean_by_the_variance_times_the_gradient(variance: object, t: float, s: float) -> None:
    """mu + scale Sigma grad log p(y | x_t), Sigma written out: beta tilde, beta, and between the two."""
    schedule, scale = Cosine(), 3.0
    x = torch.randn(6, 2, dtype=torch.float64)
    label = torch.arange(6) % 3
    spread = torch.tensor([0.3, 1.0], dtype=torch.float64).expand_as(x)
    plain = Denoiser(schedule, lambda x_t, t: Estimate(WORLD.denoise(x_t, schedule(t)), spread))
    slope = gradient(posterior_of(label, schedule))
    without = one_step(plain, ddpm(variance), x, t, s)
    moved = one_step(plain, ddpm(variance, lambda x, t: scale * slope(x, t)), x, t, s) - without
    (a_t, s_t), (a_s, s_s) = ((lv.alpha.item(), lv.sigma.item()) for lv in (schedule.at(t), schedule.at(s)))
    beta = 1 - (a_t / a_s) ** 2
    tilde = beta * s_s**2 / s_t**2
    between = torch.tensor([beta**0.3 * tilde**0.7, beta if s else 0.0], dtype=torch.float64)
    sigma = {small: tilde, large: beta, learned: between}[variance]
    g = slope(x, torch.tensor(t, dtype=torch.float64))
    assert torch.allclose(moved, scale * sigma * g, atol=1e-9)


def test_the_shifted_estimate_shifts_the_ancestral_mean_by_a_known_amount() -> None:
    """By large / (alpha_t / alpha_s) times the gradient: algorithm 1's in the limit of small steps."""
    schedule = Cosine()
    x, label = torch.randn(6, 2, dtype=torch.float64), torch.arange(6) % 3
    plain, log_prob = WORLD.denoiser(schedule), posterior_of(label, schedule)
    for t, s in ((0.5, 0.4), (0.9, 0.1), (0.5, 0.499)):
        at, to = schedule.at(t), schedule.at(s)
        g = gradient(log_prob)(x, torch.tensor(t, dtype=torch.float64))
        moved = one_step(classifier(plain, log_prob, 2.0), ddpm(), x, t, s) - one_step(plain, ddpm(), x, t, s)
        beta = posterior(at, to).large
        assert torch.allclose(moved, 2.0 * beta / (at.alpha / to.alpha) * g, atol=1e-9)
    exact = one_step(plain, ddpm(large, lambda x, t: 2.0 * gradient(log_prob)(x, t)), x, 0.5, 0.499)
    assert torch.allclose(exact - one_step(plain, ddpm(large), x, 0.5, 0.499), moved, rtol=2e-3)


def test_ancestral_sampling_with_an_exact_classifier_ends_in_the_class() -> None:
    schedule, count = Cosine(), 4000
    label = torch.full((count,), 1)
    x = normal((count, 2), "start").double()
    for denoiser, step in (
        (classifier(WORLD.denoiser(schedule), posterior_of(label, schedule), 1.0), ddpm()),
        (WORLD.denoiser(schedule), ddpm(large, gradient(posterior_of(label, schedule)))),
    ):
        noise = lambda t, draw: normal((count, 2), "step", round(t.item() * 1e9)).double()  # noqa: E731
        end = last(walk(denoiser, x, even(schedule, 200), step, noise))
        assert torch.allclose(end.mean(0), torch.tensor(WORLD.means[1], dtype=torch.float64), atol=0.03)
        assert torch.allclose(end.std(0), torch.full((2,), WORLD.std, dtype=torch.float64), atol=0.02)


# --- guidance does not depend on what the network predicts ---


class Predicts(nn.Module):
    """A network with the exact output for a class of a mixture, or for the whole mixture."""

    def __init__(self, exact: Exact, predicts: Prediction) -> None:
        super().__init__()
        self.exact, self.predicts = exact, predicts

    def forward(self, x_t: Tensor, time: Tensor, cond: Cond) -> Tensor:
        t = (time.double() + 1) / 1000
        level = self.exact.schedule(t)
        mean = self.exact(x_t, t, cond).mean
        return self.predicts.target(mean, level.eps(x_t, mean), level)


SCORE = Prediction(lambda level: (torch.zeros_like(level.alpha), -1 / level.sigma))


def test_guidance_is_the_same_for_every_prediction() -> None:
    """eps, x0, v and the score: one picture, to 1e-12. The times have whole numbers on the network's clock."""
    schedule, count = Cosine(), 6
    label = torch.arange(count) % 3
    cond, null = Cond(label), Cond(torch.full((count,), 3))
    times = torch.tensor([0.96, 0.8, 0.64, 0.48, 0.32, 0.16, 0.048], dtype=torch.float64)
    x = normal((count, 2), "start").double()
    ends = []
    for predicts in (EPSILON, SAMPLE, VELOCITY, SCORE):
        diffusion = Diffusion(Predicts(Exact([*CLASSES, WORLD], schedule), predicts), schedule, predicts)
        guided = classifier_free(diffusion, cond, null, 2.5)
        ends.append(last(walk(guided, x, times, ddim(), lambda t, draw: x)))
    for end in ends[1:]:
        assert torch.allclose(end, ends[0], atol=1e-12, rtol=0)


def test_guidance_of_the_noise_by_hand_gives_the_same_step() -> None:
    """eps + scale (eps_cond - eps), and DDIM's formula, written out."""
    schedule, scale = Cosine(), 2.5
    label, t, s = torch.arange(6) % 3, torch.tensor(0.6, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)
    x, at, to = normal((6, 2), "start").double(), schedule(t), schedule(s)
    diffusion = Exact([*CLASSES, WORLD], schedule)
    cond, null = Cond(label), Cond(torch.full((6,), 3))
    eps_c, eps_u = ((x - at.alpha * diffusion(x, t, c).mean) / at.sigma for c in (cond, null))
    eps = eps_u + scale * (eps_c - eps_u)
    by_hand = to.alpha * (x - at.sigma * eps) / at.alpha + to.sigma * eps
    guided = classifier_free(diffusion, cond, null, scale)
    found = ddim()(guided, State(x, t), s, lambda t, draw: x).x
    assert torch.allclose(found, by_hand, atol=1e-12, rtol=0)


def test_clipping_comes_after_guidance() -> None:
    """Two estimates within the range, guided out of it: the guided estimate is clipped."""
    diffusion, cond, null = labelled()
    x = torch.full((3, 5), 3.0)
    guided = classifier_free(diffusion, cond, null, 8.0)
    assert guided(x, T).mean.abs().max() > 1
    found = clip_denoised(guided)(x, T).mean
    assert torch.equal(found, guided(x, T).mean.clamp(-1, 1))


def constant(value: Tensor) -> Denoiser:
    return Denoiser(LinearBeta(), lambda x_t, t: Estimate(value))


def test_clipping() -> None:
    value = torch.tensor([[-3.0, -1.0, 0.2, 1.5]])
    assert torch.equal(clip_denoised(constant(value))(value, T).mean, torch.tensor([[-1.0, -1.0, 0.2, 1.0]]))
    inside = value / 4
    assert torch.equal(clip_denoised(constant(inside))(inside, T).mean, inside)


def test_dynamic_thresholding() -> None:
    value = torch.linspace(-3, 3, 601)[None]
    out = dynamic_threshold(constant(value), 0.5)(value, T).mean
    edge = torch.quantile(value.abs(), 0.5).item()  # 1.5
    assert out.max() == 1
    assert out.min() == -1
    assert torch.allclose(out[0, 300 + 75], torch.tensor(0.75 / edge), atol=1e-6)
    quiet = value / 10
    assert torch.equal(dynamic_threshold(constant(quiet), 0.995)(quiet, T).mean, quiet)  # within the range: untouched
    limited = dynamic_threshold(constant(value), 1.0, most=1.0)(value, T).mean
    assert torch.equal(limited, value.clamp(-1, 1))


def test_each_sample_has_its_own_threshold() -> None:
    value = torch.stack([torch.linspace(-3, 3, 101), torch.linspace(-0.5, 0.5, 101)])
    out = dynamic_threshold(constant(value), 0.9)(value, T).mean
    assert torch.equal(out[1], value[1])
    assert not torch.equal(out[0], value[0])


# --- what guidance needs from training ---


def training_labels(dropout: float, batches: int = 10, count: int = 1000) -> Tensor:
    """The labels of each batch as the network receives them; all pictures are of class 2 of 5."""
    labels: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, x: Tensor, time: Tensor, cond: Cond) -> Tensor:
            assert cond.label is not None
            labels.append(cond.label)
            return x

    config = TrainConfig(net=UNetConfig(classes=5), process=DiffusionConfig(cond_dropout=dropout))
    goal = objective(Diffusion(Spy(), LinearBeta()), config, placeholder_conditioner(config))
    for first in range(0, batches * count, count):
        rows = SampleRNG(0, tuple(range(first, first + count)), count)
        goal(Batch(torch.zeros(count, 1, 2, 2), torch.full((count,), 2), None, rows.places), rows)
    return torch.stack(labels)


def test_labels_are_dropped_independently_in_each_row() -> None:
    """At their rate within three standard deviations, over 10,000 rows; into the null row, 5; not a batch at once."""
    found = training_labels(0.1)
    assert set(found.flatten().tolist()) == {2, 5}
    dropped = (found == 5).double()
    assert abs(dropped.mean().item() - 0.1) < 3 * (0.1 * 0.9 / found.numel()) ** 0.5
    each = dropped.mean(1)  # of a batch: binomial, of standard deviation 0.0095
    assert 0.002 < each.std() < 0.025
    again = training_labels(0.1, batches=1)
    assert torch.equal(again[0], found[0])  # the draw belongs to the sample


def test_no_label_is_dropped_at_rate_zero() -> None:
    assert set(training_labels(0.0, batches=1).flatten().tolist()) == {2}
