"""Variants of one request: the cells of a table, as the product of axes.

    variants(base, Axes(samplers=("ddim", "heun"), steps=(5, 10)))        # 4 variants, and 8 with guidance=(1, 3)

    variants            rows by sampler, columns by number of steps
    ddim_variants       rows by eta, columns by number of steps: table 1 of Song et al. 2020
    guidance_variants   rows by kind of guidance, columns by scale
    InversionAxes       the settings of reconstruction.py

All variants of a comparison have the same seeds and so start from the same noise: what differs is due to the axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from unnoise.config.request import Request

ETA = ("auto", "ddim")  # samplers that use eta: a model's own sampler may be ddim
SIGMA_HAT = "ddim-sigma-hat"
CONVENTIONS = ("own", "target", "exact")  # of inversion: generate/inversion.py


@dataclass(frozen=True)
class Variant:
    """One cell of a table: its row, its column, and the request that its pictures are sampled with."""

    row: str
    column: str
    request: Request


@dataclass(frozen=True)
class Axes:
    """The values of each setting that a comparison varies, each in the order of the table."""

    samplers: tuple[str, ...] = ("auto",)
    steps: tuple[int, ...] = (50,)
    eta: tuple[float, ...] = (0.0,)  # for the samplers in ETA; all others are run once, with 0
    guidance: tuple[float, ...] = (1.0,)
    spacings: tuple[str, ...] = ("auto",)

    def requests(self, base: Request) -> list[Request]:
        """`base` at every point of the product; the number of steps varies fastest."""
        return [
            base.but(sampler=sampler, steps=steps, eta=eta, guidance=scale, spacing=spacing)
            for spacing in self.spacings
            for scale in self.guidance
            for sampler in self.samplers
            for eta in (self.eta if sampler in ETA else (0.0,))
            for steps in self.steps
        ]

    def varied(self, request: Request, *names: str) -> list[str]:
        """The values of those of the axes `names` that have several, as parts of a row's name."""
        texts = {
            "samplers": request.sampling.sampler,
            "steps": f"{request.sampling.steps} steps",
            "eta": f"eta {request.sampling.eta:g}" if request.sampling.sampler in ETA else "",
            "guidance": f"guidance {request.guidance.scale:g}",
            "spacings": request.sampling.spacing,
        }
        return [texts[name] for name in names if len(getattr(self, name)) > 1 and texts[name]]


@dataclass(frozen=True)
class InversionAxes:
    """The values of each setting that the table varies; `conventions` are of CONVENTIONS."""

    conventions: tuple[str, ...]
    steps: tuple[int, ...]
    guidance: tuple[float, ...] = (1.0,)

    def settings(self) -> list[tuple[str, int, float]]:
        """(convention, number of steps, guidance scale) at every point of the product."""
        return [
            (convention, steps, scale)
            for scale in self.guidance
            for convention in self.conventions
            for steps in self.steps
        ]


def variants(base: Request, axes: Axes) -> list[Variant]:
    """One row for each sampler (and further axes with several values), one column for each number of steps."""
    return [
        Variant(
            _named(request.sampling.sampler, axes.varied(request, "eta", "guidance", "spacings")),
            f"{request.sampling.steps}",
            request,
        )
        for request in axes.requests(base)
    ]


def ddim_variants(base: Request, axes: Axes, *, sigma_hat: bool = True) -> list[Variant]:
    """DDIM at each eta, and DDPM's larger variance ("sigma-hat", eq. 16 of Song et al. 2020), by number of steps."""
    axes = replace(axes, samplers=("ddim", SIGMA_HAT) if sigma_hat else ("ddim",))
    return [
        Variant(
            _named(
                "sigma-hat" if request.sampling.sampler == SIGMA_HAT else f"eta {request.sampling.eta:g}",
                axes.varied(request, "guidance", "spacings"),
            ),
            f"{request.sampling.steps}",
            request,
        )
        for request in axes.requests(base)
    ]


def guidance_variants(
    base: Request, axes: Axes, *, classifier: str = "", classifier_scales: Sequence[float] = ()
) -> list[Variant]:
    """Classifier-free guidance at each scale; and, with a classifier, the unconditional model guided by it alone.

    Where both are exact they agree scale by scale: scale 1 of a classifier is Bayes' rule. A learned classifier is less
    confident than it should be and needs larger scales.
    """
    others = ("samplers", "steps", "eta", "spacings")
    found = [
        Variant(_named("classifier-free", axes.varied(request, *others)), f"{request.guidance.scale:g}", request)
        for request in axes.requests(base)
    ]
    unconditional = replace(axes, guidance=(0.0,)).requests(base.but(classifier=classifier)) if classifier else ()
    return found + [
        Variant(
            _named("classifier", axes.varied(request, *others)),
            f"{scale:g}",
            request.but(classifier_scale=scale),
        )
        for scale in classifier_scales
        for request in unconditional
    ]


def _named(name: str, parts: Sequence[str]) -> str:
    return ", ".join([name, *parts])
