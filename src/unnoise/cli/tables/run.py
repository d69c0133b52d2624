"""Each way drawn and measured, with a bar over all of them; a result as people and as programs read it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from unnoise.cli.console import started
from unnoise.cli.evaluate import home
from unnoise.cli.progress import Progress
from unnoise.config.evaluation import EvaluateConfig

if TYPE_CHECKING:
    from unnoise.data import Dataset
    from unnoise.evaluation.sweep import Result, Variant
    from unnoise.model import Model


def run(model: Model, real: Dataset, ask: EvaluateConfig, ways: Sequence[Variant], shown: int) -> list[Result]:
    """Every way, with a bar over all of them."""
    from unnoise.evaluation.sweep import Result, compare

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
    from unnoise.evaluation.bits_per_dim import give_or_take

    for entry in result.report["metrics"]:
        if entry["id"] == name:
            return f"{entry['value']:.3g}{give_or_take(entry)}"
    return ""


def place(way: Variant) -> dict[str, Any]:
    return {"row": way.row, "column": way.column, "request": asdict(way.request)}


def as_document(results: Iterable[Result]) -> dict[str, Any]:
    return {
        "cells": [
            {**place(r.way), "calls": r.calls, "seconds": r.seconds, "metrics": r.report["metrics"]} for r in results
        ]
    }
