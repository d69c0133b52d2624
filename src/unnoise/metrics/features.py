"""Features of pictures for comparing sets of them: the last features of a fixed network.

A Frechet distance is called FID only for the features of Inception-v3; for others the report names the features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unnoise.artifacts import fingerprint
from unnoise.codec import to_bytes
from unnoise.errors import UserError
from unnoise.metrics import contrastive
from unnoise.metrics.classifier import ClassifierEvaluator, load_classifier, shipped
from unnoise.metrics.contrastive import ContrastiveEvaluator
from unnoise.metrics.inception import HASH, WIDTH, Network, load_inception
from unnoise.metrics.perceptual import load_efficientnet
from unnoise.nn import efficientnet


@dataclass(frozen=True)
class Features:
    """Pictures (B, C, H, W) float in [-1, 1] -> (B, dim) float32.

    `fingerprint` is a SHA-256 of the weights: equal ones compute equal features. With `fid` a Frechet distance in these
    features is FID.
    """

    name: str
    dim: int
    fingerprint: str
    fid: bool
    extract: Callable[[Tensor], Tensor]

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        found = self.extract(x).float()
        assert found.shape == (len(x), self.dim)
        return found


def classifier_features(classifier: ClassifierEvaluator) -> Features:
    """The pooled features of a classifier."""
    dim = classifier.net.shape.features
    return Features(f"classifier {classifier.name}", dim, classifier.fingerprint, False, lambda x: classifier(x)[1])


def contrastive_features(model: ContrastiveEvaluator) -> Features:
    """The embeddings of pictures by a contrastive model: unit vectors."""
    dim = model.card.net.embedding
    return Features(f"contrastive {model.name}", dim, fingerprint(model.net), False, model.pictures)


def inception_features(path: Path | None = None, *, batch: int = 32, device: str = "cpu") -> Features:
    """Inception-v3's features, from a weight file or torch-fidelity's cache. Grey pictures get three equal channels.

    Raises UserError if the weights or the packages are missing. See metrics/inception.py.
    """
    net, digest = load_inception(path, device)
    official = digest.startswith(HASH)
    name = "inception-v3" if official else f"inception-v3 with other weights ({digest[:8]})"
    return Features(name, WIDTH, digest, official, lambda x: _inception(net, x, batch, device))


def efficientnet_features(*, batch: int = 32, device: str = "cpu") -> Features:
    """EfficientNet-lite0's pooled features of pictures that are resized to 224 pixels; grey ones get three channels.

    Raises UserError where its package is not installed.
    """
    net = load_efficientnet()
    digest = fingerprint(net)
    net = net.to(device)

    def extract(x: Tensor) -> Tensor:
        found = [net.pooled(part.to(device)).cpu() for part in torch.split(x, batch)]
        return torch.cat(found) if found else torch.zeros(0, efficientnet.WIDTH)

    return Features("efficientnet-lite0", efficientnet.WIDTH, digest, False, extract)


def find_features(name: str, device: str = "cpu") -> Features:
    """Features by name.

    `inception`, `efficientnet`, a `.pth` file of Inception's weights, a shipped classifier, or a directory of a model.
    Their network computes on `device`; pictures and features are on the CPU. Raises UserError for an unknown name.
    """
    if name == "efficientnet":
        return efficientnet_features(device=device)
    if name == "inception":
        return inception_features(device=device)
    if Path(name).suffix in {".pth", ".pt"}:
        return inception_features(Path(name), device=device)
    if contrastive.is_evaluator(name):
        return contrastive_features(contrastive.load(name).to(device))
    if name in shipped() or Path(name).is_dir():
        return classifier_features(load_classifier(name).to(device))
    valid = ", ".join(("inception", "efficientnet", *shipped()))
    raise UserError(
        f"no features {name!r}; valid: {valid}, a run of `unnoise train classifier` or of a contrastive model, "
        "a .pth file"
    )


def _inception(net: Network, x: Tensor, batch: int, device: str) -> Tensor:
    if x.shape[1] not in (1, 3):
        raise UserError(f"Inception-v3 needs grey or colour pictures, these have {x.shape[1]} channels")
    colour = to_bytes(x).expand(-1, 3, -1, -1)
    found = [net(part.to(device)).cpu() for part in torch.split(colour, batch)]
    return torch.cat(found) if found else torch.zeros(0, WIDTH)
