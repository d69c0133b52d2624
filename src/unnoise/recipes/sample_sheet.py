"""Sheets of samples at fixed seeds, which a training writes at intervals to show its progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from unnoise.acceleration.placement import Placement
from unnoise.conditions import Cond
from unnoise.config.cards import ModelCard
from unnoise.config.request import Request
from unnoise.config.training import TrainConfig
from unnoise.data import Dataset
from unnoise.generate.conditions import text_and_labels
from unnoise.generate.frames import sample
from unnoise.io.pictures import Pictures
from unnoise.model import Model, make_conditioner, null_row
from unnoise.recipes.conditioning import concat_input
from unnoise.text.tokenizer import PromptEncoder
from unnoise.training.distributed import Processes
from unnoise.training.player import SampleRNG


@dataclass(frozen=True)
class SampleSheet:
    """A sheet with a column for each label or caption; each row has fixed seeds."""

    card: ModelCard
    text: PromptEncoder | None
    config: TrainConfig
    placement: Placement
    processes: Processes
    pictures: Dataset  # its first pictures are concatenated to x_t, where the model has such an input

    def save(self, file: Path, weights: Mapping[str, Tensor]) -> None:
        """Samples with these weights in all processes together, and saves the sheet in the first one."""
        request = self.request()
        own = self.part(request)
        pixels = torch.zeros(0, self.card.channels, *self.card.size, dtype=torch.uint8)
        if own.seeds:
            state = {name: value.cpu() for name, value in weights.items()}
            model = Model.from_state(self.card, state, "this training", self.text)
            pixels = sample(model, own, cond=self.condition(model, own, len(request.seeds))).pixels
        pixels = self.processes.gather(pixels.to(self.placement.device)).cpu()
        if self.processes.first:
            labels = request.prompt.labels or request.prompt.prompts
            columns = len(request.seeds) // self.config.log.grid_rows
            Pictures(pixels, request.seeds, labels).save(file, columns)

    def request(self) -> Request:
        """Returns the request of the whole sheet."""
        log, card = self.config.log, self.card
        names, captions = card.classes[: log.grid_labels], card.captions[: log.grid_labels]
        columns = len(captions) or len(names) or log.grid_labels
        guided = self.text is not None or null_row(card) is not None
        no_values = make_conditioner(card, self.text).null_value
        return Request.of(
            seeds=tuple(range(log.grid_rows * columns)),
            labels=() if captions else names * log.grid_rows,
            prompts=captions * log.grid_rows,
            guidance=log.grid_guidance if guided else 1.0,
            values={} if no_values else {v.name: ((v.low + v.high) / 2,) for v in card.values},
            steps=log.grid_steps,
            device=self.placement.device,
            precision=self.config.fit.precision,
        )

    def part(self, request: Request) -> Request:
        """Returns this process's part of the sheet."""
        split = self.processes.split
        return request.but(
            seeds=tuple(split(request.seeds)),
            labels=tuple(split(request.prompt.labels)),
            prompts=tuple(split(request.prompt.prompts)),
        )

    def condition(self, model: Model, request: Request, count: int) -> Cond | None:
        """Returns the condition with concatenated pictures; None where the request itself determines it."""
        process = self.config.process
        if not process.concat:
            return None
        x = self.pictures.batch([seed % len(self.pictures) for seed in request.seeds]).x
        image = concat_input(x, process, SampleRNG(self.config.fit.seed, request.seeds, count))
        return replace(text_and_labels(model.conditioner, request), concat=image)
