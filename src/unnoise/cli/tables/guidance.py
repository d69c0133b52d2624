"""`unnoise table guidance`: fidelity against diversity, a line a scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from unnoise.cli.console import asking, existing, writable
from unnoise.cli.options import option, with_settings, within
from unnoise.cli.sampling_options import SAMPLING
from unnoise.cli.tables.options import (
    AS_JSON,
    AS_MARKDOWN,
    DATA,
    DRAWN,
    EACH,
    MEASURED,
    MODEL,
    OUT,
    SHOW,
    opened,
    scales_of,
    settings,
)
from unnoise.cli.tables.output import answer, drawable, keep
from unnoise.cli.tables.run import as_document, figure, run, value
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request

if TYPE_CHECKING:
    from unnoise.evaluation.sweep import Result

TITLES = {
    "frechet": "Frechet",
    "accuracy": "class accuracy",
    "caption": "caption right",
    "retrieval": "caption retrieval",
}
JUDGED = {  # what a judge makes of real pictures
    "accuracy": "The judge is right on {:.1%} of real pictures.",
    "caption": "The reader finds {:.1%} of real pictures as their captions say.",
    "retrieval": "Of real pictures {:.1%} find their own caption first, among 100 or all there are.",
}
GUIDED = ("frechet", "precision", "recall", *JUDGED)
GUIDES = ("guidance", "classifier", "classifier_scale")
HOW = {name: SAMPLING[name] for name in ("sampler", "eta", "spacing")}


@with_settings(Request, **{**DRAWN, **HOW, **dict.fromkeys(GUIDES)})
@with_settings(EvaluateConfig, **MEASURED | {"evaluator": Parameter(alias="--judge")})
def guidance(
    model: MODEL,
    /,
    *,
    scales: Annotated[str, option("strengths, with commas between; 1 is no guidance")] = "1,1.5,2,3,5,8",
    classifier: Annotated[
        Path | None, option("a noisy classifier: the model told nothing, and guided by it alone, too")
    ] = None,
    classifier_scales: Annotated[
        str, option("its strengths, with commas between; 0 is no guidance")
    ] = "1,2,5,15,30,60",
    steps: Annotated[int, option("steps from noise to picture", validator=within(1, 100_000, "steps"))] = 20,
    data: DATA = None,
    out: OUT = Path("table-guidance"),
    count: EACH = 1000,
    shown: SHOW = 10,
    markdown: AS_MARKDOWN = False,
    json: AS_JSON = False,
    **asked: Any,
) -> None:
    """Fidelity against diversity: what guidance buys at each scale, and what it costs. The same seeds at every scale.

    A model of captions is told those of real pictures. Whether it draws them is read where a set can be read (shapes),
    and judged by --judge, a contrastive run, for others.

    Writes into --out: pictures.png (a line a scale), plot.png (with matplotlib), table.md and table.json.
    """
    existing(model, "model")
    with asking():
        strengths, strengths_of_classifier = scales_of(scales), scales_of(classifier_scales, "--classifier-scales")
        if classifier is not None:
            existing(classifier, "classifier")
        writable(out, "the table", folder=True)
    from unnoise.evaluation.sweep import guidance_ways, guided_figures

    ask, how = settings({**asked, "count": count, "steps": steps})
    loaded, real = opened(model, data)
    with asking():
        ask = dataclasses.replace(ask, metrics=guided_figures(loaded, ask, how, real))
    ways = guidance_ways(
        how, scales=strengths, classifier=str(classifier or ""), classifier_scales=strengths_of_classifier
    )
    results = run(loaded, real, ask, ways, shown)
    others = [entry["id"] for entry in results[0].report["metrics"] if entry["id"] not in GUIDED]
    names = [*(name for name in GUIDED if results[0].figure(name) is not None), *others]
    head = ("guidance", "scale", *(TITLES.get(name, name) for name in names), "calls")
    rows = [(r.way.row, r.way.column, *(figure(r, name) for name in names), f"{r.calls}") for r in results]
    words = [guided_words(results, ask)]
    keep(out, results, head, rows, words, blocks=by_scale(results), below=results[0].captions)
    guided_curves(out / "plot.png", results)
    answer({"model": str(model), **as_document(results)}, out, head, rows, words, markdown=markdown, json=json)


def by_scale(results: Sequence[Result]) -> dict[tuple[str, str], Any]:
    """The cells of the sheet: a line a scale, from the smallest on, a column a guide."""
    ordered = sorted(results, key=lambda r: float(r.way.column))
    return {(r.way.column, r.way.row): r.pictures for r in ordered}


def guided_words(results: Sequence[Result], ask: EvaluateConfig) -> str:
    """What was compared; the best scale; what the judges make of real pictures."""
    best = min(results, key=value)
    said = f"{ask.count:,} pictures each, seeds {ask.seed} to {ask.seed + ask.count - 1}. "
    said += f"The least Frechet distance: {best.way.row}, scale {best.way.column}."
    real = {e["id"]: e["real"] for e in best.report["metrics"] if "real" in e}
    return " ".join([said, *(words.format(real[name]) for name, words in JUDGED.items() if name in real)])


def guided_curves(file: Path, results: Sequence[Result]) -> None:
    """plot.png: the distance by scale, precision and recall by scale, the distance by accuracy."""
    from unnoise.cli.plot import Curves, plot

    if not drawable(file):
        return
    guides = list(dict.fromkeys(r.way.row for r in results))
    found = [
        {"scale": float(r.way.column)} | {e["id"]: float(e["value"]) for e in r.report["metrics"]} for r in results
    ]

    def line(guide: str, x: str, y: str) -> list[tuple[float, float]]:
        own = [each for r, each in zip(results, found, strict=True) if r.way.row == guide]
        return [(each[x], each[y]) for each in own if x in each and y in each]

    def lines(x: str, *ys: str) -> dict[str, list[tuple[float, float]]]:
        return {f"{y}, {guide}" if len(ys) > 1 else guide: line(guide, x, y) for y in ys for guide in guides}

    panels = [
        Curves(lines("scale", "frechet"), "scale", "Frechet distance", log_x=True),
        Curves(lines("scale", "precision", "recall"), "scale", "share of pictures", log_x=True),
        *(Curves(lines(name, "frechet"), TITLES[name], "Frechet distance") for name in JUDGED),
    ]
    plot(file, [panel for panel in panels if any(panel.lines.values())])
