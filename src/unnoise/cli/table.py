"""`unnoise compare` and `unnoise table`: many ways to draw from one model, the same noise, one measure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from unnoise.cli.console import UsageError, as_json, asking, emit, existing, say, show, started, table, writable
from unnoise.cli.evaluate import data_for, home
from unnoise.cli.options import flag, keys_of, option, parse_names, parse_numbers, with_settings, within
from unnoise.cli.progress import Progress
from unnoise.cli.sample import DRAWING
from unnoise.cli.train import preset_help
from unnoise.errors import unknown
from unnoise.settings import EvaluateConfig, Request, TrainConfig

if TYPE_CHECKING:
    from PIL import Image

    from unnoise.data import Dataset
    from unnoise.explore import Survived
    from unnoise.model import Model
    from unnoise.tables import Result, Way

MEASURED = {"metrics": None, "count": None, "seed": Parameter(help="the first seed"), "judge": None}
DRAWN = {**DRAWING, **dict.fromkeys(("seeds", "labels", "previews", "steps", "sampler", "eta", "grid"))}
MODEL = Annotated[Path, option("a run, a model directory, a checkpoint, or a diffusers folder")]
DATA = Annotated[str | None, option("the real pictures; otherwise those that the model was trained on")]
OUT = Annotated[Path, option("a folder for the table, the pictures and the plot")]
EACH = Annotated[
    int, option("pictures drawn in each way", "--num", "-n", validator=within(10, 10_000_000, "fewer say nothing"))
]
SHOW = Annotated[int, option("pictures shown of each way", validator=within(1, 64, "pictures in a cell"))]
TITLES = {
    "frechet": "Frechet",
    "accuracy": "class accuracy",
    "caption": "caption right",
    "retrieval": "caption retrieval",
}
AS_JSON = Annotated[bool, flag("one JSON document on stdout")]
AS_MARKDOWN = Annotated[bool, flag("a Markdown table on stdout")]
FIGURES = ("frechet", "kernel")
JUDGED = {  # what a judge makes of real pictures
    "accuracy": "The judge is right on {:.1%} of real pictures.",
    "caption": "The reader finds {:.1%} of real pictures as their captions say.",
    "retrieval": "Of real pictures {:.1%} find their own caption first, among 100 or all there are.",
}
GUIDED = ("frechet", "precision", "recall", *JUDGED)
GUIDES = ("guidance", "classifier", "classifier_scale")
HOW = {name: DRAWING[name] for name in ("sampler", "eta", "grid")}


@with_settings(Request, **DRAWN)
@with_settings(EvaluateConfig, **MEASURED)
def compare(
    model: MODEL,
    /,
    *,
    samplers: Annotated[
        str, option("which, with commas between; 'all' that this model can use")
    ] = "ddim,heun,dpm++2m,unipc",
    steps: Annotated[str, option("numbers of steps, with commas between")] = "5,10,20,50",
    data: DATA = None,
    out: OUT = Path("compared"),
    count: EACH = 1000,
    shown: SHOW = 4,
    markdown: AS_MARKDOWN = False,
    json: AS_JSON = False,
    **asked: Any,
) -> None:
    """Draw with several samplers from the same noise, measure each, and say which to take for a budget of time.

    Writes into --out: pictures.png, plot.png (with matplotlib), table.md and table.json.
    """
    existing(model, "model")
    with asking():
        names = samplers_named(samplers)
        counts = numbers(steps, "--steps")
        writable(out, "the comparison", folder=True)
    from unnoise.tables import enough, for_budget, sampler_ways

    ask, how = settings({**asked, "count": count})
    loaded, real = opened(model, data)
    if samplers == "all" and not loaded.diffusion.learned_variance:
        names = tuple(name for name in names if name != "ddpm-learned")
    results = run(loaded, real, ask, sampler_ways(how, samplers=names, steps=counts), shown)
    head = ("sampler", "steps", "calls", "Frechet", "kernel", "ms a picture")
    rows = [
        (r.way.row, r.way.column, f"{r.calls}", figure(r, "frechet"), figure(r, "kernel"), f"{1e3 * r.seconds:.3g}")
        for r in results
    ]
    best, chosen = for_budget(results), enough(results)
    words = [f"up to {r.calls} calls: {r.way.row} in {r.way.column} steps ({figure(r)})" for r in best]
    advice = (
        f"The cheapest within 5 % of the best: --sampler {chosen.way.row} --steps {chosen.way.column}" if chosen else ""
    )
    keep(out, results, head, rows, [*words, advice])
    curves(out, results, f"Frechet distance ({ask.count:,} pictures)")
    document = {"model": str(model), **as_document(results), "best": [place(r.way) for r in best]}
    answer(document, out, head, rows, [*words, advice], markdown=markdown, json=json)


@with_settings(Request, **DRAWN)
@with_settings(EvaluateConfig, **MEASURED)
def ddim(
    model: MODEL,
    /,
    *,
    steps: Annotated[str, option("numbers of steps, with commas between")] = "10,20,50,100",
    etas: Annotated[str, option("shares of new noise, with commas between")] = "0,0.2,0.5,1",
    sigma_hat: Annotated[bool, option("DDPM's larger variance too")] = True,
    grids: Annotated[str, option("how the steps lie in time, with commas between")] = "ddim-uniform,ddim-quadratic",
    data: DATA = None,
    out: OUT = Path("table-ddim"),
    count: EACH = 1000,
    shown: SHOW = 4,
    markdown: AS_MARKDOWN = False,
    json: AS_JSON = False,
    **asked: Any,
) -> None:
    """Steps by eta, as in table 1 of Song et al. 2020: the Frechet distance of the same seeds.

    Estimates are clipped unless --no-clip; the authors clip in the row sigma-hat alone.
    """
    existing(model, "model")
    with asking():
        counts = numbers(steps, "--steps")
        shares = parse_numbers(etas, "--etas", 0, 1, "0,0.5,1")
        spacings = chosen_from(grids, keys_of("samplers/times.py", "GRIDS"), "grid of times")
        writable(out, "the table", folder=True)
    from unnoise.tables import ddim_ways

    ask, how = settings({**asked, "count": count})
    ways = ddim_ways(how, steps=counts, etas=shares, sigma_hat=sigma_hat, grids=spacings)
    results = run(*opened(model, data), ask, ways, shown)
    names = list(dict.fromkeys(r.way.row for r in results))
    head = ("Frechet distance", *(f"S = {count}" for count in counts))
    rows = [(name, *(figure(r) for r in results if r.way.row == name)) for name in names]
    kernel = [(name, *(figure(r, "kernel") for r in results if r.way.row == name)) for name in names]
    note = (
        f"{ask.count:,} pictures each, seeds {ask.seed} to {ask.seed + ask.count - 1}; guidance {how.guidance:g}, "
        f"{'clipped' if how.clip else 'not clipped'}."
    )
    second = ("kernel distance", *head[1:])
    keep(out, results, head, rows, [note], also=(second, kernel))
    curves(out, results, "Frechet distance")
    document = {"model": str(model), **as_document(results)}
    answer(document, out, head, rows, [table(kernel, head=second, ragged=True), note], markdown=markdown, json=json)


@with_settings(Request, **{**DRAWN, **HOW, **dict.fromkeys(GUIDES)})
@with_settings(EvaluateConfig, **{name: how for name, how in MEASURED.items() if name != "judge"})
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
    from unnoise.tables import guidance_ways, guided_figures

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


def inversion(
    model: MODEL,
    /,
    *,
    steps: Annotated[str, option("numbers of steps, with commas between")] = "10,20,50,100",
    conventions: Annotated[str, option("own, target, exact, with commas between")] = "own,target,exact",
    guidance: Annotated[str, option("scales, with commas between; 1 is no guidance")] = "1",
    count: Annotated[
        int, option("real pictures taken", "--num", "-n", validator=within(1, 1_000_000, "pictures"))
    ] = 32,
    spacing: Annotated[str, Parameter(name="--grid-spacing", help="how the steps lie in time")] = "even",
    data: DATA = None,
    out: OUT = Path("table-inversion"),
    precision: Annotated[str, option("of the network")] = "float32",
    device: Annotated[str, option("auto, cpu, cuda, cuda:1, mps")] = "auto",
    batch: Annotated[int, option("pictures at once", validator=within(1, 1_000_000, "pictures"))] = 64,
    markdown: AS_MARKDOWN = False,
    json: AS_JSON = False,
) -> None:
    """Real pictures to noise and back, as in table 2 of Song et al. 2020: the squared error that is left.

    With guidance the error grows, for the way to noise no longer undoes the way back: ask for --guidance 1,2,3.
    """
    existing(model, "model")
    with asking():
        counts = numbers(steps, "--steps")
        scales = scales_of(guidance, "--guidance")
        ways = chosen_from(conventions, ("own", "target", "exact"), "convention of inversion")
        if spacing not in (grids := keys_of("samplers/times.py", "GRIDS")):
            raise unknown("grid of times", spacing, grids)
        writable(out, "the table", folder=True)
    loaded, real = opened(model, data)
    from unnoise import data as pictures
    from unnoise.explore import reconstruct
    from unnoise.generate import check

    some = real.batch([int(row) for row in pictures.order(0, 0, len(real))[:count]])
    told = real.classes == loaded.classes and bool(loaded.classes)
    labels = [loaded.reader.name(int(row)) for row in some.label] if told and some.label is not None else []
    found: list[Survived] = []
    base = Request(sampler="ddim", grid=spacing, precision=precision, device=device, batch=batch)  # type: ignore[arg-type]
    cells = [(way, count, scale) for scale in scales for way in ways for count in counts]
    requests = [dataclasses.replace(base, steps=number, guidance=scale) for _, number, scale in cells]
    with asking():
        for how in requests:
            check(loaded, how)
    with Progress(len(cells), "there and back", unit="way") as bar:
        for at, ((way, number, _), how) in enumerate(zip(cells, requests, strict=True), start=1):
            found.append(reconstruct(loaded, some.x, labels, how, convention=way))
            bar.step(at, f"{way}, {number} steps: {found[-1].error:.2g}")
    head = ("convention", "guidance", *(f"S = {number}" for number in counts))
    rows = [
        (way, f"{scale:g}", *(f"{s.error:.2g}" for s in found if (s.convention, s.guidance) == (way, scale)))
        for scale in scales
        for way in ways
    ]
    worst = max((s.residual for s in found if s.convention == "exact"), default=0.0)
    note = (
        f"Squared error a number, pictures in [0, 1]; {len(some.x)} pictures, S steps there and S back"
        + (f"; the exact convention missed a step by {worst:.1g} at most" if "exact" in ways else "")
        + "."
    )
    words = [note]
    out.mkdir(parents=True, exist_ok=True)
    from unnoise.codec import to_bytes

    shown = min(8, len(some.x))
    blocks = {("the picture", ""): to_bytes(some.x[:shown])}
    most = max(counts)
    blocks |= {(f"{s.convention}, guidance {s.guidance:g}", ""): s.pictures[:shown] for s in found if s.steps == most}
    from unnoise.cli.pictures import write_png

    write_png(out / "pictures.png", sheet(blocks, across=shown), None)
    document = {
        "model": str(model),
        "cells": [{k: v for k, v in s._asdict().items() if k != "pictures"} for s in found],
    }
    write_tables(out, document, head, rows, words)
    answer(document, out, head, rows, words, markdown=markdown, json=json)


def ddpm(
    what: Annotated[str, option(preset_help())],
    /,
    *,
    data: Annotated[str | None, option("the pictures: a folder, a file, or a set that comes with the package")] = None,
    set: Annotated[
        tuple[str, ...], option("key=value: replaces a setting; the end of its name is enough where that is unique")
    ] = (),
    runs: Annotated[Path, option("the folder of the six trainings; the same command goes on where it stopped")] = Path(
        "runs"
    ),
    steps: Annotated[int, option("steps drawn with", validator=within(1, 100_000, "steps"))] = 100,
    count: EACH = 1000,
    bits: Annotated[int, option("pictures whose bits are counted", validator=within(1, 1_000_000, "pictures"))] = 32,
    bits_steps: Annotated[int, option("steps of the bound; 0: all", validator=within(0, 100_000, "steps"))] = 0,
    held: Annotated[str | None, option("the pictures whose bits are counted; otherwise those trained on")] = None,
    features: Annotated[str, option("inception, a weight file of it, a shipped classifier, or a directory")] = "auto",
    device: Annotated[str | None, option("auto, cpu, cuda, cuda:1, mps")] = None,
    out: OUT = Path("table-ddpm"),
    shown: SHOW = 4,
    markdown: AS_MARKDOWN = False,
    json: AS_JSON = False,
) -> int:
    """What to ask the network for, and what to minimise: the six trainings of table 2 of Ho et al. 2020, on your data.

    Trains one after the other, each with the same network, pictures and length, and measures them: the Frechet
    distance of drawn pictures, and the bits a number of real ones.
    """
    from unnoise.cli.data import present
    from unnoise.cli.train import ask as read
    from unnoise.cli.train import fitting, follow

    asked = read(what, data=data, sets=set, device=device, name=None)
    with asking():
        if not isinstance(asked.config, TrainConfig):
            raise UsageError(f"{what} is no diffusion model: the table is of six ways to train one")
        present(asked.config.data.path)
        if held is not None:
            present(held)
    for path, kind in ((runs, "runs"), (out, "the table")):
        writable(path, kind, folder=True)
    from unnoise import data as pictures
    from unnoise import model as models
    from unnoise.cli.evaluate import run as measured
    from unnoise.data.sources import find
    from unnoise.generate import draw
    from unnoise.recipes.ablation import cells
    from unnoise.training import run as trainings
    from unnoise.training.distributed import ALONE

    asked = fitting(asked, len(find(asked.config.data.path).classes))
    assert isinstance(asked.config, TrainConfig)
    real = pictures.open(asked.config.data)
    kept = real if held is None else pictures.open(dataclasses.replace(asked.config.data, path=held))
    blocks, found = {}, {}
    table_cells = cells(asked.config)
    for at, cell in enumerate(table_cells, start=1):
        say(f"{at} of {len(table_cells)}: {cell.column}, {cell.row}")
        path = trainings.choose(runs, cell.config, resume=True)
        code = follow(cell.config, path, ALONE)
        if code:
            return code
        loaded = models.load(path).of_pictures()
        how = Request(sampler=cell.sampler, steps=steps, device=device or "auto")
        ask = EvaluateConfig(count=count, features=features, bits_count=bits, bits_steps=bits_steps)
        entries = [
            entry
            for names, pictures_of in ((FIGURES, real), (("bits",), kept))
            for entry in measured(
                loaded, dataclasses.replace(ask, metrics=names), how, pictures_of, home() / "features"
            )["metrics"]
        ]
        found[cell.row, cell.column] = {entry["id"]: entry["value"] for entry in entries} | {"run": str(path)}
        seeds = tuple(range(shown))
        blocks[cell.row, cell.column] = draw(loaded, dataclasses.replace(how, seeds=seeds)).pixels
    names = list(dict.fromkeys(cell.column for cell in table_cells))
    head = ("objective", *(f"{name}: {figure}" for name in names for figure in ("Frechet", "kernel", "bits")))
    rows = [
        (row, *(f"{found[row, name][key]:.3g}" for name in names for key in ("frechet", "kernel", "bits")))
        for row in dict.fromkeys(cell.row for cell in table_cells)
    ]
    from unnoise.cli.pictures import write_png

    out.mkdir(parents=True, exist_ok=True)
    write_png(out / "pictures.png", sheet(blocks), None)
    document = {"cells": [{"row": row, "column": column, **cell} for (row, column), cell in found.items()]}
    note = (
        f"{asked.config.fit.images:,} pictures of training each; {count:,} drawn in {steps} steps of ancestral "
        f"sampling; bits a number of {bits} pictures."
    )
    write_tables(out, document, head, rows, [note])
    answer(document, out, head, rows, [note], markdown=markdown, json=json)
    return 0


# ------------------------------------------------------------------------------------------------- what is asked


def numbers(text: str, what: str) -> list[int]:
    """`5,10,20` as numbers of steps."""
    found = parse_numbers(text, what, 1, 100_000, "5,10,20,50")
    for number in found:
        if number != int(number):
            raise UsageError(f"{what}: {number:g} is no number of steps. Write for example {what} 5,10,20,50")
    return [int(number) for number in found]


def scales_of(text: str, what: str = "--scales") -> list[float]:
    """`1,1.5,2` as strengths of guidance, rising."""
    return sorted(parse_numbers(text, what, 0, 1000, "1,1.5,2,3,5"))


def chosen_from(text: str, valid: Sequence[str], what: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(parse_names(text)))
    for name in names:
        if name not in valid:
            raise unknown(what, name, valid)
    if not names:
        raise UsageError(f"no {what} was named; valid: {', '.join(valid)}")
    return names


def samplers_named(text: str) -> tuple[str, ...]:
    valid = keys_of("samplers/__init__.py", "SAMPLERS")
    return valid if text == "all" else chosen_from(text, valid, "sampler")


def settings(asked: Mapping[str, Any], figures: tuple[str, ...] = FIGURES) -> tuple[EvaluateConfig, Request]:
    """What is measured and how pictures are drawn, out of one set of options."""
    own = {key: value for key, value in asked.items() if key in EvaluateConfig.__dataclass_fields__}
    return EvaluateConfig(metrics=figures, **own), Request(**{k: v for k, v in asked.items() if k not in own})


# ---------------------------------------------------------------------------------------------------- the work


def opened(path: Path, data: str | None) -> tuple[Model, Dataset]:
    """The model, and the real pictures that it is compared with."""
    say(f"loading {path} ...")
    from unnoise import data as pictures
    from unnoise import model as models

    loaded = models.load(path)
    with asking():
        loaded.of_pictures()
        config = data_for(loaded, data)
    return loaded, pictures.open(config)


def run(model: Model, real: Dataset, ask: EvaluateConfig, ways: Sequence[Way], shown: int) -> list[Result]:
    """Every way, with a bar over all of them."""
    from unnoise.tables import Result, compare

    results: list[Result] = []
    with Progress(len(ways) * ask.count, "drawing", unit="picture") as bar:
        for at in started(compare(model, ask, ways, real, cache=home() / "features", show=shown)):
            if isinstance(at, Result):
                results.append(at)
                note = f"{at.way.row}, {at.way.column}: {figure(at)}"
                bar.step(len(results) * ask.count, note)
            elif at.stage == "drawing":
                bar.step(len(results) * ask.count + at.done)
    return results


def value(result: Result) -> float:
    return result.figure() or float("nan")


def figure(result: Result, name: str = "frechet") -> str:
    """A figure with its error, as people write it."""
    for entry in result.report["metrics"]:
        if entry["id"] == name:
            return f"{entry['value']:.3g}" + (f" ± {entry['error']:.1g}" if "error" in entry else "")
    return ""


def place(way: Way) -> dict[str, Any]:
    return {"row": way.row, "column": way.column, "request": asdict(way.request)}


def as_document(results: Iterable[Result]) -> dict[str, Any]:
    return {
        "cells": [
            {**place(r.way), "calls": r.calls, "seconds": r.seconds, "metrics": r.report["metrics"]} for r in results
        ]
    }


# ---------------------------------------------------------------------------------------------------- keeping


def keep(
    out: Path,
    results: Sequence[Result],
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    words: Sequence[str],
    also: tuple[Sequence[str], Sequence[Sequence[str]]] | None = None,
    blocks: Mapping[tuple[str, str], Any] | None = None,
    below: Sequence[str] = (),
) -> None:
    """pictures.png, table.md and table.json. `blocks` are the cells of the sheet, each in one line, where it is not to
    have the table's rows and columns; `below` what each picture of such a line was told."""
    from unnoise.cli.pictures import write_png

    out.mkdir(parents=True, exist_ok=True)
    cells = {(r.way.row, r.way.column): r.pictures for r in results}
    page = sheet(cells) if blocks is None else sheet(blocks, across=max(map(len, blocks.values())), below=below)
    write_png(out / "pictures.png", page, None)
    write_tables(out, as_document(results), head, rows, words, also)


