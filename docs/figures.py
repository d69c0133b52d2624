"""The figures of these pages. `PYTHONPATH=tests python docs/figures.py [NAME ...]` writes docs/figures/NAME.png.

Each curve is drawn by the package's own code, on worlds whose truth is known (tests/helpers/worlds.py): no data is
needed, and the same numbers come out on every machine. Needs matplotlib, which the package itself does not.
"""

from __future__ import annotations

import io
import math
import sys
import textwrap
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from tests.helpers.worlds import Gaussian, Mixture
from unnoise import data, noise
from unnoise import losses as loss_weights
from unnoise.conditions import Cond
from unnoise.config.data import DataConfig
from unnoise.config.training import Fit
from unnoise.data import shapes as shapes_world
from unnoise.denoiser import SAMPLE, SCORE, Diffusion
from unnoise.guidance import classifier_free
from unnoise.metrics.frechet import extrapolated, frechet, moments
from unnoise.noise import generator
from unnoise.samplers import SPACINGS, State, Step, ddim, ddpm, heun, known, large, last, small, walk
from unnoise.samplers.langevin import fraction, langevin, predictor_corrector
from unnoise.samplers.sde import reverse_diffusion
from unnoise.samplers.timesteps import even, even_log_snr
from unnoise.schedules import (
    EDM,
    Cosine,
    CosineContinuous,
    Flow,
    LinearBeta,
    ScaledLinear,
    Schedule,
    Sigmoid,
    VarianceExploding,
    over,
)
from unnoise.training.loop import fit
from unnoise.training.player import Player, SampleRNG
from unnoise.training.train_state import TrainState

HERE = Path(__file__).resolve().parent
BLUE, ORANGE, GREEN, RED, VIOLET, GREY = "#2563a8", "#e07b28", "#2f9468", "#c83c54", "#7a5cb0", "#8a8f98"
INK = "#22262e"
SAND = ["#fdf1e4", "#fbdfc1", "#f7c795", "#f2ab64"]

plt.rcParams |= {
    "backend": "agg",
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "font.size": 9.5,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.edgecolor": "#c9ccd2",
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eceef1",
    "grid.linewidth": 0.8,
    "xtick.color": "#6a7079",
    "ytick.color": "#6a7079",
    "lines.linewidth": 1.9,
    "legend.frameon": False,
}


def silence(t: Tensor, draw: int = 0) -> Tensor:
    return torch.zeros(1, dtype=torch.float64)


def white(shape: tuple[int, ...], *key: int | str) -> Callable[[Tensor, int], Tensor]:
    source = generator(*key)
    return lambda t, draw=0: torch.randn(shape, generator=source, dtype=torch.float64)


# --- schedules.md ---


def schedules() -> Figure:
    """alpha, sigma and the log signal-to-noise ratio of each schedule."""
    shown: list[tuple[str, Schedule, str, str]] = [
        ("linear", LinearBeta(), BLUE, "-"),
        ("scaled-linear", ScaledLinear(begin=0.00085, end=0.012), BLUE, (0, (4, 1.5))),
        ("cosine", Cosine(), ORANGE, "-"),
        ("sigmoid", Sigmoid(), GREEN, "-"),
        ("flow", Flow(), RED, "-"),
        ("edm", EDM(), VIOLET, "-"),
        ("variance-exploding", VarianceExploding(), VIOLET, (0, (1.2, 1.2))),
    ]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9.2, 3.3))
    t = torch.linspace(0, 1, 801, dtype=torch.float64)
    for name, schedule, colour, line in shown:
        level = schedule(t)
        style = {"color": colour, "linestyle": line}
        left.plot(t, level.alpha, label=name, **style)
        middle.plot(t, level.sigma, **style)
        right.plot(t[1:], 2 * level.log_ratio[1:], **style)
    left.set(title="picture: alpha", xlabel="t", ylim=(-0.03, 1.06))
    middle.set(title="noise: sigma", xlabel="t", ylim=(-0.03, 1.06))
    middle.text(1.0, 0.04, "edm, variance-exploding:\non to 80 and 50", color=VIOLET, fontsize=8, ha="right")
    right.set(title="log SNR = 2 log(alpha / sigma)", xlabel="t", ylim=(-14, 14))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=7, columnspacing=1.3)
    return figure


