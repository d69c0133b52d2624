"""Whether a question can be answered, and what must be said beside the answer.

    check                UserError where the model, the pictures and the request do not go together
    untold, unheard      warnings, where the model is told less than one might think

All of it is known before anything is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unnoise import data
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request
from unnoise.data import Dataset
from unnoise.errors import UserError
from unnoise.evaluation.alignment import ALIGNMENT
from unnoise.evaluation.bits_per_dim import BITS
from unnoise.evaluation.conditions import numbered, one_label
from unnoise.evaluation.sample_metrics import metric_names
from unnoise.model import Model
from unnoise.text.tokenizer import truncation_note


def check(model: Model, ask: EvaluateConfig, how: Request, pictures: Dataset) -> None:
    """Raises UserError where the model, the pictures and what is asked do not go together."""
    _check_model(model, pictures)
    _check_request(model, metric_names(ask.metrics), how)


def _check_model(model: Model, pictures: Dataset) -> None:
    """Raises UserError for pictures of another size, and a model that cannot be told what it has to be."""
    if pictures.shape != model.picture_shape:
        raise UserError(
            f"the model draws pictures of {_size(model.picture_shape)}, those of {pictures.config.path} are "
            f"{_size(pictures.shape)}; give data of the model's size and channels"
        )
    if model.card.process.concat:
        raise UserError(
            "this model is shown a picture beside the noise, and none goes with those that are evaluated: draw with "
            "`unnoise sample --image`, and compare the two with your eyes or a measure of your own"
        )
    if model.card.values and not model.conditioner.null_value:
        known = int(np.isfinite(pictures.values()).all(1).sum()) if numbered(model, pictures) else 0
        if known < len(pictures):
            says = f"says it of {known:,} of {len(pictures):,} pictures" if known else "does not say it"
            raise UserError(
                f"this model has to be told {_numbers_of(model)}, and {pictures.config.path} {says}: give --data with "
                "these numbers beside the pictures"
            )


def _check_request(model: Model, names: Sequence[str], how: Request) -> None:
    """Raises UserError for what `how` says and nobody would be told."""
    if len(how.prompts) > 1:
        raise UserError(
            f"{len(how.prompts)} prompts to evaluate; give one for all pictures, or none for the captions of real ones"
        )
    one_label(how)
    if how.prompts and model.text is None:
        raise UserError(
            f"this model hears no words and takes no prompt: leave --prompts out; {model.conditioner.supported_inputs}"
        )
    asked = {"--label": how.labels, "--prompts": how.prompts, "--controls": how.controls}
    told = " and ".join(option for option, said in asked.items() if said)
    aligned, bits = ([name for name in names if name in kind] for kind in (ALIGNMENT, BITS))
    if aligned and told:
        raise UserError(
            f"for {', '.join(aligned)} pictures are drawn from the captions, and along the drawings, of real ones: "
            f"leave {told} out"
        )
    if bits and how.controls:
        raise UserError(f"for {', '.join(bits)} no drawings are followed: leave --controls out")


def untold(model: Model, pictures: Dataset) -> list[str]:
    """In words, which numbers the model is not told, for the pictures have none of them."""
    if not model.card.values or numbered(model, pictures):
        return []
    return [f"the model was not told {_numbers_of(model)}: {pictures.config.path} does not say it"]


def unheard(model: Model, ask: EvaluateConfig, how: Request, pictures: Dataset) -> list[str]:
    """In words, how many captions that the model is told are too long for it."""
    if how.prompts:
        note = truncation_note(model.text, how.prompts[:1])
    else:
        counted = all(name in BITS for name in metric_names(ask.metrics))
        told = pictures.captions and not (counted and how.labels)  # bits of one label are told no caption
        rows = data.order(0, 0, len(pictures))[: ask.bits_count if counted else ask.count].tolist()
        note = truncation_note(model.text, map(pictures.caption, rows)) if told else ""
    return [note] if note else []


def _numbers_of(model: Model) -> str:
    return ", ".join(known.name for known in model.card.values)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}x{shape[1]} pixels with {shape[0]} channel{'s' if shape[0] > 1 else ''}"
