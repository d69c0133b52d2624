"""Train a diffusion model: guess what the network is asked for, from a picture and noise mixed at a random time.

    L = E weight(t) ||x - mean(x_t, t, cond)||^2,    x_t = alpha_t x + sigma_t eps

With eps asked for and the simple weight this is L_simple of Ho et al. 2020 (eq. 14). Where the variance is learned, the
bound's own term is added, through the variance alone: L_hybrid of Nichol & Dhariwal 2021 (eq. 16). The bound itself,
through mean and variance, is L_vlb of theirs, in bits a number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unnoise import data, losses, noise
from unnoise import nn as networks
from unnoise.acceleration.placement import Placement, best, prepare
from unnoise.conditions import Cond
from unnoise.config import convert, validate
from unnoise.config.cards import ModelCard, ValueRange
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import EncoderConfig, NetConfig, UNetConfig
from unnoise.config.request import Request
from unnoise.config.training import TrainConfig
from unnoise.data import Batch, Dataset, degrade
from unnoise.denoiser import Diffusion, Estimate, Weight, make_diffusion
from unnoise.errors import UserError
from unnoise.formats.directory import write_model
from unnoise.generate.conditions import conditions
from unnoise.generate.frames import draw
from unnoise.io import checkpoint
from unnoise.io.pictures import Pictures
from unnoise.likelihood.bound import bound_term
from unnoise.model import Model, load, make_conditioner, null_row, process_of, without_controls
from unnoise.nn.controlnet import copy_base
from unnoise.nn.grow import grow, levels_around
from unnoise.text.conditioner import Conditioner
from unnoise.text.pretrained import Encoder
from unnoise.text.tokenizer import PromptEncoder, Tokenizer, truncation_note
from unnoise.training.distributed import ALONE, Processes
from unnoise.training.loop import SampleRNG, Tick
from unnoise.training.run import hold
from unnoise.training.train_state import TrainState
from unnoise.training.trainer import Plan, follow


@dataclass(frozen=True)
class Objective:
    """The loss of every row, (B,). Times, noise and dropped labels belong to the samples (`rows`)."""

    diffusion: Diffusion
    config: TrainConfig
    minimised: str  # "simple", "hybrid" or "bound"
    weight: Weight
    times: losses.TimeSampler
    reader: Conditioner

    @property
    def memory(self) -> losses.LossAwareSampler | None:
        """What it remembers from step to step: how large losses are, where times are drawn by that."""
        return self.times if isinstance(self.times, losses.LossAwareSampler) else None

    def __call__(self, batch: Batch, rows: SampleRNG) -> Tensor:
        process = self.config.process
        u = rows.uniform("time")
        if process.stratified:
            u = losses.stratified(u, rows.index, rows.batch)
        t = self.times(u, self.diffusion.schedule)
        x = batch.x.contiguous(memory_format=torch.channels_last)
        eps = rows.normal(x.shape[1:], "noise").to(x.device).contiguous(memory_format=torch.channels_last)
        cond = batch_condition(batch, self.reader, self.config)
        if cond.rows:
            cond = drop_conditions(cond, rows, process, self.reader)
        if process.concat:
            cond = replace(cond, concat=concat_input(x, process, rows))
        cond = cond.to(x.device)
        each = self._each(x, t, cond, eps)
        if self.memory is None:
            return each
        self.memory.record(t, each)
        return each * self.memory.weight(t).to(each)

    def _each(self, x: Tensor, t: Tensor, cond: Cond, eps: Tensor) -> Tensor:
        if self.minimised == "simple":
            return self.diffusion.loss(x, t, cond, noise=eps, weight=self.weight)
        simple, _, estimate = self.diffusion.loss_and_estimate(x, t, cond, noise=eps, weight=self.weight)
        steps = self.config.process.steps
        if self.minimised == "bound":
            return steps * bound_term(x, estimate, t, self.diffusion.schedule, steps)  # on average the sum over T steps
        frozen = Estimate(estimate.mean.detach(), estimate.variance_fraction)
        return simple + steps / 1000 * bound_term(x, frozen, t, self.diffusion.schedule, steps)  # 0.001 of the sum


def objective(diffusion: Diffusion, config: TrainConfig, reader: Conditioner) -> Objective:
    """What this training minimises. Raises UserError for names that are unknown or do not fit together."""
    process = config.process
    weight = losses.make_weight(process, diffusion.schedule)
    minimised, times = losses.make_objective(process), losses.make_time_sampler(process)
    return Objective(diffusion, config, minimised, weight, times, reader)


def batch_condition(batch: Batch, reader: Conditioner, config: TrainConfig) -> Cond:
    """What the network is told of each picture of a batch."""
    captions = ("",) * len(batch.x) if batch.caption is None else batch.caption
    cond = reader.from_labels(batch.label if config.net.classes else None, captions, batch.value)
    if not isinstance(config.net, UNetConfig) or not config.net.controls:
        return cond
    assert batch.control is not None
    return replace(cond, control=(batch.control,))


def concat_input(x: Tensor, process: DiffusionConfig, rows: SampleRNG) -> Tensor:
    """The picture that is joined to x_t: x (B, C, H, W) made small and large again, or with a hole of the
    sample's own."""
    if process.concat == "low_res":
        return degrade.upscale(degrade.downscale(x, process.concat_factor), process.concat_factor)
    draws = torch.stack([rows.uniform(name) for name in degrade.BOX_DRAWS], dim=1)
    return degrade.mask_out(x, degrade.boxes(draws, *x.shape[2:]).to(x.device))