def noising() -> Figure:
    """One picture and one noise at eleven times, on three schedules."""
    x = data.open(DataConfig("fashion")).batch([3]).x
    eps = noise.normal(x.shape, "noising")
    figure, each = plt.subplots(3, 11, figsize=(9.2, 2.75), gridspec_kw={"wspace": 0.02, "hspace": 0.04})
    for row, (name, schedule) in enumerate((("linear", LinearBeta()), ("cosine", Cosine()), ("flow", Flow()))):
        for axes, k in zip(each[row], range(11)):
            x_t = schedule.at(k / 10).mix(x, eps)[0, 0]
            axes.imshow(x_t, cmap="gray", vmin=-1.6, vmax=1.6, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=False)
            if row == 0:
                axes.set_title(f"t = {k / 10:g}", fontsize=8.5, fontweight="normal", loc="center")
        each[row][0].set_ylabel(name)
    return figure


# --- data.md ---


def clothes() -> Figure:
    """What `unnoise data fashion` shows: a row a class."""
    dataset = data.open(DataConfig("fashion"))
    sheet = data.contact_sheet(dataset, 10, 13)
    figure, axes = plt.subplots(figsize=(5.6, 4.1))
    axes.imshow(sheet, cmap="gray", interpolation="nearest")
    axes.set(xticks=[], yticks=[(28 + 2) * (i + 0.5) + 1 for i in range(10)], yticklabels=dataset.classes)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set(visible=False)
    return figure


