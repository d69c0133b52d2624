"""Checks of an evaluation before its first picture is sampled.

check                                   raises UserError where model, pictures and request do not go together
missing_values, truncated_captions      warnings for the report
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unnoise import data
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request, check_seed
from unnoise.data import Dataset
from unnoise.errors import UserError
from unnoise.evaluation.alignment import ALIGNMENT
from unnoise.evaluation.bits_per_dim import BITS
from unnoise.evaluation.conditions import check_one_label, has_values
from unnoise.evaluation.sample_metrics import metric_names
from unnoise.model import Model
from unnoise.text.tokenizer import truncation_note


def check(model: Model, config: EvaluateConfig, request: Request, pictures: Dataset) -> None:
    """Raises UserError where the model, the pictures and the request do not go together."""
    check_seed(config.seed)
    _check_model(model, pictures)
    _check_request(model, metric_names(config.metrics), request)


def _check_model(model: Model, pictures: Dataset) -> None:
    """Raises UserError for pictures of another size, and for a model whose required conditions they do not have."""
    if pictures.shape != model.picture_shape:
        raise UserError(
            f"the model's pictures have {_size(model.picture_shape)}, those of {pictures.config.path} "
            f"{_size(pictures.shape)}: give --data with the model's size and channels"
        )
    if model.card.process.concat:
        raise UserError(
            "this model needs a picture concatenated to the noise, and the pictures of an evaluation have none: use "
            "`unnoise sample --image` and compare the results by other means"
        )
    if model.card.values and not model.conditioner.null_value:
        known = int(np.isfinite(pictures.values()).all(1).sum()) if has_values(model, pictures) else 0
        if known < len(pictures):
            has = f"has it for {known:,} of {len(pictures):,} pictures" if known else "does not have it"
            raise UserError(
                f"this model requires {_value_names(model)} for every picture, and {pictures.config.path} {has}: give "
                "--data with these values"
            )


def _check_request(model: Model, names: Sequence[str], request: Request) -> None:
    """Raises UserError for conditions in `request` that would have no effect or contradict the metrics."""
    if len(request.prompt.prompts) > 1:
        raise UserError(
            f"an evaluation needs one prompt for all pictures, or none for the captions of real ones; "
            f"{len(request.prompt.prompts)} were given"
        )
    check_one_label(request)
    if request.prompt.prompts and model.text is None:
        raise UserError(
            f"this model is not conditioned on text: leave --prompts out; {model.conditioner.supported_inputs}"
        )
    options = {
        "--label": request.prompt.labels,
        "--prompts": request.prompt.prompts,
        "--controls": request.prompt.controls,
    }
    given = " and ".join(option for option, values in options.items() if values)
    aligned, bits = ([name for name in names if name in kind] for kind in (ALIGNMENT, BITS))
    if aligned and given:
        raise UserError(
            f"the metrics {', '.join(aligned)} use the captions and control images of real pictures: leave {given} out"
        )
    if bits and request.prompt.controls:
        raise UserError(f"the metrics {', '.join(bits)} do not use control images: leave --controls out")


def missing_values(model: Model, pictures: Dataset) -> list[str]:
    """A warning that the pictures do not have the values that the model is conditioned on."""
    if not model.card.values or has_values(model, pictures):
        return []
    return [f"the model was not conditioned on {_value_names(model)}: {pictures.config.path} does not have it"]


def truncated_captions(model: Model, config: EvaluateConfig, request: Request, pictures: Dataset) -> list[str]:
    """A warning that captions are longer than the model's text encoder reads."""
    if request.prompt.prompts:
        note = truncation_note(model.text, request.prompt.prompts[:1])
    else:
        only_bits = all(name in BITS for name in metric_names(config.metrics))
        used = pictures.captions and not (only_bits and request.prompt.labels)  # bits of one label use no captions
        rows = data.order(0, 0, len(pictures))[: config.bits_count if only_bits else config.count].tolist()
        note = truncation_note(model.text, map(pictures.caption, rows)) if used else ""
    return [note] if note else []


def _value_names(model: Model) -> str:
    return ", ".join(value.name for value in model.card.values)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}x{shape[1]} pixels with {shape[0]} channel{'s' if shape[0] > 1 else ''}"