def drop_conditions(cond: Cond, rows: SampleRNG, process: DiffusionConfig, reader: Conditioner) -> Cond:
    """The condition with some rows told nothing, by lot: all that is said at once, and each thing by itself.

    Drawings and joined pictures stay: a network learns to follow them without words too.
    """
    if not process.cond_dropout and not process.cond_dropout_each:
        return cond
    null = reader.null(1)
    if process.cond_dropout:
        cond = cond.where(rows.uniform("no label") < process.cond_dropout, null)
    if process.cond_dropout_each:
        cond = cond.where(rows.uniform("no class alone") < process.cond_dropout_each, Cond(label=null.label))
        words = replace(null, label=None, value=None)
        cond = cond.where(rows.uniform("no words alone") < process.cond_dropout_each, words)
    if process.cond_dropout_each and cond.value is not None:
        lots = [rows.uniform(f"no {known.name} alone") < process.cond_dropout_each for known in reader.values]
        gone = torch.stack(lots, dim=1).to(cond.value.device)
        cond = replace(cond, value=cond.value.masked_fill(gone, math.nan))
    return cond


def no_pictures_yet(config: TrainConfig) -> Conditioner:
    """A reader for a network of this configuration, as long as no picture has been seen: its classes are numbers."""
    classes = tuple(map(str, range(config.net.classes)))
    words: PromptEncoder | None = None
    if config.encoder is not None:
        words = Encoder(config.encoder)
    elif config.net.text is not None:
        words = Tokenizer.learn([], vocabulary=config.net.text.vocabulary, length=config.net.text.length)
    values = tuple(ValueRange(name) for name in config.data.values)
    return Conditioner(classes, len(classes) if classes and config.net.null_class else None, words, values)


def learned_words(config: TrainConfig, pictures: Dataset) -> PromptEncoder | None:
    """What will read captions: learned from those of the pictures. Raises UserError where there are none."""
    text = config.net.text
    if text is None and config.encoder is None:
        return None
    if not pictures.captions:
        raise UserError(
            f"this network hears captions, and {config.data.path} has none: put a text file of the same name beside "
            "each picture, or a metadata.jsonl, or set net.text=none"
        )
    said = (pictures.caption(row) for row in range(len(pictures)))
    if text is None:
        return read_by(config, said)
    return Tokenizer.learn(said, vocabulary=text.vocabulary, length=text.length)


def read_by(config: TrainConfig, captions: Iterable[str]) -> Encoder:
    """The encoder beside the network, with all captions read. Raises UserError where its width is another."""
    assert config.encoder is not None
    encoder = Encoder(config.encoder)
    if config.net.context != encoder.width:
        raise UserError(
            f"net.context {config.net.context} should be {encoder.width}, the width of {encoder.config.path}"
        )
    encoder.cache(captions)
    return encoder


def train(
    config: TrainConfig, run: Path, *, processes: Processes = ALONE, command: Sequence[str] = ()
) -> Iterator[Tick]:
    """Train in the directory `run`, from its newest checkpoint where it has one; a tick a step.

    Ends without a tick where the training is finished. Raises UserError before anything is written where it cannot
    start; Stopped (a SystemExit) after a signal, saved. `command` is noted in the run.
    """
    validate.check(config)
    pictures = data.open(config.data)
    base = load_base(config, run)
    card = describe(config, pictures, base)
    words = base.text if base is not None and config.encoder is None else learned_words(config, pictures)
    placement = place(config, processes)
    net = prepare(init_network(config, base), placement)
    learner = TrainState(net, config.fit, dtype=placement.dtype, processes=processes)

    def batches(step: int) -> Iterator[Batch]:
        fit, who = config.fit, processes
        workers = 0 if pictures.cached else config.data.workers
        return data.batches(
            pictures, batch=fit.batch, seed=fit.seed, start=step, rank=who.rank, world=who.world, workers=workers
        )

    def write(folder: Path, weights: Mapping[str, Tensor]) -> None:
        write_model(folder, weights, replace(card, info=card.info | {"images": learner.step * config.fit.batch}), words)

    goal = objective(make_diffusion(net, config.process), config, make_conditioner(card, words))
    plan = Plan(
        fit=config.fit,
        log=config.log,
        batches=batches,
        loss=goal,
        write=write,
        draw=lambda file, weights: samples(file, weights, card, words, config, placement, processes, pictures),
        facts={"fingerprint": pictures.fingerprint},
        memory=goal.memory,
    )
    with ExitStack() as stack:
        held = None
        with processes.together():
            if processes.first:
                held = stack.enter_context(hold(run, config, command=command))
                held.same_data(facts(pictures))
                held.log(f"{len(pictures)} pictures, {len(pictures.broken)} broken; {placement.device}")
                if words is not None and (note := truncation_note(words, map(pictures.caption, range(len(pictures))))):
                    held.log(note)
        yield from follow(held, learner, plan, processes=processes)
        if held is not None:
            for broken in pictures.replaced:
                held.log(f"broken picture, replaced by another: {broken.path}: {broken.why}")


