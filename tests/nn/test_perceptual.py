"""Perceptual distances: LPIPS is torchmetrics' with the same weights; the unweighted one is its formula by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unnoise.errors import UserError
from unnoise.metrics.perceptual import lpips
from unnoise.nn.classifier import Classifier, Shape
from unnoise.nn.perceptual import VGG16, VGG16_LEVELS, ClassifierBackbone, FeatureDistance


class Two(nn.Module):
    """Two levels: the picture's numbers, with the first channel times `factor`, and its means over 2x2 pixels."""

    least = 2

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.factor * x, nn.functional.avg_pool2d(x, 2)]


def torchvision_vgg16() -> nn.Sequential:
    """The layers that torchvision calls vgg16().features, with random weights."""
    layers: list[nn.Module] = []
    width = 3
    for level in VGG16_LEVELS:
        for wider in level:
            layers += [nn.Conv2d(width, wider, 3, padding=1), nn.ReLU()]
            width = wider
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


def test_lpips_is_torchmetrics(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = pytest.importorskip("torchmetrics.functional.image.lpips")
    torch.manual_seed(0)
    backbone = torchvision_vgg16()
    monkeypatch.setattr(judge, "_get_tv_model_features", lambda name, pretrained: backbone)
    theirs = judge._LPIPS(net="vgg", pretrained=True, pnet_rand=True)
    heads = {
        name: value for name, value in theirs.state_dict().items() if name.startswith("lin") and "lins" not in name
    }
    ours = lpips({f"features.{name}": value for name, value in backbone.state_dict().items()}, heads)
    x, y = torch.rand(2, 3, 36, 44) * 2 - 1, torch.rand(2, 3, 36, 44) * 2 - 1
    with torch.no_grad():
        wanted = theirs(x, y).flatten()
    torch.testing.assert_close(ours(x, y), wanted, rtol=1e-5, atol=1e-6)
    assert wanted.min() > 0.01


def test_the_unweighted_distance_is_the_formula() -> None:
    x, y = torch.randn(3, 2, 4, 6), torch.randn(3, 2, 4, 6)
    wanted = []
    for a, b in zip(x.double(), y.double()):
        levels = []
        for f, g in ((a, b), *(zip([nn.functional.avg_pool2d(a, 2)], [nn.functional.avg_pool2d(b, 2)]))):
            cosine = (f * g).sum(0) / (f.square().sum(0) * g.square().sum(0)).sqrt()
            levels.append((2 - 2 * cosine).mean())  # |u - v|^2 of unit vectors
        wanted.append((levels[0] + levels[1]) / 2)
    torch.testing.assert_close(FeatureDistance(Two())(x, y), torch.stack(wanted).float())
    torch.testing.assert_close(FeatureDistance(Two(7.0))(x, y), torch.stack(wanted).float())  # no size of a feature


def test_heads_weight_the_channels() -> None:
    x, y = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4)
    first = FeatureDistance(Two(), [torch.tensor([1.0, 0.0]), torch.zeros(2)])(x, y)
    unit = [z / z.norm(dim=1, keepdim=True) for z in (x, y)]
    torch.testing.assert_close(first, (unit[0] - unit[1])[:, 0].square().mean((1, 2)))


def test_the_gradient_is_finite_and_of_the_pictures_alone() -> None:
    net = VGG16(2)
    distance = FeatureDistance(net)
    nn.init.constant_(net.convs[0].bias, -100.0)  # every feature of the first convolution is 0 at every pixel
    y = torch.rand(1, 3, 8, 8).requires_grad_(True)
    distance(torch.rand(1, 3, 8, 8), y).sum().backward()
    assert y.grad is not None
    assert torch.isfinite(y.grad).all()
    nn.init.zeros_(net.convs[0].bias)
    distance(torch.rand(1, 3, 8, 8), y).sum().backward()
    assert y.grad.abs().max() > 0
    assert all(p.grad is None for p in net.parameters())


def test_inputs_of_vgg16() -> None:
    white, black = torch.ones(1, 1, 1, 1), -torch.ones(1, 3, 1, 1)
    caffe = VGG16(caffe=True)
    assert caffe.preprocess(black).flatten().tolist() == pytest.approx([-104.00699, -116.66877, -122.67892])
    red = black.clone()
    red[:, 0] = 1
    assert caffe.preprocess(red).flatten().tolist() == pytest.approx(
        [-104.00699, -116.66877, 255 - 122.67892], abs=1e-3
    )
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of pictures in [0, 1]
    wanted = [(1 - m) / s for m, s in zip(mean, std)]
    assert VGG16().preprocess(white.expand(-1, 3, -1, -1)).flatten().tolist() == pytest.approx(wanted)


def test_grey_pictures_are_colour_pictures_of_equal_channels() -> None:
    torch.manual_seed(0)
    distance = FeatureDistance(VGG16(3))
    x, y = torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 16)
    assert torch.equal(distance(x, y), distance(x.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1)))
    assert distance(x, x).item() == 0


def test_pictures_that_are_too_small_are_refused() -> None:
    with pytest.raises(UserError, match=r"needs pictures of 16 pixels or more, these have 15"):
        FeatureDistance(VGG16())(torch.zeros(1, 3, 15, 20), torch.zeros(1, 3, 15, 20))
    with pytest.raises(UserError, match="these have 2 channels"):
        FeatureDistance(VGG16(1))(torch.zeros(1, 2, 16, 16), torch.zeros(1, 2, 16, 16))


def test_features_of_a_classifier_are_those_of_its_blocks() -> None:
    net = Classifier(Shape(size=12, channels=1, classes=2, width=8, features=16))
    maps = ClassifierBackbone(net)(torch.rand(2, 1, 12, 12))
    assert [tuple(each.shape[1:]) for each in maps] == [(8, 6, 6), (16, 3, 3), (16, 3, 3), (16, 2, 2)]
    x = torch.rand(2, 1, 12, 12)
    pooled = nn.functional.silu(net.norm(ClassifierBackbone(net)(x)[-1])).mean((2, 3))
    assert torch.equal(pooled, net.features(x))
