"""Sheets of samples at fixed seeds, which a training writes at intervals to show its progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from unnoise.acceleration.placement import Placement
from unnoise.codec import picture_shape
from unnoise.conditions import Cond
from unnoise.config.cards import ModelCard, null_row
from unnoise.config.request import Request
from unnoise.config.training import TrainConfig
from unnoise.data import Dataset
from unnoise.formats.autoencoders import AutoencoderModel
from unnoise.generate.conditions import text_and_labels
from unnoise.generate.frames import Frame, generate
from unnoise.generate.recipe import Recipe, grid_recipe, request_recipe
from unnoise.generate.rows import Row, pairs
from unnoise.generate.sheets import Sample, as_bytes, sheet
from unnoise.io.png import write_png
from unnoise.model import Model
from unnoise.recipes.conditioning import concat_input
from unnoise.text.conditioner import make_conditioner
from unnoise.text.tokenizer import PromptEncoder
from unnoise.training.distributed import Processes
from unnoise.training.player import SampleRNG


@dataclass(frozen=True)
class SampleSheet:
    """A sheet with a line for each class or caption; each column has a fixed seed."""

    card: ModelCard
    text: PromptEncoder | None
    config: TrainConfig
    placement: Placement
    processes: Processes
    pictures: Dataset  # its first pictures are concatenated to x_t, where the model has such an input
    autoencoder: AutoencoderModel | None = None  # of a model of latents

    def save(self, file: Path, weights: Mapping[str, Tensor], stop: Callable[[], bool] = lambda: False) -> bool:
        """Samples with these weights in all processes together, and saves the sheet, with its recipe, in the first one.

        Returns False, in all processes, where `stop()` became true in one of them before the end; then nothing is
        saved. Raises OSError, in the first process, where the file cannot be written.
        """
        rows = self.rows()
        own = self.request(self.processes.split(rows))
        steps: Iterable[Frame] = ()
        if own.seeds:
            state = {name: value.cpu() for name, value in weights.items()}
            model = Model.from_state(self.card, state, "this training", self.text, self.autoencoder)
            steps = generate(model, own, cond=self.condition(model, own, len(rows)))
        frames = self.processes.run(steps, stop)
        if frames is None:
            return False
        finished = [frame.pictures for frame in frames if frame.done and frame.pictures is not None]
        pictures = torch.cat(finished) if finished else torch.zeros(0, *picture_shape(self.card))
        pictures = self.processes.gather(pictures)
        if self.processes.first:
            write_png(file, self.sheet(rows, pictures), self.recipe(file, rows))
        return True

    def rows(self) -> list[Row]:
        """Returns the seed, and the class or the caption, of each picture, line by line."""
        log, card = self.config.log, self.card
        names = (card.captions or card.classes)[: log.grid_labels]
        columns = log.grid_rows if names else log.grid_rows * log.grid_labels
        return pairs([(seed, None) for seed in range(columns)], names)

    def sheet(self, rows: list[Row], pictures: Tensor) -> Image.Image:
        """Returns the sheet, as `unnoise sample --grid` lays it out."""
        done = [Sample(i, row, rows, pixels, ()) for i, (row, pixels) in enumerate(zip(rows, as_bytes(pictures)))]
        return sheet(done, self.columns(), None, prompted=bool(self.card.captions))

    def columns(self) -> int:
        """Returns the number of pictures in a line."""
        named = self.card.captions or self.card.classes
        return self.config.log.grid_rows if named else self.config.log.grid_labels

    def recipe(self, file: Path, rows: list[Row]) -> Recipe:
        """Returns the recipe: its model is the checkpoint of this step, which may be written later, or be removed."""
        folder = file.parent.parent / "checkpoints" / file.stem
        about = {"path": str(folder), "weights": str(folder / "model.safetensors")}
        step = int(file.stem.removeprefix("step-"))
        recipe = request_recipe(about | {"step": step}, self.card, self.request(rows))
        recipe |= {"inputs": "data"} if self.config.process.concat else {}
        prompts = list(dict.fromkeys(str(text) for _, text in rows)) if self.card.captions else []
        return grid_recipe(recipe, rows, columns=self.columns(), size=picture_shape(self.card)[:0:-1], prompts=prompts)

    def request(self, rows: Sequence[Row]) -> Request:
        """Returns the request for some pictures of the sheet."""
        log, card = self.config.log, self.card
        guided = self.text is not None or null_row(card) is not None
        no_values = make_conditioner(card, self.text).null_value
        texts = tuple(text for _, text in rows if text is not None)
        return Request.of(
            seeds=tuple(seed for seed, _ in rows),
            labels=() if card.captions else texts,
            prompts=texts if card.captions else (),
            guidance=log.grid_guidance if guided else 1.0,
            values={} if no_values else {v.name: ((v.low + v.high) / 2,) for v in card.values},
            steps=log.grid_steps,
            device=self.placement.device,
            precision=self.config.fit.precision,
        )

    def condition(self, model: Model, request: Request, count: int) -> Cond | None:
        """Returns the condition with concatenated pictures; None where the request itself determines it."""
        process = self.config.process
        if not process.concat:
            return None
        x = self.pictures.batch([seed % len(self.pictures) for seed in request.seeds]).x
        image = concat_input(x, process, SampleRNG(self.config.fit.seed, request.seeds, count), model.codec)
        return replace(text_and_labels(model.conditioner, request), concat=image)