def shapes() -> Figure:
    """Some of the world of shapes: each with its caption, its outlines and its segmentation."""
    side, columns = 32, 3
    scenes = shapes_world.scenes("shapes", "train", range(12))
    figure, axes = plt.subplots(len(scenes) // columns, columns, figsize=(8.6, 5.0))
    for i, (scene, cell) in enumerate(zip(scenes, axes.flat)):
        of_it = [draw(scene, side) for draw in (shapes_world.render, shapes_world.edges, shapes_world.segmentation)]
        gap = np.full((side, 1, 3), 255, np.uint8)
        cell.imshow(np.concatenate([of_it[0], gap, of_it[1], gap, of_it[2]], 1), interpolation="nearest")
        cell.set_xlabel("\n".join(textwrap.wrap(shapes_world.caption(scene, i), 44)), fontsize=7.5)
        cell.set(xticks=[], yticks=[])
        cell.grid(visible=False)
        cell.spines[:].set(color=GREY, linewidth=0.5)
    return figure


# --- samplers.md ---


def mixture_density(axes: Axes, world: Mixture, reach: float = 2.6) -> None:
    line = torch.linspace(-reach, reach, 220, dtype=torch.float64)
    y, x = torch.meshgrid(line, line, indexing="ij")
    points = torch.stack([x, y], -1)[..., None, :]
    far = (points - torch.tensor(world.means, dtype=torch.float64)).square().sum(-1)
    density = (torch.exp(-far / (2 * world.std**2)) * torch.tensor(world.weights, dtype=torch.float64)).sum(-1)
    axes.contourf(
        x, y, density, levels=[0.01, 0.05, 0.15, 0.3, 0.6], colors=["#fdf1e4", "#fbdfc1", "#f7c795", "#f2ab64"]
    )
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set(visible=True, color="#e3e5e9")


def paths() -> Figure:
    """DDIM's way from noise to a mixture of three Gaussians, with the exact denoiser, in few steps and in many."""
    world, schedule = Mixture(), CosineContinuous()
    start = torch.randn(26, 2, generator=generator("paths"), dtype=torch.float64)
    figure, each = plt.subplots(1, 4, figsize=(9.2, 2.6))
    for axes, (title, step, steps) in zip(
        each,
        [("ddim, 4 steps", ddim(), 4), ("ddim, 12 steps", ddim(), 12), ("heun, 6 steps", heun(), 6),
         ("ddpm, 60 steps", ddpm(), 60)],
    ):  # fmt: skip
        mixture_density(axes, world)
        states = walk(world.denoiser(schedule), start, even(schedule, steps), step, white((26, 2), "paths", 1))
        way = torch.stack([start, *(state.x for state in states)])
        for i in range(way.shape[1] if steps < 20 else 3):  # more than three walks of ddpm cannot be distinguished
            axes.plot(way[:, i, 0], way[:, i, 1], color=BLUE, linewidth=0.7, alpha=0.65, marker=".", markersize=2.4)
        axes.plot(way[-1, :, 0], way[-1, :, 1], "o", color=RED, markersize=3.2)
        axes.set_title(title)
    return figure


def order() -> Figure:
    """The error at the end of an interior stretch, against the exact flow: slope 1 and slope 2."""
    world, schedule = Gaussian(0.2, 0.5), LinearBeta()
    top, bottom = schedule.time(torch.tensor([-2.0, 2.0], dtype=torch.float64))
    x = schedule(top).alpha * world.mean + torch.ones(1, 1, dtype=torch.float64)
    exact = world.flow(x, schedule(top), schedule(bottom))
    figure, axes = plt.subplots(figsize=(5.4, 3.5))
    counts = [4, 8, 16, 32, 64, 128, 256, 512]
    for name, step, calls, colour in (("ddim", ddim(), 1, BLUE), ("heun", heun(), 2, ORANGE)):
        errors = []
        for n in counts:
            times = schedule.time(torch.linspace(-2, 2, n // calls + 1, dtype=torch.float64))
            errors.append((last(walk(world.denoiser(schedule), x, times, step, silence)) - exact).abs().item())
        axes.loglog(counts, errors, "o-", color=colour, markersize=4)
        fitted = math.log2(errors[-2] / errors[-1])
        axes.annotate(f"{name}: slope -{fitted:.2f}", (counts[-2], errors[-2]), xytext=(-2, 9),
                      color=colour, textcoords="offset points", ha="left", fontweight="bold")  # fmt: skip
    axes.set(xlabel="calls of the network", ylabel="distance from the exact flow")
    axes.set_xticks(counts, [str(n) for n in counts], minor=False)
    axes.minorticks_off()
    return figure


def grids() -> Figure:
    """Where ten steps stop, in t and in log SNR, on the linear schedule."""
    schedule = LinearBeta()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.1), sharey=True)
    names = list(SPACINGS)[::-1]
    for y, name in enumerate(names):
        times = SPACINGS[name](1000)(schedule, 10)
        colour = {"karras": VIOLET, "log-snr": VIOLET, "even": BLUE}.get(name, ORANGE)
        left.plot(times, [y] * len(times), "|", color=colour, markersize=13, markeredgewidth=2)
        left.plot([times[0]], [y], "o", color=colour, markersize=5)
        ratios = 2 * schedule(times[:-1]).log_ratio
        right.plot(ratios, [y] * len(ratios), "|", color=colour, markersize=13, markeredgewidth=2)
        right.plot(ratios[:1], [y], "o", color=colour, markersize=5)
    left.set_yticks(range(len(names)), names)
    left.set(title="in t (the walk starts at the dot and ends at 0)", xlabel="t", xlim=(1.04, -0.04), ylim=(-0.6, 7.6))
    right.set(title="in log SNR (the last stop, t = 0, is at infinity)", xlabel="log SNR", xlim=(-11, 13.5))
    return figure


def final_spread(step: Step, world: Gaussian, schedule: Schedule, steps: int) -> float:
    """The exact standard deviation where a walk ends: each step is affine in its state and its noise on this world."""
    times, variance = even(schedule, steps), 1.0
    for t, s in pairwise(times):
        here = torch.tensor([[0.0], [1.0], [0.0]], dtype=torch.float64)
        z = torch.tensor([[0.0], [0.0], [1.0]], dtype=torch.float64)
        base, moved, noised = step(world.denoiser(schedule), State(here, t), s, lambda s, draw=0, z=z: z).x.flatten()
        variance = (moved - base).item() ** 2 * variance + (noised - base).item() ** 2
    return math.sqrt(variance)


def variance() -> Figure:
    """The spread of what ddpm draws, by its variance and number of steps, beside the truth."""
    world, schedule = Gaussian(0.0, 0.5), LinearBeta()
    figure, axes = plt.subplots(figsize=(5.4, 3.4))
    counts = [5, 10, 20, 50, 100, 200, 500, 1000]
    for name, step, colour in (
        ("ddpm-large", ddpm(large), ORANGE),
        ("ddpm, variance known", ddpm(known(0.25)), GREEN),
        ("ddim", ddim(), VIOLET),
        ("ddpm", ddpm(small), BLUE),
    ):
        found = [final_spread(step, world, schedule, n) for n in counts]
        axes.semilogx(counts, found, "o-", color=colour, markersize=4, label=name)
    axes.axhline(0.5, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.text(5, 0.503, "the truth", ha="left", va="bottom", fontsize=8.5)
    axes.set(xlabel="steps", ylabel="standard deviation of the drawn numbers")
    axes.set_xticks(counts, [str(n) for n in counts], minor=False)
    axes.minorticks_off()
    axes.legend()
    return figure


# --- predictions-and-loss_weights.md ---


def losses() -> Figure:
    """How much each time's error of the picture weighs, and where training draws its times."""
    schedule = LinearBeta()
    log_snr = torch.linspace(-9, 9, 400, dtype=torch.float64)
    level = schedule(schedule.time(log_snr / 2))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.4))
    left.semilogy(log_snr, loss_weights.simple(level), color=BLUE, linewidth=6, alpha=0.25, label="simple (SNR)")
    for name, weight, colour, line in (
        ("snr-plus-one", loss_weights.snr_plus_one, GREEN, "-"),
        ("x0", loss_weights.constant, GREY, "-"),
        ("truncated-snr", loss_weights.truncated_snr, GREEN, (0, (3, 2.5))),
        ("min-snr, gamma 5", loss_weights.min_snr(5), ORANGE, "-"),
        ("p2, gamma 1", loss_weights.p2(), RED, "-"),
        ("edm, sigma_data 0.5", loss_weights.edm_weight(), VIOLET, "-"),
    ):
        left.semilogy(log_snr, weight(level), color=colour, linestyle=line, label=name)
    left.set(title="weight of the squared error of the picture", xlabel="log SNR", ylim=(1e-4, 1e4))
    left.legend(fontsize=8, loc="upper left", labelspacing=0.3)
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    for name, t, on, colour in (
        ("uniform, linear betas", loss_weights.any_time(u, schedule), schedule, BLUE),
        ("uniform, cosine", loss_weights.any_time(u, Cosine()), Cosine(), ORANGE),
        ("logit-normal, flow", loss_weights.logit_normal()(u, Flow()), Flow(), RED),
        ("edm's log-normal", loss_weights.log_normal()(u, EDM()), EDM(), VIOLET),
    ):
        ratios = 2 * on(t).log_ratio
        share, edges = torch.histogram(ratios, bins=90, range=(-14.0, 14.0))
        density = share / len(u) / (edges[1] - edges[0])
        right.plot((edges[1:] + edges[:-1]) / 2, density, color=colour, label=name)
    right.set(title="where training looks: density of its times", xlabel="log SNR", xlim=(-12, 12), ylim=(0, None))
    right.legend(fontsize=8)
    return figure


