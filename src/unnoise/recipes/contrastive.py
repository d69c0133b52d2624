"""Train the judge of captions: InfoNCE on real pictures, moved a little, and what is said of them.

    loss_i = -1/2 [log softmax_j(s_ij) + log softmax_j(s_ji)] at j = i,    s_ij = scale unit(picture) . unit(caption)

over the pictures of a step, which are each other's wrong answers. It learns all pictures that it is given: a judge of
pictures drawn for these captions should know what is real, and what it finds in the real ones is the most that drawn
ones can reach. Where the set has a part of its own that is held out, it says what it finds there too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from unnoise import data, noise
from unnoise.acceleration.placement import best, prepare
from unnoise.config.cards import ContrastiveCard
from unnoise.config.training import ContrastiveConfig
from unnoise.data import Batch, Dataset
from unnoise.errors import UserError
from unnoise.io import checkpoint
from unnoise.metrics import contrastive
from unnoise.metrics.contrastive import ContrastiveEvaluator, Retrieval, few_and_all
from unnoise.nn.contrastive import Contrastive
from unnoise.recipes.classifier import course, moved, own_test
from unnoise.text.tokenizer import Tokenizer, truncation_note
from unnoise.training.distributed import ALONE, Processes
from unnoise.training.loop import SampleRNG, Tick
from unnoise.training.run import Run
from unnoise.training.train_state import TrainState


def train(config: ContrastiveConfig, run: Run | None, *, processes: Processes = ALONE) -> Iterator[Tick]:
    """Train in a run's directory, which the first process holds, from its newest checkpoint to the end.

    Leaves the judge in its folder `contrastive`; `metrics.contrastive.load` takes the run's path. Raises UserError
    before the first step where the pictures have no captions, or a step would be parted.
    """
    check(config, processes)
    pictures = data.open(config.data)
    tokenizer = learned_words(config, pictures)
    net = new_born(config)
    placement = best(config.device, "float32")  # a judge should not be rounded
    learner = TrainState(prepare(net, replace(placement, channels_last=False)), config.fit, processes=processes)
    card = describe(config, pictures)

    def write(folder: Path, weights: Mapping[str, Tensor]) -> None:
        contrastive.write(folder, weights, tokenizer, card)

    if run is not None and (note := truncation_note(tokenizer, map(pictures.caption, range(len(pictures))))):
        run.log(note)
    yield from course(config, pictures, learner, objective(net, tokenizer, config), write, run, processes)
    average = learner.average(config.fit.ema[0])
    if run is not None:
        final = Contrastive(config.net).eval().requires_grad_(False)
        final.load_state_dict({name: value.float().cpu() for name, value in average.items()})
        found = retrievals(ContrastiveEvaluator(final, tokenizer, card), config, pictures)
        done = replace(card, info=card.info | {"retrieval": [{"data": name, **each.plain()} for name, each in found]})
        checkpoint.publish(
            run.path / contrastive.RESULT, lambda folder: contrastive.write(folder, average, tokenizer, done)
        )
        for name, each in found:
            run.log(said(name, each))


def check(config: ContrastiveConfig, processes: Processes) -> None:
    """Raises UserError where a step would be parted: its pictures are compared with each other, all with all."""
    if config.fit.accumulate > 1 or processes.world > 1:
        raise UserError(
            "a contrastive training compares all pictures of a step with each other: it takes one process, and "
            "fit.accumulate 1"
        )
    if config.fit.batch < 2:
        raise UserError(f"fit.batch {config.fit.batch}: with nothing to compare there is nothing to learn; take 256")
    net, given = config.net, config.data
    if (net.size, net.in_channels) != (given.size, given.channels):
        raise UserError(
            f"net.size {net.size} and net.in_channels {net.in_channels} should be data.size {given.size} and "
            f"data.channels {given.channels}: the network is for these pictures"
        )


def learned_words(config: ContrastiveConfig, pictures: Dataset) -> Tokenizer:
    """The tokenizer of the captions. Raises UserError where there are none."""
    if not pictures.captions:
        raise UserError(
            f"{config.data.path} has no captions, so there is nothing to find: name a set that has, as emoji"
        )
    text = config.net.text
    said = (pictures.caption(row) for row in range(len(pictures)))
    return Tokenizer.learn(said, vocabulary=text.vocabulary, length=text.length)


def objective(
    net: Contrastive, tokenizer: Tokenizer, config: ContrastiveConfig
) -> Callable[[Batch, SampleRNG], Tensor]:
    """The loss of a batch, a number a row: (batch, rows) -> (B,)."""

    def loss(batch: Batch, rows: SampleRNG) -> Tensor:
        assert batch.caption is not None
        tokens = tokenizer.encode(batch.caption).tokens
        assert tokens is not None
        each: Tensor = net(moved(batch.x, rows, config.shift), tokens.to(batch.x.device))
        return each

    return loss


def new_born(config: ContrastiveConfig) -> Contrastive:
    """The network before its training: its weights are those of the seed."""
    with torch.random.fork_rng([]):
        torch.manual_seed(noise.generator(config.fit.seed, "weights").initial_seed())
        return Contrastive(config.net)


def describe(config: ContrastiveConfig, pictures: Dataset) -> ContrastiveCard:
    trained = {"training": config.name, "about": config.about, "data": config.data.path, "pictures": len(pictures)}
    trained |= {"fingerprint": pictures.fingerprint, "shift": config.shift, "fit": asdict(config.fit)}
    return ContrastiveCard(net=config.net, info=trained)


def retrievals(
    judge: ContrastiveEvaluator, config: ContrastiveConfig, pictures: Dataset
) -> list[tuple[str, Retrieval]]:
    """What it finds in the pictures that it learned and, where there are such, in held-out ones; by the set's name."""
    plain = replace(config.data, flip=False, crop="center")
    tested = own_test(plain)
    sets = [(config.data.path, Dataset(pictures.source, plain))]
    sets += [] if tested is None else [(tested.path, data.open(tested))]
    found = []
    for name, each in sets:
        rows = range(len(each))
        captions = [each.caption(row) for row in rows]
        seen = torch.cat([judge.pictures(each.batch(rows[first : first + 256]).x) for first in rows[::256]])
        found += [(name, one) for one in few_and_all(*judge.better(seen, captions, captions))]
    return found


def said(name: str, found: Retrieval) -> str:
    """In words."""
    first, fifth = (f"{share.value:.1%} ± {share.error:.1%}" for share in (found.first, found.fifth))
    return (
        f"the caption of {found.n} pictures ({name}) is the nearest of {found.among} in {first}, one of the nearest "
        f"five in {fifth}"
    )