def load_base(config: TrainConfig, run: Path) -> Model | None:
    """The model that a training starts from, where it names one; once it has a checkpoint, that holds it too.

    Raises UserError for a base that is not there, or whose network or process is another.
    """
    validate.check_base(config)
    if not config.base:
        return None
    kept = run / "checkpoints"
    base = load(run if kept.is_dir() and checkpoint.sound(kept) else config.base)
    plain = (without_controls(config.net), process_of(config))
    theirs = _once_grown((without_controls(base.card.net), process_of(base.card)), config.net)
    for mine, its, what in zip(plain, theirs, ("net", "process"), strict=True):
        for name, (wanted, found) in convert.differences(its, mine).items():
            raise UserError(f"{what}.{name} {found} should be {wanted}, that of the base {config.base}")
    wanted = base.card.encoder
    if (None if config.encoder is None else found_again(config.encoder)) != wanted:
        raise UserError(f"encoder should be that of the base {config.base}: {wanted.path if wanted else 'none'}")
    return base


def _once_grown(base: tuple[NetConfig, DiffusionConfig], net: NetConfig) -> tuple[NetConfig, DiffusionConfig]:
    """A network and its process as they are once the network is the inner part of `net`; else as they are.

    Its levels then see pictures through pixels 2^levels wide, and so much less of their noise.
    """
    core, process = base
    levels = levels_around(net, core) if isinstance(net, UNetConfig) and isinstance(core, UNetConfig) else 0
    if not levels:
        return base
    shift = process.schedule_options.get("shift", 1.0)
    options = {key: value for key, value in process.schedule_options.items() if key != "shift"}
    if shift * 2**levels != 1:
        options["shift"] = shift * 2**levels
    return net, replace(process, schedule_options=options)


