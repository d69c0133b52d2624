"""A judge of pictures told in words: is a picture's own caption the nearest among others? On disk,
a contrastive model:

    model.safetensors    the weights             contrastive.json    the card: networks, data, how well it reads
    tokenizer.json       what reads captions     manifest.json       the sha256 and size of each file

Retrieval: of M other captions, r lie as near to the picture as its own, or nearer. Among K candidates, the own one and
K - 1 of the others by lot, the own is one of the k nearest with the probability (Radford et al. 2021 take K = all)

    sum_{j < k} C(r, j) C(M - r, K - 1 - j) / C(M, K - 1)

so nothing is drawn: a figure is the mean over all lots, and its error is that of the pictures alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unnoise import artifacts
from unnoise.config.cards import ContrastiveCard
from unnoise.config.convert import from_dict
from unnoise.errors import UserError
from unnoise.io import checkpoint
from unnoise.nn.contrastive import Contrastive
from unnoise.text import tokenizer as tokens
from unnoise.text.tokenizer import Tokenizer

CARD, FORMAT = "contrastive.json", "unnoise-contrastive-1"
RESULT = "contrastive"  # where a training leaves it, inside the run
AMONG = 100  # captions, beside all of them


class Share(NamedTuple):
    """A share of pictures, and its standard error over pictures (nan for one picture)."""

    value: float
    error: float


@dataclass(frozen=True)
class Retrieval:
    """How often the own caption of n pictures is the nearest, and one of the five nearest, among `among` captions."""

    first: Share
    fifth: Share
    among: int
    n: int

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        shares = {"first": self.first, "fifth": self.fifth}
        return {name: share._asdict() for name, share in shares.items()} | {"among": self.among, "n": self.n}


@dataclass(frozen=True, eq=False)
class ContrastiveEvaluator:
    """A trained contrastive model, with what reads its captions, and how it was made."""

    net: Contrastive
    tokenizer: Tokenizer
    card: ContrastiveCard

    @property
    def name(self) -> str:
        return str(self.card.info.get("training", "contrastive"))

    @torch.no_grad()
    def pictures(self, x: Tensor, *, batch: int = 256) -> Tensor:
        """Pictures (B, C, H, W) in [-1, 1] -> unit vectors (B, D), float32. Raises UserError for other shapes."""
        net = self.card.net
        have, want = tuple(x.shape[1:]), (net.in_channels, net.size, net.size)
        if have != want:
            raise UserError(
                f"the contrastive judge {self.name!r} takes pictures of {want[1]}x{want[2]} pixels with {want[0]} "
                f"channels, these have {have[1]}x{have[2]} with {have[0]}; train one on pictures like these: unnoise "
                "train emoji-contrastive --data ..."
            )
        found = [self.net.pictures(part) for part in torch.split(x, batch) if len(part)]
        return torch.cat(found) if found else x.new_zeros(0, net.embedding)

    @torch.no_grad()
    def captions(self, said: Sequence[str], *, batch: int = 512) -> Tensor:
        """Captions -> unit vectors (N, D), float32."""
        parts = [said[first : first + batch] for first in range(0, len(said), batch)]
        found = [self.net.captions(_tokens(self.tokenizer, part)) for part in parts]
        return torch.cat(found) if found else torch.zeros(0, self.card.net.embedding)

    def similarity(self, x: Tensor, said: Sequence[str]) -> Tensor:
        """The cosine of every picture and every caption: (B, N), in [-1, 1]."""
        return self.pictures(x) @ self.captions(said).T

    def retrieval(self, seen: Tensor, said: Sequence[str], candidates: Sequence[str], *, among: int) -> Retrieval:
        """How often pictures, `seen` (n, D) by `pictures`, find what is `said` of each among so many `candidates`.

        These are what else could have been said; those that read like one another are one.
        """
        return retrieval(*self.better(seen, said, candidates), among=among)

    def better(self, seen: Tensor, said: Sequence[str], candidates: Sequence[str]) -> tuple[Tensor, int]:
        """How many other captions are as near as its own to each picture, or nearer: (n,); and how many others are."""
        vectors, own = self.distinct(said, candidates)
        return beaten_by(seen @ vectors.T, own), len(vectors) - 1

    @torch.no_grad()
    def distinct(self, said: Sequence[str], candidates: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Unit vectors (N, D) of all these captions, those that read alike once; the places (n,) of what is `said`."""
        every = _tokens(self.tokenizer, [*said, *candidates])
        found, place = torch.unique(every, dim=0, return_inverse=True)
        vectors = torch.cat([self.net.captions(part) for part in torch.split(found, 512)])
        return vectors, place[: len(said)]


