"""The inputs that a model supports, as text for help and errors."""

from __future__ import annotations

from collections.abc import Sequence

from unnoise.config.cards import ModelCard, ValueRange
from unnoise.config.networks import UNetConfig

SHOWN = 4  # names of classes or numbers in a sentence


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