# --- guidance.md ---


class Told(nn.Module):
    """A network that is exact for the mixture: the mean of a class, or of the whole mixture without a condition."""

    def __init__(self, world: Mixture, schedule: Schedule) -> None:
        super().__init__()
        self.world, self.schedule = world, schedule

    def forward(self, x: Tensor, time: Tensor, cond: Cond) -> Tensor:
        level = self.schedule((time.double() + 1) / 1000)
        everything = self.world.denoise(x, level)
        assert cond.label is not None
        centres = torch.tensor([*self.world.means, (0.0, 0.0)], dtype=x.dtype)[cond.label]
        one = Gaussian(0.0, self.world.std).denoise(x - over(level.alpha, x) * centres, level) + centres
        return torch.where(cond.label[:, None] == len(self.world.means), everything, one)


def guidance() -> Figure:
    """One class of three, drawn at four scales with exact estimates."""
    world, schedule, count = Mixture(std=0.45), CosineContinuous(), 260
    diffusion = Diffusion(Told(world, schedule), schedule, SAMPLE)
    x = torch.randn(count, 2, generator=generator("guidance"), dtype=torch.float64)
    cond, null = (Cond(torch.full((count,), row)) for row in (1, 3))
    figure, each = plt.subplots(1, 4, figsize=(9.2, 2.6))
    for axes, scale in zip(each, (0.0, 1.0, 2.0, 5.0)):
        mixture_density(axes, world)
        end = last(
            walk(classifier_free(diffusion, cond, null, scale), x, even_log_snr()(schedule, 60), ddim(), silence)
        )
        axes.plot(end[:, 0], end[:, 1], ".", color=BLUE, markersize=2.6, alpha=0.8)
        axes.plot(*world.means[1], "+", color=RED, markersize=9, markeredgewidth=2)
        axes.set_title(f"scale {scale:g}" + {0.0: ": unconditional", 1.0: ": no guidance"}.get(scale, ""))
    return figure


