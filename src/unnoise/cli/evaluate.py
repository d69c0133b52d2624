"""`unnoise evaluate`: measures the quality of a model's pictures, each metric beside its value for real pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from unnoise.cli.console import UsageError, asking, emit, say, show
from unnoise.cli.loading import load
from unnoise.cli.measuring import as_text, data_for, evaluate_in_processes
from unnoise.cli.options import OVERWRITE, flag, keys_of, option, with_settings, within
from unnoise.cli.parse import parse_names
from unnoise.cli.paths import existing_model
from unnoise.cli.plot import plot as write_plot
from unnoise.cli.plot import plottable
from unnoise.cli.requests import present, rows_for
from unnoise.cli.sampling_options import ALL, FOR_ALL, WHICH
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request, RequestOptions
from unnoise.errors import unknown
from unnoise.generate.describe import known_card
from unnoise.io.cache import home

if TYPE_CHECKING:
    from collections.abc import Mapping

COUNT = Parameter(alias=("--num", "-n"), validator=within(10, 10_000_000, "fewer pictures are too few to measure"))
REQUEST: dict[str, Parameter | None] = {**ALL, **FOR_ALL, **dict.fromkeys(("seeds", "labels", "previews"))}


@with_settings(RequestOptions, **REQUEST)
@with_settings(
    EvaluateConfig,
    metrics=None,
    count=COUNT,
    seed=Parameter(help="the first seed"),
    evaluator=Parameter(),
)
def evaluate(
    model: Annotated[Path, option("a run, a model directory, a checkpoint, or a diffusers folder")],
    /,
    *,
    metrics: Annotated[str, option("metrics, separated by commas; fid and kid are accepted too")] = ",".join(
        EvaluateConfig().metrics
    ),
    data: Annotated[str | None, option("the real pictures; by default those that the model was trained on")] = None,
    label: Annotated[
        str | None, option("one class for all pictures; by default each with its frequency in the data", group=WHICH)
    ] = None,
    plot: Annotated[
        Path | None,
        option("a .png or .svg with the curves of bpd: terms over t, distortion over rate, both over reverse time"),
    ] = None,
    cache: Annotated[Path | None, option("a folder for features of real pictures; by default the user's cache")] = None,
    markdown: Annotated[bool, flag("print a Markdown table")] = False,
    overwrite: OVERWRITE = False,
    json: Annotated[bool, flag("print one JSON document")] = False,
    **values: Any,
) -> None:
    """Measure the quality of a model's pictures against real ones.

    Under torchrun the processes divide the sampling among them.
    """
    existing_model(model)
    with asking():
        names = metric_names(metrics)
        if plot is not None:
            check_plot(plot, names, overwrite)
        rows_for([(0, label)], (), known_card(model))
        if data is not None:
            present(data)
    say(f"loading {model} ...")
    from unnoise.evaluation.report import markdown as as_markdown

    loaded = load(model)
    with asking():
        loaded.require_pictures()
        pictures = data_for(loaded, data)
    config, request = settings(values, names, label)
    report = evaluate_in_processes(loaded, config, request, pictures, cache or home() / "features")
    if report is None:
        return
    report = {"model": str(model), **report}
    if plot is not None:
        plot_bound(plot, report)
    if json:
        emit(report)
    else:
        show(as_markdown(report) if markdown else as_text(report))


def metric_names(text: str) -> tuple[str, ...]:
    """The metrics in a list, checked without importing torch."""
    valid = (
        *EvaluateConfig().metrics,
        *keys_of("evaluation/sample_metrics.py", "ALIASES"),
        *keys_of("evaluation/bits_per_dim.py", "BITS"),
        *keys_of("evaluation/alignment.py", "ALIGNMENT"),
    )
    names = parse_names(text)
    for name in names:
        if name not in valid:
            raise unknown("metric", name, valid)
    if not names:
        raise UsageError(f"--metrics is empty; valid: {', '.join(valid)}")
    return names


def check_plot(plot: Path, names: tuple[str, ...], overwrite: bool) -> None:
    """Raises UsageError where there are no curves to plot, or the file cannot be written."""
    if not {"bpd", "bits"} & set(names):
        raise UsageError("--plot shows the curves of the metric bpd: add it with --metrics bpd")
    plottable(plot, overwrite=overwrite)


def plot_bound(file: Path, report: Mapping[str, Any]) -> None:
    """Plots the curves of the report's `bpd` entry."""
    from unnoise.evaluation.curves import bound_panels

    (entry,) = (entry for entry in report["metrics"] if entry["id"] == "bpd")
    write_plot(file, bound_panels(entry["curve"]))
    say(f"wrote {file}")


def settings(values: Mapping[str, Any], names: tuple[str, ...], label: str | None) -> tuple[EvaluateConfig, Request]:
    """The two settings whose fields `values` holds together."""
    own = {key: value for key, value in values.items() if key in EvaluateConfig.__dataclass_fields__}
    rest = {key: value for key, value in values.items() if key not in own}
    return EvaluateConfig(metrics=names, **own), Request.of(labels=(label,) if label is not None else (), **rest)
