"""Laws of the bound: on worlds known exactly the bits are those that theory says, to the last digit.

Costs are quadratic in the picture and the noise, so that expectations over Gaussians are exact sums over three nodes
each: nothing here is drawn but where it says so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.helpers.worlds import Gaussian
from unnoise.denoiser import Denoiser, Estimate
from unnoise.likelihood import bound_term, curve, discretized_log_likelihood, rotating, table, whole_bound
from unnoise.likelihood.bound import (
    Bound,
    Decoder,
    Steps,
    Variance,
    chain,
    large,
    last,
    learned,
    mean_and_error,
    noise_of,
    small,
)
from unnoise.likelihood.decoder import tanh_log_likelihood
from unnoise.noise import Seeds
from unnoise.samplers.timesteps import trailing
from unnoise.schedules import Cosine, CosineContinuous, Flow, LinearBeta, Schedule, VarianceExploding, over

GREYS = torch.arange(256, dtype=torch.float64) / 127.5 - 1
NODES = torch.tensor([-(3**0.5), 0.0, 3**0.5], dtype=torch.float64)  # Gauss and Hermite's, for N(0, 1)
SHARES = torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=torch.float64)
PAIRS = list(itertools.product(range(3), range(3)))  # of a picture and its noise
WEIGHTS = torch.tensor([(SHARES[i] * SHARES[j]).item() for i, j in PAIRS], dtype=torch.float64)


def continuous(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """The decoder of pictures that are not grey levels: a density."""
    return -((x - mean).square() * torch.exp(-log_variance) + log_variance + math.log(2 * math.pi)) / 2


def best(world: Gaussian) -> Variance:
    """The reverse variance that is right on Gaussian data: the posterior's, and what the estimate leaves open."""

    def log_variance(steps: Steps, estimate: Estimate) -> Tensor:
        open_ = world.std**2 * steps.at.sigma.square() / world.variance(steps.at)
        return (torch.where(steps.ends, 0.0, steps.small) + steps.x_coef.square() * open_).log()

    return log_variance


def expected(world: Gaussian, schedule: Schedule, steps: Steps, variance: Variance, decoder: Decoder) -> Bound:
    """The bound's expectation over pictures and noise, exact: one row for each pair of nodes."""
    x = torch.stack([world.mean + world.std * NODES[i] for i, _ in PAIRS])[:, None]
    eps = torch.stack([NODES[j] for _, j in PAIRS])[:, None]
    denoiser = world.denoiser(schedule)
    return last(
        whole_bound(
            lambda rows: denoiser,
            x,
            steps,
            lambda rows, t: eps[rows],
            variance=variance,
            decoder=decoder,
            clip=False,
            batch=1000,
        )
    )


@pytest.mark.parametrize(
    "schedule", [LinearBeta(), Cosine(steps=200), CosineContinuous(), VarianceExploding(steps=100), Flow()]
)
@pytest.mark.parametrize("length", [1, 2, 100])
def test_the_whole_bound_is_the_entropy_and_what_the_prior_misses(schedule: Schedule, length: int) -> None:
    """E L = H(x) + KL(q(x_T) || prior) with the exact estimate and variances: every term has to be right.

    A Gaussian picture and a Gaussian x_T are the only two places where bits can be lost, at any number of steps.
    """
    world = Gaussian()
    times = torch.linspace(1, 0, length + 1, dtype=torch.float64)
    found = expected(world, schedule, chain(schedule, times), best(world), continuous)
    nats = (WEIGHTS * found.total).sum().item() * math.log(2)
    end = schedule.at(1.0)
    prior, variance = (end.alpha**2 + end.sigma**2).item(), world.variance(end).item()
    lost = (variance / prior - 1 - math.log(variance / prior) + (end.alpha.item() * world.mean) ** 2 / prior) / 2
    assert nats == pytest.approx(math.log(2 * math.pi * math.e * world.std**2) / 2 + lost, abs=1e-12)


def test_no_variance_is_better_than_the_best() -> None:
    world, schedule = Gaussian(), LinearBeta(steps=50)
    steps = table(schedule, 50)
    totals = [
        (WEIGHTS * expected(world, schedule, steps, variance, continuous).total).sum().item()
        for variance in (best(world), small, large)
    ]
    assert totals[0] < totals[1]
    assert totals[0] < totals[2]


