"""From labels, prompts and values to the condition of a network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from unnoise.conditions import NOTHING, Cond
from unnoise.config.cards import ModelCard, ValueRange, null_row
from unnoise.config.networks import UNetConfig
from unnoise.config.usage import class_row, picture_options, supported_inputs
from unnoise.errors import UserError, unknown
from unnoise.noise import uniform
from unnoise.text.tokenizer import PromptEncoder
from unnoise.transfer import send

VALUE_SCALE = 1000.0  # of values: they share the sinusoids of the time, which counts to 1000


@dataclass(frozen=True)
class Conditioner:
    """Encodes labels (class names or numbers, "none" for no class), prompts and values as a condition.

    A value is passed to the network as VALUE_SCALE (value - low) / (high - low), where low and high are the ends of its
    range in training. Its sinusoidal embedding is that of the time, whose frequencies separate whole numbers from 0 to
    1000. Values outside the range are extrapolated.
    """

    classes: tuple[str, ...] = ()
    null_class: int | None = None  # the row of "no class" in the class embedding; None: there is none
    text: PromptEncoder | None = None  # None: the model is not conditioned on text
    values: tuple[ValueRange, ...] = ()  # one for each column of `Cond.value`
    null_value: bool = True  # whether the network was trained with missing values
    classifier_only: bool = False  # the classes are those of a guiding classifier, and the network has none
    picture_options: tuple[str, ...] = ()  # options of image files that the model is conditioned on

    @property
    def supported_inputs(self) -> str:
        """The inputs that the model supports, as a clause for error messages."""
        return supported_inputs(
            self.classes, words=self.text is not None, values=self.values, pictures=self.picture_options
        )

    def encode(
        self,
        labels: Sequence[str] = (),
        prompts: Sequence[str] = (),
        values: Mapping[str, Sequence[float]] = MappingProxyType({}),
    ) -> Cond:
        """The condition with a row for each label, prompt and value; inputs that are left out are null.

        Raises UserError for an unknown label or name, and for an input that the model is not conditioned on;
        ValueError where the inputs differ in number.
        """
        given = {"labels": len(labels), "prompts": len(prompts)} | {name: len(many) for name, many in values.items()}
        counts = {name: count for name, count in given.items() if count}
        if len(set(counts.values())) > 1:
            found = " and ".join(f"{count} {name}" for name, count in counts.items())
            raise ValueError(f"{found}: give as many of each")
        count = max(counts.values(), default=0)
        text = self._prompts(prompts, count)
        return Cond(label=self._labels(labels, count), value=self.encode_values(values, count), **_text_fields(text))

    def from_labels(self, label: Tensor | None, captions: Sequence[str] | None, value: Tensor | None = None) -> Cond:
        """The condition of pictures with class indices `label` (B,), captions, and values (B, K) in their own units.

        Inputs that are None are left out of the condition.
        """
        text = self.text.encode(captions) if self.text and captions is not None else NOTHING
        if self.values and value is not None:
            value = self.scale_values(value)
        elif self.values and (label is not None or captions is not None):
            count = len(label) if label is not None else len(captions or ())
            value = self.encode_values({}, count)
            value = value if value is None or label is None else send(value, label.device)
        else:
            value = None
        return Cond(label=label, value=value, **_text_fields(text))

    def encode_values(self, values: Mapping[str, Sequence[float]], count: int) -> Tensor | None:
        """Values as the network receives them, (count, K); None for a model without values.

        A value that is not given is the usual one, or NaN, which the network embeds as missing. Raises UserError for an
        unknown name, for a value that is not finite, and for a missing value if the network was not trained with
        missing values.
        """
        names = [known.name for known in self.values]
        for name, many in values.items():
            if not names:
                raise UserError(f"this model is not conditioned on values: leave {name!r} out; {self.supported_inputs}")
            if name not in names:
                raise unknown("value", name, names)
            if not all(math.isfinite(number) for number in many):
                raise UserError(f"the value of {name} has to be a finite number: leave {name} out where it is unknown")
        missing = [known.name for known in self.values if known.name not in values and known.usual is None]
        if missing and not self.null_value:
            raise UserError(
                f"this model was not trained without {missing[0]}: give it for every picture, --value {missing[0]}=..."
            )
        if not names:
            return None
        usual = {known.name: [math.nan if known.usual is None else known.usual] * count for known in self.values}
        columns = [list(values.get(name, ())) or usual[name] for name in names]
        return self.scale_values(torch.tensor(columns, dtype=torch.float64).T)

    def null_values(self, value: Tensor | None) -> Tensor | None:
        """The values (B, K) of the null condition, as the network receives them: those of `value`, or their `null`."""
        for place, known in enumerate(self.values):
            if value is not None and known.null is not None:
                value = value.clone()
                value[:, place] = VALUE_SCALE * (known.null - known.low) / (known.high - known.low)
        return value

    def scale_values(self, value: Tensor) -> Tensor:
        """Values (B, K) in their own units as the network receives them, float32: 0 for the lowest of the training and
        VALUE_SCALE for the highest."""
        low = torch.tensor([known.low for known in self.values], dtype=torch.float64, device=value.device)
        high = torch.tensor([known.high for known in self.values], dtype=torch.float64, device=value.device)
        return (VALUE_SCALE * (value.double() - low) / (high - low)).float()

    def out_of_range(self, values: Mapping[str, Sequence[float]]) -> list[str]:
        """A note for each value outside the range of the training."""
        ranges = {known.name: known for known in self.values}
        return [
            f"{name} {number:g} is outside the range of the training, {ranges[name].low:g} to {ranges[name].high:g}"
            for name, many in values.items()
            for number in dict.fromkeys(many)
            if name in ranges and ranges[name].usual is None and not ranges[name].low <= number <= ranges[name].high
        ]

    def label_rows(self, labels: Sequence[str]) -> Tensor | None:
        """The class indices of these labels, (B,); None for a model without classes."""
        return self._labels(labels, len(labels))

    def random_class(self, seeds: Sequence[int], values: Mapping[str, Sequence[float]] = MappingProxyType({})) -> Cond:
        """The condition of samples without a label: a uniformly random class for each seed, no text, and values."""
        label = None
        if self.classes:
            rows = [int(uniform((), seed, "class").item() * len(self.classes)) for seed in seeds]
            label = torch.tensor(rows, dtype=torch.int64)
        return Cond(
            label=label, value=self.encode_values(values, len(seeds)), **_text_fields(self._prompts((), len(seeds)))
        )

    def null(self, count: int, negative_prompt: str = "") -> Cond:
        """The condition that guidance leads away from, (count rows): null in every input, or the negative prompt.

        Raises UserError for a model without text, and for one that was not trained with a null condition.
        """
        if negative_prompt and self.text is None:
            raise UserError(
                f"this model is not conditioned on text: leave the negative prompt out; {self.supported_inputs}"
            )
        needed = [known.name for known in self.values if known.usual is None]
        if needed and not self.null_value:
            raise UserError(
                f"this model was not trained without {needed[0]}, so it has no null condition for guidance: use "
                "--guidance 1"
            )
        label = self._null_labels(count) if self.classes and not self.classifier_only else None
        text = self._prompts([negative_prompt] * count, count)
        return Cond(label=label, value=self.encode_values({}, count), **_text_fields(text))

    def name(self, index: int) -> str:
        """The label of a class index: the inverse of `label_rows`."""
        return "none" if index == self.null_class else self.classes[index]

    def _labels(self, labels: Sequence[str], count: int) -> Tensor | None:
        if not self.classes:
            for label in labels:
                if label != "none":
                    raise UserError(
                        f"this model is not conditioned on classes: leave label {label!r} out; {self.supported_inputs}"
                    )
            return None
        if labels:
            return torch.tensor([self._index(label) for label in labels], dtype=torch.int64)
        if self.classifier_only:
            return None
        return self._null_labels(count)

    def _null_labels(self, count: int) -> Tensor:
        """The row of "no class", (count,): found by its index, because a class may have any name."""
        if self.null_class is None:
            raise UserError("this model has no null class: give a class for every picture, and use --guidance 1")
        return torch.full((count,), self.null_class, dtype=torch.int64)

    def _prompts(self, prompts: Sequence[str], count: int) -> Cond:
        if self.text is None:
            for prompt in prompts:
                if prompt:
                    raise UserError(
                        f"this model is not conditioned on text: leave prompt {prompt!r} out; {self.supported_inputs}"
                    )
            return NOTHING
        unique = list(dict.fromkeys(prompts or [""]))
        found = self.text.encode(unique)
        if len(unique) == count:
            return found
        rows = [unique.index(prompt) for prompt in prompts] or [0] * count
        return found[torch.tensor(rows, dtype=torch.int64)]

    def _index(self, label: str) -> int:
        if label == "none":
            return int(self._null_labels(1))
        row = class_row(label, self.classes)
        if row is not None:
            return row
        raise unknown("class", label, [*self.classes, *(["none"] if self.null_class is not None else [])])


def make_conditioner(card: ModelCard, text: PromptEncoder | None) -> Conditioner:
    """The conditioner of the model of a card."""
    null_value = card.net.null_value if isinstance(card.net, UNetConfig) else True
    return Conditioner(
        card.classes, null_row(card), text, card.values, null_value, picture_options=picture_options(card)
    )


def _text_fields(cond: Cond) -> dict[str, Any]:
    """The fields of a condition that encode text."""
    return {"tokens": cond.tokens, "text": cond.text, "mask": cond.mask, "pooled": cond.pooled}
