"""What a model can be told, in words: what an error names beside what the model does not take."""

from __future__ import annotations

from collections.abc import Sequence

from unnoise.config.cards import ModelCard, ValueRange
from unnoise.config.networks import UNetConfig

SHOWN = 4  # names of classes, and numbers, in a sentence


def supported_inputs(
    classes: Sequence[str] = (), *, words: bool = False, values: Sequence[ValueRange] = (), pictures: Sequence[str] = ()
) -> str:
    """`it takes --label (3 classes: bag, boot, coat) and --prompt`; `pictures` are options that name picture files."""
    said = []
    if classes:
        count = "1 class" if len(classes) == 1 else f"{len(classes):,} classes"
        said.append(f"--label ({count}: {_some(list(classes))})")
    if words:
        said.append("--prompt")
    if values:
        said.append(_some([f"--value {known.name}=... ({known.low:g} to {known.high:g})" for known in values]))
    said += pictures
    return f"it takes {' and '.join(said)}" if said else "it takes nothing and draws from noise alone"


def supported_inputs_of(card: ModelCard) -> str:
    """What the model of this card takes, where what reads its captions is named there."""
    return supported_inputs(card.classes, words=uses_text(card), values=card.values, pictures=picture_options(card))


def uses_text(card: ModelCard) -> bool:
    """Whether the card names what reads captions."""
    return card.net.text is not None or card.encoder is not None


def picture_options(card: ModelCard) -> tuple[str, ...]:
    """The options of the pictures that the model of this card is shown."""
    joined = {"": (), "low_res": ("--image",), "masked": ("--image with --mask",)}[card.process.concat]
    controls = len(card.net.controls) if isinstance(card.net, UNetConfig) else 0
    times = f", {controls} times" if controls > 1 else ""
    return (*joined, f"--control{times}") if controls else joined


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
