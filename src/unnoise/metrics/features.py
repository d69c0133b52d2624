"""In which numbers pictures are compared: a fixed network's last features.

A Frechet distance is called FID only where the features are Inception-v3's; in any other the report names them.
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


@dataclass(frozen=True)
class Features:
    """Pictures (B, C, H, W) float in [-1, 1] -> (B, dim) float32.

    `fingerprint` is of the weights: equal where all features are. `fid`: a Frechet distance in these is FID.
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


def classifier_features(judge: ClassifierEvaluator) -> Features:
    """The pooled features of a classifier."""
    dim = judge.net.shape.features
    return Features(f"classifier {judge.name}", dim, judge.fingerprint, False, lambda x: judge(x)[1])


def contrastive_features(judge: ContrastiveEvaluator) -> Features:
    """The places of pictures on the sphere where a contrastive judge lets them meet their captions."""
    dim = judge.card.net.embedding
    return Features(f"contrastive {judge.name}", dim, fingerprint(judge.net), False, judge.pictures)


def inception_features(path: Path | None = None, *, batch: int = 32) -> Features:
    """Inception-v3's, from a weight file or from where torch-fidelity keeps it. Grey pictures become three channels.

    Raises UserError where the weights or the packages are missing. See metrics/inception.py.
    """
    net, digest = load_inception(path)
    official = digest.startswith(HASH)
    name = "inception-v3" if official else f"inception-v3 with other weights ({digest[:8]})"
    return Features(name, WIDTH, digest, official, lambda x: _inception(net, x, batch))


def find_features(name: str) -> Features:
    """By name: `inception`, a `.pth` file of its weights, a shipped classifier, or one's own judge in a directory."""
    if name == "inception":
        return inception_features()
    if Path(name).suffix in {".pth", ".pt"}:
        return inception_features(Path(name))
    if contrastive.is_judge(name):
        return contrastive_features(contrastive.load(name))
    if name in shipped() or Path(name).is_dir():
        return classifier_features(load_classifier(name))
    valid = ", ".join(("inception", *shipped()))
    raise UserError(
        f"no features {name!r}; valid: {valid}, a run of `unnoise train classifier` or a contrastive judge, a .pth file"
    )


def _inception(net: Network, x: Tensor, batch: int) -> Tensor:
    if x.shape[1] not in (1, 3):
        raise UserError(f"Inception-v3 takes grey or colour pictures, these have {x.shape[1]} channels")
    colour = to_bytes(x).expand(-1, 3, -1, -1)
    found = [net(part) for part in torch.split(colour, batch)]
    return torch.cat(found) if found else torch.zeros(0, WIDTH)
