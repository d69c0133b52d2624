"""Whether drawn pictures show what they were told: what `unnoise evaluate --metrics caption,retrieval` says.

    caption     the share of pictures that show all that their caption says: shapes, colours, sizes, places, background
    mask        where the picture beside the caption has its shapes, and the drawn one: intersection over union
    retrieval   the share of pictures whose own caption a contrastive judge finds nearest, among 100 and among all

Pictures are drawn for the captions (and along the drawings) of real ones, best of held-out ones, and read by the exact
reader of the shapes world, or by a judge that learned pictures and captions of their set (--judge). The real pictures
are read too, and say how far the reader can be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unnoise import data
from unnoise.codec import from_bytes, to_bytes
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request
from unnoise.data import Dataset
from unnoise.data.shapes import caption_accuracy, caption_correct, mask_iou, parse, read
from unnoise.errors import UserError
from unnoise.evaluation.conditions import all_told_of
from unnoise.generate.frames import frames
from unnoise.generate.job import prepare
from unnoise.metrics import contrastive
from unnoise.metrics.contrastive import ContrastiveEvaluator, Retrieval, beaten_by, few_and_all, first_of
from unnoise.model import Model
from unnoise.training.distributed import Processes

ALIGNMENT = {"caption": "caption right", "mask": "mask IoU", "retrieval": "caption retrieval"}
"""Measures of pictures beside what was asked for, and their names for people."""
Right = Callable[[Tensor, slice], Tensor]
"""(pictures (B, C, H, W) in [-1, 1], which of those asked for) -> (B,): whether each is what was asked for."""


class At(NamedTuple):
    """How far it is, in pictures."""

    stage: str
    done: int
    total: int


def check(names: Sequence[str], model: Model, ask: EvaluateConfig, pictures: Dataset) -> ContrastiveEvaluator | None:
    """The judge of retrieval, where that is asked for.

    Raises UserError where there is nothing that the model is told and the reader, or the judge, can read.
    """
    if model.text is None:
        raise UserError("this model hears no words, so no caption can be right: take --metrics accuracy for classes")
    if not pictures.captions:
        raise UserError(f"{pictures.config.path} has no captions to draw; give --data shapes-one:test")
    judge = judge_of(ask, pictures) if "retrieval" in names else None
    if set(names) != {"retrieval"} and not readable(pictures):
        raise UserError(
            f"captions of {pictures.config.path} cannot be judged: the exact reader reads the sets shapes, shapes-one "
            "and shapes-two; give --data shapes-one:test, or --metrics retrieval and a --judge"
        )
    return judge


def readable(pictures: Dataset) -> bool:
    """Whether the exact reader reads this set."""
    return pictures.config.path.startswith("shapes")


def judge_of(ask: EvaluateConfig, pictures: Dataset) -> ContrastiveEvaluator:
    """The judge of retrieval. Raises UserError where none is named, or one of other pictures."""
    if ask.evaluator == "auto":
        raise UserError(
            "retrieval needs a judge that learned the pictures and their captions: train one (unnoise train "
            f"emoji-contrastive, --data {pictures.config.path.partition(':')[0]}) and give its run as --judge"
        )
    judge = contrastive.load(ask.evaluator)
    judge.pictures(torch.empty(0, *pictures.shape))
    return judge


def measure(
    names: Sequence[str], model: Model, ask: EvaluateConfig, how: Request, pictures: Dataset, processes: Processes
) -> Generator[At, None, list[dict[str, Any]]]:
    """The entries of some of ALIGNMENT in a report, of the same pictures. Raises UserError where they cannot be had."""
    judge = check(names, model, ask, pictures)
    rows = data.order(0, 0, len(pictures))[: ask.count].tolist()
    mine = list(processes.split(rows))
    if not mine:
        raise UserError(f"{len(rows)} pictures cannot be shared by {processes.world} processes: raise --count")
    first = ask.seed + len(rows) * processes.rank // processes.world
    batch = pictures.batch(mine)
    assert batch.caption is not None
    request = replace(how, seeds=tuple(range(first, first + len(mine))), labels=(), prompts=batch.caption)
    cond = all_told_of(model, pictures, batch, how)
    parts = []
    for frame in frames(prepare(model, request, cond=cond)):
        if frame.done and frame.pictures is not None:
            parts.append(to_bytes(frame.pictures))
            yield At("alignment", sum(map(len, parts)), len(mine))
    drawn, real = torch.cat(parts), to_bytes(batch.x)
    found = []
    for name in names:
        if name == "retrieval":
            assert judge is not None, "it was asked for"
            found.append(_retrieval(judge, pictures, batch.caption, drawn, real, processes))
        else:
            read_by = _captions if name == "caption" else _masks
            found.append(read_by(batch.caption, _images(drawn), _images(real), processes))
    return found


def judged(
    names: Sequence[str], model: Model, ask: EvaluateConfig, pictures: Dataset, captions: Sequence[str]
) -> dict[str, Right]:
    """`caption` and `retrieval` picture by picture, of those drawn for these captions. Raises UserError as `check`."""
    judge = check(names, model, ask, pictures) if names else None
    found: dict[str, Right] = {}
    if "caption" in names:
        for text in captions:
            parse(text)  # refused here where the reader does not understand it

        def read_right(x: Tensor, rows: slice) -> Tensor:
            pairs = zip(captions[rows], _images(to_bytes(x)), strict=True)
            return torch.tensor([caption_correct(text, pixels)["all"] for text, pixels in pairs])

        found["caption"] = read_right
    if judge is not None:
        vectors, own = judge.distinct(captions, [pictures.caption(row) for row in range(len(pictures))])

        def found_first(x: Tensor, rows: slice) -> Tensor:
            seen = judge.pictures(from_bytes(to_bytes(x)))
            return first_of(beaten_by(seen @ vectors.T, own[rows]), len(vectors) - 1)

        found["retrieval"] = found_first
    return found


def _images(pixels: Tensor) -> list[Any]:
    """(B, 3, H, W) bytes as pictures (H, W, 3)."""
    return list(pixels.permute(0, 2, 3, 1).contiguous().numpy())


def _captions(captions: Sequence[str], drawn: list[Any], real: list[Any], processes: Processes) -> dict[str, Any]:
    names = ("all", "number", "kind", "colour", "size", "background", "relation")
    counts: list[list[tuple[int, int]]] = []
    for pictures in (drawn, real):
        found = caption_accuracy(captions, pictures)
        mine = torch.tensor([tuple(found.get(name, (0, 0))) for name in names], dtype=torch.int64)
        summed = processes.gather(mine[None]).sum(0)
        counts.append([(int(right), int(of)) for right, of in summed.tolist()])
    (right, of), (really, _) = counts[0][0], counts[1][0]
    return {
        "id": "caption",
        "name": ALIGNMENT["caption"],
        "better": "up",
        "value": right / of,
        "error": math.sqrt(right * (of - right) / of**3),
        "n": of,
        "real": really / of,
        "parts": {name: {"right": r, "of": n, "value": r / n} for name, (r, n) in zip(names, counts[0]) if n},
    }


def _masks(captions: Sequence[str], drawn: list[Any], real: list[Any], processes: Processes) -> dict[str, Any]:
    overlaps = []
    for seen, truth in zip(drawn, real, strict=True):
        shapes = [shape.mask for shape in read(truth).shapes]
        overlaps.append(mask_iou(seen, sum(shapes[1:], shapes[0]) > 0) if shapes else math.nan)
    found = processes.gather(torch.tensor(overlaps, dtype=torch.float64))
    found = found[~found.isnan()]
    return {
        "id": "mask",
        "name": ALIGNMENT["mask"],
        "better": "up",
        "value": found.mean().item(),
        "error": (found.std() / math.sqrt(len(found))).item() if len(found) > 1 else math.nan,
        "n": len(found),
    }


def _retrieval(
    judge: ContrastiveEvaluator,
    pictures: Dataset,
    captions: Sequence[str],
    drawn: Tensor,
    real: Tensor,
    processes: Processes,
) -> dict[str, Any]:
    candidates = [pictures.caption(row) for row in range(len(pictures))]

    def found(pixels: Tensor) -> list[Retrieval]:
        better, others = judge.better(judge.pictures(from_bytes(pixels)), captions, candidates)
        return few_and_all(processes.gather(better), others)

    ours, theirs = found(drawn), found(real)
    return {
        "id": "retrieval",
        "name": f"{ALIGNMENT['retrieval']}, {ours[0].among}",
        "better": "up",
        "value": ours[0].first.value,
        "error": ours[0].first.error,
        "n": ours[0].n,
        "real": theirs[0].first.value,
        "features": f"contrastive {judge.name}",
        "judge": {"name": judge.name, "data": judge.card.info.get("data", "")},
        "known": judge.card.info.get("fingerprint") == pictures.fingerprint,
        "drawn_found": [each.plain() for each in ours],
        "real_found": [each.plain() for each in theirs],
    }


def _found(entries: Sequence[dict[str, Any]]) -> str:
    """Retrieval in words: the nearest, and the five nearest, for each number of captions."""
    parts = [
        f"{each['first']['value']:.1%} ± {each['first']['error']:.1%} first of {each['among']:,} "
        f"({each['fifth']['value']:.1%} in the first five)"
        for each in entries
    ]
    return ", ".join(parts)


def said(entry: dict[str, Any]) -> str:
    """What must be said beside the figure."""
    if entry["id"] == "retrieval":
        judge = entry["judge"]
        knows = "learned these real pictures" if entry["known"] else f"learned {judge['data']}, not these real pictures"
        return (
            f"Retrieval: the own caption of {entry['n']} drawn pictures is {_found(entry['drawn_found'])}; of the real "
            f"ones {_found(entry['real_found'])}. By chance 1 in as many. The judge {judge['name']} {knows}."
        )
    if entry["id"] == "mask":
        return f"Masks: {entry['n']} pictures, all shapes of each together."
    parts = ", ".join(f"{name} {part['value']:.1%}" for name, part in entry["parts"].items() if name != "all")
    return f"Captions: {entry['n']} pictures; {parts}; of the real pictures {entry['real']:.1%} are read right."
