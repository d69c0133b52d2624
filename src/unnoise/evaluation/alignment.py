"""Agreement of sampled pictures with their conditions: `unnoise evaluate --metrics caption,mask,retrieval`.

    caption     the fraction of pictures correct in all that their caption names: shapes, colours, sizes, places,
                background
    mask        intersection over union of the shapes in the real picture of the caption and in the sampled one
    retrieval   the fraction of pictures whose own caption is the nearest, among 100 and among all, in the embedding
                of a contrastive model

Pictures are sampled for the captions and control images of real ones, best of held-out ones. They are evaluated by the
exact reader of the shapes set, or by a contrastive model of their set (--evaluator). The real pictures are evaluated
too: their values show how far the evaluator can be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch
from torch import Tensor

from unnoise import data
from unnoise.codec import from_bytes, to_bytes
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request
from unnoise.data import Batch, Dataset
from unnoise.data.shapes import caption_accuracy, caption_correct, mask_iou, parse, read
from unnoise.errors import UserError
from unnoise.evaluation.conditions import conditions_and_control
from unnoise.evaluation.progress import Progress
from unnoise.generate.frames import frames
from unnoise.generate.job import Placed, place, prepare
from unnoise.metrics import contrastive
from unnoise.metrics.contrastive import ContrastiveEvaluator, Retrieval, beaten_by, few_and_all, first_of
from unnoise.model import Model
from unnoise.training.distributed import Processes

ALIGNMENT = {"caption": "caption right", "mask": "mask IoU", "retrieval": "caption retrieval"}
"""The metrics of this module, which compare pictures with their conditions, and their names in a report."""
Correct = Callable[[Tensor, slice], Tensor]
"""(pictures (B, C, H, W) in [-1, 1], their rows among all) -> (B,): whether each agrees with its condition."""


def check(names: Sequence[str], model: Model, config: EvaluateConfig, pictures: Dataset) -> ContrastiveEvaluator | None:
    """Returns the contrastive model for `retrieval`, where this is among `names`.

    Raises UserError where the model is not conditioned on text, or no evaluator reads the captions of `pictures`.
    """
    if model.text is None:
        raise UserError(
            "this model is not conditioned on text, so no caption can be correct: use --metrics accuracy for classes"
        )
    if not pictures.captions:
        raise UserError(f"{pictures.config.path} has no captions to sample for: add for example --data shapes-one:test")
    evaluator = contrastive_evaluator(config, pictures) if "retrieval" in names else None
    if set(names) != {"retrieval"} and not readable(pictures):
        raise UserError(
            f"captions of {pictures.config.path} cannot be evaluated: the exact reader reads the sets shapes, "
            "shapes-one and shapes-two; add --data shapes-one:test, or use --metrics retrieval with an --evaluator"
        )
    return evaluator


def readable(pictures: Dataset) -> bool:
    """Whether the exact reader reads the pictures of this set."""
    return pictures.config.path.startswith("shapes")


def contrastive_evaluator(config: EvaluateConfig, pictures: Dataset) -> ContrastiveEvaluator:
    """The contrastive model that `config` names. Raises UserError where none is, or one of pictures of another size."""
    if config.evaluator == "auto":
        raise UserError(
            "retrieval needs a contrastive model of the pictures and their captions: train one (unnoise train "
            f"emoji-contrastive --data {pictures.config.path.partition(':')[0]}) and give its run as --evaluator"
        )
    evaluator = contrastive.load(config.evaluator)
    evaluator.pictures(torch.empty(0, *pictures.shape))
    return evaluator


def measure(
    names: Sequence[str],
    model: Model,
    config: EvaluateConfig,
    request: Request,
    pictures: Dataset,
    processes: Processes,
) -> Generator[Progress, None, list[dict[str, Any]]]:
    """Returns the entries of the metrics `names` of ALIGNMENT, of the same pictures. Raises UserError as `check`."""
    evaluator = check(names, model, config, pictures)
    placed = place(model, request.device, request.precision)
    if evaluator is not None:
        evaluator.to(placed.placement.device)
    rows = data.order(0, 0, len(pictures))[: config.count].tolist()
    mine = list(processes.split(rows))
    if not mine:
        raise UserError(f"{len(rows)} pictures are too few for {processes.world} processes: raise --count")
    first = config.seed + len(rows) * processes.rank // processes.world
    batch = pictures.batch(mine)
    assert batch.caption is not None
    seeds = tuple(range(first, first + len(mine)))
    request = request.but(seeds=seeds, labels=(), prompts=batch.caption)
    sampled = yield from _sample(placed, request, pictures, batch)
    real = to_bytes(batch.x)
    found = []
    for name in names:
        if name == "retrieval":
            assert evaluator is not None, "`check` returns it for this metric"
            found.append(_retrieval(evaluator, pictures, batch.caption, sampled, real, processes))
        else:
            entry = _captions if name == "caption" else _masks
            found.append(entry(batch.caption, _images(sampled), _images(real), processes))
    return found


def _sample(placed: Placed, request: Request, pictures: Dataset, batch: Batch) -> Generator[Progress, None, Tensor]:
    """Pictures (B, C, H, W) as bytes for the conditions of the real ones in `batch`."""
    cond = conditions_and_control(placed.model, pictures, batch, request)
    parts = []
    for frame in frames(prepare(placed, request, cond=cond)):
        if frame.done and frame.pictures is not None:
            parts.append(to_bytes(frame.pictures))
            yield Progress("alignment", sum(map(len, parts)), len(request.seeds))
    return torch.cat(parts)


def evaluators_of(
    names: Sequence[str],
    model: Model,
    config: EvaluateConfig,
    pictures: Dataset,
    captions: Sequence[str],
    device: str = "cpu",
) -> dict[str, Correct]:
    """`caption` and `retrieval` of each picture, for pictures sampled for `captions`, with a network on `device`.

    Raises UserError as `check`.
    """
    evaluator = check(names, model, config, pictures) if names else None
    found: dict[str, Correct] = {}
    if "caption" in names:
        for text in captions:
            parse(text)  # raises UserError for a caption that the reader does not understand

        def read_correctly(x: Tensor, rows: slice) -> Tensor:
            pairs = zip(captions[rows], _images(to_bytes(x)), strict=True)
            return torch.tensor([caption_correct(text, pixels)["all"] for text, pixels in pairs])

        found["caption"] = read_correctly
    if evaluator is not None:
        evaluator.to(device)
        vectors, own = evaluator.distinct(captions, [pictures.caption(row) for row in range(len(pictures))])

        def nearest_to_own(x: Tensor, rows: slice) -> Tensor:
            embeddings = evaluator.pictures(from_bytes(to_bytes(x)))
            return first_of(beaten_by(embeddings @ vectors.T, own[rows]), len(vectors) - 1)

        found["retrieval"] = nearest_to_own
    return found


def _images(pixels: Tensor) -> list[Any]:
    """Bytes (B, 3, H, W) as a list of pictures (H, W, 3)."""
    return list(pixels.permute(0, 2, 3, 1).contiguous().numpy())


def _captions(captions: Sequence[str], sampled: list[Any], real: list[Any], processes: Processes) -> dict[str, Any]:
    names = ("all", "number", "kind", "colour", "size", "background", "relation")
    counts: list[list[tuple[int, int]]] = []
    for pictures in (sampled, real):
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


def _masks(captions: Sequence[str], sampled: list[Any], real: list[Any], processes: Processes) -> dict[str, Any]:
    overlaps = []
    for ours, truth in zip(sampled, real, strict=True):
        shapes = [shape.mask for shape in read(truth).shapes]
        overlaps.append(mask_iou(ours, sum(shapes[1:], shapes[0]) > 0) if shapes else math.nan)
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
    evaluator: ContrastiveEvaluator,
    pictures: Dataset,
    captions: Sequence[str],
    sampled: Tensor,
    real: Tensor,
    processes: Processes,
) -> dict[str, Any]:
    candidates = [pictures.caption(row) for row in range(len(pictures))]

    def found(pixels: Tensor) -> list[Retrieval]:
        better, others = evaluator.better(evaluator.pictures(from_bytes(pixels)), captions, candidates)
        return few_and_all(processes.gather(better), others)

    ours, theirs = found(sampled), found(real)
    return {
        "id": "retrieval",
        "name": f"{ALIGNMENT['retrieval']}, {ours[0].among}",
        "better": "up",
        "value": ours[0].first.value,
        "error": ours[0].first.error,
        "n": ours[0].n,
        "real": theirs[0].first.value,
        "features": f"contrastive {evaluator.name}",
        "judge": {"name": evaluator.name, "data": evaluator.card.info.get("data", "")},
        "known": evaluator.card.info.get("fingerprint") == pictures.fingerprint,
        "drawn_found": [each.plain() for each in ours],
        "real_found": [each.plain() for each in theirs],
    }
