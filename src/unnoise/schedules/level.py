"""Levels: how much of the picture and how much noise there is in x_t, and what follows from two of them.

    x_t = alpha_t x + sigma_t eps,    eps ~ N(0, I)

The amplitudes of a level are float64 tensors in the shape of the times, or plain floats where all rows of a batch share
one time: the functions of this file accept both, and so do the samplers' formulas. `over` shapes either to multiply a
picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

import torch
from torch import Tensor

Number = float | Tensor

if TYPE_CHECKING:  # a default for a type variable: from Python 3.13 on in `typing`
    from typing_extensions import TypeVar

    N = TypeVar("N", bound=Number, default=Tensor)
else:
    from typing import TypeVar

    N = TypeVar("N")


class Level(NamedTuple, Generic[N]):
    """The amplitudes of picture and noise: float64 tensors in the shape of the times, or floats."""

    alpha: N
    sigma: N

    def over(self, x: Tensor) -> Level[N]:
        """The same level, ready to multiply `x` (B, ...): trailing axes of one, in x's dtype and on its device."""
        return Level(over(self.alpha, x), over(self.sigma, x))

    def mix(self, x: Tensor, eps: Tensor) -> Tensor:
        """x_t, from the picture and the noise."""
        return over(self.alpha, x) * x + over(self.sigma, x) * eps

    def eps(self, x_t: Tensor, mean: Tensor) -> Tensor:
        """The noise in x_t if the picture is `mean`. Undefined at t = 0, where there is none."""
        return (x_t - over(self.alpha, x_t) * mean) / over(self.sigma, x_t)

    def score(self, x_t: Tensor, mean: Tensor) -> Tensor:
        """The gradient of log p(x_t), by Tweedie's formula: (alpha E[x | x_t] - x_t) / sigma^2."""
        return -self.eps(x_t, mean) / over(self.sigma, x_t)

    @property
    def log_ratio(self) -> N:
        """log(alpha / sigma), half the log signal-to-noise ratio; +inf where there is no noise."""
        ratio: N = log(self.alpha) - log(self.sigma)
        return ratio

    @property
    def snr(self) -> N:
        """alpha^2 / sigma^2."""
        snr: Any = (self.alpha / self.sigma) ** 2
        return snr


class Posterior(NamedTuple, Generic[N]):
    """q(x_s | x_t, x) = N(x_coef x + x_t_coef x_t, small), and the two variances between which the reverse one lies.

    `small` is the posterior's own (DDPM's beta tilde), `large` the forward step's, Var[x_t | x_s] (DDPM's beta).
    Eq. 6-7 of Ho et al. 2020, for any pair of levels.
    """

    x_coef: N
    x_t_coef: N
    small: N
    large: N


def posterior(at: Level[N], to: Level[N]) -> Posterior[N]:
    """Computes the posterior of x_s given x_t and the picture, `at` the level of t, `to` that of s < t."""
    a, b = at.log_ratio, to.log_ratio
    fresh: Any = -expm1(2 * (a - b))  # the fraction of the noise that was added after s; without cancellation
    return Posterior(
        x_coef=to.alpha * fresh,
        x_t_coef=(at.alpha * to.sigma**2) / (to.alpha * at.sigma**2),
        small=to.sigma**2 * fresh,
        large=at.sigma**2 * fresh,
    )


def over(values: N, x: Tensor) -> N:
    """Shapes numbers () or (B,) to multiply x (B, ...), in its dtype and on its device; floats stay floats."""
    if isinstance(values, float):
        return values
    shaped: Any = values.to(device=x.device, dtype=x.dtype).reshape(values.shape + (1,) * (x.ndim - 1))
    return shaped


def combine(weights: Iterable[Number], tensors: Iterable[Tensor]) -> Tensor:
    """The sum of the tensors (B, ...), each multiplied by its weight: a float, or a number for each row (B,)."""
    total: Tensor | None = None
    for weight, x in zip(weights, tensors, strict=True):
        if total is None:
            total = over(weight, x) * x
        elif isinstance(weight, float):
            total = torch.add(total, x, alpha=weight)
        else:
            total = total + over(weight, x) * x
    assert total is not None, "at least one tensor"
    return total


# --- elementary functions of floats and tensors; where a float has no value, they have the tensor's limit ---


def log(x: N) -> N:
    """The natural logarithm; -inf at 0."""
    found: Any = (math.log(x) if x > 0 else -math.inf) if isinstance(x, float) else x.log()
    return found


def expm1(x: N) -> N:
    """exp(x) - 1, exact also near 0."""
    found: Any = math.expm1(x) if isinstance(x, float) else torch.expm1(x)
    return found


def sqrt(x: N) -> N:
    """The square root; 0 below 0."""
    found: Any = (math.sqrt(x) if x > 0 else 0.0) if isinstance(x, float) else x.clamp(min=0).sqrt()
    return found


def clamp(x: N, low: float, high: float) -> N:
    found: Any = min(max(x, low), high) if isinstance(x, float) else x.clamp(low, high)
    return found


def where(condition: bool | Tensor, then: Number, otherwise: Number) -> Any:
    """`then` where the condition holds: row by row if it is a tensor."""
    if isinstance(condition, bool):
        return then if condition else otherwise
    return torch.where(condition, then, otherwise)


def where_rows(condition: bool | Tensor, then: Tensor, otherwise: Tensor) -> Tensor:
    """The rows of `then` (B, ...) where the condition, one or (B,), holds, of `otherwise` where it does not."""
    if isinstance(condition, bool):
        return then if condition else otherwise
    shaped = condition.to(then.device).reshape(condition.shape + (1,) * (then.ndim - 1))
    return torch.where(shaped, then, otherwise)


def some(condition: bool | Tensor) -> bool:
    """Whether the condition holds for any row."""
    return condition if isinstance(condition, bool) else bool(condition.any())