def beaten_by(similarity: Tensor, own: Tensor) -> Tensor:
    """How many other captions are as near as a picture's own, or nearer: (n,), of (n, N) and places (n,).

    A tie counts against the picture: a judge that finds all captions alike has found nothing.
    """
    right = similarity.gather(1, own[:, None])
    return (similarity >= right).sum(1) - 1


def retrieval(better: Tensor, others: int, *, among: int) -> Retrieval:
    """Retrieval among `among` captions, or all where they are fewer, of pictures with so many better ones (n,)."""
    if len(better) == 0:
        raise ValueError("the retrieval of no pictures")
    if among < 2 or others < 1:
        raise UserError(f"captions to find the right one among: 2 at least, not {min(among, others + 1)}")
    drawn = min(among - 1, others)
    first, fifth = (_share(_within(k, better, others, drawn)) for k in (1, 5))
    return Retrieval(first, fifth, drawn + 1, len(better))


def first_of(better: Tensor, others: int, *, among: int = AMONG) -> Tensor:
    """How likely each picture's own caption is the nearest of `among`, or of all where they are fewer: (n,)."""
    return _within(1, better, others, min(among - 1, others))


def few_and_all(better: Tensor, others: int) -> list[Retrieval]:
    """Among AMONG captions, and among all; once, where these are no more."""
    return [retrieval(better, others, among=among) for among in sorted({min(AMONG, others + 1), others + 1})]


def _within(k: int, better: Tensor, others: int, drawn: int) -> Tensor:
    """The probability that fewer than k of those better (n,) are among `drawn` of `others`, (n,): hypergeometric."""
    r = better.double()
    total = torch.zeros_like(r)
    for j in range(min(k, drawn + 1)):
        possible = (r >= j) & (others - r >= drawn - j)
        ways = _log_choose(r, j) + _log_choose(others - r, drawn - j) - _log_choose(r.new_tensor(others), drawn)
        total += torch.where(possible, ways.exp(), 0.0)
    return total.clamp(max=1)


def _log_choose(n: Tensor, k: int) -> Tensor:
    """log C(n, k); of no meaning where n < k."""
    left = (n - k).clamp(min=0)
    return torch.lgamma(n + 1) - torch.lgamma(left + 1) - torch.lgamma(n.new_tensor(k + 1))


def _share(values: Tensor) -> Share:
    return Share(values.mean().item(), (values.std() / len(values) ** 0.5).item() if len(values) > 1 else float("nan"))


def _tokens(tokenizer: Tokenizer, said: Sequence[str]) -> Tensor:
    tokens = tokenizer.encode(said).tokens
    assert tokens is not None
    return tokens


# --- on disk ---


def write(folder: Path, state: Mapping[str, Tensor], tokenizer: Tokenizer, card: ContrastiveCard) -> None:
    """Weights, tokenizer and card into an existing folder."""
    checkpoint.save(state, folder / artifacts.WEIGHTS)
    tokenizer.save(folder / tokens.FILE)
    artifacts.write_card(folder / CARD, card, FORMAT)


def load(path: str | Path) -> ContrastiveEvaluator:
    """The judge in a directory, a checkpoint of its training, or a run: on the CPU, float32, without gradients.

    Raises UserError that says what is wrong with which file.
    """
    folder = find(Path(path))
    card = read_card(folder)
    net = artifacts.load_net(lambda: Contrastive(card.net), folder, CARD)
    tokenizer = Tokenizer.load(folder / tokens.FILE, card.net.text.length)
    if tokenizer.vocabulary > card.net.text.vocabulary:
        raise UserError(f"{folder / tokens.FILE}: {tokenizer.vocabulary} tokens, {CARD} has {card.net.text.vocabulary}")
    return ContrastiveEvaluator(net, tokenizer, card)


def find(path: Path) -> Path:
    """The directory with the judge that `path` means."""
    return artifacts.find(
        path,
        CARD,
        RESULT,
        missing="give a contrastive judge, as `unnoise train emoji-contrastive` leaves one",
        empty=f"no contrastive judge: it has no {CARD}; `unnoise train emoji-contrastive` leaves one",
    )


def is_judge(path: str | Path) -> bool:
    """Whether `load` finds a judge there."""
    try:
        find(Path(path))
    except UserError:
        return False
    return True


def read_card(folder: Path) -> ContrastiveCard:
    file = folder / CARD
    card, said = artifacts.read_card(file, again="train the judge again")
    if said != FORMAT:
        raise UserError(f"{file}: of the format {said!r}, not {FORMAT}; train the judge with this version of unnoise")
    return from_dict(ContrastiveCard, card, str(file))