def init_network(config: TrainConfig, base: Model | None = None) -> nn.Module:
    """The network before it has seen anything: a function of the seed; or the base, its controls copies of it.

    A base with controls is frozen; a base without is trained on; one that is the inner part is grown around. Raises
    UserError where it cannot be.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(noise.generator(config.fit.seed, "weights").initial_seed())
        net = networks.build(config.net)
    if base is not None:
        theirs = base.diffusion.net.state_dict()
        core = base.card.net
        if isinstance(net, networks.UNet) and isinstance(core, UNetConfig) and levels_around(net.config, core):
            grow(net, core, theirs)
        else:
            net.load_state_dict(net.state_dict() | {name: value.clone() for name, value in theirs.items()})
        if isinstance(net, networks.UNet) and net.controls:
            if not base.controls:
                copy_base(net)
            net.requires_grad_(False)
            net.controls.requires_grad_(True)
    if config.fit.gradient_checkpointing:
        net.checkpointing = True  # type: ignore[assignment]
    return net


def place(config: TrainConfig, processes: Processes) -> Placement:
    """Where this process computes: with several and graphics cards, each on its own."""
    placement = best(config.device, config.fit.precision)
    if placement.device == "cuda" and processes.world > 1:
        return best(f"cuda:{processes.local}", config.fit.precision)
    return placement


def describe(config: TrainConfig, pictures: Dataset, base: Model | None = None) -> ModelCard:
    """What is needed to draw from the network. Raises UserError where its classes, or its numbers, are not those of the
    pictures."""
    classes, wanted = pictures.classes, config.net.classes
    if wanted and wanted != len(classes):
        raise UserError(
            f"net.classes {wanted} should be {len(classes)}, the classes of {config.data.path}"
            + (f" ({', '.join(classes[:8])}{', ...' if len(classes) > 8 else ''})" if classes else ", which has none")
        )
    return ModelCard(
        net=config.net,
        process=config.process,
        size=(config.data.size, config.data.size),
        channels=config.data.channels,
        classes=classes if wanted else (),
        values=ranges(config, pictures, base),
        captions=examples(pictures) if config.net.text or config.encoder else (),
        encoder=None if config.encoder is None else found_again(config.encoder),
        sampler="heun" if config.process.schedule == "edm" else "ddim",
        info={
            "training": config.name,
            "about": config.about,
            "data": config.data.path,
            **({"control": config.data.control} if config.data.control else {}),
            "pictures": len(pictures),
            "fingerprint": pictures.fingerprint,
        },
    )


def ranges(config: TrainConfig, pictures: Dataset, base: Model | None) -> tuple[ValueRange, ...]:
    """Between which the numbers told lie; those of the base, whose network knows them so, where there is one.

    Raises UserError for a number that is the same in every picture, or missing where the network has to be told it.
    """
    names = config.data.values
    known = base.card.values if base is not None else ()
    if base is not None and tuple(value.name for value in known) != names:
        theirs = ", ".join(value.name for value in known) or "none"
        raise UserError(f"data.values {', '.join(names) or 'none'} should be the base's, in its order: {theirs}")
    found = []
    for name, column in zip(names, pictures.values().T):
        batch_condition = column[~np.isnan(column)]
        if len(batch_condition) == 0 or batch_condition.min() == batch_condition.max():
            said = (
                f"{batch_condition[0]:g} in every picture of which it is told"
                if len(batch_condition)
                else "told of no picture"
            )
            raise UserError(f"{name} is {said} in {config.data.path}: nothing can be learned of it; leave it out")
        if len(batch_condition) < len(column) and isinstance(config.net, UNetConfig) and not config.net.null_value:
            raise UserError(
                f"{name} is told of {len(batch_condition)} of {len(column)} pictures: set net.null_value, or tell all"
            )
        found.append(ValueRange(name, float(batch_condition.min()), float(batch_condition.max())))
    return known or tuple(found)


def found_again(encoder: EncoderConfig) -> EncoderConfig:
    """The encoder as a model names it, wherever that is loaded: a folder by its whole path, and no cache."""
    path = Path(encoder.path)
    return replace(encoder, path=str(path.resolve()) if path.is_dir() else encoder.path, cache="")


def examples(pictures: Dataset, count: int = 16) -> tuple[str, ...]:
    """Captions of some pictures, spread over the set, none twice: what one may say to a model."""
    rows = (i * len(pictures) // count for i in range(count))
    return tuple(dict.fromkeys(text for row in rows if (text := pictures.caption(row).strip())))


def facts(pictures: Dataset) -> dict[str, Any]:
    """data.json: which pictures these are."""
    return {
        "fingerprint": pictures.fingerprint,
        "path": pictures.config.path,
        "count": len(pictures),
        "classes": list(pictures.classes),
        "broken": [{"path": broken.path, "why": broken.why} for broken in pictures.broken],
    }


def samples(
    file: Path,
    weights: Mapping[str, Tensor],
    card: ModelCard,
    words: PromptEncoder | None,
    config: TrainConfig,
    placement: Placement,
    processes: Processes,
    pictures: Dataset,
) -> None:
    """A sheet at fixed seeds, a column a label or caption, drawn by all processes together; the first one saves it.

    Where a picture is joined to x_t, those of the first `pictures`.
    """
    log = config.log
    names, captions = card.classes[: log.grid_labels], card.captions[: log.grid_labels]
    columns = len(captions) or len(names) or log.grid_labels
    seeds = tuple(range(log.grid_rows * columns))
    labels = () if captions else names * log.grid_rows
    request = Request(
        seeds=tuple(processes.share(seeds)),
        labels=tuple(processes.share(labels)),
        prompts=tuple(processes.share(captions * log.grid_rows)),
        guidance=log.grid_guidance if words is not None or null_row(card) is not None else 1.0,
        values={}
        if make_conditioner(card, words).null_value
        else {v.name: ((v.low + v.high) / 2,) for v in card.values},
        steps=log.grid_steps,
        device=placement.device,
        precision=config.fit.precision,
    )
    pixels = torch.zeros(0, card.channels, *card.size, dtype=torch.uint8)
    if request.seeds:
        state = {name: value.cpu() for name, value in weights.items()}
        model = Model.from_state(card, state, "this training", words)
        cond = None
        if config.process.concat:
            x = pictures.batch([seed % len(pictures) for seed in request.seeds]).x
            image = concat_input(x, config.process, SampleRNG(config.fit.seed, request.seeds, len(seeds)))
            cond = replace(conditions(model.conditioner, request), concat=image)
        pixels = draw(model, request, cond=cond).pixels
    pixels = processes.gather(pixels.to(placement.device)).cpu()
    if processes.first:
        Pictures(pixels, seeds, labels or captions * log.grid_rows).save(file, columns)
