"""Evaluations on the command line: the real pictures of a model, a progress bar, and a report as text."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from unnoise.cli.console import UsageError, started, table
from unnoise.cli.progress import Progress
from unnoise.config.data import DataConfig
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request
from unnoise.io.units import duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from unnoise.data import Dataset
    from unnoise.evaluation.progress import Progress as Step
    from unnoise.model import Model

STAGES = {  # (text beside the progress bar, unit)
    "real": ("real pictures", "picture"),
    "drawing": ("sampling", "picture"),
    "measuring": ("measuring", "metric"),
    "bpd": ("bits per dimension, bound", "step"),
    "ode-bpd": ("bits per dimension, flow", "picture"),
    "alignment": ("sampling for captions", "picture"),
}


def data_for(model: Model, path: str | None) -> DataConfig:
    """The real pictures in the model's size and channels, with the values that it is conditioned on if all are there.

    Without a `path` they are those that the model was trained on. Raises UsageError where these are unknown, and for
    pictures that are not square.
    """
    path = path or model.card.info.get("data")
    if not path:
        raise UsageError("this model does not record its training data: add the real pictures with --data PATH")
    height, width = model.card.size
    if height != width:
        raise UsageError(f"the model's pictures are {width}x{height}; only square ones can be compared")
    control = str(model.card.info.get("control", "")) if model.controls else ""
    values = tuple(value.name for value in model.card.values)
    if values:
        from unnoise.data.registry import find

        values = values if set(values) <= set(find(str(path), height).values) else ()
    return DataConfig(path=str(path), size=height, channels=model.card.channels, control=control, values=values)


def evaluate_in_processes(
    model: Model, config: EvaluateConfig, request: Request, data: DataConfig, cache: Path
) -> dict[str, Any] | None:
    """The report, in all processes of torchrun together; None in all but the first."""
    from unnoise import data as pictures
    from unnoise.evaluation import evaluate as evaluation
    from unnoise.training.distributed import processes

    with processes(os.environ, device_type(request.device)) as group:
        steps = evaluation.evaluate(model, config, request, pictures.open(data), cache=cache, processes=group)
        report = follow(started(steps), silent=not group.first)
    return report if group.first else None


def run(model: Model, config: EvaluateConfig, request: Request, real: Dataset, cache: Path) -> dict[str, Any]:
    """The report of an evaluation, with a progress bar."""
    from unnoise.evaluation.evaluate import evaluate

    return follow(evaluate(model, config, request, real, cache=cache))


def follow(steps: Iterable[Step], *, silent: bool = False) -> dict[str, Any]:
    """The report at the end of `steps`, with a progress bar for each stage."""
    bar, stage, report = None, "", None
    for at in steps:
        if at.stage != stage:
            if bar is not None:
                bar.close()
            name, unit = STAGES[at.stage]
            bar, stage = Progress(at.total, name, unit=unit, silent=silent), at.stage
        if bar is not None:
            bar.step(at.done)
        report = at.report or report
    if bar is not None:
        bar.close()
    assert report is not None, "an evaluation ends with its report"
    return report


def device_type(device: str) -> str:
    """cpu or cuda: the kind of device decides how processes communicate."""
    if device == "auto":
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
    return device.partition(":")[0]


def as_text(report: Mapping[str, Any]) -> str:
    """The metrics as a table, and the sentences that belong to them."""
    from unnoise.evaluation.details import CURVE_HEAD, curve_rows, details
    from unnoise.evaluation.report import HEAD, metric_rows
    from unnoise.evaluation.sample_metrics import SEPARATE

    entries = report["metrics"]
    parts = [table(metric_rows(report), head=HEAD, ragged=True), report["quality_note"]]
    parts += [
        f"{entry['name']} without the bias of few pictures: {entry['unbiased']:.4g}."
        for entry in entries
        if "unbiased" in entry
    ]
    parts += [details(entry) for entry in entries if entry["id"] in SEPARATE]
    parts += [table(curve_rows(entry["curve"]), head=CURVE_HEAD) for entry in entries if "curve" in entry]
    spent = ", ".join(f"{name} {duration(seconds)}" for name, seconds in report["seconds"].items())
    parts.append(f"{report['pictures_per_second']:.3g} pictures per second; {spent}.")
    parts += [f"Warning: {warning}." for warning in report["warnings"]]
    return "\n\n".join(parts)