@pytest.mark.parametrize(("k", "excess"), [(1, 0.658372), (10, 0.0900713), (100, 0.00265236)])
def test_the_rate_exceeds_shannons_by_what_is_known(k: int, excess: float) -> None:
    """Posterior variances, s = 0.5: published excess over log2(s^2 / D) / 2; with the best variances, none at all."""
    world, schedule = Gaussian(0.0, 0.5), LinearBeta()
    steps = table(schedule, 1000)
    for variance, over_shannon in ((small, excess), (best(world), 0.0)):
        found = expected(world, schedule, steps, variance, continuous)
        average = replace(
            found,
            prior=(WEIGHTS @ found.prior)[None],
            terms=(WEIGHTS @ found.terms)[None],
            errors=(WEIGHTS @ found.errors)[None],
        )
        at = curve(average)
        row = 1000 - k
        assert at.t[row].item() == k / 1000
        shannon = torch.log2(world.std**2 / (at.rmse[row] / 127.5).square()) / 2
        assert (at.rate[row] - shannon).item() == pytest.approx(over_shannon, abs=6e-7)


def test_the_parts_add_up() -> None:
    """The rate at the first step and L_0 are the whole bound; the rate at the last is L_T."""
    world, schedule = Gaussian(), Cosine(steps=20)
    found = expected(world, schedule, table(schedule, 20), small, discretized_log_likelihood)
    at = curve(found)
    assert torch.allclose(found.prior + found.middle + found.decoder, found.total)
    assert (at.rate[-1] + found.decoder.mean()).item() == pytest.approx(found.total.mean().item(), rel=1e-12)
    assert at.rate[0].item() == pytest.approx(found.prior.mean().item(), rel=1e-12)
    assert at.rmse[3].item() == pytest.approx(127.5 * found.errors[:, 3].mean().sqrt().item(), rel=1e-12)


def perfect(x: Tensor) -> tuple[Callable[[Tensor], Denoiser], Schedule]:
    """Denoisers that know the pictures."""
    schedule = LinearBeta()

    def given(rows: Tensor) -> Denoiser:
        return Denoiser(schedule, lambda x_t, t: Estimate(x[rows], torch.ones_like(x_t)))

    return given, schedule


def test_what_a_perfect_estimate_still_costs() -> None:
    """The decoder's floor, 1.305378 bits in the middle greys, and 0.486419 bits more for the forward variance."""
    x = GREYS[1:-1].reshape(1, 1, 1, 254)
    given, schedule = perfect(x)
    steps = table(schedule, 1000)
    for variance, mismatch, floor in (
        (small, 0.0, 1.305378),
        (large, 0.486419, 1.305378),
        (learned, 0.486419, 1.712846),  # all the way to the forward variance at the last step too: beta_1
    ):
        found = last(whole_bound(given, x, steps, noise_of(0, (1, 1, 254)), variance=variance))
        assert found.middle.item() == pytest.approx(mismatch, abs=1e-6)
        assert found.decoder.item() == pytest.approx(floor, abs=2e-6)
        assert found.errors.abs().max() == 0
        assert found.variance == variance.__name__
    # L_T, closed: alpha^2 x^2 and what is missing of the noise
    kept = schedule.at(1.0).alpha.item() ** 2
    nats = (kept * x.square().mean().item() - kept - math.log1p(-kept)) / 2
    assert found.prior.item() == pytest.approx(nats / math.log(2), rel=1e-6)


