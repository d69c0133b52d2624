"""Command line options made from the fields of a settings dataclass: its names, types, defaults and help texts.

A setting is written once, in its dataclass in config/, together with its help text (config/field.py).

    @with_settings(Request, steps=Parameter(alias=("--num-inference-steps",)))
    def sample(model: Path, *, out: Path, **asked: Any) -> None:
        request = Request(**asked)
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from cyclopts import Parameter

from unnoise.cli.console import UsageError
from unnoise.config.field import help_texts

F = TypeVar("F", bound=Callable[..., Any])


def comments(settings: type) -> dict[str, str]:
    """The help text of each field that has one."""
    return help_texts(settings)


def default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def option(text: str, *names: str, **how: Any) -> Parameter:
    """An option with its help text and further names it answers to."""
    return Parameter(help=text, alias=names, **how)


def flag(text: str, *names: str, **how: Any) -> Parameter:
    """A switch that is off until it is given."""
    return Parameter(help=text, alias=names, negative="", show_default=False, **how)


def shown(default: Any) -> str | None:
    """A default as people write it; None where it is that nothing is said."""
    if isinstance(default, tuple):
        return " ".join(map(str, default)) or None
    return None if default is None or default in ("", {}) else str(default)


def keys_of(file: str, name: str) -> tuple[str, ...]:
    """The keys of a dictionary that stands in the package's `file`, read without running it.

    For names that stand beside functions which need torch: the command line offers and checks them without it.
    """
    tree = ast.parse((Path(__file__).parent.parent / file).read_text(encoding="utf-8"))
    for node in tree.body:
        target = (
            node.target
            if isinstance(node, ast.AnnAssign)
            else node.targets[0]
            if isinstance(node, ast.Assign)
            else None
        )
        if isinstance(target, ast.Name) and target.id == name:
            value = getattr(node, "value", None)
            assert isinstance(value, ast.Dict)
            return tuple(
                key.value for key in value.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)
            )
    raise AssertionError(f"{file} has no dictionary {name}")


def listed(names: Sequence[str]) -> str:
    """The end of a help text that lists the names of an option."""
    return f". One of: {', '.join(names)}"


def with_settings(settings: type, **parameters: Parameter | None) -> Callable[[F], F]:
    """Give a command, in place of its `**asked`, one option a field of `settings`; a field set to None gets none.

    Only what a person typed arrives in `asked` as typed; the rest arrives as the field's default.
    """
    unknown = set(parameters) - {field.name for field in dataclasses.fields(settings)}
    assert not unknown, f"no such fields: {unknown}"
    hints, about = get_type_hints(settings), comments(settings)
    options = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default_of(field),
            annotation=Annotated[
                hints[field.name],
                Parameter.combine(Parameter(help=about.get(field.name, "")), parameters.get(field.name)),
            ],
        )
        for field in dataclasses.fields(settings)
        if parameters.get(field.name, ...) is not None
    ]

    def apply(command: F) -> F:
        signature = inspect.signature(command)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        hints = get_type_hints(command, include_extras=True)
        own = [p.replace(annotation=hints.get(p.name, p.annotation)) for p in own]
        keywords = [p for p in own if p.kind is inspect.Parameter.KEYWORD_ONLY]
        others = [p for p in own if p.kind is not inspect.Parameter.KEYWORD_ONLY]
        command.__signature__ = signature.replace(parameters=[*others, *keywords, *options])  # type: ignore[attr-defined]
        return command

    return apply


def within(low: float, high: float, why: str) -> Callable[[type, Any], None]:
    """A validator: the number lies in [low, high], or all of several do."""

    def check(_type: type, value: Any) -> None:
        for number in value if isinstance(value, tuple) else (value,):
            if number is not None and not low <= number <= high:
                raise ValueError(f"{number:g} is not between {low:g} and {high:g}: {why}")

    return check


MOST_PICTURES = 1_000_000  # one call draws no more: a slip like 0-10000000000 should not fill the memory first


def parse_seeds(text: str) -> list[tuple[int, str | None]]:
    """`0-63,70,5:bag` as [(0, None), ..., (70, None), (5, "bag")]: seeds, ranges, labels of their own."""
    found: list[tuple[int, str | None]] = []
    for part in text.split(","):
        item, _, label = part.strip().partition(":")
        first, dash, last = (piece.strip() for piece in item.partition("-"))
        if not first.isascii() or not first.isdigit() or (dash and not (last.isascii() and last.isdigit())):
            raise UsageError(
                f"--seeds: {part.strip()!r} in {text!r} is no seed: seeds are whole numbers from 0 on, and ranges of "
                "them. Write for example --seeds 0-63,70"
            )
        low, high = int(first), int(last) if dash else int(first)
        if high < low:
            raise UsageError(f"--seeds: the range {item} runs backwards. Write {high}-{low}")
        if high >= 2**63:
            raise UsageError(f"--seeds: {high} is too large; seeds are below 2^63")
        if len(found) + high - low + 1 > MOST_PICTURES:
            raise UsageError(f"--seeds: {item} asks for more than {MOST_PICTURES:,} pictures. Draw them in parts")
        found += [(seed, label.strip() or None) for seed in range(low, high + 1)]
    return found


def parse_names(text: str) -> tuple[str, ...]:
    """`sneaker, 3` as ("sneaker", "3")."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def parse_numbers(text: str, what: str, low: float, high: float, example: str) -> list[float]:
    """`0,0.5,1` as numbers between `low` and `high`, each once, in their order. Raises UsageError for any other."""
    found: dict[float, None] = {}
    for part in parse_names(text):
        try:
            number = float(part)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise UsageError(
                f"{what}: {part!r} is no number from {low:g} to {high:g}. Write for example {what} {example}"
            )
        found[number] = None
    if not found:
        raise UsageError(f"{what}: {text!r} names nothing. Write for example {what} {example}")
    return list(found)


