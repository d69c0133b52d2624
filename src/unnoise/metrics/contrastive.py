"""Evaluation by a contrastive model: is a picture's own caption the nearest among others? On disk:

    model.safetensors    the weights             contrastive.json    the card: networks, data, its retrieval
    tokenizer.json       the tokenizer     manifest.json       the sha256 and size of each file

Retrieval: of M other captions, r are as near to the picture as its own, or nearer. Among K candidates, the own one and
K - 1 random others, the own one is among the k nearest with the probability (K = all in Radford et al. 2021)

    sum_{j < k} C(r, j) C(M - r, K - 1 - j) / C(M, K - 1)

so no candidates are sampled: a value is the mean over all choices of them, and its error is that of the pictures alone.
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
RESULT = "contrastive"  # its folder inside the run that trained it
AMONG = 100  # candidate captions, reported beside retrieval among all


class Proportion(NamedTuple):
    """A fraction of pictures, and its standard error over pictures (nan for one picture)."""

    value: float
    error: float


@dataclass(frozen=True)
class Retrieval:
    """The fractions of n pictures whose own caption is the nearest, and in the five nearest, of `among` captions."""

    first: Proportion
    fifth: Proportion
    among: int
    n: int

    def plain(self) -> dict[str, Any]:
        """The retrieval as a dictionary for JSON."""
        proportions = {"first": self.first, "fifth": self.fifth}
        return {name: each._asdict() for name, each in proportions.items()} | {"among": self.among, "n": self.n}


@dataclass(frozen=True, eq=False)
class ContrastiveEvaluator:
    """A trained contrastive model with its tokenizer, and the settings of its training."""

    net: Contrastive
    tokenizer: Tokenizer
    card: ContrastiveCard

    @property
    def name(self) -> str:
        return str(self.card.info.get("training", "contrastive"))

    def to(self, device: str) -> ContrastiveEvaluator:
        """This evaluator, its network moved to a device. Pictures and results stay on the CPU."""
        self.net.to(device)
        return self

    @torch.no_grad()
    def pictures(self, x: Tensor, *, batch: int = 256) -> Tensor:
        """Pictures (B, C, H, W) in [-1, 1] -> unit vectors (B, D), float32. Raises UserError for other shapes."""
        net = self.card.net
        given, needed = tuple(x.shape[1:]), (net.in_channels, net.size, net.size)
        if given != needed:
            raise UserError(
                f"the contrastive model {self.name!r} needs pictures of {needed[1]}x{needed[2]} pixels with "
                f"{needed[0]} channels, not {given[1]}x{given[2]} with {given[0]}; train one on pictures like these: "
                "unnoise train emoji-contrastive --data ..."
            )
        device = artifacts.device_of(self.net)
        found = [self.net.pictures(part.to(device)).cpu() for part in torch.split(x, batch) if len(part)]
        return torch.cat(found) if found else x.new_zeros(0, net.embedding)

    @torch.no_grad()
    def captions(self, captions: Sequence[str], *, batch: int = 512) -> Tensor:
        """Captions -> unit vectors (N, D), float32."""
        parts = [captions[first : first + batch] for first in range(0, len(captions), batch)]
        found = [self._captions(_tokens(self.tokenizer, part)) for part in parts]
        return torch.cat(found) if found else torch.zeros(0, self.card.net.embedding)

    def similarity(self, x: Tensor, captions: Sequence[str]) -> Tensor:
        """The cosine of every picture and every caption: (B, N), in [-1, 1]."""
        return self.pictures(x) @ self.captions(captions).T

    def retrieval(
        self, vectors: Tensor, captions: Sequence[str], candidates: Sequence[str], *, among: int
    ) -> Retrieval:
        """How often pictures, by their vectors (n, D), find their own captions among `among` of the candidates.

        Candidates with equal tokens count once.
        """
        return retrieval(*self.better(vectors, captions, candidates), among=among)

    def better(self, vectors: Tensor, captions: Sequence[str], candidates: Sequence[str]) -> tuple[Tensor, int]:
        """The number of other captions at least as near to each picture as its own, (n,), and the number of others."""
        texts, own = self.distinct(captions, candidates)
        return beaten_by(vectors @ texts.T, own), len(texts) - 1

    @torch.no_grad()
    def distinct(self, captions: Sequence[str], candidates: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Unit vectors (N, D) of all captions and candidates without repeats, and the index (n,) of each caption."""
        every = _tokens(self.tokenizer, [*captions, *candidates])
        found, place = torch.unique(every, dim=0, return_inverse=True)
        vectors = torch.cat([self._captions(part) for part in torch.split(found, 512)])
        return vectors, place[: len(captions)]

    def _captions(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.net.captions(tokens.to(artifacts.device_of(self.net)))
        return found.cpu()


def beaten_by(similarity: Tensor, own: Tensor) -> Tensor:
    """The number (n,) of other captions at least as similar as each picture's own, whose index is `own` (n,).

    A tie counts against the picture, so that a model for which all captions are equal has no success.
    """
    right = similarity.gather(1, own[:, None])
    return (similarity >= right).sum(1) - 1


def retrieval(better: Tensor, others: int, *, among: int) -> Retrieval:
    """Retrieval among `among` captions, or all if they are fewer, for pictures with `better` (n,) better captions."""
    if len(better) == 0:
        raise ValueError("retrieval needs at least one picture")
    if among < 2 or others < 1:
        raise UserError(f"retrieval needs at least 2 different captions, not {min(among, others + 1)}")
    sampled = min(among - 1, others)
    first, fifth = (_proportion(_within(k, better, others, sampled)) for k in (1, 5))
    return Retrieval(first, fifth, sampled + 1, len(better))


def first_of(better: Tensor, others: int, *, among: int = AMONG) -> Tensor:
    """The probability (n,) that each picture's own caption is the nearest of `among`, or of all if they are fewer."""
    return _within(1, better, others, min(among - 1, others))


def few_and_all(better: Tensor, others: int) -> list[Retrieval]:
    """Retrieval among AMONG captions and among all; one of them if there are no more than AMONG."""
    return [retrieval(better, others, among=among) for among in sorted({min(AMONG, others + 1), others + 1})]


def _within(k: int, better: Tensor, others: int, sampled: int) -> Tensor:
    """The probability (n,) that fewer than k of the better ones (n,) are in a sample of the others: hypergeometric."""
    r = better.double()
    total = torch.zeros_like(r)
    for j in range(min(k, sampled + 1)):
        possible = (r >= j) & (others - r >= sampled - j)
        log_p = _log_choose(r, j) + _log_choose(others - r, sampled - j) - _log_choose(r.new_tensor(others), sampled)
        total += torch.where(possible, log_p.exp(), 0.0)
    return total.clamp(max=1)


def _log_choose(n: Tensor, k: int) -> Tensor:
    """log C(n, k); undefined where n < k."""
    left = (n - k).clamp(min=0)
    return torch.lgamma(n + 1) - torch.lgamma(left + 1) - torch.lgamma(n.new_tensor(k + 1))


def _proportion(values: Tensor) -> Proportion:
    return Proportion(
        values.mean().item(), (values.std() / len(values) ** 0.5).item() if len(values) > 1 else float("nan")
    )


def _tokens(tokenizer: Tokenizer, captions: Sequence[str]) -> Tensor:
    tokens = tokenizer.encode(captions).tokens
    assert tokens is not None
    return tokens


# --- on disk ---


def write(folder: Path, state: Mapping[str, Tensor], tokenizer: Tokenizer, card: ContrastiveCard) -> None:
    """Writes weights, tokenizer and card to an existing folder."""
    checkpoint.save(state, folder / artifacts.WEIGHTS)
    tokenizer.save(folder / tokens.FILE)
    artifacts.write_card(folder / CARD, card, FORMAT)


def load(path: str | Path) -> ContrastiveEvaluator:
    """The model in a directory, a checkpoint of its training, or a run; on the CPU, in float32, without gradients.

    Raises UserError, which names the file and what is wrong with it.
    """
    folder = find(Path(path))
    card = read_card(folder)
    net = artifacts.load_net(lambda: Contrastive(card.net), folder)
    tokenizer = Tokenizer.load(folder / tokens.FILE, card.net.text.length)
    if tokenizer.vocabulary > card.net.text.vocabulary:
        raise UserError(f"{folder / tokens.FILE}: {tokenizer.vocabulary} tokens, {CARD} has {card.net.text.vocabulary}")
    return ContrastiveEvaluator(net, tokenizer, card)


def find(path: Path) -> Path:
    """The directory of the model that `path`, a run, checkpoint or directory, contains. Raises UserError."""
    return artifacts.find(
        path,
        CARD,
        RESULT,
        missing="give a contrastive model, as `unnoise train emoji-contrastive` trains one",
        empty=f"no contrastive model: it has no {CARD}; `unnoise train emoji-contrastive` trains one",
    )


def is_evaluator(path: str | Path) -> bool:
    """Whether `path` contains a contrastive model that `load` finds."""
    try:
        find(Path(path))
    except UserError:
        return False
    return True


def read_card(folder: Path) -> ContrastiveCard:
    file = folder / CARD
    card, format_ = artifacts.read_card(file, again="train the contrastive model again")
    if format_ != FORMAT:
        raise UserError(
            f"{file}: the format is {format_!r}, not {FORMAT}; train the model with this version of unnoise"
        )
    return from_dict(ContrastiveCard, card, str(file))
