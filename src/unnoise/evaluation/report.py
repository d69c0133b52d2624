"""Reports of an evaluation as plain data (JSON) and as text.

    report_of            sampled pictures against real ones
    report_of_separate   only metrics that are measured on their own (sample_metrics.SEPARATE)

A report holds the metrics, the number of pictures of each, the settings that they were sampled with, and warnings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unnoise.acceleration.placement import best
from unnoise.config.request import Request
from unnoise.data import Dataset
from unnoise.evaluation.alignment import ALIGNMENT
from unnoise.evaluation.bits_per_dim import BITS
from unnoise.evaluation.details import CURVE_HEAD, counted, curve_rows, details, with_error
from unnoise.evaluation.sample_metrics import SEPARATE
from unnoise.metrics.features import Features
from unnoise.model import Model


def report_of(
    entries: list[dict[str, Any]],
    n_real: int,
    n: int,
    features: Features,
    pictures: Dataset,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """The report of `n` sampled pictures against `n_real` real ones; `about` is how they were sampled."""
    note = (
        f"{n:,} sampled pictures against {n_real:,} real ones ({pictures.config.path}), in {features.dim} features of "
        f"{features.name}. 'Real' is one half of the real pictures against the other."
    )
    return {
        "kind": "evaluation",
        "n": n,
        "n_real": n_real,
        "data": {"path": pictures.config.path, "fingerprint": pictures.fingerprint},
        "features": {"name": features.name, "dim": features.dim, "fingerprint": features.fingerprint},
        "drawn": dict(about),
        "quality_note": note,
        "metrics": entries,
        "warnings": [entry["warning"] for entry in entries if "warning" in entry],
    }


def report_of_separate(
    entries: list[dict[str, Any]], seconds: Mapping[str, float], model: Model, request: Request, pictures: Dataset
) -> dict[str, Any]:
    """A report for `entries`, which are added to it as to any other report: its own list of metrics is empty."""
    n = max(entry["n"] for entry in entries)
    path = pictures.config.path
    note = f"Bits per dimension of {counted(n, 'real ')} ({path}); no pictures were sampled."
    sampled = [entry["n"] for entry in entries if entry["id"] in ALIGNMENT]
    if sampled:
        note = f"{max(sampled):,} pictures sampled for the captions of as many real ones ({path})."
    return {
        "kind": "evaluation",
        "n": max(sampled, default=0),
        "n_real": n,
        "data": {"path": path, "fingerprint": pictures.fingerprint},
        "drawn": sampling_settings(model, request) if sampled else {"precision": entries[0]["precision"]},
        "quality_note": note,
        "metrics": [],
        "warnings": [],
        "seconds": {},
        "pictures_per_second": n / max(sum(seconds.values()), 1e-9),
    }


ALWAYS = ("steps", "spacing", "eta", "guidance", "clip")  # in the report whatever their values
NEVER = ("seeds", "values", "batch", "device", "previews")  # which pictures and where, not how


def sampling_settings(model: Model, request: Request) -> dict[str, Any]:
    """The settings of `request` that change the pictures, with the sampler and the precision by name."""
    defaults = Request().flat()
    used = {
        name: value
        for name, value in request.flat().items()
        if name in ALWAYS or (name not in NEVER and value != defaults[name])
    }
    sampler = model.card.sampler if request.sampling.sampler == "auto" else request.sampling.sampler
    placement = best(request.device, request.precision, model.diffusion.net)
    return {**used, "sampler": sampler, "precision": placement.precision}


HEAD = ("measure", "sampled", "real", "n sampled", "n real", "better", "features")


def metric_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row of HEAD for each metric of a report."""
    rows: list[tuple[str, ...]] = []
    for entry in report["metrics"]:
        sampled, real, n_real = f"{entry['n']:,}", "", f"{entry['n']:,}"
        if entry["id"] in BITS:
            sampled = ""
        elif "real" in entry:
            real, n_real = f"{entry['real']:.4g}", f"{entry.get('n_floor', entry['n']):,}"
        better = {"down": "lower", "up": "higher"}[entry["better"]]
        value = f"{entry['value']:.4g}{with_error(entry)}"
        rows.append((entry["name"], value, real, sampled, n_real, better, entry.get("features", "")))
    return rows


def markdown(report: Mapping[str, Any]) -> str:
    """A report as Markdown."""
    lines = [report["quality_note"], "", "| measure | sampled | real | pictures | features |", "|---|---|---|---|---|"]
    for entry in report["metrics"]:
        value = f"{entry['value']:.4g}" + with_error(entry)
        if "unbiased" in entry:
            value += f" (unbiased {entry['unbiased']:.4g})"
        real = f"{entry['real']:.4g} (n = {entry.get('n_floor', entry['n']):,})" if "real" in entry else ""
        lines.append(f"| {entry['name']} | {value} | {real} | {entry['n']:,} | {entry.get('features', '')} |")
    lines += [f"\n{details(entry)}" for entry in report["metrics"] if entry["id"] in SEPARATE]
    for entry in (entry for entry in report["metrics"] if "curve" in entry):
        lines += ["", *_markdown_table(CURVE_HEAD, curve_rows(entry["curve"]))]
    spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in report["seconds"].items())
    lines += ["", f"{report['pictures_per_second']:.3g} pictures per second; {spent}."]
    lines += [f"\nWarning: {warning}." for warning in report["warnings"]]
    return "\n".join(lines) + "\n"


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]