def write_tables(
    out: Path,
    document: Mapping[str, Any],
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    words: Sequence[str],
    also: tuple[Sequence[str], Sequence[Sequence[str]]] | None = None,
) -> None:
    from unnoise.atomic import publish

    parts = [as_markdown(head, rows), *([as_markdown(*also)] if also else []), *words]
    publish(out / "table.md", lambda file: file.write_text("\n\n".join(part for part in parts if part) + "\n", "utf-8"))
    publish(out / "table.json", lambda file: file.write_text(as_json(document) + "\n", "utf-8"))


def as_markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


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


def drawable(file: Path) -> bool:
    """Whether a plot can be written there; otherwise why not is said."""
    from unnoise.cli.plot import plottable

    try:
        plottable(file)
    except UsageError as error:
        say(f"no plot: {error}")
        return False
    return True


def curves(out: Path, results: Sequence[Result], up: str) -> None:
    """plot.png, a curve a row, where matplotlib is there; otherwise the word that it is not."""
    from unnoise.cli.plot import Curves, plot

    if not drawable(out / "plot.png"):
        return
    lines: dict[str, list[tuple[float, float]]] = {}
    for r in results:
        lines.setdefault(r.way.row, []).append((float(r.calls), value(r)))
    plot(out / "plot.png", [Curves(lines, "network calls a picture", up, log_x=True, log_y=True)])


