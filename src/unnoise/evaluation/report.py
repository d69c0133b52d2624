"""What an evaluation says at its end: plain data (JSON), and the same in words.

    report_of        drawn pictures against real ones
    report_apart     only what is measured by itself (figures.APART)

A report holds the figures, how many pictures they are of, how these were drawn, and warnings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from unnoise.acceleration.placement import best
from unnoise.config.request import Request
from unnoise.data import Dataset
from unnoise.evaluation import alignment, bits_per_dim
from unnoise.evaluation.alignment import ALIGNMENT
from unnoise.evaluation.bits_per_dim import BITS
from unnoise.evaluation.sample_metrics import APART
from unnoise.metrics.features import Features
from unnoise.model import Model


def report_of(
    compared: list[dict[str, Any]], n_real: int, n: int, features: Features, pictures: Dataset, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Of drawn pictures against real ones. `about`, how they were drawn, goes into it as it is."""
    note = (
        f"{n:,} drawn pictures against {n_real:,} real ones ({pictures.config.path}), in {features.dim} features of "
        f"{features.name}. 'Real' is one half of the real ones against the other."
    )
    return {
        "kind": "evaluation",
        "n": n,
        "n_real": n_real,
        "data": {"path": pictures.config.path, "fingerprint": pictures.fingerprint},
        "features": {"name": features.name, "dim": features.dim, "fingerprint": features.fingerprint},
        "drawn": dict(about),
        "quality_note": note,
        "metrics": compared,
        "warnings": [entry["warning"] for entry in compared if "warning" in entry],
    }


def report_apart(
    found: list[dict[str, Any]], seconds: Mapping[str, float], model: Model, how: Request, pictures: Dataset
) -> dict[str, Any]:
    """A report without its entries: `found` are added to it as to one that has others."""
    n = max(entry["n"] for entry in found)
    told = f"Bits a number of {bits_per_dim.pictures(n, 'real ')} ({pictures.config.path}); nothing was drawn."
    drawn = [entry["n"] for entry in found if entry["id"] in ALIGNMENT]
    if drawn:
        told = f"{max(drawn):,} pictures drawn for the captions of as many real ones ({pictures.config.path})."
    return {
        "kind": "evaluation",
        "n": max(drawn, default=0),
        "n_real": n,
        "data": {"path": pictures.config.path, "fingerprint": pictures.fingerprint},
        "drawn": how_drawn(model, how) if drawn else {"precision": found[0]["precision"]},
        "quality_note": told,
        "metrics": [],
        "warnings": [],
        "seconds": {},
        "pictures_per_second": n / max(sum(seconds.values()), 1e-9),
    }


ALWAYS = ("steps", "spacing", "eta", "guidance", "clip")  # said whatever they are
NEVER = ("seeds", "values", "batch", "device", "previews")  # which pictures and where, not how


def how_drawn(model: Model, how: Request) -> dict[str, Any]:
    """All of a request that makes pictures others than they would be, and its sampler and precision by name."""
    used = {
        field.name: getattr(how, field.name)
        for field in fields(how)
        if field.name in ALWAYS or (field.name not in NEVER and getattr(how, field.name) != field.default)
    }
    sampler = model.card.sampler if how.sampler == "auto" else how.sampler
    return {**used, "sampler": sampler, "precision": best(how.device, how.precision).precision}


def said(entry: dict[str, Any]) -> str:
    """What must be said beside a figure that is measured by itself."""
    return bits_per_dim.said(entry) if entry["id"] in BITS else alignment.said(entry)


def markdown(report: Mapping[str, Any]) -> str:
    """A report as a table for a person, Markdown."""
    lines = [report["quality_note"], "", "| measure | drawn | real | pictures | features |", "|---|---|---|---|---|"]
    for entry in report["metrics"]:
        value = f"{entry['value']:.4g}" + bits_per_dim.give_or_take(entry)
        if "unbiased" in entry:
            value += f" (unbiased {entry['unbiased']:.4g})"
        real = f"{entry['real']:.4g} (n = {entry.get('n_floor', entry['n']):,})" if "real" in entry else ""
        lines.append(f"| {entry['name']} | {value} | {real} | {entry['n']:,} | {entry.get('features', '')} |")
    lines += [f"\n{said(entry)}" for entry in report["metrics"] if entry["id"] in APART]
    for entry in (entry for entry in report["metrics"] if "curve" in entry):
        lines += ["", f"| {' | '.join(bits_per_dim.ROWS)} |", "|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in bits_per_dim.rows(entry["curve"])]
    spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in report["seconds"].items())
    lines += ["", f"{report['pictures_per_second']:.3g} pictures a second; {spent}."]
    lines += [f"\nWarning: {warning}." for warning in report["warnings"]]
    return "\n".join(lines) + "\n"
