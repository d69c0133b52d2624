"""The conditions of a diffusion training: from a batch to what the network is conditioned on, some of it dropped.

Training with dropped conditions teaches the network the unconditional estimate too, which classifier-free guidance
needs (Ho & Salimans 2022).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from unnoise.conditions import Cond
from unnoise.config.cards import ValueRange
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import UNetConfig
from unnoise.config.training import TrainConfig
from unnoise.data import Batch, Dataset, degrade
from unnoise.errors import UserError
from unnoise.text.conditioner import Conditioner
from unnoise.text.pretrained import Encoder
from unnoise.text.tokenizer import PromptEncoder, Tokenizer
from unnoise.training.player import SampleRNG
from unnoise.transfer import send


def batch_condition(batch: Batch, conditioner: Conditioner, config: TrainConfig) -> Cond:
    """Returns the condition of each picture of a batch, without a picture that is concatenated to x_t."""
    captions = ("",) * len(batch.x) if batch.caption is None else batch.caption
    cond = conditioner.from_labels(batch.label if config.net.classes else None, captions, batch.value)
    if not isinstance(config.net, UNetConfig) or not config.net.controls:
        return cond
    assert batch.control is not None
    return replace(cond, control=(batch.control,))


def concat_input(x: Tensor, process: DiffusionConfig, rows: SampleRNG) -> Tensor:
    """Returns the picture that is concatenated to x_t: x (B, C, H, W) downscaled and upscaled again, or with a masked
    box that depends on the sample."""
    if process.concat == "low_res":
        return degrade.upscale(degrade.downscale(x, process.concat_factor), process.concat_factor)
    draws = torch.stack([rows.uniform(name) for name in degrade.BOX_DRAWS], dim=1)
    return degrade.mask_out(x, send(degrade.boxes(draws, *x.shape[2:]), x.device))


def drop_conditions(cond: Cond, rows: SampleRNG, process: DiffusionConfig, conditioner: Conditioner) -> Cond:
    """Replaces conditions of random rows by null: all of a row with probability `cond_dropout`, and class, text and
    each value by themselves with probability `cond_dropout_each`.

    Control images and concatenated pictures are not dropped: the network should follow them without text too.
    """
    if not process.cond_dropout and not process.cond_dropout_each:
        return cond
    null = conditioner.null(1)
    if process.cond_dropout:
        cond = cond.where(rows.uniform("no label") < process.cond_dropout, null)
    if process.cond_dropout_each:
        cond = cond.where(rows.uniform("no class alone") < process.cond_dropout_each, Cond(label=null.label))
        text = replace(null, label=None, value=None)
        cond = cond.where(rows.uniform("no words alone") < process.cond_dropout_each, text)
    if process.cond_dropout_each and cond.value is not None:
        dropped = [rows.uniform(f"no {known.name} alone") < process.cond_dropout_each for known in conditioner.values]
        missing = send(torch.stack(dropped, dim=1), cond.value.device)
        cond = replace(cond, value=cond.value.masked_fill(missing, math.nan))
    return cond


def placeholder_conditioner(config: TrainConfig) -> Conditioner:
    """Returns a conditioner for this configuration that needs no data: class names are numbers, no words are known."""
    classes = tuple(map(str, range(config.net.classes)))
    text: PromptEncoder | None = None
    if config.encoder is not None:
        text = Encoder(config.encoder, local=False)
    elif config.net.text is not None:
        text = Tokenizer.learn([], vocabulary=config.net.text.vocabulary, length=config.net.text.length)
    values = tuple(ValueRange(name) for name in config.data.values)
    return Conditioner(classes, len(classes) if classes and config.net.null_class else None, text, values)


def check_captions(config: TrainConfig, pictures: Dataset) -> None:
    """Raises UserError where the network is conditioned on captions and the data set has none."""
    if (config.net.text or config.encoder) and not pictures.captions:
        raise UserError(
            f"this network is conditioned on captions, and {config.data.path} has none: put a text file of the same "
            "name beside each picture, or a metadata.jsonl, or set net.text=none"
        )


def prompt_encoder(config: TrainConfig, pictures: Dataset) -> PromptEncoder | None:
    """Returns what encodes captions: a tokenizer learned from the data set's, a pretrained encoder, or None.

    Raises UserError where the network is conditioned on captions and the data set has none.
    """
    text = config.net.text
    if text is None and config.encoder is None:
        return None
    check_captions(config, pictures)
    if text is None:
        return pretrained_encoder(config, pictures.every_caption())
    return Tokenizer.learn(pictures.every_caption(), vocabulary=text.vocabulary, length=text.length)


def pretrained_encoder(config: TrainConfig, captions: Iterable[str]) -> Encoder:
    """Returns the pretrained encoder after it has encoded all captions. Raises UserError for another width."""
    assert config.encoder is not None
    encoder = Encoder(config.encoder, local=False)
    if config.net.context != encoder.width:
        raise UserError(
            f"net.context {config.net.context} should be {encoder.width}, the width of {encoder.config.path}"
        )
    encoder.cache(captions)
    return encoder
