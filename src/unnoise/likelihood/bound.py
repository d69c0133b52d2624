"""The variational bound: how many bits a picture costs, step by step of the reverse chain.

    L = L_T + sum L_{t-1} + L_0
    L_T = KL(q(x_T | x) || N(0, I)),    L_{t-1} = KL(q(x_s | x_t, x) || p(x_s | x_t)),    L_0 = -log p(x | x_1)

Eq. 5 of Ho et al. 2020, for any falling times, on any schedule. The posterior q is N(x_coef x + x_t_coef x_t, small),
and p has the estimate in the picture's place and a variance of its own, so that a step costs

    (log(variance / small) + small / variance - 1) / 2 + x_coef^2 (x - mean)^2 / (2 variance)

nats for each number. The last step ends in grey levels: its cost is that of the decoder, a discretised Gaussian
(decoder.py). The bound is a code length: a picture of 256 grey levels can be sent in so many bits. The squared error of
each estimate is returned too, for the rate-distortion curve.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser, Estimate
from unnoise.likelihood.decoder import Decoder, discretized_log_likelihood
from unnoise.noise import Seeds
from unnoise.schedules import Level, Schedule, over, posterior
from unnoise.transfer import send

# --- the steps ---


@dataclass(frozen=True)
class Steps:
    """Steps of a reverse chain from `t` down to `s`, one for each row; all fields (B,), float64.

    `small` and `large` are the variances between which the reverse one lies: the posterior's and the forward step's. At
    the step to the picture (`ends`) the posterior has none: there `small` is that of the step before it, as in the
    authors' code, for the logarithm of zero would cost everything.
    """

    t: Tensor
    s: Tensor
    at: Level
    x_coef: Tensor
    small: Tensor
    large: Tensor
    ends: Tensor  # bool

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, rows: Tensor) -> Steps:
        at = Level(self.at.alpha[rows], self.at.sigma[rows])
        t, s, x_coef, small = self.t[rows], self.s[rows], self.x_coef[rows], self.small[rows]
        return Steps(t, s, at, x_coef, small, self.large[rows], self.ends[rows])


def chain(schedule: Schedule, times: Tensor) -> Steps:
    """Returns the steps along falling times (K + 1,) that end at 0. Of one step `small` is the forward variance."""
    assert bool((times.diff() < 0).all()), "times fall"
    assert times[-1] == 0, "and end at the picture"
    t, s = times[:-1].double(), times[1:].double()
    at = schedule(t)
    kernel = posterior(at, schedule(s))
    floor = kernel.small[-2] if len(t) > 1 else kernel.large[-1]
    return Steps(t, s, at, kernel.x_coef, torch.where(s > 0, kernel.small, floor), kernel.large, s == 0)


def table(schedule: Schedule, steps: int) -> Steps:
    """Returns all steps of a chain of T: k/T down to (k - 1)/T, k = T..1."""
    return chain(schedule, torch.arange(steps, -1, -1, dtype=torch.float64) / steps)


def steps_from(schedule: Schedule, t: Tensor, steps: int) -> Steps:
    """Returns the steps of length 1/T from any times `t` (B,), as training samples them."""
    t = t.double()
    s = (t - 1 / steps).clamp(min=0)
    s = torch.where(s < 0.5 / steps, 0.0, s)
    at = schedule(t)
    kernel = posterior(at, schedule(s))
    floor = posterior(schedule.at(2 / steps), schedule.at(1 / steps)).small
    return Steps(t, s, at, kernel.x_coef, torch.where(s > 0, kernel.small, floor), kernel.large, s == 0)


# --- the variance of a reverse step ---

Variance = Callable[[Steps, Estimate], Tensor]
"""(steps, estimate) -> the logarithm of the reverse variance: (B,), or like the estimate's mean."""


def small(steps: Steps, estimate: Estimate) -> Tensor:
    """The posterior's variance, DDPM's beta tilde: `fixedsmall`."""
    return steps.small.log()


def large(steps: Steps, estimate: Estimate) -> Tensor:
    """The forward step's variance, DDPM's beta; at the step to the picture `small`: `fixedlarge`."""
    return torch.where(steps.ends, steps.small, steps.large).log()