@pytest.mark.parametrize("decoder", [discretized_log_likelihood, tanh_log_likelihood])
@pytest.mark.parametrize("mean", [-1.3, -1.0, 0.1234, 0.999])
@pytest.mark.parametrize("log_variance", [-9.8, -4.0, 0.0])
def test_both_decoders_are_distributions(decoder: Decoder, mean: float, log_variance: float) -> None:
    at = decoder(GREYS, torch.full_like(GREYS, mean), torch.full_like(GREYS, log_variance))
    assert at.exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_the_tanh_is_within_its_known_error() -> None:
    """At most 1.8e-4 in each of the two values of the distribution function; some 3e-4 bits at the decoder's floor."""
    mean, log_variance = torch.full_like(GREYS, 0.3), torch.full_like(GREYS, -8.0)
    masses = [decoder(GREYS, mean, log_variance).exp() for decoder in (discretized_log_likelihood, tanh_log_likelihood)]
    assert 1e-5 < (masses[0] - masses[1]).abs().max() < 3.6e-4
    assert tanh_log_likelihood(GREYS[:1], mean[:1], log_variance[:1]).item() == pytest.approx(math.log(1e-12))
    floor = torch.full_like(GREYS, math.log(5.453e-5))
    bits = [
        -d(GREYS, GREYS, floor)[1:-1].mean() / math.log(2) for d in (discretized_log_likelihood, tanh_log_likelihood)
    ]
    assert 0 < abs(bits[0] - bits[1]) < 1e-3


def test_the_one_reverse_step_of_a_training_is_that_of_the_bound() -> None:
    schedule = Cosine(steps=20)
    generator = torch.Generator().manual_seed(0)
    x = GREYS[torch.randint(0, 256, (20, 2, 3, 3), generator=generator)]
    mean, spread = torch.rand(2, 20, 2, 3, 3, generator=generator, dtype=torch.float64)
    t = torch.arange(20, 0, -1, dtype=torch.float64) / 20
    for estimate, variance in ((Estimate(mean), small), (Estimate(mean, spread), learned)):

        def given(rows: Tensor, estimate: Estimate = estimate) -> Denoiser:
            return Denoiser(schedule, lambda x_t, t: estimate)

        steps = table(schedule, 20)
        (once,) = last(whole_bound(given, x[:1], steps, noise_of(0, (2, 3, 3)), variance=variance)).terms
        assert torch.allclose(bound_term(x[:1].expand_as(x), estimate, t, schedule, 20), once, rtol=1e-12)


@pytest.mark.parametrize("times", [torch.tensor([1.0, 0.3, 0.02, 0.0]), trailing(50)(LinearBeta(steps=50), 7)])
def test_a_sub_sequence_is_a_chain_of_its_own(times: Tensor) -> None:
    """The posterior of the longer step by Bayes: q(x_s | x_t, x) is q(x_t | x_s) q(x_s | x), normalised."""
    schedule = LinearBeta(steps=50)
    steps = chain(schedule, times)
    for row, (t, s) in enumerate(zip(times[:-1].tolist(), times[1:].tolist())):
        at, to = schedule.at(t), schedule.at(s)
        ratio = at.alpha / to.alpha
        forward = at.sigma**2 - ratio**2 * to.sigma**2
        assert steps.large[row].item() == pytest.approx(forward.item(), rel=1e-9)
        if s == 0:
            assert bool(steps.ends[row])
            assert steps.small[row] == steps.small[row - 1]
            continue
        precision = ratio**2 / forward + 1 / to.sigma**2
        assert steps.small[row].item() == pytest.approx(1 / precision.item(), rel=1e-9)
        assert steps.x_coef[row].item() == pytest.approx((to.alpha / to.sigma**2 / precision).item(), rel=1e-9)


def test_a_figure_depends_on_its_own_picture_and_time() -> None:
    """Not on how many pairs share a batch, nor on the pictures beside it, nor on the times beside it."""
    schedule, world = Cosine(steps=30), Gaussian()
    generator = torch.Generator().manual_seed(1)
    x = GREYS[torch.randint(0, 256, (3, 1, 4, 4), generator=generator)]
    denoiser, steps = world.denoiser(schedule), table(schedule, 30)

    def run(x: Tensor, batch: int, seed: int = 0, steps: Steps = steps) -> Bound:
        return last(whole_bound(lambda rows: denoiser, x, steps, noise_of(seed, (1, 4, 4)), batch=batch))

    whole = run(x, 90)
    for batch in (1, 7, 64):
        assert torch.allclose(run(x, batch).terms, whole.terms, rtol=1e-12)
    assert torch.allclose(run(x[2:], 30, seed=2).terms, whole.terms[2:], rtol=1e-12)
    half = run(x, 90, steps=chain(schedule, torch.linspace(1, 0, 16, dtype=torch.float64)))
    assert torch.allclose(half.errors, whole.errors[:, ::2], rtol=1e-9)
    assert not torch.allclose(half.terms, whole.terms[:, ::2], rtol=1e-2)


