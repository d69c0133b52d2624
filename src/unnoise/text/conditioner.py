"""What a person says as a condition: labels, prompts and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from unnoise.conditions import NOTHING, Cond
from unnoise.config.cards import ValueRange
from unnoise.config.usage import supported_inputs
from unnoise.errors import UserError, unknown
from unnoise.noise import uniform
from unnoise.text.tokenizer import PromptEncoder

VALUE_SCALE = 1000.0  # of numbers that are told: the sinusoids are the time's, which counts to 1000


@dataclass(frozen=True)
class Conditioner:
    """Turns what a person says into a condition: a class by name or number ("none": no class), words, numbers.

    A number is told as SCALE (number - low) / (high - low), low and high being those of the training: its sinusoid is
    the time's, of waves that tell whole numbers from 0 to 1000 apart. What lies outside goes on along the same line.
    """

    classes: tuple[str, ...] = ()
    null_class: int | None = None  # the row of "no class", where the network has one
    text: PromptEncoder | None = None  # what reads captions, where the network hears them
    values: tuple[ValueRange, ...] = ()  # the numbers that it is told, a column each
    null_value: bool = True  # whether it was taught what to do where a number is not told
    classifier_only: bool = False  # the classes are those of a classifier that guides; the network itself knows none
    picture_options: tuple[str, ...] = ()  # options of the pictures that the model is shown

    @property
    def supported_inputs(self) -> str:
        """What the model does take, to be said beside what it does not."""
        return supported_inputs(
            self.classes, words=self.text is not None, values=self.values, pictures=self.picture_options
        )

    def encode(
        self,
        labels: Sequence[str] = (),
        prompts: Sequence[str] = (),
        values: Mapping[str, Sequence[float]] = MappingProxyType({}),
    ) -> Cond:
        """A row per label, per prompt, per number of each name; what is not said of them is null.

        Raises UserError for a label or a name that the model does not know, and for what it does not take.
        """
        said = {"labels": len(labels), "prompts": len(prompts)} | {name: len(many) for name, many in values.items()}
        counts = {what: count for what, count in said.items() if count}
        if len(set(counts.values())) > 1:
            raise ValueError(" beside ".join(f"{count} {what}" for what, count in counts.items()))
        count = max(counts.values(), default=0)
        words = self._words(prompts, count)
        return Cond(label=self._labels(labels, count), value=self.encode_values(values, count), **_text_fields(words))

    def from_labels(self, label: Tensor | None, captions: Sequence[str] | None, value: Tensor | None = None) -> Cond:
        """What is told of pictures of these labels (B,), which are rows of the model's classes, captions, and numbers
        (B, K), a column a name; none: none of them is told."""
        words = self.text.encode(captions) if self.text and captions is not None else NOTHING
        if self.values and value is not None:
            value = self.scale_values(value)
        elif self.values and (label is not None or captions is not None):
            count = len(label) if label is not None else len(captions or ())
            value = self.encode_values({}, count)
            value = value if value is None or label is None else value.to(label.device)
        else:
            value = None
        return Cond(label=label, value=value, **_text_fields(words))

    def encode_values(self, values: Mapping[str, Sequence[float]], count: int) -> Tensor | None:
        """(count, K) as the network is told them, where one is not said the usual one or NaN; None for a network that
        takes none.

        Raises UserError for a name that the model does not know, for what is no number, and, from a network that was
        not taught what to do without, for one that is not said.
        """
        names = [known.name for known in self.values]
        for name, many in values.items():
            if not names:
                raise UserError(
                    f"this model is told no numbers and takes no {name!r}: leave it out; {self.supported_inputs}"
                )
            if name not in names:
                raise unknown("number of this model", name, names)
            if not all(math.isfinite(number) for number in many):
                raise UserError(f"{name} is not said by what is no finite number: leave it out instead")
        missing = [known.name for known in self.values if known.name not in values and known.usual is None]
        if missing and not self.null_value:
            raise UserError(
                f"this model was never left without {missing[0]}: say it, --value {missing[0]}=..., for every picture"
            )
        if not names:
            return None
        usual = {known.name: [math.nan if known.usual is None else known.usual] * count for known in self.values}
        columns = [list(values.get(name, ())) or usual[name] for name in names]
        return self.scale_values(torch.tensor(columns, dtype=torch.float64).T)

    def null_values(self, value: Tensor | None) -> Tensor | None:
        """Numbers as they were told, (B, K), in rows that guidance leads away from: what a row cannot do without."""
        for place, known in enumerate(self.values):
            if value is not None and known.null is not None:
                value = value.clone()
                value[:, place] = VALUE_SCALE * (known.null - known.low) / (known.high - known.low)
        return value

    def scale_values(self, value: Tensor) -> Tensor:
        """Numbers (B, K) as the network is told them: (B, K) float32, 0 for the lowest of the training, SCALE for
        the highest."""
        low = torch.tensor([known.low for known in self.values], dtype=torch.float64, device=value.device)
        high = torch.tensor([known.high for known in self.values], dtype=torch.float64, device=value.device)
        return (VALUE_SCALE * (value.double() - low) / (high - low)).float()

    def out_of_range(self, values: Mapping[str, Sequence[float]]) -> list[str]:
        """In words, which numbers lie where no picture of the training did."""
        ranges = {known.name: known for known in self.values}
        return [
            f"{name} {number:g} lies outside what the model saw, {ranges[name].low:g} to {ranges[name].high:g}"
            for name, many in values.items()
            for number in dict.fromkeys(many)
            if name in ranges and ranges[name].usual is None and not ranges[name].low <= number <= ranges[name].high
        ]

    def label_rows(self, labels: Sequence[str]) -> Tensor | None:
        """The rows of these labels alone, (B,); None where the model knows no classes."""
        return self._labels(labels, len(labels))

    def random_class(self, seeds: Sequence[int], values: Mapping[str, Sequence[float]] = MappingProxyType({})) -> Cond:
        """A class for each seed, every one equally likely, no words, and these numbers: what is drawn when nobody says
        which."""
        label = None
        if self.classes:
            rows = [int(uniform((), seed, "class").item() * len(self.classes)) for seed in seeds]
            label = torch.tensor(rows, dtype=torch.int64)
        return Cond(
            label=label, value=self.encode_values(values, len(seeds)), **_text_fields(self._words((), len(seeds)))
        )

    def nothing(self, count: int, words: str = "") -> Cond:
        """Rows that are told nothing: what guidance leads away from. Or these words alone: a negative prompt."""
        if words and self.text is None:
            raise UserError(
                f"this model hears no words and takes no negative prompt: leave it out; {self.supported_inputs}"
            )
        needed = [known.name for known in self.values if known.usual is None]
        if needed and not self.null_value:
            raise UserError(
                f"this model was never left without {needed[0]}, so there is nothing to guide away from: "
                "take --guidance 1"
            )
        return self.encode(["none"] * count if self.classes and not self.classifier_only else (), [words] * count)

    def name(self, index: int) -> str:
        """The label that `read` turns into this row."""
        return "none" if index == self.null_class else self.classes[index]

    def _labels(self, labels: Sequence[str], count: int) -> Tensor | None:
        if not self.classes:
            for label in labels:
                if label != "none":
                    raise UserError(
                        f"this model was trained without classes and takes no label {label!r}: leave it out; "
                        f"{self.supported_inputs}"
                    )
            return None
        if labels:
            return torch.tensor([self._index(label) for label in labels], dtype=torch.int64)
        if self.classifier_only:
            return None
        return torch.full((count,), self._index("none"), dtype=torch.int64)

    def _words(self, prompts: Sequence[str], count: int) -> Cond:
        if self.text is None:
            for prompt in prompts:
                if prompt:
                    raise UserError(
                        f"this model hears no words and takes no prompt {prompt!r}: leave it out; "
                        f"{self.supported_inputs}"
                    )
            return NOTHING
        unique = list(dict.fromkeys(prompts or [""]))
        found = self.text.encode(unique)
        if len(unique) == count:
            return found
        rows = [unique.index(prompt) for prompt in prompts] or [0] * count
        return found[torch.tensor(rows, dtype=torch.int64)]

    def _index(self, label: str) -> int:
        if label in self.classes:
            return self.classes.index(label)
        if label == "none" and self.null_class is not None:
            return self.null_class
        if label == "none":
            raise UserError(
                "this model has no row for 'no class': name a class for every picture, and take --guidance 1"
            )
        if label.isascii() and label.isdigit() and int(label) < len(self.classes):
            return int(label)
        raise unknown("class", label, [*self.classes, *(["none"] if self.null_class is not None else [])])


def _text_fields(cond: Cond) -> dict[str, Any]:
    """What a condition says of words, to be said in another."""
    return {"tokens": cond.tokens, "text": cond.text, "mask": cond.mask, "pooled": cond.pooled}
