"""What `unnoise train` prints before a dry run ends, and after a training: settings, results, and the next command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unnoise.cli.console import table
from unnoise.cli.train_progress import cost_text, latents_text
from unnoise.config.presets import ALL
from unnoise.config.training import (
    AnyConfig,
    AutoencoderTrainConfig,
    ContrastiveConfig,
    NoisyClassifierConfig,
    TrainConfig,
)
from unnoise.io.printable import printable
from unnoise.io.units import human
from unnoise.recipes.registry import recipe_of

DAY = 86_400  # seconds


def dry_run_text(document: Mapping[str, Any]) -> str:
    """Returns the settings with their origins, the data and the cost, as text."""
    rows = []
    for name, origin in document["origins"].items():
        value: Any = document["settings"]
        for part in name.split("."):
            value = value[part]
        shown = "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        rows.append((name, shown, "" if origin == "default" else origin))
    data = document["data"]
    broken = f", {data['broken']['count']} broken" if data["broken"]["count"] else ""
    parts = [
        table(rows, head=("setting", "value", "origin (otherwise the default)"), ragged=True),
        f"data: {data['count']:,} pictures of {data['where']}, {len(data['classes'])} classes, "
        f"{data['captions']['count']:,} captions{broken}",
    ]
    if data["notes"]:
        parts.append("\n".join(f"note: {printable(note)}" for note in data["notes"]))
    if "cost" in document:
        parts.append(f"cost: {cost_text(document['cost'])}")
        if "latents" in document:
            parts.append(f"latents: {latents_text(document['latents'], document['cost'])}")
        parts += long_text(document["cost"], document["settings"], captions=data["captions"]["count"] > 0)
    return "\n\n".join(parts)


def long_text(cost: Mapping[str, Any], settings: Mapping[str, Any], *, captions: bool) -> list[str]:
    """A paragraph with something shorter, for a training that takes more than a day; none for others."""
    if cost["seconds"] < DAY:
        return []
    rate, batch, path = cost["images_per_second"], settings["fit"]["batch"], settings["data"]["path"]
    hour = max(1, round(rate * 3600 / batch)) * batch
    own = "my-captions" if captions else "my-pictures"
    smaller = f"unnoise train {own} --data {shlex.quote(path)}, a smaller network, or "
    other = smaller if own in ALL and settings["name"] != own else ""
    return [f"Over a day: on this machine take {other}--set fit.images={hour}, about an hour."]


def how_far(config: AnyConfig, images: int, path: Path) -> str:
    """A sentence about a training that ended before the length that its preset plans; empty for others."""
    planned = ALL[config.name]().fit.images if config.name in ALL else 0
    if images >= planned:
        return ""
    return (
        f"early: {human(images)} of the {human(planned)} pictures that the preset {config.name} plans. Go on with: "
        f"unnoise train {shlex.quote(str(path))} --set fit.images={planned}"
    )


def outcome(path: Path, config: AnyConfig) -> dict[str, Any]:
    """Returns how far the run is, its last logged numbers, and its results."""
    from unnoise.training import run as runs

    lines = runs.metrics(path)
    return {"run": str(path), "last": lines[-1] if lines else {}, **recipe_of(config).result(path)}


def next_steps(path: Path, config: AnyConfig) -> str:
    """Returns the results in a sentence, and a command that uses the trained model."""
    text = {
        TrainConfig: _sample_text,
        NoisyClassifierConfig: _guide_text,
        ContrastiveConfig: _retrieval_text,
        AutoencoderTrainConfig: _latents_text,
    }.get(type(config), _accuracy_text)
    result = recipe_of(config).result(path)
    early = how_far(config, config.fit.images, path)
    return text(path, result) + (f"\n{early}" if early else "")


def _sample_text(path: Path, result: Mapping[str, Any]) -> str:
    from unnoise.generate.describe import first_command

    return f"sample from it: {first_command(path)}"


def _accuracy_text(path: Path, result: Mapping[str, Any]) -> str:
    found = result.get("accuracy")
    accuracy = f"accuracy {100 * found['value']:.1f} % on {found['n']:,} held-out pictures. " if found else ""
    return f"{accuracy}evaluate with it: unnoise evaluate MODEL --features {path / 'classifier'}"


def _guide_text(path: Path, result: Mapping[str, Any]) -> str:
    found = ", ".join(f"{value:.0%} at t = {t}" for t, value in (result.get("accuracy") or {}).items())
    return f"accuracy {found}. Guide with it: unnoise sample MODEL --guidance 0 --classifier {path}"


def _retrieval_text(path: Path, result: Mapping[str, Any]) -> str:
    found = [
        f"{each['first']['value']:.1%} of {each['n']:,} pictures of {each['data']} retrieve their caption among "
        f"{each['among']:,}."
        for each in result.get("retrieval", ())
    ]
    return " ".join([*found, f"Evaluate with it: unnoise evaluate MODEL --metrics retrieval --evaluator {path}"])


def _latents_text(path: Path, result: Mapping[str, Any]) -> str:
    found = result.get("latents")
    scale = f"scale of the latents {1 / found['std']:.5g}, of {found['n']:,} pictures. " if found else ""
    return f"{scale}Measure it: unnoise evaluate {shlex.quote(str(path))}"