def sheet(blocks: Mapping[tuple[str, str], Any], across: int = 2, below: Sequence[str] = ()) -> Image.Image:
    """One picture: a line a row, a column a column, in each cell some pictures (B, C, H, W), `across` a line; words
    `below` each picture of a line."""
    from PIL import Image, ImageDraw, ImageFont

    from unnoise.cli.pictures import INK, PAPER, grid, with_labels, with_words

    rows = list(dict.fromkeys(row for row, _ in blocks))
    columns = list(dict.fromkeys(column for _, column in blocks))
    cells = {
        where: grid(list(pixels.permute(0, 2, 3, 1).numpy()), columns=min(across, len(pixels)), gap=1)
        for where, pixels in blocks.items()
    }
    width = max(cell.width for cell in cells.values()) + 6
    height = max(cell.height for cell in cells.values()) + 6
    body = Image.new("RGB", (width * len(columns), height * len(rows)), PAPER)
    for (row, column), cell in cells.items():
        body.paste(cell, (columns.index(column) * width + 3, rows.index(row) * height + 3))
    body = with_labels(body, rows)
    if below:
        body = with_words(body, [*below] * len(columns), width * len(columns))
    if not any(columns):
        return body
    font = ImageFont.load_default(16)
    out = Image.new("RGB", (body.width, body.height + 24), PAPER)
    out.paste(body, (0, 24))
    draw, margin = ImageDraw.Draw(out), body.width - width * len(columns)
    for at, column in enumerate(columns):
        draw.text((margin + (at + 0.5) * width, 12), column, fill=INK, font=font, anchor="mm")
    return out


def answer(
    document: Mapping[str, Any],
    out: Path,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    words: Sequence[str],
    *,
    markdown: bool,
    json: bool,
) -> None:
    if json:
        emit({**document, "out": str(out)})
    elif markdown:
        show(as_markdown(head, rows))
    else:
        show("\n\n".join([table(rows, head=head, ragged=True), *(word for word in words if word)]))
    say(f"pictures and tables are in {out}")
