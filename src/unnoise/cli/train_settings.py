"""The settings of a training from the command line: a preset, a file or a run, and options that override it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unnoise.cli.console import UsageError, asking
from unnoise.cli.options import keys_of
from unnoise.cli.paths import existing
from unnoise.cli.requests import present
from unnoise.config.presets import ALL
from unnoise.recipes.registry import recipe_of
from unnoise.recipes.settings import Settings, resolve


def settings_from_options(
    source: str,
    *,
    data: str | None = None,
    sets: Sequence[str] = (),
    device: str | None = None,
    name: str | None = None,
) -> Settings:
    """Returns the settings of a training. Raises UsageError where an option or a setting is wrong."""
    options: dict[str, Mapping[str, Any]] = {
        "--data": {"data.path": None if data is None else os.path.normpath(data)},  # ./pictures is pictures
        "--device": {"device": device},
        "--name": {"name": name},
    }
    overrides = {origin: values for origin, values in options.items() if None not in values.values()}
    if sets:
        overrides["--set"] = dict(pair(text) for text in sets)
    if source not in ALL and Path(source).suffix in (".yaml", ".yml", ".json"):
        existing(Path(source), "configuration")
    with asking():
        return resolve(source, overrides)


def pair(text: str) -> tuple[str, str]:
    """Splits key=value."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--set {text}: write it as key=value, for example --set lr=1e-4")
    return name.strip(), value.strip()


def preset_help() -> str:
    return (
        "one of "
        + ", ".join(ALL)
        + "; or a configuration file; or a run to resume: its path, its name in the folder of runs, or its number"
    )


def check_pictures(source: str, settings: Settings, data: str | None) -> None:
    """Raises UsageError where the data set does not exist; for a preset for your own pictures, with what to type.

    `data` is the value of --data.
    """
    path = settings.config.data.path
    if (
        data is not None
        or settings.origins.get("data.path") != f"preset {source}"
        or path in keys_of("data/registry.py", "SETS")
    ):
        present(path)
    elif not Path(path).exists():
        captions = recipe_of(settings.config).has_captions(settings.config)
        with_captions = (
            ", with a caption each: a text file of the same name beside it, or a metadata.jsonl with a line "
        )
        with_captions += '{"file_name": "cat.png", "text": "a cat"} a picture'
        raise UsageError(
            f"the preset {source} trains on your own pictures{with_captions if captions else ''}. Set their path: "
            f"unnoise train {source} --data ./{'pictures-with-captions' if captions else 'pictures'}"
        )
