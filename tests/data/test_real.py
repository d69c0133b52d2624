"""The readers on sets that others published, where they are present: UNNOISE_SHARED, or shared/ beside the checkout."""

from __future__ import annotations

import lzma
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from unnoise import data
from unnoise.config.data import DataConfig
from unnoise.errors import UserError

SHARED = Path(os.environ.get("UNNOISE_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"


def shared(*parts: str) -> Path:
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no {'/'.join(parts)} in the shared data folder (set UNNOISE_SHARED)")
    return path


def test_fashion_is_a_part_of_the_official_set() -> None:
    for split, of, each in (("train", "train", 1000), ("test", "t10k", 200)):
        path = shared("fashion-mnist", f"{of}-images-idx3-ubyte.xz")
        beside = path.with_name(f"{of}-labels-idx1-ubyte.xz")
        labels = np.frombuffer(lzma.decompress(beside.read_bytes()), np.uint8)[8:]
        images = np.frombuffer(lzma.decompress(path.read_bytes()), np.uint8)[16:].reshape(-1, 28, 28)
        ours = data.open(DataConfig(path=f"fashion:{split}"))
        count = dict.fromkeys(range(10), 0)
        place = 0
        for image, label in zip(images, labels.tolist()):
            if count[label] < each:
                count[label] += 1
                assert (ours.pixels(place)[0] == image).all()
                assert ours.labels()[place] == label
                place += 1
        assert place == len(ours)


def test_idx_in_xz() -> None:
    found = data.open(DataConfig(path=str(shared("fashion-mnist", "t10k-images-idx3-ubyte.xz"))))
    assert (len(found), found.classes, found.cached) == (10_000, tuple("0123456789"), True)
    labels = found.labels()
    assert labels is not None
    assert np.bincount(labels).tolist() == [1000] * 10


@pytest.mark.parametrize(
    ("style", "count"), [("noto", 1653), ("fluent3d", 1545), ("twemoji", 1661), ("openmoji", 2003)]
)
def test_captioned_emoji(style: str, count: int) -> None:
    pytest.importorskip("pyarrow", reason="parquet takes pyarrow")
    config = DataConfig(path=str(shared("emoji", f"{style}-64.parquet")), size=64, channels=3)
    found = data.open(config)
    assert (len(found), found.broken, found.captions, found.classes) == (count, (), True, ())
    batch = found.batch([0, count - 1])
    assert batch.caption is not None
    assert all(batch.caption)
    assert (batch.x[:, :, 0, 0] == 1).all()  # on white
    if style == "noto":
        read = data.open(replace(config, cache_bytes=0))
        rows = data.order(0, 0, count)[:32].tolist()
        assert torch.equal(read.batch(rows).x, found.batch(rows).x)


def test_clothing_photos() -> None:
    pytest.importorskip("pyarrow", reason="parquet takes pyarrow")
    path = shared("clothing", "clothing-64.parquet")
    counts = {}
    for split in ("train", "validation", "test"):
        found = data.open(DataConfig(path=f"{path}:{split}", size=64, channels=3, workers=2))
        assert (len(found.classes), found.broken) == (10, ())
        counts[split] = len(found)
        if split == "test":  # the class is in the published path, test/dress/06a0....jpg
            import pyarrow.parquet as pq

            table = pq.read_table(path, columns=["split", "source_path"]).to_pylist()
            told = [row["source_path"].split("/")[1] for row in table if row["split"] == "test"]
            assert [found.classes[k] for k in found.labels()] == told
    assert counts == {"train": 3068, "validation": 341, "test": 372}


def test_a_folder_of_subjects() -> None:
    found = data.open(DataConfig(path=str(shared("dreambooth")), size=32, channels=3, workers=2))
    assert (len(found), len(found.classes), found.broken) == (106, 20, ())
    assert found.classes[:2] == ("backpack", "backpack_dog")
    photos = data.open(DataConfig(path=str(shared("photos")), size=32, channels=3))
    assert (len(photos), photos.classes) == (4, ())


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(UserError, match="could run code"):
        data.open(DataConfig(path=str(shared("weights", "resnet56-4bfd9763.th"))))
    with pytest.raises(UserError, match="did you mean"):
        data.open(DataConfig(path=str(shared("fashion-mnist"))))
