"""Trains the contrastive model that evaluates captions: InfoNCE on slightly shifted real pictures and their captions.

    loss_i = -1/2 [log softmax_j(s_ij) + log softmax_j(s_ji)] at j = i,    s_ij = scale unit(picture) . unit(caption)

The pictures of a step are each other's negatives. The model trains on all pictures of the data set: an evaluator of
samples for these captions should know the real pictures, and its retrieval on real pictures is an upper limit for
samples. Where the set has a test part, retrieval is measured there too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from unnoise import data
from unnoise.acceleration.placement import best, prepare
from unnoise.config.cards import ContrastiveCard
from unnoise.config.training import ContrastiveConfig
from unnoise.data import Batch, Dataset
from unnoise.errors import UserError
from unnoise.io import checkpoint
from unnoise.metrics import contrastive
from unnoise.metrics.contrastive import ContrastiveEvaluator, Retrieval, few_and_all
from unnoise.nn.contrastive import Contrastive
from unnoise.recipes.evaluator_training import fit_evaluator, held_out_part, on_cpu, random_shift, without_augmentation
from unnoise.recipes.initialization import seeded_weights
from unnoise.text.tokenizer import Tokenizer, truncation_note
from unnoise.training.distributed import ALONE, Processes
from unnoise.training.loop import Tick
from unnoise.training.player import SampleRNG
from unnoise.training.run import Run
from unnoise.training.train_state import TrainState


def train(
    config: ContrastiveConfig, run: Run | None, *, processes: Processes = ALONE, pictures: Dataset | None = None
) -> Iterator[Tick]:
    """Trains in a run, which the first process passes, from its newest checkpoint to the end.

    Saves the model in the run's folder `contrastive`; `metrics.contrastive.load` loads it from the run's path.
    `pictures` is the data set where it is open already. Raises UserError before the first step where the pictures have
    no captions, or a step would be split.
    """
    check(config, processes)
    pictures = data.open(config.data) if pictures is None else pictures
    tokenizer = learn_tokenizer(config, pictures)
    net = init_network(config)
    placement = best(config.device, "float32")  # an evaluator should not be rounded
    state = TrainState(prepare(net, replace(placement, channels_last=False)), config.fit, processes=processes)
    card = describe(config, pictures)

    def write(folder: Path, weights: Mapping[str, Tensor]) -> None:
        contrastive.write(folder, weights, tokenizer, card)

    if run is not None and (note := truncation_note(tokenizer, pictures.every_caption())):
        run.log(note)
    yield from fit_evaluator(config, pictures, state, objective(net, tokenizer, config), write, run, processes)
    average = state.average(config.fit.ema[0])
    if run is not None:
        final = Contrastive(config.net).eval().requires_grad_(False)
        final.load_state_dict(on_cpu(average))
        found = retrievals(ContrastiveEvaluator(final, tokenizer, card), config, pictures)
        done = replace(card, info=card.info | {"retrieval": [{"data": name, **each.plain()} for name, each in found]})
        checkpoint.publish(
            run.path / contrastive.RESULT, lambda folder: contrastive.write(folder, average, tokenizer, done)
        )
        for name, each in found:
            run.log(retrieval_text(name, each))


def check(config: ContrastiveConfig, processes: Processes) -> None:
    """Raises UserError where a step would be split, because its pictures are all compared with each other."""
    if config.fit.accumulate > 1 or processes.world > 1:
        raise UserError(
            "a contrastive training compares all pictures of a step with each other: use one process, and "
            "fit.accumulate 1"
        )
    if config.fit.batch < 2:
        raise UserError(f"fit.batch {config.fit.batch}: a step needs pictures to compare: set it to 256, for example")
    net, given = config.net, config.data
    if (net.size, net.in_channels) != (given.size, given.channels):
        raise UserError(
            f"net.size {net.size} and net.in_channels {net.in_channels} should be data.size {given.size} and "
            f"data.channels {given.channels}"
        )


def check_data(config: ContrastiveConfig, pictures: Dataset, run: Path) -> None:
    """Raises UserError where the training could not start with these pictures, in one process."""
    check(config, ALONE)
    check_captions(config, pictures)
    with torch.device("meta"):
        Contrastive(config.net)


def check_captions(config: ContrastiveConfig, pictures: Dataset) -> None:
    """Raises UserError where the data set has no captions."""
    if not pictures.captions:
        raise UserError(
            f"{config.data.path} has no captions, which a contrastive training needs: use a data set with captions, "
            "such as emoji"
        )


def learn_tokenizer(config: ContrastiveConfig, pictures: Dataset) -> Tokenizer:
    """Returns the tokenizer of the captions. Raises UserError where there are none."""
    check_captions(config, pictures)
    text = config.net.text
    return Tokenizer.learn(pictures.every_caption(), vocabulary=text.vocabulary, length=text.length)


def objective(
    net: Contrastive, tokenizer: Tokenizer, config: ContrastiveConfig
) -> Callable[[Batch, SampleRNG], Tensor]:
    """Returns the loss: (batch, rows) -> (B,)."""

    def loss(batch: Batch, rows: SampleRNG) -> Tensor:
        assert batch.caption is not None
        tokens = tokenizer.encode(batch.caption).tokens
        assert tokens is not None
        each: Tensor = net(random_shift(batch.x, rows, config.shift), tokens.to(batch.x.device))
        return each

    return loss


def init_network(config: ContrastiveConfig) -> Contrastive:
    """Returns the network before training: its weights are a function of the seed."""
    with seeded_weights(config.fit.seed):
        return Contrastive(config.net)


def describe(config: ContrastiveConfig, pictures: Dataset) -> ContrastiveCard:
    """Returns the card of the model that this training makes."""
    trained = {"training": config.name, "about": config.about, "data": config.data.path, "pictures": len(pictures)}
    trained |= {"fingerprint": pictures.fingerprint, "shift": config.shift, "fit": asdict(config.fit)}
    return ContrastiveCard(net=config.net, info=trained)


def retrievals(
    evaluator: ContrastiveEvaluator, config: ContrastiveConfig, pictures: Dataset
) -> list[tuple[str, Retrieval]]:
    """Returns the retrieval on the training pictures and on the test part of the set, if it has one, by name."""
    plain = without_augmentation(config.data)
    test = held_out_part(plain)
    sets = [(config.data.path, Dataset(pictures.source, plain))]
    sets += [] if test is None else [(test.path, data.open(test))]
    found = []
    for name, each in sets:
        rows = range(len(each))
        captions = [each.caption(row) for row in rows]
        embedded = torch.cat([evaluator.pictures(each.batch(rows[first : first + 256]).x) for first in rows[::256]])
        found += [(name, one) for one in few_and_all(*evaluator.better(embedded, captions, captions))]
    return found


def retrieval_text(name: str, found: Retrieval) -> str:
    """Returns a sentence with the rates."""
    first, fifth = (f"{rate.value:.1%} ± {rate.error:.1%}" for rate in (found.first, found.fifth))
    return (
        f"the caption of {found.n} pictures ({name}) is the nearest of {found.among} in {first}, one of the nearest "
        f"five in {fifth}"
    )
