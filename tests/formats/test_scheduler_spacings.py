"""Times of diffusers' schedulers: the same entries and the same sigmas, for every class and spacing."""

from __future__ import annotations

import inspect
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from unnoise.config.cards import ModelCard
from unnoise.config.convert import from_dict, to_dict
from unnoise.errors import UserError
from unnoise.formats import scheduler_spacings
from unnoise.samplers import find_spacing
from unnoise.schedules import Cosine, LinearBeta, ScaledLinear, Tabled

theirs = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore")

T = 1000
TABLES: list[tuple[Tabled, dict[str, Any]]] = [
    (ScaledLinear(T, 0.00085, 0.012), {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}),
    (LinearBeta(T), {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}),
    (Cosine(T), {"beta_schedule": "squaredcos_cap_v2"}),
]
ENTRIES = [
    {"timestep_spacing": "leading", "steps_offset": 0},
    {"timestep_spacing": "leading", "steps_offset": 1},
    {"timestep_spacing": "trailing", "steps_offset": 0},
    {"timestep_spacing": "linspace", "steps_offset": 0},
]
ON_ENTRIES = ["DDPMScheduler", "DDIMScheduler", "PNDMScheduler"]
KARRAS: dict[str, Any] = {"use_karras_sigmas": True}
EXPONENTIAL: dict[str, Any] = {"use_exponential_sigmas": True}
SIGMAS: list[tuple[str, dict[str, Any]]] = [
    *itertools.product(scheduler_spacings.BETWEEN_ENTRIES, ({}, KARRAS, EXPONENTIAL)),
    *itertools.product(scheduler_spacings.SKIP_FIRST, ({}, KARRAS, EXPONENTIAL)),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 9.0}),
    ("DPMSolverMultistepScheduler", {"use_lu_lambdas": True}),
]
STEPS = (2, 7, 20, 30, 50, 333)


