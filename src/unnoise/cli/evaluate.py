"""`unnoise evaluate`: how good a model's pictures are, with what was compared beside every figure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from unnoise.cli.console import UsageError, asking, emit, existing, say, show, started, table
from unnoise.cli.data import present
from unnoise.cli.options import flag, keys_of, option, parse_names, with_settings, within
from unnoise.cli.plot import Curves, plottable
from unnoise.cli.plot import plot as draw_plot
from unnoise.cli.progress import Progress
from unnoise.cli.requests import rows_for
from unnoise.cli.sampling_options import ALL, FOR_ALL, WHICH
from unnoise.config.data import DataConfig
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request
from unnoise.errors import unknown
from unnoise.generate.describe import known_card
from unnoise.io.units import duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from unnoise.data import Dataset
    from unnoise.evaluation.evaluate import Progress as Step
    from unnoise.model import Model

COUNT = Parameter(alias=("--num", "-n"), validator=within(10, 10_000_000, "fewer say nothing about a model"))


ASKED: dict[str, Parameter | None] = {
    **ALL,
    **FOR_ALL,
    **dict.fromkeys(("seeds", "labels", "previews")),
}


@with_settings(Request, **ASKED)
@with_settings(
    EvaluateConfig,
    metrics=None,
    count=COUNT,
    seed=Parameter(help="the first seed"),
    evaluator=Parameter(alias="--judge"),
)
def evaluate(
    model: Annotated[Path, option("a run, a model directory, a checkpoint, or a diffusers folder")],
    /,
    *,
    metrics: Annotated[str, option("which, with commas between; fid and kid are taken too")] = ",".join(
        EvaluateConfig().metrics
    ),
    data: Annotated[str | None, option("the real pictures; otherwise those that the model was trained on")] = None,
    label: Annotated[
        str | None, option("one class for all pictures; otherwise each as often as it is in the data", group=WHICH)
    ] = None,
    plot: Annotated[
        Path | None,
        option("a .png or .svg with the curves of bits: the terms over t, rate and distortion, both over reverse time"),
    ] = None,
    cache: Annotated[Path | None, option("a folder for features of real pictures; otherwise the user's own")] = None,
    markdown: Annotated[bool, flag("a Markdown table on stdout")] = False,
    json: Annotated[bool, flag("one JSON document on stdout")] = False,
    **asked: Any,
) -> None:
    """Measure how good a model's pictures are, against real ones.

    Runs under torchrun too: drawing is shared by the processes.
    """
    existing(model, "model")
    with asking():
        names = metric_names(metrics)
        if plot is not None:
            check_plot(plot, names)
        rows_for([(0, label)], (), known_card(model))
        if data is not None:
            present(data)
    say(f"loading {model} ...")
    from unnoise import data as pictures
    from unnoise import model as models
    from unnoise.evaluation import evaluate as evaluation
    from unnoise.evaluation.report import markdown as as_markdown
    from unnoise.training.distributed import processes

    loaded = models.load(model)
    with asking():
        loaded.require_pictures()
        config = data_for(loaded, data)
    ask, how = settings(asked, names, label)
    with processes(os.environ, kind_of(how.device)) as together:
        kept = cache or home() / "features"
        steps = evaluation.evaluate(loaded, ask, how, pictures.open(config), cache=kept, processes=together)
        report = follow(started(steps), silent=not together.first)
    if not together.first:
        return
    report = {"model": str(model), **report}
    if plot is not None:
        (entry,) = (entry for entry in report["metrics"] if entry["id"] == "bits")
        draw_plot(plot, curves(entry["curve"]))
        say(f"written: {plot}")
    if json:
        emit(report)
    else:
        show(as_markdown(report) if markdown else as_text(report))


def metric_names(text: str) -> tuple[str, ...]:
    """The metrics in a list, checked before torch is loaded."""
    valid = (
        *EvaluateConfig().metrics,
        *keys_of("evaluation/sample_metrics.py", "ALIASES"),
        *keys_of("evaluation/bits_per_dim.py", "BITS"),
    )
    valid += keys_of("evaluation/alignment.py", "ALIGNMENT")
    names = parse_names(text)
    for name in names:
        if name not in valid:
            raise unknown("metric", name, valid)
    if not names:
        raise UsageError(f"--metrics is empty; valid: {', '.join(valid)}")
    return names


def check_plot(plot: Path, names: tuple[str, ...]) -> None:
    """Raises UsageError where there will be nothing to draw, or nowhere to put it."""
    if "bits" not in names:
        raise UsageError("--plot draws the curves of bits: ask for them with --metrics bits")
    plottable(plot)


def curves(found: Mapping[str, Sequence[float]]) -> list[Curves]:
    """What each step costs over t, the distortion over the rate, and both over reverse time: of a report's entry."""
    terms = [(t, bits) for t, bits in zip(found["t"], found["bits"], strict=True) if bits > 0]
    coding = list(zip(found["rate"], found["rmse"], strict=True))
    sent, error = (list(zip(found["way"], found[name], strict=True)) for name in ("rate", "rmse"))
    sent = [(way, rate) for way, rate in sent if rate > 1e-3]  # nothing to see below, and an axis of ten decades
    return [
        Curves({"": terms}, "t", "bits/dim", "what each step costs", log_x=True, log_y=True, marks=False),
        Curves({"": coding}, "rate, bits/dim", "RMSE, grey levels", "progressive coding", marks=False),
        Curves(
            {"RMSE, grey levels": error, "sent, bits/dim": sent},
            "reverse time, share of the steps",
            "",
            "as the bits arrive",
            log_y=True,
            marks=False,
        ),
    ]


