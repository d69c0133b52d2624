"""Laws of latents that are read from files: they are the encodings of the same pictures, bit for bit, and no others.

The autoencoder here is a small convolution with random weights, so that the latents of a flipped picture are not the
flipped latents, and every picture has a distribution of latents.
"""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from unnoise import data, noise
from unnoise.config.data import DataConfig
from unnoise.data import dataset, latents
from unnoise.data.latents import Encoder, LatentRows, LatentStore
from unnoise.errors import UserError

N, SIZE = 21, 8
DATA = DataConfig(size=SIZE, channels=3, flip=True, cache_bytes=0)


def encoder(seed: int = 0) -> Encoder:
    """z = mean + exp(logvar / 2) n of a strided convolution, scaled by 0.7: (3, 8, 8) to (2, 4, 4)."""
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(seed)) / 5

    def moments(picture: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(picture, weight, stride=2, padding=1)

    def sample(found: Tensor, eps: Tensor) -> Tensor:
        mean, log_variance = found.chunk(2, 1)
        return 0.7 * (mean + (log_variance / 2).exp() * eps)

    return Encoder(moments, sample, (4, 4, 4), (2, 4, 4), f"weights {seed}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Colour pictures of many sizes, with two captions each."""
    top = tmp_path / "pictures"
    top.mkdir()
    chosen = np.random.default_rng(0)
    for i in range(N):
        pixels = chosen.integers(0, 256, (8 + i % 5, 8 + (i * 7) % 11, 3), np.uint8)
        Image.fromarray(pixels).save(top / f"{i:02d}.png")
    captions = ({"file_name": f"{i:02d}.png", "texts": [f"picture {i}", f"number {i}"]} for i in range(N))
    (top / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in captions))
    return top


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "SHARD_BYTES", 4 * 5 * 2 * 64)  # five pictures, each in two views


def pictures_of(folder: Path, **settings: object) -> data.Dataset:
    return data.open(replace(DATA, path=str(folder), **settings))


def filled(store: LatentStore) -> LatentRows:
    list(store.fill())
    return store.open()


ROWS, EPOCHS = [3, 20, 0, 3, 7, 11, 12, 5, 16, 9], [0, 0, 1, 1, 2, 3, 4, 5, 6, 7]


def test_they_are_the_encodings_with_the_noise_of_seed_epoch_and_picture(folder: Path, tmp_path: Path) -> None:
    """Written out: moments of the flipped or unflipped picture, and a sample of them by the noise's key."""
    pictures, code = pictures_of(folder), encoder()
    found = filled(LatentStore(tmp_path / "latents", pictures, code)).batch(ROWS, seed=4, epoch=EPOCHS)
    wanted = pictures.batch(ROWS, seed=4, epoch=EPOCHS)
    keys = zip(EPOCHS, ROWS, strict=True)
    eps = torch.stack([noise.normal((2, 4, 4), 4, "latent", epoch, row) for epoch, row in keys])
    torch.testing.assert_close(found.x, code.sample(code.moments(wanted.x), eps))
    assert found.caption == wanted.caption
    assert found.index == wanted.index == tuple(ROWS)
    flipped = pictures.flips(*pictures.rows(ROWS, EPOCHS), 4)
    assert 0 < flipped.sum() < len(ROWS)
    assert {each.split()[0] for each in found.caption or ()} == {"picture", "number"}  # one of several, by epoch


@pytest.mark.parametrize("flip", [False, True])
def test_files_change_no_bit(flip: bool, folder: Path, tmp_path: Path) -> None:
    """Nor do the number of pictures in a batch and its other pictures."""
    pictures, code = pictures_of(folder, flip=flip), encoder()
    read, encoded = filled(LatentStore(tmp_path / "latents", pictures, code)), LatentRows(pictures, code)
    streams = [data.batches(rows, batch=6, seed=1, start=2) for rows in (read, encoded)]
    for a, b in islice(zip(*streams, strict=True), 8):
        assert torch.equal(a.x, b.x)
        assert a[1:] == b[1:]
    alone = encoded.batch([5], seed=1, epoch=3)
    assert torch.equal(alone.x[0], read.batch([2, 9, 5], seed=1, epoch=3).x[2])


