"""The rows that a command line asks for: seeds with classes or prompts, checked against the model's card."""

from __future__ import annotations

import difflib
import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from unnoise.cli.console import UsageError
from unnoise.cli.options import keys_of
from unnoise.cli.parse import parse_names
from unnoise.cli.paths import existing
from unnoise.config.cards import ModelCard
from unnoise.config.usage import class_row, supported_inputs_of
from unnoise.errors import UserError, unknown
from unnoise.generate.rows import Row, pairs
from unnoise.io.reading import read_text


def rows_for(seeds: list[Row], labels: tuple[str, ...], card: ModelCard | None) -> list[Row]:
    """The rows of these seeds and labels, "all" standing for every class. Labels are checked if the card is known."""
    if card is None:
        return pairs(seeds, labels)
    classes = card.classes
    named = [label for _, label in seeds if label is not None] + [label for label in labels if label != "all"]
    if "all" in labels and not classes:
        raise UsageError(f"this model was trained without classes: remove --labels; {supported_inputs_of(card)}")
    for label in named:
        if label != "none" and class_row(label, classes) is None:
            if not classes:
                inputs = supported_inputs_of(card)
                raise UsageError(f"this model was trained without classes: remove the label {label!r}; {inputs}")
            raise unknown("class", label, [*classes, "none"])
    return pairs(seeds, tuple(name for label in labels for name in (classes if label == "all" else (label,))))


def prompts_of(given: Sequence[str], file: Path | None) -> tuple[str, ...]:
    """The prompts of the command line, and those of a file, one per line."""
    if file is None:
        return tuple(given)
    if not file.exists() and (" " in file.name or not file.suffix):
        raise UsageError(f"--prompts names a text file; for one prompt write --prompt {shlex.quote(str(file))}")
    existing(file, "file of prompts")
    try:
        lines = read_text(file).split("\n")
    except (OSError, UserError) as error:
        raise UsageError(f"--prompts: {error}") from None
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise UsageError(f"--prompts {file}: the file has no prompts. Write one per line")
    return (*given, *found)


def values_of(given: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """`age=30` as {"age": (30.0,)}."""
    found: dict[str, tuple[float, ...]] = {}
    for text in given:
        name, equals, number = (part.strip() for part in text.rpartition("="))
        try:
            value = float(number) if name and equals and name not in found else math.nan
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UsageError(f"--value {text}: write NAME=NUMBER, each name once, for example --value age=30")
        found[name] = (value,)
    return found


def one_label(labels: str) -> tuple[str, ...]:
    """The class that is combined with every prompt, or none."""
    names = parse_names(labels)
    if len(names) > 1 or "all" in names:
        raise UsageError("with prompts give at most one label: it applies to all of them")
    return names


def prompted(seeds: list[Row], prompts: Sequence[str]) -> list[Row]:
    """Every seed with every prompt; a seed with a number after its colon, as in 5:0, with that prompt alone."""
    rows: list[Row] = []
    for seed, number in pairs(seeds, tuple(map(str, range(len(prompts))))):
        if number is None or number not in map(str, range(len(prompts))):
            raise UsageError(
                f"--seeds {seed}:{number}: after the colon stands a prompt's number, 0 to {len(prompts) - 1}"
            )
        rows.append((seed, prompts[int(number)]))
    return rows


def present(path: str) -> None:
    """Raises UsageError for a path that does not exist, before torch is imported."""
    name, _, _ = path.partition(":")
    sets = keys_of("data/registry.py", "SETS")
    if name in sets or Path(path).exists() or Path(name).exists():
        return
    near = difflib.get_close_matches(name, sets, n=1)
    if near:
        raise UsageError(f"no pictures at {path}; did you mean {near[0]!r}, which comes with the package?")
    existing(Path(path), "pictures")
