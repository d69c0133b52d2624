"""On real pictures distances agree with the eye: halves of the real set are close, degraded pictures farther."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unnoise import data
from unnoise.codec import from_bytes, to_bytes
from unnoise.config.data import DataConfig
from unnoise.data import Batch
from unnoise.metrics.classifier import load_classifier
from unnoise.metrics.features import find_features
from unnoise.metrics.frechet import frechet, moments
from unnoise.metrics.kernel import kernel
from unnoise.metrics.precision_recall import density_coverage, precision_recall

FASHION = DataConfig(path="fashion:test")


@pytest.fixture(scope="module")
def held() -> Batch:
    pictures = data.open(FASHION)
    return pictures.batch(torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0)).tolist())


@pytest.fixture(scope="module")
def real() -> Tensor:
    """Features of 2,500 random real pictures."""
    pictures = data.open(replace(FASHION, path="fashion"))
    return features(pictures.batch(data.order(0, 0, len(pictures))[:2500].tolist()).x)


@pytest.fixture(scope="module")
def found(held: Batch) -> Tensor:
    """Features of the pictures held out."""
    return features(held.x)


def features(x: Tensor) -> Tensor:
    return find_features("fashion")(from_bytes(to_bytes(x)))


def noisy(x: Tensor, spread: float) -> Tensor:
    return x + spread * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))


def blurred(x: Tensor, width: float) -> Tensor:
    weights = torch.exp(-(torch.arange(-4.0, 5.0) ** 2) / (2 * width**2))
    weights /= weights.sum()
    x = F.conv2d(F.pad(x, (4,) * 4, mode="replicate"), weights.view(1, 1, -1, 1))
    return F.conv2d(x, weights.view(1, 1, 1, -1))


def distance(real: Tensor, found: Tensor) -> tuple[float, float]:
    return frechet(moments(real), moments(found)), kernel(real, found).value


def test_distances_grow_with_degradation(held: Batch, real: Tensor, found: Tensor) -> None:
    assert held.label is not None
    close = distance(real, found)
    assert close[0] < 0.1
    assert abs(close[1]) < 0.002
    noise = [distance(real, features(noisy(held.x, s))) for s in (0.1, 0.2, 0.4)]
    blur = [distance(real, features(blurred(held.x, s))) for s in (0.5, 0.8, 1.5)]
    for worse in (noise, blur):
        for a, b in zip([close, *worse], worse):
            assert a[0] < b[0]
            assert a[1] < b[1]
        assert worse[-1][0] > 20 * close[0]
    missing = distance(real, found[held.label != 3])
    alone = distance(real, found[held.label == 3])
    for i in range(2):
        assert 4 * abs(close[i]) < missing[i] < noise[-1][i] < alone[i]


def test_fidelity_and_variety_are_distinguished(held: Batch, real: Tensor, found: Tensor) -> None:
    """Half of the classes: precision 1 and low recall. Noise: precision 0."""
    assert held.label is not None
    whole, few, bad = found, found[held.label < 5], features(noisy(held.x, 0.5))
    good, narrow, wrong = (precision_recall(real, each) for each in (whole, few, bad))
    assert narrow.precision > good.precision - 0.1
    assert narrow.recall < good.recall - 0.2
    assert wrong.precision < good.precision - 0.2
    dense, thin, off = (density_coverage(real, each) for each in (whole, few, bad))
    assert abs(dense.density - 1) < 0.15
    assert thin.coverage < dense.coverage - 0.1
    assert off.density < dense.density / 2
    assert off.coverage < dense.coverage / 2


def test_the_classifier_fails_on_degraded_pictures(held: Batch) -> None:
    assert held.label is not None
    classifier = load_classifier("fashion")
    right = [
        float((classifier(x)[0] == held.label).double().mean())
        for x in (held.x, blurred(held.x, 1.5), noisy(held.x, 1.0))
    ]
    assert right[0] > 0.88
    assert right[0] > right[1] > right[2]
    assert float((classifier(-held.x)[0] == held.label).double().mean()) < 0.5