# --- training.md ---


def averages() -> Figure:
    """How much each step's weights count in an average: read off the learner, by weights that are unit vectors."""
    steps, batch = 400, 100
    figure, axes = plt.subplots(figsize=(6.4, 3.1))
    for half_life, rampup, colour in ((2_000, None, BLUE), (10_000, None, ORANGE), (10_000, 0.1, GREEN)):
        net = nn.Linear(steps, 1, bias=False)
        learner = TrainState(net, Fit(batch=batch, ema=(half_life,), ema_rampup=rampup, clip=None))
        for step in range(steps):
            net.weight.data = nn.functional.one_hot(torch.tensor([step]), steps).float()
            learner.weights[0].copy_(net.weight.data)
            net.weight.grad = torch.zeros_like(net.weight)
            learner.update(0.0, 0.0)
            learner.step += 1
        shares = learner.averages[half_life][0].flatten()
        name = f"half-life {half_life:,}" + (f", ramp-up {rampup}" if rampup else "")
        axes.plot(torch.arange(1, steps + 1) * batch, 100 * shares, color=colour, label=name)
    axes.set(xlabel="pictures seen", ylabel="share of the average, % a step", ylim=(-0.1, 4))
    axes.annotate("6 % are the weights\nafter the very first step", (120, 3.1), xytext=(3_000, 2.1), color=ORANGE,
                  fontsize=8.5, arrowprops={"arrowstyle": "->", "color": ORANGE})  # fmt: skip
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    axes.legend(loc="upper center")
    return figure


# --- evaluation.md ---


def frechet_bias() -> Figure:
    """The Frechet distance of a set from its own distribution, by the size of the set: 0 is the truth."""
    dim, most = 64, 8192
    features = torch.randn(most, dim, generator=generator("frechet"), dtype=torch.float64)
    real = moments(torch.randn(200_000, dim, generator=generator("frechet", 1), dtype=torch.float64))
    counts = [256, 512, 1024, 2048, 4096, 8192]
    figure, axes = plt.subplots(figsize=(5.6, 3.3))
    smooth = torch.logspace(math.log2(200), math.log2(9000), 60, base=2)
    axes.semilogx(smooth, (dim + dim * (dim + 1) / 4) / smooth, color=BLUE, linewidth=1.2, linestyle=(0, (4, 2)),
                  label="(D + D (D + 1) / 4) / n")  # fmt: skip
    axes.semilogx(counts, [frechet(moments(features[:n]), real) for n in counts], "o", color=BLUE, label="measured")
    far = [extrapolated(real, features[:n], generator=generator("frechet", n)).value for n in counts]
    axes.semilogx(counts, far, "D", color=GREEN, markersize=5, label="extrapolated to infinitely many")
    axes.axhline(0, color=INK, linewidth=1)
    axes.set(xlabel="pictures drawn", ylabel=f"Frechet distance, {dim} features")
    axes.set_xticks(counts, [f"{n:,}" for n in counts], minor=False)
    axes.minorticks_off()
    axes.legend()
    return figure


# --- score-models.md ---


class Points(NamedTuple):
    """A batch of points of a plane."""

    x: Tensor