def settings(asked: Mapping[str, Any], names: tuple[str, ...], label: str | None) -> tuple[EvaluateConfig, Request]:
    """What is measured, and how pictures are drawn for it, out of one set of options."""
    own = {key: value for key, value in asked.items() if key in EvaluateConfig.__dataclass_fields__}
    rest = {key: value for key, value in asked.items() if key not in own}
    return EvaluateConfig(metrics=names, **own), Request(labels=(label,) if label is not None else (), **rest)


def data_for(model: Model, path: str | None) -> DataConfig:
    """The real pictures, in the model's size and channels, with the numbers that it is told where they have all."""
    path = path or model.card.info.get("data")
    if not path:
        raise UsageError("this model does not say what it was trained on: give the real pictures with --data PATH")
    height, width = model.card.size
    if height != width:
        raise UsageError(f"the model draws {width}x{height} pictures; only square ones can be compared so far")
    control = str(model.card.info.get("control", "")) if model.controls else ""
    values = tuple(known.name for known in model.card.values)
    if values:
        from unnoise.data.registry import find

        values = values if set(values) <= set(find(str(path), height).values) else ()
    return DataConfig(path=str(path), size=height, channels=model.card.channels, control=control, values=values)


def run(model: Model, ask: EvaluateConfig, how: Request, real: Dataset, cache: Path) -> dict[str, Any]:
    """Evaluate with a bar; the report."""
    from unnoise.evaluation.evaluate import evaluate as measure

    return follow(measure(model, ask, how, real, cache=cache))


def follow(steps: Iterable[Step], *, silent: bool = False) -> dict[str, Any]:
    """A bar along the steps of an evaluation; the report at its end."""
    names = {
        "real": "real pictures",
        "drawing": "drawing",
        "measuring": "measuring",
        "bits": "bits",
        "ode-bits": "bits by the flow",
        "alignment": "drawing from captions",
    }
    bar, stage, report = None, "", None
    for at in steps:
        if at.stage != stage:
            if bar is not None:
                bar.close()
            unit = {"measuring": "measure", "bits": "step"}.get(at.stage, "picture")
            bar, stage = Progress(at.total, names[at.stage], unit=unit, silent=silent), at.stage
        if bar is not None:
            bar.step(at.done)
        report = at.report or report
    if bar is not None:
        bar.close()
    assert report is not None, "an evaluation ends with its report"
    return report


def kind_of(device: str) -> str:
    """cpu or cuda: how processes on it talk to each other."""
    if device == "auto":
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
    return device.partition(":")[0]


def home() -> Path:
    """The folder for what may be thrown away and made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unnoise"


def as_text(report: Mapping[str, Any]) -> str:
    """The figures as a table, and what must be said beside them."""
    from unnoise.evaluation.bits_per_dim import BITS, ROWS, give_or_take
    from unnoise.evaluation.bits_per_dim import rows as rows_of
    from unnoise.evaluation.report import said
    from unnoise.evaluation.sample_metrics import APART

    rows = []
    for entry in report["metrics"]:
        value = f"{entry['value']:.4g}{give_or_take(entry)}"
        better = {"down": "lower", "up": "higher"}[entry["better"]]
        drawn, real, n_real = f"{entry['n']:,}", "", f"{entry['n']:,}"
        if entry["id"] in BITS:
            drawn = ""
        elif "real" in entry:
            real, n_real = f"{entry['real']:.4g}", f"{entry.get('n_floor', entry['n']):,}"
        rows.append((entry["name"], value, real, drawn, n_real, better, entry.get("features", "")))
    head = ("measure", "drawn", "real", "n drawn", "n real", "better", "features")
    parts = [table(rows, head=head, ragged=True), report["quality_note"]]
    unbiased = [
        f"{e['name']} without the bias of few pictures: {e['unbiased']:.4g}."
        for e in report["metrics"]
        if "unbiased" in e
    ]
    parts += unbiased
    parts += [said(entry) for entry in report["metrics"] if entry["id"] in APART]
    parts += [table(rows_of(entry["curve"]), head=ROWS) for entry in report["metrics"] if "curve" in entry]
    spent = ", ".join(f"{name} {duration(seconds)}" for name, seconds in report["seconds"].items())
    parts.append(f"{report['pictures_per_second']:.3g} pictures a second; {spent}.")
    parts += [f"Warning: {warning}." for warning in report["warnings"]]
    return "\n\n".join(parts)
