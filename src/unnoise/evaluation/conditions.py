"""Conditions of an evaluation: the classes, captions and values of real pictures, for the model to be conditioned on.

    request_for_count           a seed, a label and a prompt for each picture to sample
    conditions_with_values      the same as a Cond with the values of real pictures, for a model with known values
    conditions_of_real          class, caption and values of given real pictures
    conditions_and_control      the same with their control images

The real pictures are a fixed random subset. A law: class, caption and values of one sampled picture are those of one
real picture, unless the request names one for all.
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


def request_for_count(model: Model, config: EvaluateConfig, request: Request, pictures: Dataset) -> Request:
    """`request` for `config.count` pictures: a seed for each, and a label and a prompt where the model uses them."""
    labels = labels_for(model.card.classes, config.count, request, pictures)
    prompts = prompts_for(model, config.count, request, pictures)
    captioned = pictures.captions and model.text is not None and not request.prompt.prompts
    if labels and not request.prompt.labels and (captioned or has_values(model, pictures)):
        labels = labels_of_real(model.card.classes, config.count, pictures)
    seeds = tuple(range(config.seed, config.seed + config.count))
    return request.but(seeds=seeds, labels=labels, prompts=prompts)


def labels_for(classes: tuple[str, ...], count: int, request: Request, pictures: Dataset) -> tuple[str, ...]:
    """A label for each picture: the requested one, or each class with its frequency among the real pictures."""
    if request.prompt.labels:
        check_one_label(request)
        return request.prompt.labels * count
    if not classes:
        return ()
    frequency = torch.ones(len(classes), dtype=torch.float64)
    labels = pictures.labels()
    if labels is not None and pictures.classes == classes:
        frequency = torch.bincount(torch.from_numpy(labels), minlength=len(classes)).double()
    edges = frequency.cumsum(0) / frequency.sum()
    places = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return tuple(classes[row] for row in torch.bucketize(places, edges, right=True).tolist())


def check_one_label(request: Request) -> None:
    """Raises UserError for several labels, which do not say which picture has which."""
    if len(request.prompt.labels) > 1:
        raise UserError(
            "an evaluation needs one label for all pictures, or none for all classes; "
            f"{len(request.prompt.labels)} were given"
        )


def prompts_for(model: Model, count: int, request: Request, pictures: Dataset) -> tuple[str, ...]:
    """A prompt for each picture: the requested one, or the caption of a random real picture."""
    if model.text is None:
        return ()
    if request.prompt.prompts or not pictures.captions:
        return (request.prompt.prompts[0] if request.prompt.prompts else "",) * count
    return tuple(pictures.caption(row) for row in random_subset(count, pictures))


def conditions_with_values(model: Model, request: Request, pictures: Dataset) -> Cond | None:
    """The conditions of `request` with the values of random real pictures; None where model or pictures have none."""
    if not has_values(model, pictures):
        return None
    label = model.conditioner.label_rows(request.prompt.labels)
    value = torch.from_numpy(pictures.values()[random_subset(len(request.seeds), pictures)])
    return add_control_images(
        model, model.conditioner.from_labels(label, request.prompt.prompts or None, value), request
    )


def labels_of_real(classes: tuple[str, ...], count: int, pictures: Dataset) -> tuple[str, ...]:
    """The classes of the real pictures whose captions and values are used.

    Raises UserError where these pictures have other classes than the model.
    """
    labels = pictures.labels()
    if labels is None or pictures.classes != classes:
        raise UserError(
            f"{pictures.config.path} does not have the model's classes beside its captions or values: add --label with "
            "one class for all pictures"
        )
    return tuple(classes[labels[row]] for row in random_subset(count, pictures))


def random_subset(count: int, pictures: Dataset) -> list[int]:
    """`count` rows in a fixed random order, from its beginning again where the set is smaller."""
    rows: list[int] = data.order(0, 0, len(pictures)).tolist()
    return [rows[i % len(rows)] for i in range(count)]


def conditions_of_real(model: Model, pictures: Dataset, batch: Batch) -> Cond:
    """Captions, classes and values of the real pictures in `batch`, a row each.

    A model with classes gets none where the classes of `pictures` are not the model's, and likewise for values.
    """
    label = batch.label if pictures.classes == model.card.classes else None
    if label is None and model.card.classes:
        label = model.conditioner.label_rows(("none",) * len(batch.x))
    captions = batch.caption if pictures.captions else ("",) * len(batch.x)
    return model.conditioner.from_labels(label, captions, batch.value if has_values(model, pictures) else None)


def conditions_and_control(model: Model, pictures: Dataset, batch: Batch, request: Request) -> Cond:
    """`conditions_of_real`, and the control images of these pictures where the model has a control network."""
    cond = conditions_of_real(model, pictures, batch)
    if not model.controls or batch.control is None:
        return cond
    if len(model.controls) > 1:
        raise UserError(
            f"this model has {len(model.controls)} control networks and each picture one control image: evaluate each "
            "network alone"
        )
    strength = torch.tensor(request.prompt.control_scale[:1], dtype=torch.float32).expand(len(batch.x), 1)
    if request.prompt.guess:
        strength = guess_scales(strength, model.residuals)
    return replace(cond, control=(batch.control,), control_scale=strength)


def has_values(model: Model, pictures: Dataset) -> bool:
    """Whether the model has known values and the pictures have the same ones."""
    return bool(model.card.values) and pictures.config.values == tuple(value.name for value in model.card.values)