def test_each_epoch_has_another_sample_of_the_same_moments(folder: Path, tmp_path: Path) -> None:
    rows = filled(LatentStore(tmp_path / "latents", pictures_of(folder, flip=False), encoder()))
    samples = torch.cat([rows.batch([2], epoch=epoch).x for epoch in range(400)])
    assert rows.shards is not None
    mean, log_variance = rows.shards.moments(np.array([2]), np.array([False]))[0].chunk(2, 0)
    std = 0.7 * (log_variance / 2).exp()
    assert ((samples.mean(0) - 0.7 * mean).abs() < 5 * std / 20).all()  # 400 samples: the error of a mean is std / 20
    assert ((samples.std(0) / std - 1).abs() < 5 / 28).all()  # and that of a deviation std / sqrt(800)


def test_no_picture_is_decoded(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = pictures_of(folder)
    rows = filled(LatentStore(tmp_path / "latents", pictures, encoder()))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a picture is decoded")

    monkeypatch.setattr(dataset, "decode", refuse)
    monkeypatch.setattr(latents, "as_x", refuse)
    assert len(list(islice(data.batches(rows, batch=8, seed=0), 9))) == 9
    with pytest.raises(AssertionError, match="decoded"):
        pictures.batch([0])


def test_encoding_continues_after_a_kill_with_the_shard_that_is_missing(folder: Path, tmp_path: Path) -> None:
    store = LatentStore(tmp_path / "latents", pictures_of(folder), encoder())
    for done, _ in store.fill():
        if done >= 12:  # two shards are whole, and the third was begun
            break
    assert [shard for shard in store.shards if store.whole(shard)] == [0, 1]
    with pytest.raises(UserError, match=r"00002\.json"):
        store.open()
    whole = [store.file(shard).stat().st_mtime_ns for shard in (0, 1)]
    assert list(store.fill())[-1] == (N - 10, N - 10)
    assert [store.file(shard).stat().st_mtime_ns for shard in (0, 1)] == whole
    other = LatentStore(tmp_path / "other", store.pictures, store.encoder)
    assert torch.equal(store.open().batch(ROWS, epoch=EPOCHS).x, filled(other).batch(ROWS, epoch=EPOCHS).x)
    assert list(store.fill()) == [(0, 0)]


def test_a_changed_byte_is_encoded_again(folder: Path, tmp_path: Path) -> None:
    store = LatentStore(tmp_path / "latents", pictures_of(folder), encoder())
    before = filled(store).batch(ROWS, epoch=EPOCHS).x.clone()
    content = bytearray(store.file(1).read_bytes())
    content[-3] ^= 64
    store.file(1).write_bytes(content)
    assert list(store.fill())[-1] == (5, 5)
    assert torch.equal(store.open().batch(ROWS, epoch=EPOCHS).x, before)


def test_processes_share_the_work(folder: Path, tmp_path: Path) -> None:
    store = LatentStore(tmp_path / "latents", pictures_of(folder), encoder())
    assert list(store.fill(0, 2))[-1] == (11, 11)  # shards 0, 2 and 4
    assert list(store.fill(1, 2))[-1] == (10, 10)
    assert len(store.open()) == N


@pytest.mark.parametrize("change", ["picture", "autoencoder", "size", "channels", "order"])
def test_others_are_encoded_anew(change: str, folder: Path, tmp_path: Path) -> None:
    first = LatentStore(tmp_path / "latents", pictures_of(folder), encoder())
    config, code = {}, encoder(1 if change == "autoencoder" else 0)
    if change == "picture":
        Image.open(folder / "07.png").transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(folder / "07.png")
    if change == "order":
        (folder / "07.png").rename(folder / "99.png")
        (folder / "metadata.jsonl").unlink()
    if change in ("size", "channels"):
        config = {change: {"size": 6, "channels": 1}[change]}
    second = LatentStore(tmp_path / "latents", pictures_of(folder, **config), code)
    assert second.folder != first.folder


def test_a_changed_caption_or_place_is_not_another_picture(folder: Path, tmp_path: Path) -> None:
    first = LatentStore(tmp_path / "latents", pictures_of(folder), encoder())
    captions = (folder / "metadata.jsonl").read_text()
    (folder / "metadata.jsonl").write_text(captions.replace("picture 7", "another"))
    shutil.copytree(folder, tmp_path / "copy")
    second = LatentStore(tmp_path / "latents", pictures_of(tmp_path / "copy"), encoder())
    assert second.folder == first.folder
    assert second.pictures.fingerprint != first.pictures.fingerprint


def test_pictures_that_cannot_be_read_are_replaced_as_without_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are broken after the start, so that the data set has them."""
    pictures = pictures_of(folder, max_broken=0.2)
    real = data.Dataset.pixels

    def broken(self: data.Dataset, row: int) -> object:
        if row in (3, 11):
            raise OSError(5, "a bad sector")
        return real(self, row)

    monkeypatch.setattr(data.Dataset, "pixels", broken)
    rows = filled(LatentStore(tmp_path / "latents", pictures, encoder()))
    assert [each.path for each in pictures.replaced] == ["03.png", "11.png"]
    monkeypatch.setattr(data.Dataset, "pixels", real)
    read = rows.batch(ROWS, seed=4, epoch=EPOCHS)
    monkeypatch.setattr(data.Dataset, "pixels", broken)
    encoded = LatentRows(pictures, encoder()).batch(ROWS, seed=4, epoch=EPOCHS)
    assert torch.equal(read.x, encoded.x)
    assert read[1:] == encoded[1:]
    assert not {3, 11} & set(read.index)
    with pytest.raises(UserError, match=r"03\.png: a bad sector"):
        filled(LatentStore(tmp_path / "latents", pictures_of(folder, max_broken=0.01), encoder()))


def test_a_disk_without_room_is_found_before_a_picture_is_encoded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LatentStore(tmp_path / "latents", pictures_of(folder), encoder())
    assert store.bytes == 4 * N * 2 * 64
    disk = namedtuple("disk", "total used free")
    monkeypatch.setattr(latents.shutil, "disk_usage", lambda path: disk(0, 0, store.bytes - 1))
    with pytest.raises(UserError, match=r"need 10\.8kB, and 10\.8kB are free there: set latent_cache"):
        next(store.fill())
    assert not store.folder.exists()
    monkeypatch.setattr(latents.shutil, "disk_usage", lambda path: disk(0, 0, store.bytes))
    assert next(store.fill()) == (0, N)


def test_what_was_encoded_is_written_beside_it(folder: Path, tmp_path: Path) -> None:
    store = LatentStore(tmp_path / "latents", pictures_of(folder), encoder())
    filled(store)
    about = json.loads((store.folder / "latents.json").read_text())
    assert about["autoencoder"] == "weights 0"
    assert about["shape"] == [N, 2, 4, 4, 4]
    assert 2 * LatentStore(tmp_path, pictures_of(folder, flip=False), encoder()).bytes == store.bytes
    assert sorted(path.suffix for path in store.folder.iterdir()).count(".npy") == 5
    (store.folder / "latents.json").write_text(json.dumps(about | {"autoencoder": "weights 1"}))
    with pytest.raises(UserError, match="of another autoencoder: remove it"):
        store.open()


def test_a_folder_that_cannot_be_written_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "latents").write_text("a file")
    store = LatentStore(tmp_path / "latents", pictures_of(folder), encoder())
    with pytest.raises(UserError, match=r"latents cannot be written: .*set latent_cache to another folder"):
        list(store.fill())


def test_a_batch_without_pictures_is_empty(folder: Path, tmp_path: Path) -> None:
    empty: Sequence[int] = []
    rows = filled(LatentStore(tmp_path / "latents", pictures_of(folder), encoder()))
    assert rows.batch(empty).x.shape == (0, 2, 4, 4)