def made(kind: str, table: Tabled, settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Their scheduler and all its settings. Its alphas are in double: in single the least sigma is off by 1e-5."""
    known = inspect.signature(getattr(theirs, kind)).parameters
    settings = {name: value for name, value in settings.items() if name in known}
    scheduler = getattr(theirs, kind)(**settings)
    scheduler.alphas_cumprod = (1 - table.betas()).cumprod(0)
    return scheduler, {name: each.default for name, each in known.items()} | settings


def ours(kind: str, data: dict[str, Any], table: Tabled, steps: int) -> Tensor:
    name, options = scheduler_spacings.from_config(kind, data)
    return find_spacing(name, T, 0.0, options)(table, steps)[:-1]


@pytest.mark.parametrize("entries", ENTRIES, ids=str)
@pytest.mark.parametrize("kind", ON_ENTRIES)
def test_entries_are_those_of_diffusers(kind: str, entries: dict[str, Any]) -> None:
    table, betas = TABLES[0]
    extra = {"skip_prk_steps": True} if kind == "PNDMScheduler" else {}
    scheduler, data = made(kind, table, betas | entries | extra)
    for steps in (*STEPS, 48, 80, 96, 160, 400, 499, 999):
        scheduler.set_timesteps(steps)
        expected = torch.unique(scheduler.timesteps).flip(0)  # PNDM visits one of them twice
        expected = expected[expected >= 0]  # np.arange of 499 steps has 500 numbers: theirs end at entry -1
        found = ours(kind, data, table, steps)
        assert torch.equal((found * T - 1).round().long(), expected), steps
        assert torch.allclose(found * T - 1, expected.double(), atol=1e-9)
        levels = scheduler.alphas_cumprod[expected]
        assert torch.allclose(table(found).alpha.square(), levels, rtol=1e-9)


@pytest.mark.parametrize(("table", "betas"), TABLES, ids=["scaled-linear", "linear", "cosine"])
@pytest.mark.parametrize(("kind", "levels"), SIGMAS, ids=str)
def test_sigmas_are_those_of_diffusers(kind: str, levels: dict[str, Any], table: Tabled, betas: dict[str, Any]) -> None:
    """To a millionth of each sigma, at every number of steps. Between two entries the network's time is their fraction
    in log(alpha^2); in diffusers it is that in sigma's logarithm, at most 0.2 beside it, or rounded or cut off."""
    for entries in ENTRIES:
        scheduler, data = made(kind, table, betas | entries | levels)
        for steps in STEPS:
            scheduler.set_timesteps(steps)
            every = 2 if kind == "HeunDiscreteScheduler" else 1
            expected, clock = (each.double() for each in (scheduler.sigmas[:-1][::every], scheduler.timesteps[::every]))
            found = ours(kind, data, table, steps)
            sigmas = torch.exp(-table(found).log_ratio)
            assert torch.allclose(sigmas, expected, rtol=1e-6, atol=0), (entries, steps)
            assert (found * T - 1 - clock).abs().max() < (1 if kind in scheduler_spacings.SKIP_FIRST else 0.2)
            if not levels and (kind in scheduler_spacings.SKIP_FIRST or entries["timestep_spacing"] != "linspace"):
                assert torch.allclose(found * T - 1, clock, atol=1e-6)


def test_the_published_sigmas_of_stable_diffusion() -> None:
    """Karras's sigmas from a file end at the table's first entry, 0.0292, and begin at its last, 14.6146."""
    table, betas = TABLES[0]
    for kind, steps in itertools.product(("EulerDiscreteScheduler", "DPMSolverMultistepScheduler"), (10, 30)):
        settings = {"timestep_spacing": "linspace", "steps_offset": 0, "use_karras_sigmas": True}
        sigmas = torch.exp(-table(ours(kind, settings | betas, table, steps)).log_ratio)
        assert sigmas[[0, -1]].tolist() == pytest.approx([14.6146, 0.0292], abs=5e-5)


def test_an_offset_moves_every_entry_and_none_leaves_the_table() -> None:
    for steps, offset in itertools.product((1, 30, 500), (0, 1)):
        plain, moved = (find_spacing("leading", T, 0.0, {"offset": k})(LinearBeta(), steps)[:-1] for k in (0, offset))
        assert torch.allclose(moved - plain, torch.full_like(plain, offset / T))
    with pytest.raises(UserError, match="entry 1000 of a table of 1000"):
        find_spacing("leading", T, 0.0, {"offset": 1})(LinearBeta(), T)


def test_options_are_kept_in_a_card_and_unknown_ones_refused() -> None:
    for options in ({"offset": 1}, {"rounded": False}, {"entries": "leading", "offset": 1, "sigma_min": 0.1}):
        card = ModelCard(spacing="karras", spacing_options=options)
        again = from_dict(ModelCard, to_dict(card), "model.json")
        assert again.spacing_options == options
        assert {type(value) for value in again.spacing_options.values()} == {type(v) for v in options.values()}
    for name, options in (("trailing", {"offset": 1}), ("karras", {"ofset": 1}), ("log-snr", {"rounded": True})):
        with pytest.raises(UserError, match="does not take"):
            find_spacing(name, T, 0.0, options)
    with pytest.raises(UserError, match="did you mean 'leading'"):
        find_spacing("karras", T, 0.0, {"entries": "leadin"})


def test_linspace_between_entries_is_linear_in_sigma() -> None:
    """Entries of 8 of 1,000: 999 k / 7. The second is 856 2/7; sigma lies 2/7 of the way from that of 856 to 857's."""
    table = TABLES[0][0]
    t = find_spacing("linspace", T, 0.0, {"rounded": False})(table, 8)[1]
    low, high = (math.exp(-table.at((entry + 1) / T).log_ratio.item()) for entry in (856, 857))
    assert math.exp(-table(t).log_ratio.item()) == pytest.approx(low + 2 / 7 * (high - low), rel=1e-9)
