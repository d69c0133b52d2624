"""Where bits, the flow and the coder end: in worlds known exactly, asked through a model, the figure is the truth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch
from torch import Tensor

import unnoise
from tests.helpers.worlds import Gaussian, Mixture, Oracle
from unnoise.codec import to_bytes
from unnoise.compression import compress
from unnoise.config.cards import ModelCard
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.networks import UNetConfig
from unnoise.config.request import Request
from unnoise.data import Batch, Dataset
from unnoise.denoiser import Diffusion, make_diffusion, make_prediction, schedule_of
from unnoise.evaluation import bits_per_dim
from unnoise.likelihood import discretized_log_likelihood
from unnoise.likelihood.endpoints import LEAST, even_chain, last_time
from unnoise.model import Model
from unnoise.schedules import EDM, Cosine, Level, LinearBeta, Shifted, ZeroTerminalSNR
from unnoise.training.distributed import ALONE

SHAPE = (1, 12, 12)
CURVES = {
    "edm": DiffusionConfig(schedule="edm", predicts="edm", time_sampler="edm"),
    "flow": DiffusionConfig(schedule="flow", predicts="flow", time_sampler="logit-normal"),
    "flow on steps": DiffusionConfig(schedule="flow", predicts="v"),
    "vp-sde": DiffusionConfig(schedule="vp-sde", predicts="eps", time_sampler="continuous"),
    "sub-vp": DiffusionConfig(schedule="sub-vp", predicts="score", time_sampler="continuous"),
    "score": DiffusionConfig(schedule="variance-exploding", predicts="score"),
}


@dataclass(frozen=True)
class Grey:
    """A data set of grey levels."""

    x: Tensor
    classes: tuple[str, ...] = ()
    captions: bool = False

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, rows: list[int]) -> Batch:
        return Batch(self.x[rows], torch.zeros(len(rows), dtype=torch.int64), ("",) * len(rows), tuple(rows))


@dataclass(frozen=True)
class Pairs(Gaussian):
    """Pictures of two numbers from a mixture: their places depend on each other."""

    def denoise(self, x_t: Tensor, level: Level) -> Tensor:
        return Mixture(std=self.std).denoise(x_t.flatten(1), level).reshape(x_t.shape)


def asked(process: DiffusionConfig, world: Gaussian) -> Model:
    """A model that knows this world exactly."""
    schedule = schedule_of(process)
    predicts = make_prediction(process, schedule)

    def time(told: Tensor) -> Tensor:
        return (told.double() + 1) / process.steps if predicts.c_noise is None else schedule.time(-4 * told.double())

    made: Diffusion = make_diffusion(Oracle(world, schedule, predicts, time), process)
    card = ModelCard(net=UNetConfig(), process=process, size=SHAPE[1:], channels=1, clip=False)
    return Model(made, card)


def greys(std: float, count: int = 6) -> tuple[Tensor, float]:
    """Pictures of that world, and what they cost: -log2 of the mass of each grey level."""
    x = Gaussian(0.0, std).draw((count, *SHAPE), torch.Generator().manual_seed(1))
    x = ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    true = -discretized_log_likelihood(x, torch.zeros_like(x), torch.full_like(x, 2 * math.log(std)))
    return x.float(), true.mean().item() / math.log(2)


def figure(name: str, model: Model, x: Tensor, **ask: Any) -> dict[str, Any]:
    config = EvaluateConfig(metrics=(name,), bits_count=len(x), **ask)
    how = Request.of(clip=False, precision="float32", batch=512)
    walk = bits_per_dim.measure(name, model, config, how, cast(Dataset, Grey(x)), ALONE)
    while True:
        try:
            next(walk)
        except StopIteration as done:
            return cast(dict[str, Any], done.value)


@pytest.mark.parametrize("process", CURVES.values(), ids=CURVES.keys())
@pytest.mark.parametrize("std", [0.1, 0.03])
def test_on_a_curve_the_figures_are_those_of_the_world(process: DiffusionConfig, std: float) -> None:
    """The bound is above the truth, by a tenth of a bit at most; the flow, of dequantised pictures, is it within 0.03.

    With EDM's last step at 1/T, narrow worlds seemed as wide as its noise; the straight line's bound paid 3 bits more.
    """
    model, (x, true) = asked(process, Gaussian(0.0, std)), greys(std)
    bound, flow = figure("bpd", model, x), figure("ode-bpd", model, x)
    assert true < bound["value"] < true + 0.12
    assert flow["value"] == pytest.approx(true, abs=0.03)
    assert bound["steps"] == 1000
    assert figure("bpd", model, x, bits_steps=300)["steps"] == 300
    assert bound["curve"]["t"][-1] == pytest.approx(flow["begin"], rel=1e-4)


@pytest.mark.parametrize("process", CURVES.values(), ids=CURVES.keys())
def test_the_coder_ends_at_the_last_noise_that_matters(process: DiffusionConfig) -> None:
    """Half a grey level, or what the score model learned at least; and the receiver ends where the sender does."""
    pytest.importorskip("constriction")
    model = asked(process, Gaussian(0.0, 0.1))
    x = greys(0.1, 1)[0]
    sent = compress.send(model, to_bytes(x)[0], bits=math.inf, search=10)
    rmse = (sent.way[-1].mean - x).square().mean().sqrt().item()
    least = 0.01 if process.schedule == "variance-exploding" else LEAST
    assert rmse == pytest.approx(least, rel=0.25)
    back = list(compress.receive(model, sent.data))
    assert [seen.t for seen in back] == [seen.t for seen in sent.way]
    assert torch.equal(unnoise.decompress(model, sent.data).pixels[0], sent.picture)


def test_the_exact_trace_has_each_pictures_density_where_numbers_depend_on_each_other() -> None:
    """One probe of signs also counts how the one number moves the other, with a sign by chance."""
    model = asked(CURVES["flow"], Pairs(std=0.2))
    x = torch.tensor([[0.0, 0.4], [0.2, -0.1], [0.9, 0.1], [0.3, -0.6]]).reshape(4, 1, 1, 2)
    x = ((x + 1) * 127.5).round() / 127.5 - 1
    means, weights = torch.tensor(Mixture().means), torch.tensor(Mixture().weights)
    distance = (x.reshape(4, 1, 2) - means).square().sum(-1)
    density = (weights * torch.exp(-distance / 0.08)).sum(1) / (2 * math.pi * 0.04)
    for row in range(4):
        true = -math.log2(density[row].item() / 127.5**2) / 2
        found = figure("ode-bpd", model, x[row : row + 1], bits_trace="exact", bits_repeats=4)
        assert found["value"] == pytest.approx(true, abs=0.03)
        assert (found["trace"], found["repeats"]) == ("exact", 4)
    probed = figure("ode-bpd", model, x, bits_repeats=4)["value"]
    assert probed != pytest.approx(figure("ode-bpd", model, x, bits_trace="exact", bits_repeats=4)["value"], abs=1e-3)


def test_a_table_ends_at_its_first_entry_and_a_curve_where_noise_is_no_longer_seen() -> None:
    plain = DiffusionConfig()
    for table in (LinearBeta(), Cosine(), ZeroTerminalSNR(LinearBeta()), Shifted(Cosine(), 0.25)):
        assert last_time(table, 1000, plain) == 0.001
        assert last_time(table, 50, DiffusionConfig(time_sampler="continuous")) == 0.02
    ends = {name: schedule_of(process) for name, process in CURVES.items()}
    for name, schedule in ends.items():
        level = schedule.at(last_time(schedule, 1000, CURVES[name]))
        assert (level.sigma / level.alpha).item() == pytest.approx(0.01 if name == "score" else LEAST, rel=1e-9)


def test_even_steps_fall_evenly_and_end_with_the_variance_of_their_last_level() -> None:
    steps = even_chain(EDM(), 1e-4, 50)
    falls = steps.at.sigma.log().diff()
    assert torch.allclose(falls, falls[:1].expand_as(falls), rtol=1e-9)
    assert (steps.t[0].item(), steps.t[-1].item(), len(steps)) == (pytest.approx(1), pytest.approx(1e-4), 50)
    assert steps.small[-1].item() == pytest.approx(0.008**2, rel=1e-9)
    assert steps.ends.tolist() == [False] * 49 + [True]