class Plane(nn.Module):
    """A small network of points: three layers, conditioned on the logarithm of the noise."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.out = nn.Linear(width, 2)

    def forward(self, x: Tensor, time: Tensor, cond: Cond) -> Tensor:
        out: Tensor = self.out(self.layers(torch.cat([x, time[:, None] / 500 - 1], dim=1)))
        return out


def score_model(world: Mixture, schedule: Schedule) -> Diffusion:
    """Denoising score matching on points of `world`, by the loop that trains everything else."""

    def batches() -> Iterator[Points]:
        means, step = torch.tensor(world.means), 0
        while True:
            key = generator("points", step)
            which = torch.multinomial(torch.tensor(world.weights), 256, replacement=True, generator=key)
            yield Points(means[which] + world.std * torch.randn(256, 2, generator=key))
            step += 1

    def loss(batch: Points, rows: SampleRNG) -> Tensor:
        t = loss_weights.table_steps(1000)(rows.uniform("time"), schedule)
        return diffusion.loss(batch.x, t, noise=rows.normal((2,), "noise"), weight=loss_weights.simple)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        diffusion = Diffusion(Plane(), schedule, SCORE)
    how = Fit(images=256 * 3000, batch=256, lr=2e-3, warmup=50, decay="cosine", ema=(20_000,))
    for _ in fit(Player(diffusion.net, how, loss), batches()):
        pass
    return diffusion.eval()


def score_field() -> Figure:
    """A score model of a mixture: its field beside the exact one at two levels, and what annealed Langevin draws."""
    world, schedule = Mixture(), VarianceExploding(sigma_min=0.02, sigma_max=4.0)
    made = score_model(world, schedule).given(Cond())
    truth = world.denoiser(schedule)
    figure, each = plt.subplots(2, 3, figsize=(9.2, 6.2))
    edge = torch.linspace(-2.2, 2.2, 17)
    grid = torch.cartesian_prod(edge, edge)
    for row, sigma in zip(each, (0.25, 1.0)):
        t = schedule.time(torch.tensor(-math.log(sigma), dtype=torch.float64))
        fields = []
        for axes, denoiser, name in zip(row, (truth, made), ("exact", "learned")):
            mixture_density(axes, world)
            with torch.no_grad():
                pull = (denoiser(grid.double() if name == "exact" else grid, t).mean - grid).float()  # sigma^2 score
            fields.append(pull)
            axes.quiver(*grid.T, *pull.T, color=BLUE, angles="xy", scale_units="xy", scale=4, width=0.0035)
            axes.set_title(f"{name} score, sigma = {sigma:g}")
        off = ((fields[1] - fields[0]).square().sum(1).mean() / fields[0].square().sum(1).mean()).sqrt()
        row[1].set_xlabel(f"root mean square error {100 * off:.0f} % of the field's", fontsize=8)
    count = 400
    corrected = predictor_corrector(reverse_diffusion(), fraction(0.02))
    start = schedule.at(1.0).sigma.item() * torch.randn(count, 2, generator=generator("langevin"))
    for axes, step, times, name in (
        (each[0, 2], langevin(fraction(0.1), 20), even_log_snr(high=3.9)(schedule, 30), "annealed Langevin"),
        (each[1, 2], corrected, even(schedule, 200), "predictor-corrector"),
    ):
        mixture_density(axes, world)
        end = last(walk(made, start, times, step, white((count, 2), name)))
        axes.plot(end[:, 0], end[:, 1], ".", color=BLUE, markersize=2.6, alpha=0.8)
        near = torch.cdist(end, torch.tensor(world.means)).argmin(1).bincount(minlength=3) / count
        axes.set_title(f"{name}, learned")
        shares = ", ".join(f"{share:.2f}" for share in near.tolist())
        axes.set_xlabel(f"shares {shares}; of the data {', '.join(map(str, world.weights))}", fontsize=8)
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "schedules": schedules,
    "noising": noising,
    "clothes": clothes,
    "shapes": shapes,
    "paths": paths,
    "order": order,
    "grids": grids,
    "variance": variance,
    "losses": losses,
    "guidance": guidance,
    "averages": averages,
    "frechet": frechet_bias,
    "score-field": score_field,
}


def write(name: str) -> Path:
    """One figure, as a PNG of at most 64 colours: small, and the same bytes from the same versions."""
    figure = FIGURES[name]()
    memory = io.BytesIO()
    figure.savefig(memory, dpi=144, metadata={"Software": None})
    plt.close(figure)
    path = HERE / "figures" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    picture = Image.open(memory).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)
    return path


if __name__ == "__main__":
    for wanted in sys.argv[1:] or list(FIGURES):
        print(f"{(made := write(wanted)).relative_to(HERE.parent)}  {made.stat().st_size:,} bytes")
