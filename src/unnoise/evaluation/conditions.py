"""What a model is told of the pictures it is measured by: classes, captions and numbers of real ones.

    asked_of        a label and a prompt for each picture that is to be drawn
    with_numbers    the same with the real pictures' numbers, for a model that is told numbers
    told_of         class, caption and numbers of some real pictures themselves; all_told_of: and their drawings

Real pictures are taken by lot. A law: the class, the caption and the numbers that one drawn picture is told are those
of one real picture, where none is named for all.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from unnoise import data
from unnoise.conditions import Cond
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request
from unnoise.data import Batch, Dataset
from unnoise.errors import UserError
from unnoise.generate.conditions import add_control_images
from unnoise.model import Model
from unnoise.nn.controlnet import guess_scales


def asked_of(model: Model, ask: EvaluateConfig, how: Request, pictures: Dataset) -> Request:
    """`how` for `ask.count` pictures: a seed, a label and a prompt each, as far as the model hears them."""
    labels = labels_for(model.card.classes, ask.count, how, pictures)
    prompts = prompts_for(model, ask.count, how, pictures)
    captioned = pictures.captions and model.text is not None and not how.prompts
    if labels and not how.labels and (captioned or numbered(model, pictures)):
        labels = labels_beside(model.card.classes, ask.count, pictures)
    return replace(how, seeds=tuple(range(ask.seed, ask.seed + ask.count)), labels=labels, prompts=prompts)


def labels_for(classes: tuple[str, ...], count: int, how: Request, pictures: Dataset) -> tuple[str, ...]:
    """A label for each picture: the one that was named, else each class as often as it is among the real pictures."""
    if how.labels:
        one_label(how)
        return how.labels * count
    if not classes:
        return ()
    share = torch.ones(len(classes), dtype=torch.float64)
    labels = pictures.labels()
    if labels is not None and pictures.classes == classes:
        share = torch.bincount(torch.from_numpy(labels), minlength=len(classes)).double()
    edges = share.cumsum(0) / share.sum()
    places = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return tuple(classes[row] for row in torch.bucketize(places, edges, right=True).tolist())


def one_label(how: Request) -> None:
    """Raises UserError for labels of which nobody says which picture is told which."""
    if len(how.labels) > 1:
        raise UserError(f"{len(how.labels)} labels to evaluate; name one for all pictures, or none for all classes")


def prompts_for(model: Model, count: int, how: Request, pictures: Dataset) -> tuple[str, ...]:
    """A prompt for each picture: the one that was given, else the captions of real pictures, drawn by lot."""
    if model.text is None:
        return ()
    if how.prompts or not pictures.captions:
        return (how.prompts[0] if how.prompts else "",) * count
    return tuple(pictures.caption(row) for row in by_lot(count, pictures))


def with_numbers(model: Model, request: Request, pictures: Dataset) -> Cond | None:
    """What the model is told, with the numbers of real pictures drawn by lot; None where it, or they, have none."""
    if not numbered(model, pictures):
        return None
    label = model.conditioner.label_rows(request.labels)
    value = torch.from_numpy(pictures.values()[by_lot(len(request.seeds), pictures)])
    return add_control_images(model, model.conditioner.from_labels(label, request.prompts or None, value), request)


def labels_beside(classes: tuple[str, ...], count: int, pictures: Dataset) -> tuple[str, ...]:
    """The classes of the real pictures whose captions and numbers are told. Raises UserError where they are others."""
    labels = pictures.labels()
    if labels is None or pictures.classes != classes:
        raise UserError(
            f"{pictures.config.path} has not the model's classes beside its captions or numbers: name one, --label"
        )
    return tuple(classes[labels[row]] for row in by_lot(count, pictures))


def by_lot(count: int, pictures: Dataset) -> list[int]:
    """Rows of real pictures in a random order that is always the same, again from its beginning where they run out."""
    rows: list[int] = data.order(0, 0, len(pictures)).tolist()
    return [rows[i % len(rows)] for i in range(count)]


def told_of(model: Model, pictures: Dataset, batch: Batch) -> Cond:
    """What a model is told of real pictures: their captions; their classes and numbers, or none where those are not the
    model's."""
    label = batch.label if pictures.classes == model.card.classes else None
    if label is None and model.card.classes:
        label = model.conditioner.label_rows(("none",) * len(batch.x))
    captions = batch.caption if pictures.captions else ("",) * len(batch.x)
    return model.conditioner.from_labels(label, captions, batch.value if numbered(model, pictures) else None)


def all_told_of(model: Model, pictures: Dataset, batch: Batch, how: Request) -> Cond:
    """`told_of`, and the pictures' own drawings where the model follows them."""
    cond = told_of(model, pictures, batch)
    if not model.controls or batch.control is None:
        return cond
    if len(model.controls) > 1:
        raise UserError(
            f"this model takes {len(model.controls)} drawings, and the pictures have one: measure each alone"
        )
    strength = torch.tensor(how.control_scale[:1], dtype=torch.float32).expand(len(batch.x), 1)
    if how.guess:
        strength = guess_scales(strength, model.residuals)
    return replace(cond, control=(batch.control,), control_scale=strength)


def numbered(model: Model, pictures: Dataset) -> bool:
    """Whether a model is told numbers, and the pictures have them."""
    return bool(model.card.values) and pictures.config.values == tuple(known.name for known in model.card.values)