def pairs(seeds: list[tuple[int, str | None]], labels: tuple[str, ...]) -> list[tuple[int, str | None]]:
    """One picture a seed and label: a seed without its own label goes with every one of `labels`, label by label."""
    own = [pair for pair in seeds if pair[1] is not None]
    free = [seed for seed, label in seeds if label is None]
    everyone: list[tuple[int, str | None]] = [(seed, label) for label in labels for seed in free]
    return (everyone if labels else [(seed, None) for seed in free]) + own


def compress(seeds: list[int]) -> str:
    """The shortest text that `parse_seeds` reads back as these seeds, in this order."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)


def seeds_text(rows: Sequence[tuple[int, str | None]]) -> str:
    """Rows of (seed, label) as one `--seeds` argument: `0-7:bag,0-3:shirt`."""
    parts: list[str] = []
    start = 0
    for i in range(1, len(rows) + 1):
        if i == len(rows) or rows[i][1] != rows[start][1]:
            label = rows[start][1]
            for run in compress([seed for seed, _ in rows[start:i]]).split(","):
                parts.append(run if label is None else f"{run}:{label}")
            start = i
    return ",".join(parts)


def flags(values: Mapping[str, Any], settings: type) -> list[str]:
    """The options that say `values`, those at their default left out: what a person would have typed."""
    words: list[str] = []
    for field in dataclasses.fields(settings):
        default = default_of(field)
        value = values.get(field.name, default)
        if value == default or value is None:
            continue
        name = field.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, (list, tuple)):
            if default is None:  # a pair, said at once
                words += [f"--{name}", *map(str, value)]
            elif tuple(value) != default:
                words += [part for each in value for part in (f"--{name}", str(each))]
        elif isinstance(value, str) and value.startswith("-"):
            words.append(f"--{name}={value}")
        else:
            words += [f"--{name}", repr(value) if isinstance(value, float) else str(value)]
    return words