def learned(steps: Steps, estimate: Estimate) -> Tensor:
    """The variance that the network predicts, between the two in the logarithm. Eq. 15 of Nichol & Dhariwal 2021.

    Raises ValueError if the network predicts none.
    """
    if estimate.variance_fraction is None:
        raise ValueError("this model did not learn a variance: use the variance small or large")
    low = over(steps.small.log(), estimate.variance_fraction)
    return low + estimate.variance_fraction * over(steps.large.log() - steps.small.log(), estimate.variance_fraction)


VARIANCES: dict[str, Variance] = {"small": small, "large": large, "learned": learned}

# --- what a step costs ---


class Cost(NamedTuple):
    """The cost of a step for each row (B,), both the mean over a picture's numbers."""

    nats: Tensor
    error: Tensor  # squared, of the estimate of the picture


def cost(
    x: Tensor,
    estimate: Estimate,
    steps: Steps,
    *,
    variance: Variance = small,
    decoder: Decoder = discretized_log_likelihood,
) -> Cost:
    """Computes the cost of these steps (B rows) for pictures `x` (B, ...) and estimates; it does not depend on x_t."""
    log_variance = variance(steps, estimate)
    squared = (x - estimate.mean).square()
    error = squared.flatten(1).mean(1)
    if log_variance.ndim == 1:  # one for all numbers of a picture: then the mean is exact in float64
        gap = log_variance - steps.small.log()
        per_error = steps.x_coef.square() * torch.exp(-log_variance) / 2
        nats = over((gap + torch.expm1(-gap)) / 2, error) + over(per_error, error) * error
    else:
        gap = log_variance - over(steps.small.log(), x)
        scaled = over(steps.x_coef.square(), x) * squared * torch.exp(-log_variance)
        nats = ((gap + torch.expm1(-gap) + scaled) / 2).flatten(1).mean(1)
    if bool(steps.ends.any()):
        rows = send(steps.ends.nonzero()[:, 0], x.device)
        at_end = over(log_variance, x) if log_variance.ndim == 1 else log_variance
        decoded = decoder(x[rows], estimate.mean[rows], at_end[rows])
        nats = nats.index_put((rows,), -decoded.flatten(1).mean(1))
    return Cost(nats, error)


def bound_term(x: Tensor, estimate: Estimate, t: Tensor, schedule: Schedule, steps: int) -> Tensor:
    """Computes the cost of the step from `t` (B,) to t - 1/T, in bits per number, (B,): for a loss.

    The variance is the learned one where the estimate has a variance fraction, else the posterior's.
    """
    variance = small if estimate.variance_fraction is None else learned
    return cost(x, estimate, steps_from(schedule, t, steps), variance=variance).nats / math.log(2)


def prior_term(x: Tensor, level: Level) -> Tensor:
    """Computes L_T, bits per number, (B,) on the CPU, at `level`, the noisiest. It does not depend on the network.

    The prior is N(0, alpha^2 + sigma^2): what walks start from, and N(0, 1) where the schedule preserves variance.
    """
    prior = level.alpha.square() + level.sigma.square()
    ratio = level.sigma.square() / prior
    signal = over(level.alpha.square() / prior, x) * x.square()
    nats = (signal + over(ratio - 1 - ratio.log(), x)) / 2
    return nats.flatten(1).mean(1).cpu().double() / math.log(2)


# --- the whole bound ---

Given = Callable[[Tensor], Denoiser]
"""Rows (B,) of the pictures -> the denoiser that is conditioned on their classes, captions and values."""
PairNoise = Callable[[Tensor, Tensor], Tensor]
"""(rows of the pictures (B,), times (B,)) -> standard normals (B, ...)."""


def noise_of(seed: int, shape: tuple[int, ...], device: torch.device | str = "cpu") -> PairNoise:
    """Returns noise that depends on the picture and the time, not on the batch: picture i has the seed `seed` + i."""
    return lambda rows, t: Seeds(tuple(row + seed for row in rows.tolist()), shape, device)(t)


