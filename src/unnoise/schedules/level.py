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

from unnoise.transfer import send

Number = float | Tensor

if TYPE_CHECKING:  # a default for a type variable: from Python 3.13 on in `typing`
    from typing_extensions import TypeVar

    N_co = TypeVar("N_co", bound=Number, default=Tensor, covariant=True)
else:
    from typing import TypeVar

    N_co = TypeVar("N_co", covariant=True)
N = TypeVar("N", bound=Number)


class Level(NamedTuple, Generic[N_co]):
    """The amplitudes of picture and noise: float64 tensors in the shape of the times, or floats."""

    alpha: N_co
    sigma: N_co

    def over(self, x: Tensor) -> Level[N_co]:
        """The same level, ready to multiply `x` (B, ...): trailing axes of one, in x's dtype and on its device."""
        return Level(over(self.alpha, x), over(self.sigma, x))

    def mix(self, x: Tensor, eps: Tensor) -> Tensor:
        """x_t, from the picture and the noise."""
        alpha, sigma = _together(self, x)
        mixed: Tensor = alpha * x + sigma * eps
        return mixed

    def eps(self, x_t: Tensor, mean: Tensor) -> Tensor:
        """The noise in x_t if the picture is `mean`. Undefined at t = 0, where there is none."""
        return (x_t - over(self.alpha, x_t) * mean) / over(self.sigma, x_t)

    def score(self, x_t: Tensor, mean: Tensor) -> Tensor:
        """The gradient of log p(x_t), by Tweedie's formula: (alpha E[x | x_t] - x_t) / sigma^2."""
        return -self.eps(x_t, mean) / over(self.sigma, x_t)

    @property
    def log_ratio(self) -> N_co:
        """log(alpha / sigma), half the log signal-to-noise ratio; +inf where there is no noise."""
        ratio: N_co = log(self.alpha) - log(self.sigma)
        return ratio

    @property
    def snr(self) -> N_co:
        """alpha^2 / sigma^2."""
        alpha: Any = self.alpha
        snr: N_co = (alpha / self.sigma) ** 2
        return snr


class Posterior(NamedTuple, Generic[N_co]):
    """q(x_s | x_t, x) = N(x_coef x + x_t_coef x_t, small), and the two variances between which the reverse one lies.

    `small` is the posterior's own (DDPM's beta tilde), `large` the forward step's, Var[x_t | x_s] (DDPM's beta).
    Eq. 6-7 of Ho et al. 2020, for any pair of levels.
    """

    x_coef: N_co
    x_t_coef: N_co
    small: N_co
    large: N_co


def posterior(at: Level[N], to: Level[N]) -> Posterior[N]:
    """Computes the posterior of x_s given x_t and the picture, `at` the level of t, `to` that of s < t."""
    log_ratio: Any = at.log_ratio
    fresh = -expm1(2 * (log_ratio - to.log_ratio))  # fraction of the noise added after s; no cancellation
    return Posterior(
        x_coef=to.alpha * fresh,
        x_t_coef=(at.alpha * to.sigma**2) / (to.alpha * at.sigma**2),
        small=to.sigma**2 * fresh,
        large=at.sigma**2 * fresh,
    )


def over(values: N, x: Tensor) -> N:
    """Shapes numbers () or (B,) to multiply x (B, ...), in its dtype and on its device; floats stay floats.

    Numbers () of the CPU stay there where x does not lie: they multiply it without a copy.
    """
    if isinstance(values, float):
        return values
    numbers: Any = values
    numbers = numbers.to(x.dtype)
    if numbers.ndim:
        numbers = send(numbers, x.device)
    elif numbers.device != x.device:  # () multiplies the tensors of every device, without a copy
        return numbers  # type: ignore[no-any-return]
    shaped: N = numbers.reshape(numbers.shape + (1,) * (x.ndim - 1))
    return shaped


def _together(values: Iterable[Number], x: Tensor) -> list[Any]:
    """Each of the numbers as `over` shapes it to multiply x; those of tensors (B,) go to its device in one copy."""
    found: list[Any] = list(values)
    if x.device.type != "cpu" and all(isinstance(each, Tensor) and each.ndim for each in found):
        found = list(send(torch.stack(found).to(x.dtype), x.device))
    return [over(each, x) for each in found]


def times(numbers: Tensor, x: Tensor) -> Tensor:
    """Numbers () or (B,) as a network's times for the rows of x (B, ...): (B,), float32, on its device."""
    if numbers.ndim or numbers.device == x.device:
        return send(numbers.float(), x.device).expand(len(x))
    return torch.full((len(x),), numbers.item(), dtype=torch.float32, device=x.device)


def combine(weights: Iterable[Number], tensors: Iterable[Tensor]) -> Tensor:
    """The sum of the tensors (B, ...), each multiplied by its weight: a float, or a number for each row (B,)."""
    first, *others = tensors
    weight, *more = _together(weights, first)
    total: Tensor = weight * first
    add = Tensor.add if torch._C._are_functorch_transforms_active() else Tensor.add_  # vmap: not into a smaller tensor
    for weight, x in zip(more, others, strict=True):
        total = add(total, x, alpha=weight) if isinstance(weight, float) else total + weight * x
    return total


# --- elementary functions of floats and tensors; where a float has no value, they have the tensor's limit ---


def log(x: Any) -> Any:
    """The natural logarithm; -inf at 0."""
    if isinstance(x, float):
        return math.log(x) if x > 0 else -math.inf
    return x.log()


def expm1(x: Any) -> Any:
    """exp(x) - 1, exact also near 0."""
    return math.expm1(x) if isinstance(x, float) else torch.expm1(x)


def sqrt(x: Any) -> Any:
    """The square root; 0 below 0."""
    if isinstance(x, float):
        return math.sqrt(x) if x > 0 else 0.0
    return x.clamp(min=0).sqrt()


def nonzero(x: Any) -> Any:
    """x, and 1 where it is 0: a denominator for quotients that are not used there."""
    if isinstance(x, float):
        return x or 1.0
    return torch.where(x != 0, x, 1.0)


def where(condition: bool | Tensor, then: Number, otherwise: Number) -> Any:
    """`then` where the condition holds: row by row if it is a tensor."""
    if isinstance(condition, bool):
        return then if condition else otherwise
    return torch.where(condition, then, otherwise)


def where_rows(condition: bool | Tensor, then: Tensor, otherwise: Tensor) -> Tensor:
    """The rows of `then` (B, ...) where the condition, one or (B,), holds, of `otherwise` where it does not."""
    if isinstance(condition, bool):
        return then if condition else otherwise
    shaped = send(condition, then.device).reshape(condition.shape + (1,) * (then.ndim - 1))
    return torch.where(shaped, then, otherwise)


def some(condition: bool | Tensor) -> bool:
    """Whether the condition holds for any row."""
    return condition if isinstance(condition, bool) else bool(condition.any())