def test_the_largest_seeds_do_not_wrap() -> None:
    """Picture i of the seed s has the noise of seed s + i, and the steps that follow those of the one before it."""
    seed, t = 2**63 - 2, torch.tensor([0.3, 0.3, 0.3], dtype=torch.float64)
    found = noise_of(seed, (1, 2, 2))(torch.tensor([0, 1, 5]), t)
    assert torch.equal(found, Seeds((seed, seed + 1, seed + 5), (1, 2, 2))(t))
    stride = math.ceil((30 - 3) / 4)
    assert torch.equal(rotating(12, 30, 7, seed), rotating(12, 30, 7, seed % stride))


@pytest.mark.parametrize(("length", "times"), [(30, 2), (30, 7), (31, 10), (12, 11), (12, 12), (2, 2)])
def test_the_mean_over_all_offsets_is_the_whole_bound(length: int, times: int) -> None:
    """A picture asked at some steps, with every offset in turn and the same noise, has on average its whole bound, term
    by term; and so have as many pictures in a row as there are offsets, if they are the same picture."""
    schedule, world = Cosine(steps=length), Gaussian()
    denoiser, steps = world.denoiser(schedule), table(schedule, length)
    x = GREYS[torch.randint(0, 256, (1, 1, 4, 4), generator=torch.Generator().manual_seed(2))]

    def run(seed: int, count: int, asked: Tensor | None) -> Bound:
        def one(rows: Tensor, t: Tensor) -> Tensor:
            return noise_of(0, (1, 4, 4))(0 * rows, t)

        same = x.expand(count, -1, -1, -1)
        return last(whole_bound(lambda rows: denoiser, same, steps, one, batch=7, asked=asked))

    whole = run(0, 1, None)
    stride = math.ceil((length - times // 2) / (times - times // 2))
    each = [run(seed, 1, rotating(1, length, times, seed)) for seed in range(5, 5 + stride)]
    assert torch.stack([found.total for found in each]).mean().item() == pytest.approx(whole.total.item(), rel=1e-12)
    assert torch.allclose(torch.stack([found.terms for found in each]).mean(0), whole.terms, rtol=1e-12)
    assert max(int((found.terms != 0).sum()) for found in each) <= times
    for found in each:  # the steep ones, as they are
        assert torch.equal(found.terms[:, length - times // 2 :], whole.terms[:, length - times // 2 :])
    row = run(0, stride, rotating(stride, length, times, 3))
    assert torch.allclose(row.terms.mean(0), whole.terms[0], rtol=1e-12)
    assert torch.allclose(curve(row).rmse, curve(whole).rmse, rtol=1e-12)
    assert torch.allclose(curve(row).rate, curve(whole).rate, rtol=1e-12)


def test_the_network_is_asked_at_the_steps_of_the_estimate_alone() -> None:
    told: list[tuple[int, float]] = []
    schedule, asked = Cosine(steps=10), rotating(3, 10, 4, 1)

    def given(rows: Tensor) -> Denoiser:
        def estimate(x_t: Tensor, t: Tensor) -> Estimate:
            told.extend(zip(rows.tolist(), (10 - (10 * t).round().long()).tolist()))
            return Estimate(x_t)

        return Denoiser(schedule, estimate)

    zeros = torch.zeros(3, 1, 2, 2)
    seen = list(whole_bound(given, zeros, table(schedule, 10), noise_of(0, (1, 2, 2)), batch=5, asked=asked))
    # 8 and 9, and every fourth of the others; seeds 1, 2 and 3 have the offsets 3, 6 and 9
    assert told == [(0, 1), (0, 5), (0, 8), (0, 9), (1, 2), (1, 6), (1, 8), (1, 9), (2, 3), (2, 7), (2, 8), (2, 9)]
    assert [(at.done, at.total) for at in seen] == [(5, 12), (10, 12), (12, 12)]
    rmse = curve(last(iter(seen))).rmse
    assert [step for step in range(10) if rmse[step].isnan()] == [0, 4]


def test_clipping_is_done_and_reported() -> None:
    x = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    schedule = Cosine(steps=10)
    above = Denoiser(schedule, lambda x_t, t: Estimate(torch.full_like(x_t, 3.0)))
    below = Denoiser(schedule, lambda x_t, t: Estimate(torch.full_like(x_t, -3.0)))
    for clip, error in ((True, 1.0), (False, 9.0)):
        for far in (above, below):
            given = lambda rows, far=far: far  # noqa: E731
            found = last(whole_bound(given, x, table(schedule, 10), noise_of(0, (1, 2, 2)), clip=clip))
            assert found.clipped is clip
            assert torch.equal(found.errors, torch.full((1, 10), error, dtype=torch.float64))


def test_progress_counts_pairs_and_ends_with_the_bound() -> None:
    x = torch.zeros(2, 1, 2, 2)
    denoiser = Gaussian().denoiser(Cosine(steps=10))
    seen = list(whole_bound(lambda rows: denoiser, x, table(Cosine(steps=10), 10), noise_of(0, (1, 2, 2)), batch=8))
    assert [(at.done, at.total, at.found is not None) for at in seen] == [
        (8, 20, False),
        (16, 20, False),
        (20, 20, True),
    ]


def test_the_network_is_asked_for_the_pictures_rows_in_whole_batches() -> None:
    """Pairs of different times in one batch: 3 pictures and 10 steps are 4 batches of at most 8, told their rows."""
    told: list[int] = []
    schedule = Cosine(steps=10)

    def given(rows: Tensor) -> Denoiser:
        told.extend(rows.tolist())
        assert len(rows) <= 8
        return Gaussian().denoiser(schedule)

    last(whole_bound(given, torch.zeros(3, 1, 2, 2), table(schedule, 10), noise_of(0, (1, 2, 2)), batch=8))
    assert told == [row for row in range(3) for _ in range(10)]


def test_totals_and_rates_are_sums_of_what_came() -> None:
    """The accounts alone, with terms that are given: four bits sent one a step for -log2 p(x_i | x_<i), the chain that
    sec. 4.3 of Ho et al. 2020 shows. All of them cost H(x) in the mean, and the rate is the entropy of what came."""
    generator = torch.Generator().manual_seed(0)
    joint = torch.rand(2, 2, 2, 2, generator=generator, dtype=torch.float64)
    joint /= joint.sum()
    # step i sends bit i to one who has those before it
    each = torch.zeros(16, 4, dtype=torch.float64)
    for row, x in enumerate(itertools.product(range(2), repeat=4)):
        for i in range(4):
            known, after = joint[x[:i]], joint[x[: i + 1]]
            each[row, i] = -torch.log2(after.sum() / known.sum())
    shares = joint.flatten()
    found = Bound(torch.linspace(1, 0.25, 4), torch.zeros(16), each, torch.zeros(16, 4), False, "none")
    entropy = -(shares * shares.log2()).sum()
    assert (shares @ found.total).item() == pytest.approx(entropy.item(), rel=1e-12)
    average = replace(found, prior=torch.zeros(1), terms=(shares @ each)[None], errors=torch.zeros(1, 4))
    for i in range(4):
        first = joint.sum(tuple(range(i, 4))).flatten() if i else torch.ones(1, dtype=torch.float64)
        assert curve(average).rate[i].item() == pytest.approx(-(first * first.log2()).sum().item(), abs=1e-12)


def test_the_mean_over_pictures_has_its_standard_error() -> None:
    value, error = mean_and_error(torch.tensor([1.0, 2.0, 3.0, 6.0], dtype=torch.float64))
    assert value == 3
    assert error == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 3 / 4))
    assert math.isnan(mean_and_error(torch.ones(1))[1])


def test_a_variance_that_was_not_learned_is_refused() -> None:
    with pytest.raises(ValueError, match="did not learn"):
        learned(table(LinearBeta(), 1000), Estimate(over(torch.zeros(1000), torch.zeros(1000, 1))))
