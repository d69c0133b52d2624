"""Samplers: from noise to a picture. One method, one file; each is a pure step for the one loop, `walk`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from unnoise.errors import unknown
from unnoise.samplers.ddim import ddim
from unnoise.samplers.ddpm import ddpm, known, large, learned, small
from unnoise.samplers.heun import heun
from unnoise.samplers.times import GRIDS, Grid
from unnoise.samplers.walk import Seen, State, Step, last, walk
from unnoise.settings import Request

__all__ = [
    "GRIDS",
    "SAMPLERS",
    "Grid",
    "Sampler",
    "Seen",
    "State",
    "Step",
    "ddim",
    "ddpm",
    "heun",
    "known",
    "large",
    "last",
    "learned",
    "small",
    "walk",
]


@dataclass(frozen=True)
class Sampler:
    """A sampler as people name it: how to make its step from a request, the grid it likes, network calls a step."""

    make: Callable[[Request], Step]
    grid: str = "even"
    calls: int = 1


SAMPLERS: dict[str, Sampler] = {
    "ddim": Sampler(lambda request: ddim(request.eta)),
    "ddim-sigma-hat": Sampler(lambda request: ddim(sigma_hat=True)),
    "ddpm": Sampler(lambda request: ddpm(small)),
    "ddpm-large": Sampler(lambda request: ddpm(large)),
    "ddpm-learned": Sampler(lambda request: ddpm(learned)),
    "heun": Sampler(lambda request: heun(), grid="karras", calls=2),
    "heun-churn": Sampler(
        lambda request: heun(40 / request.steps, between=(0.05, 50.0), inflate=1.003), grid="karras", calls=2
    ),
}


def find(name: str) -> Sampler:
    """The sampler of this name, or an error with the nearest one."""
    if name not in SAMPLERS:
        raise unknown("sampler", name, SAMPLERS)
    return SAMPLERS[name]


def find_grid(name: str, table: int) -> Grid:
    """The grid of this name, on a table of so many entries where it needs one."""
    if name not in GRIDS:
        raise unknown("grid of times", name, GRIDS)
    return GRIDS[name](table)
