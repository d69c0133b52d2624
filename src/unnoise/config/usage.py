"""The inputs that a model supports, as text for help and errors."""

from __future__ import annotations

import re
from collections.abc import Sequence

from unnoise.config.cards import ModelCard, ValueRange
from unnoise.config.networks import UNetConfig

SHOWN = 4  # names of classes or numbers in a sentence
OPTION = re.compile(r"--([a-z][a-z-]*)(?: (\w+)=\.\.\.| ((?:[A-Z_]+(?: HIGH)?|\d[\d.-]*|ddim)(?![\w])))?")
KEYWORDS = {"label": "labels", "prompt": "prompts", "value": "values", "control": "controls"}  # of these options


def supported_inputs(
    classes: Sequence[str] = (), *, words: bool = False, values: Sequence[ValueRange] = (), pictures: Sequence[str] = ()
) -> str:
    """Text such as `it supports --label (3 classes: bag, boot, coat) and --prompt`.

    `pictures` are the options for image files.
    """
    options = []
    if classes:
        count = "1 class" if len(classes) == 1 else f"{len(classes):,} classes"
        options.append(f"--label ({count}: {some(classes)})")
    if words:
        options.append("--prompt")
    if values:
        options.append(some([f"--value {known.name}=... ({known.low:g} to {known.high:g})" for known in values]))
    options += pictures
    return f"it supports {' and '.join(options)}" if options else "it is unconditional"


def supported_inputs_of(card: ModelCard) -> str:
    """`supported_inputs` of the model with this card, including --prompt if the card has a text encoder."""
    return supported_inputs(card.classes, words=uses_text(card), values=card.values, pictures=picture_options(card))


def class_row(label: str, classes: Sequence[str]) -> int | None:
    """The class index of a name, or of a number as it is written plainly ("1", not "01" or "+1"); None for others."""
    if label in classes:
        return list(classes).index(label)
    return next((row for row in range(len(classes)) if str(row) == label), None)


def uses_text(card: ModelCard) -> bool:
    """Whether the model with this card has a text encoder."""
    return card.net.text is not None or card.encoder is not None


def picture_options(card: ModelCard) -> tuple[str, ...]:
    """The options for the image files that the model with this card is conditioned on."""
    concat = {"": (), "low_res": ("--image",), "masked": ("--image with --mask",)}[card.process.concat]
    controls = len(card.net.controls) if isinstance(card.net, UNetConfig) else 0
    times = f", {controls} times" if controls > 1 else ""
    return (*concat, f"--control{times}") if controls else concat


def some(names: Sequence[str], most: int = SHOWN) -> str:
    """The first of these names, and how many more there are: `a, b, c, d, ... and 6 more`."""
    return ", ".join(names[:most]) + (f", ... and {len(names) - most:,} more" if len(names) > most else "")


def as_keywords(message: str) -> str:
    """A message about options of the command line, as one about the keywords of `Model.sample` in Python.

    "add for example --guidance 4" becomes "add for example guidance=4".
    """
    return OPTION.sub(_keyword, message)


def _keyword(found: re.Match[str]) -> str:
    option, key, value = found.groups()
    name = KEYWORDS.get(option, "spacing" if option == "timestep-spacing" else option.replace("-", "_"))
    if key:
        return f'{name}={{"{key}": ...}}'
    if value is None:
        return name
    if option == "seeds":
        return f"{name}=range({int(value.rpartition('-')[2]) + 1})"
    if value == "LOW HIGH":
        return f"{name}=(LOW, HIGH)"
    return f"{name}={value}" if value[0].isdigit() else f'{name}="{value}"'