def rotating(count: int, length: int, times: int, seed: int) -> Tensor:
    """Chooses at most `times` of `length` steps for each of `count` pictures; returns their weights, (count, length).

    Half of the times are the steps nearest the picture, the steep ones, with weight 1; the others are every k-th step,
    with weight k. Picture i has the offset g (`seed` + i), modulo k, g a golden section of k and prime to it: few
    pictures in a row lie far apart, and k of them cover every step. Over k seeds the mean of the weights is 1
    everywhere, and the mean of the bounds is that of the whole ones.
    """
    assert 2 <= times <= length
    inner = length - times // 2
    stride = math.ceil(inner / (times - times // 2))
    golden = next(g for g in range(round(0.618 * stride), stride + 1) if math.gcd(g, stride) == 1)
    step = torch.arange(length)
    turn = (step + golden * (seed % stride + torch.arange(count)[:, None])) % stride == 0
    return torch.where(step < inner, turn * stride, 1).double()


@dataclass(frozen=True)
class Bound:
    """The bound of N pictures over K steps, in bits per number. `total` and its parts are (N,)."""

    t: Tensor  # (K,), falling
    prior: Tensor  # (N,): L_T
    terms: Tensor  # (N, K): L_{t-1}, and L_0 the last
    errors: Tensor  # (N, K): squared errors of the estimates
    clipped: bool  # the estimates, to [-1, 1]
    variance: str
    asked: Tensor | None = None  # (N, K): the weights of the evaluated steps, a factor of `terms`; None: all steps

    @property
    def total(self) -> Tensor:
        return self.prior + self.terms.sum(1)

    @property
    def middle(self) -> Tensor:
        """The sum of L_{t-1} over all steps but the last."""
        return self.terms[:, :-1].sum(1)

    @property
    def decoder(self) -> Tensor:
        """L_0."""
        return self.terms[:, -1]


def mean_and_error(each: Tensor) -> tuple[float, float]:
    """Returns the mean over pictures, and its standard error; nan for one picture."""
    return each.mean().item(), (each.std() / math.sqrt(len(each))).item() if len(each) > 1 else math.nan


class Progress(NamedTuple):
    """The number of pairs that are done, and at the end the bound."""

    done: int
    total: int
    found: Bound | None = None


def whole_bound(
    given: Given,
    x: Tensor,
    steps: Steps,
    noise: PairNoise,
    *,
    variance: Variance = small,
    decoder: Decoder = discretized_log_likelihood,
    clip: bool = True,
    batch: int = 128,
    asked: Tensor | None = None,
) -> Iterator[Progress]:
    """Computes the bound of pictures `x` (N, ...), `batch` pairs of a picture and a step at once; yields it at the end.

    The network is evaluated at pairs of different times in one batch, one picture's steps together: a few pictures
    fill it, and its memory does not grow with the number of steps. `clip` clips estimates to [-1, 1] as sampling does:
    it is part of p. `asked` (N, K) leaves out the steps where it is 0 (`rotating`): then only the mean over
    pictures is a bound.
    """
    bits, errors = torch.zeros(2, len(x), len(steps), dtype=torch.float64)
    weight = torch.ones_like(bits) if asked is None else asked
    pairs = weight.nonzero()
    done = 0
    for row, step in (pair.T for pair in torch.split(pairs, batch)):
        with torch.no_grad():
            picture, now = x[send(row, x.device)], steps[step]
            estimate = given(row)(now.at.mix(picture, noise(row, now.t).to(x)), now.t)
            if clip:
                estimate = Estimate(estimate.mean.clamp(-1, 1), estimate.variance_fraction)
            found = cost(picture, estimate, now, variance=variance, decoder=decoder)
        bits[row, step], errors[row, step] = found.nats.cpu().double() / math.log(2), found.error.cpu().double()
        done += len(row)
        if done < len(pairs):
            yield Progress(done, len(pairs))
    prior = prior_term(x, Level(steps.at.alpha[0], steps.at.sigma[0]))
    yield Progress(done, done, Bound(steps.t, prior, bits * weight, errors, clip, variance.__name__, asked))


def last(found: Iterator[Progress]) -> Bound:
    """Returns the bound at the end."""
    for at in found:
        answer = at.found
    assert answer is not None
    return answer
