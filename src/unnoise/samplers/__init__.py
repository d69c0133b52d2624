"""Samplers: from noise to a picture. Each method is a file of its own, and a pure step for the one loop, `walk`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from unnoise.config.request import Request
from unnoise.config.synonyms import check_sampler, check_spacing
from unnoise.errors import UserError
from unnoise.samplers.ddim import ddim
from unnoise.samplers.ddpm import ddpm, known, large, learned, small
from unnoise.samplers.dpm_solver import (
    EXACT,
    MIDPOINT,
    RELEASED,
    dpm_solver,
    dpm_solver_sde,
    dpm_solver_single,
)
from unnoise.samplers.euler import euler, euler_ancestral
from unnoise.samplers.heun import heun
from unnoise.samplers.langevin import absolute, fraction, langevin, ncsn, ncsn_v2, predictor_corrector, snr
from unnoise.samplers.plms import plms
from unnoise.samplers.sde import euler_maruyama, probability_flow, reverse_diffusion
from unnoise.samplers.state import Evaluation, State
from unnoise.samplers.timesteps import SPACINGS, Spacing
from unnoise.samplers.unipc import unipc
from unnoise.samplers.walk import Step, advance, last, walk

__all__ = [
    "EXACT",
    "MIDPOINT",
    "RELEASED",
    "SAMPLERS",
    "SPACINGS",
    "Evaluation",
    "Sampler",
    "Spacing",
    "State",
    "Step",
    "absolute",
    "advance",
    "ddim",
    "ddpm",
    "dpm_solver",
    "dpm_solver_sde",
    "dpm_solver_single",
    "euler",
    "euler_ancestral",
    "euler_maruyama",
    "fraction",
    "heun",
    "known",
    "langevin",
    "large",
    "last",
    "learned",
    "ncsn",
    "ncsn_v2",
    "plms",
    "predictor_corrector",
    "probability_flow",
    "reverse_diffusion",
    "small",
    "snr",
    "unipc",
    "walk",
]


@dataclass(frozen=True)
class Sampler:
    """A sampler that has a name: how its step is made from a request, and its properties."""

    make: Callable[[Request], Step]
    spacing: str = "even"  # of the times, by default
    calls: int = 1  # network calls a step
    last_calls: int = 1  # network calls of the step that ends at t = 0
    order: int = 1  # of convergence, of the variance where it is stochastic; 0: more steps alone do not converge
    stochastic: bool = False  # adds noise on the way


SAMPLERS: dict[str, Sampler] = {
    "ddim": Sampler(lambda request: ddim(request.sampling.eta)),
    "ddim-sigma-hat": Sampler(lambda request: ddim(sigma_hat=True), stochastic=True),
    "ddpm": Sampler(lambda request: ddpm(small), stochastic=True),
    "ddpm-large": Sampler(lambda request: ddpm(large), stochastic=True),
    "ddpm-learned": Sampler(lambda request: ddpm(learned), stochastic=True),
    "euler": Sampler(lambda request: euler(), spacing="karras"),
    "euler-ancestral": Sampler(lambda request: euler_ancestral(), spacing="karras", stochastic=True),
    "heun": Sampler(lambda request: heun(), spacing="karras", calls=2, order=2),
    "heun-churn": Sampler(
        lambda request: heun(40 / request.sampling.steps, s_range=(0.05, 50.0), s_noise=1.003),
        spacing="karras",
        calls=2,
        order=0,
        stochastic=True,
    ),
    "dpm++2m": Sampler(lambda request: dpm_solver(2), spacing="log-snr", order=2),
    "dpm++3m": Sampler(lambda request: dpm_solver(3, rule=EXACT), spacing="log-snr", order=3),
    "dpm++2s": Sampler(lambda request: dpm_solver_single(2), spacing="log-snr", calls=2, order=2),
    "dpm++2m-sde": Sampler(lambda request: dpm_solver_sde(), spacing="log-snr", order=2, stochastic=True),
    "unipc": Sampler(lambda request: unipc(2), spacing="log-snr", order=3),
    "unipc-3": Sampler(lambda request: unipc(3), spacing="log-snr", order=4),
    "plms": Sampler(lambda request: plms(), spacing="log-snr", order=2),
    "langevin": Sampler(
        lambda request: langevin(fraction(0.2), 5),
        spacing="log-snr",
        calls=5,
        last_calls=6,
        order=0,
        stochastic=True,
    ),
    "pc": Sampler(
        lambda request: predictor_corrector(reverse_diffusion(), snr(0.16)),
        calls=2,
        last_calls=2,
        order=0,
        stochastic=True,
    ),
}


def find(name: str) -> Sampler:
    """Returns the sampler of this name, or of this earlier name.

    Raises UserError where there is none, with the name that is meant or similar.
    """
    return SAMPLERS[check_sampler(name, SAMPLERS, SPACINGS)]


def find_spacing(
    name: str, table: int, least: float = 0.0, options: Mapping[str, Any] = MappingProxyType({})
) -> Spacing:
    """Returns the timestep spacing of this name, or of this earlier name, on a table of so many entries.

    `least` is the least time that the network was trained at, where the schedule is a curve. Raises UserError, with the
    name that is meant or similar, where there is none, and for options that it does not have.
    """
    name = check_spacing(name, SPACINGS)
    try:
        return SPACINGS[name](table, least, **options)
    except TypeError:
        raise UserError(f"the timestep spacing {name!r} does not take {sorted(options)}") from None
