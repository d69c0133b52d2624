"""Laws of data sets and their stream: a row is a pure function of (seed, epoch, index), wherever it is computed."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise import data
from unnoise.config.data import DataConfig
from unnoise.data import random
from unnoise.data.dataset import Dataset
from unnoise.data.source import Source
from unnoise.data.summary import describe
from unnoise.errors import UserError

N = 23


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Colour pictures of many sizes, of two classes, some with captions."""
    top = tmp_path_factory.mktemp("pictures")
    chosen = np.random.default_rng(0)
    for i in range(N):
        pixels = chosen.integers(0, 256, (8 + i % 5, 8 + (i * 7) % 11, 3), np.uint8)
        (top / f"c{i % 2}").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(top / f"c{i % 2}" / f"{i}.png")
        (top / f"c{i % 2}" / f"{i}.txt").write_text(f"picture {i}")
    return str(top)


CACHED = DataConfig(size=8, channels=3, crop="random", flip=True)
READ = replace(CACHED, cache_bytes=0)


def same(a: data.Batch, b: data.Batch) -> bool:
    labels = a.label is None if b.label is None else a.label is not None and torch.equal(a.label, b.label)
    return torch.equal(a.x, b.x) and labels and a.index == b.index and a.caption == b.caption


def first(stream: Iterator[data.Batch], count: int) -> list[data.Batch]:
    found = list(islice(stream, count))
    stream.close()  # type: ignore[attr-defined]
    return found


def test_splitmix64_is_the_published_one() -> None:
    state, outputs = 1234567, []
    for _ in range(3):  # https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64
        outputs.append(int(random.mix(np.array([state], np.uint64))[0]))
        state = (state + 0x9E3779B97F4A7C15) % 2**64
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_random_numbers_are_uniform_and_keys_independent() -> None:
    n = 20_000
    draws = [random.uniform(purpose, seed, np.arange(n)) for purpose in range(3) for seed in (0, 1, -1, 2**70)]
    for i, one in enumerate(draws):
        assert abs(one.mean() - 0.5) < 5 * (1 / 12 / n) ** 0.5
        assert abs(np.histogram(one, 16)[0] - n / 16).max() < 6 * (n / 16) ** 0.5
        for other in draws[:i]:
            assert abs(np.corrcoef(one, other)[0, 1]) < 5 / n**0.5 or np.array_equal(one, other)
    assert np.array_equal(draws[0], draws[3])  # 0 and 2**70, modulo 2**64


def test_order_is_a_permutation_of_its_own_for_each_seed_and_epoch() -> None:
    orders = [tuple(data.order(seed, epoch, 50)) for seed in range(3) for epoch in range(3)]
    assert len(set(orders)) == 9
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert data.order(7, 3, 6).tolist() == data.order(7, 3, 6).tolist()
    # every place goes everywhere about as often
    where = Counter((i, place) for epoch in range(3000) for i, place in enumerate(data.order(0, epoch, 4).tolist()))
    assert max(abs(count - 750) for count in where.values()) < 5 * 750**0.5


def test_every_byte_is_exactly_its_value(tmp_path: Path) -> None:
    np.save(tmp_path / "all.npy", np.arange(512, dtype=np.int64).reshape(2, 16, 16) % 256)
    pictures = data.open(DataConfig(path=str(tmp_path / "all.npy"), size=16, channels=1))
    x = pictures.batch([0]).x.flatten().tolist()
    for k, value in enumerate(x):  # no float32 is nearer to k / 127.5 - 1
        truth = Fraction(2 * k, 255) - 1
        error = abs(Fraction(value) - truth)
        for step in (-np.inf, np.inf):
            assert error <= abs(Fraction(float(np.nextafter(np.float32(value), np.float32(step)))) - truth)
    assert (x[0], x[255]) == (-1.0, 1.0)
    assert all(x[k] == -x[255 - k] for k in range(256))


def test_an_array_is_the_same_as_its_pictures_one_by_one(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (6, 9, 9, 3), np.uint8)
    for pixels in (colour, colour[..., 0]):
        np.save(tmp_path / "a.npy", pixels)
        for channels in (1, 3):
            cached = DataConfig(path=str(tmp_path / "a.npy"), size=9, channels=channels)
            bytes_ = 6 * 9 * 9 * channels
            opened = [data.open(replace(cached, cache_bytes=bytes_ - less)) for less in (0, 1)]
            assert [pictures.cached for pictures in opened] == [True, False]
            assert same(*(pictures.batch(range(6)) for pictures in opened))


def test_the_cache_does_not_change_the_pictures(folder: str) -> None:
    for crop in ("center", "random"):
        cached = data.open(replace(CACHED, path=folder, crop=crop))
        read = data.open(replace(READ, path=folder, crop=crop))
        assert (cached.cached, read.cached) == (True, False)
        for epoch in (0, 5):
            assert same(cached.batch(range(N), seed=3, epoch=epoch), read.batch(range(N), seed=3, epoch=epoch))


def test_the_cache_counts_the_long_sides_for_random_crops(folder: str) -> None:
    bytes_ = sum(data.open(replace(CACHED, path=folder)).pixels(i).nbytes for i in range(N))
    assert bytes_ > N * 3 * 8 * 8
    for less in (0, 1):
        assert data.open(replace(CACHED, path=folder, cache_bytes=bytes_ - less)).cached == (less == 0)


def test_a_row_does_not_depend_on_its_batch(folder: str) -> None:
    pictures = data.open(replace(CACHED, path=folder))
    whole = pictures.batch([5, 1, 5, 9], seed=1, epoch=[0, 1, 2, 3])
    for k, (index, epoch) in enumerate(((5, 0), (1, 1), (5, 2), (9, 3))):
        alone = pictures.batch([index], seed=1, epoch=epoch)
        assert torch.equal(whole.x[k], alone.x[0])
    assert whole.index == (5, 1, 5, 9)
    assert whole.caption is not None
    assert [int(name.split("/")[1][:-4]) for name in map(pictures.name, whole.index)] == [
        int(text.split()[1]) for text in whole.caption
    ]
    assert whole.label is not None
    assert [pictures.classes[k] for k in whole.label] == [pictures.name(i).split("/")[0] for i in whole.index]


def test_batches_do_not_share_memory(folder: str) -> None:
    pictures = data.open(replace(CACHED, path=folder))
    before = pictures.batch([0, 1]).x.clone()
    pictures.batch([0, 1]).x.zero_()
    assert torch.equal(pictures.batch([0, 1]).x, before)


def test_flip_is_its_own_inverse_and_has_probability_one_half() -> None:
    plain, flipped = data.open(DataConfig()), data.open(DataConfig(flip=True))
    n = 4000
    a, b = plain.batch(range(n)).x, flipped.batch(range(n), seed=5, epoch=2).x
    mirrored = (b != a).flatten(1).any(1)
    assert torch.equal(b[mirrored].flip(-1), a[mirrored])
    assert abs(mirrored.float().mean().item() - 0.5) < 5 * 0.5 / n**0.5
    again = flipped.batch(range(n), seed=5, epoch=3).x
    assert 0.4 < (again != b).flatten(1).any(1).float().mean() < 0.6  # another epoch, another flip


def test_crops_are_windows_of_the_resized_picture_and_reach_every_position(tmp_path: Path) -> None:
    for name, shape in (("wide", (4, 9)), ("tall", (9, 4))):
        (tmp_path / name).mkdir()
        pixels = np.arange(36, dtype=np.uint8).reshape(shape)
        for i in range(2):
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
        config = DataConfig(path=str(tmp_path / name), size=4, channels=1, crop="random")
        windows = {(pixels[at : at + 4] if name == "tall" else pixels[:, at : at + 4]).tobytes(): at for at in range(6)}
        pictures = data.open(config)
        bytes_ = [pictures.batch([0], seed=1, epoch=epoch).x for epoch in range(600)]
        found = Counter(windows[((x + 1) * 127.5).round().to(torch.uint8).numpy().tobytes()] for x in bytes_)
        assert sorted(found) == list(range(6))
        assert max(abs(count - 100) for count in found.values()) < 5 * 100**0.5
        centre = data.open(replace(config, crop="center")).batch([0]).x
        assert windows[((centre + 1) * 127.5).round().to(torch.uint8).numpy().tobytes()] == 2  # of 5 free: 2 before


def test_crop_and_flip_are_independent(tmp_path: Path) -> None:
    pixels = np.arange(36, dtype=np.uint8).reshape(4, 9)
    for i in range(2):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    pictures = data.open(DataConfig(path=str(tmp_path), size=4, channels=1, crop="random", flip=True))
    counts = Counter(pictures.batch([1], epoch=epoch).x.numpy().tobytes() for epoch in range(1200))
    assert len(counts) == 12  # six positions, flipped or not
    assert max(abs(count - 100) for count in counts.values()) < 5 * 100**0.5


def test_any_number_of_workers_gives_the_same(folder: str) -> None:
    for config in (CACHED, READ):
        alone = first(data.batches(data.open(replace(config, path=folder)), batch=7, seed=4), 12)
        for workers in (1, 3):
            pictures = data.open(replace(config, path=folder, workers=workers))
            stream = data.batches(pictures, batch=7, seed=4, workers=workers)
            assert all(map(same, alone, first(stream, 12)))


def test_pictures_do_not_depend_on_how_they_are_stored(folder: str, tmp_path: Path) -> None:
    import shutil

    pa = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    import pyarrow.parquet as pq

    for kind in ("zip", "tar", "gztar"):
        shutil.make_archive(str(tmp_path / "set"), kind, folder)
    here = data.open(replace(READ, path=folder))
    files = [here.source.read(i) for i in range(N)]
    columns = {"image": [{"bytes": file, "path": None} for file in files], "label": here.labels()}
    pq.write_table(pa.table({**columns, "text": here.source.captions}), tmp_path / "set.parquet", row_group_size=5)
    truth = first(data.batches(here, batch=7, seed=4), 12)
    for suffix in ("zip", "tar", "tar.gz", "parquet"):
        found = data.open(replace(READ, path=str(tmp_path / f"set.{suffix}"), workers=2))
        stream = first(data.batches(found, batch=7, seed=4, workers=3), 12)
        assert all(map(same, truth, stream)), suffix


def test_opening_with_workers_is_the_same(folder: str) -> None:
    alone, many = data.open(replace(CACHED, path=folder)), data.open(replace(CACHED, path=folder, workers=3))
    assert describe(alone) == describe(many)


def test_a_stream_from_a_step_equals_the_rest_of_an_earlier_stream(folder: str) -> None:
    pictures = data.open(replace(CACHED, path=folder))
    straight = first(data.batches(pictures, batch=5, seed=2), 14)  # crosses two ends of an epoch
    for start in (1, 4, 5, 9, 13):
        stream = data.batches(pictures, batch=5, seed=2, start=start, workers=start % 3)
        assert all(map(same, straight[start:], first(stream, 14 - start)))


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_partition_the_global_batch(folder: str, world: int) -> None:
    pictures = data.open(replace(CACHED, path=folder))
    whole = first(data.batches(pictures, batch=10, seed=2), 7)
    parts = [first(data.batches(pictures, batch=10, seed=2, rank=r, world=world), 7) for r in range(world)]
    for k, batch in enumerate(whole):
        assert torch.equal(torch.cat([part[k].x for part in parts]), batch.x)
        assert sum((part[k].index for part in parts), ()) == batch.index
        assert {len(part[k].index) for part in parts} <= {10 // world, -(-10 // world)}


def test_an_epoch_contains_every_picture_once(folder: str) -> None:
    pictures = data.open(replace(CACHED, path=folder))
    for batch in (5, 23, 60):  # a batch may hold more than an epoch
        counts = [
            i for part in first(data.batches(pictures, batch=batch, seed=0), 200 // batch + 1) for i in part.index
        ]
        for epoch in range(len(counts) // N):
            assert sorted(counts[epoch * N : (epoch + 1) * N]) == list(range(N))
            assert counts[epoch * N : (epoch + 1) * N] == data.order(0, epoch, N).tolist()


def test_a_step_equals_its_rows_in_their_epochs(folder: str) -> None:
    pictures = data.open(replace(CACHED, path=folder))
    for step, batch in enumerate(first(data.batches(pictures, batch=10, seed=6), 9)):
        epochs = [(step * 10 + j) // N for j in range(10)]
        assert same(batch, pictures.batch(batch.index, seed=6, epoch=epochs))


def test_the_stream_is_checked_before_it_is_read(folder: str) -> None:
    pictures = data.open(replace(CACHED, path=folder))
    for wrong in ({"batch": 0}, {"batch": 2, "world": 3}, {"rank": 1}, {"start": -1}, {"workers": -1}, {"rank": -1}):
        with pytest.raises(ValueError, match="batch of"):
            data.batches(pictures, **{"batch": 4, "seed": 0, **wrong})
    for wrong in ([-1], [N], [0, 99]):
        with pytest.raises(IndexError, match="23 pictures"):
            pictures.batch(wrong)


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("unnoise")]


def test_closing_the_stream_ends_its_threads(folder: str) -> None:
    pictures = data.open(replace(READ, path=folder, workers=2))
    assert not ours()
    stream = data.batches(pictures, batch=4, seed=0, workers=3)
    next(stream)
    assert len(ours()) == 3
    stream.close()  # type: ignore[attr-defined]
    assert not ours()
    with pytest.raises(StopIteration):
        next(stream)


class Slow:
    """A slow source, some of whose pictures can no longer be read."""

    def __init__(self, count: int) -> None:
        self.count, self.gone, self.reads = count, set[int](), Counter[int]()

    def read(self, i: int) -> np.ndarray:
        self.reads[i] += 1
        time.sleep(0.002 * (i % 3))
        if i in self.gone:
            raise FileNotFoundError(2, "No such file or directory", f"{i}.png")
        return np.full((4, 4), i % 256, np.uint8)

    def source(self) -> Source:
        names = tuple(f"{i}.png" for i in range(self.count))
        return Source("slow", names, np.full(self.count, 16), self.read, labels=np.arange(self.count), classes=names)


PLAIN = DataConfig(size=4, channels=1, cache_bytes=0, max_broken=0.2)


def test_an_unreadable_picture_is_replaced_by_the_same_one_in_every_process() -> None:
    slow = Slow(20)
    pictures = [Dataset(slow.source(), PLAIN) for _ in range(3)]
    before = pictures[0].batch(range(20), seed=1)
    slow.gone = {3, 11}
    after = [p.batch(range(20), seed=1) for p in pictures]
    assert all(same(after[0], other) for other in after)
    assert [i for i in range(20) if after[0].index[i] != i] == [3, 11]
    for k in range(20):  # label, index and pixels are of one picture
        assert after[0].label is not None
        assert int(after[0].label[k]) == after[0].index[k] == round((after[0].x[k, 0, 0, 0].item() + 1) * 127.5)
        assert k in (3, 11) or torch.equal(after[0].x[k], before.x[k])
    assert [broken.path for broken in pictures[0].replaced] == ["3.png", "11.png"]
    assert "No such file" in pictures[0].replaced[0].why
    assert describe(pictures[0])["replaced"] == 2
    others = {pictures[0].batch([3], seed=seed).index for seed in range(20)}
    assert len(others) > 5  # a function of the seed, too
    alone = first(data.batches(pictures[1], batch=6, seed=9), 8)
    assert all(map(same, alone, first(data.batches(pictures[2], batch=6, seed=9, workers=3), 8)))


def test_replacements_may_be_unreadable_too_and_all_count() -> None:
    slow = Slow(20)
    config = replace(PLAIN, max_broken=0.2)  # 4 of 20
    pictures, others = Dataset(slow.source(), config), Dataset(slow.source(), config)
    slow.gone = {3}
    stand_in = others.batch([3]).index[0]
    slow.gone = {3, stand_in}
    assert pictures.batch([3]).index[0] not in slow.gone
    assert {broken.path for broken in pictures.replaced} == {f"{i}.png" for i in slow.gone}
    for count in (4, 5):
        slow.gone = set()
        pictures = Dataset(slow.source(), config)
        slow.gone = set(range(count))
        if count == 4:
            assert min(pictures.batch(range(20)).index) >= 4
        else:
            with pytest.raises(UserError, match=r"25\.00% of the pictures"):
                pictures.batch(range(20))


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_unreadable_pictures_is_an_error_that_names_them(workers: int) -> None:
    slow = Slow(20)
    pictures = Dataset(slow.source(), PLAIN)
    slow.gone = set(range(1, 20))
    with pytest.raises(UserError, match=r"(?s)slow are broken.*\.png: No such file") as caught:
        first(data.batches(pictures, batch=4, seed=0, workers=workers), 5)
    assert "max_broken" in str(caught.value)
    assert not ours()


def test_an_exception_in_a_worker_is_raised_at_its_batch() -> None:
    def read(i: int) -> np.ndarray:
        if armed and i == poisoned:
            raise ZeroDivisionError("a fault of ours")
        return np.full((4, 4), i, np.uint8)

    armed = False
    source = Source("x", tuple(map(str, range(12))), np.full(12, 16), read)
    pictures = Dataset(source, PLAIN)
    poisoned = int(data.order(0, 0, 12)[7])
    armed = True
    stream = data.batches(pictures, batch=2, seed=0, workers=2)
    assert len(list(islice(stream, 3))) == 3
    with pytest.raises(ZeroDivisionError):
        next(stream)
    assert not ours()


def test_workers_do_not_run_far_ahead() -> None:
    slow = Slow(60)
    pictures = Dataset(slow.source(), PLAIN)
    slow.reads.clear()
    stream = data.batches(pictures, batch=5, seed=0, workers=2)
    next(stream)
    time.sleep(0.2)
    assert slow.reads.total() <= (1 + 2 + 2) * 5
    stream.close()  # type: ignore[attr-defined]


def test_fingerprint_changes_with_the_data_and_nothing_else(folder: str, tmp_path: Path) -> None:
    import shutil

    config = replace(CACHED, path=folder)
    here = data.open(config).fingerprint
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy)
    moved = replace(config, path=str(copy), workers=2, cache_bytes=0, max_broken=0.5)
    assert data.open(moved).fingerprint == here
    for change in ({"size": 7}, {"channels": 1}, {"crop": "center"}, {"flip": False}, {"background": (0, 0, 0)}):
        assert data.open(replace(config, **change)).fingerprint != here
    target = copy / "c0" / "2.png"
    cached = target.read_bytes()
    pixels = np.asarray(Image.open(target)).copy()
    pixels[0, 0, 0] ^= 1
    changes = [
        lambda: Image.fromarray(pixels).save(target),
        lambda: target.rename(copy / "c0" / "2b.png"),
        lambda: (copy / "c0" / "2.txt").write_text("something else"),
        lambda: os.remove(target),
    ]
    for change in changes:
        change()
        assert data.open(moved).fingerprint != here
        (copy / "c0" / "2b.png").unlink(missing_ok=True)
        (copy / "c0" / "2.txt").write_text("picture 2")
        target.write_bytes(cached)
        assert data.open(moved).fingerprint == here


def test_a_large_set_is_fingerprinted_by_some_of_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    from unnoise.data.fingerprint import fingerprint

    def of(pixels: np.ndarray) -> str:
        return fingerprint(Source("x", tuple("abcdefgh"), np.full(8, 16), lambda i: pixels[i]), CACHED).digest

    pixels = np.zeros((8, 4, 4), np.uint8)
    other = pixels.copy()
    other[:, 0, 0] = 1
    whole = of(pixels)
    monkeypatch.setattr("unnoise.data.fingerprint.HASHED_BYTES", 50)
    assert len({whole, of(pixels), of(other)}) == 3


def save_noise(path: Path, seed: int) -> None:
    """A picture of some 70 kB, whose size as a BMP is the same for any seed."""
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (150, 150, 3), np.uint8)).save(path)


def change_byte(path: Path, place: int) -> None:
    """Changes one byte of a file and nothing else: its size and its time stay the same."""
    status = path.stat()
    with open(path, "r+b") as file:
        file.seek(place, os.SEEK_END if place < 0 else os.SEEK_SET)
        (value,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([value ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES = {  # of one file of a large set: the parts of the fingerprint that differ
    "a byte at the start": (lambda path: change_byte(path, 100), {"contents"}),
    "a byte at the end": (lambda path: change_byte(path, -1), {"contents"}),
    "another time": (lambda path: os.utime(path, (1e9, 1e9)), {"times of modification"}),
    "another picture": (lambda path: save_noise(path, 77), {"contents", "times of modification"}),
    "another name": (lambda path: path.rename(path.with_name("06b.bmp")), {"names"}),
    "a longer file": (
        lambda path: path.write_bytes(path.read_bytes() + b"0"), {"sizes", "contents", "times of modification"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", range(12))
def test_a_change_of_any_file_of_a_large_set_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: int) -> None:
    """Whichever picture it is, also one whose bytes are not all read; the parts that differ say what changed."""
    monkeypatch.setattr("unnoise.data.fingerprint.HASHED_BYTES", 200_000)
    for i in range(12):
        save_noise(tmp_path / f"{i:02}.bmp", i)
        os.utime(tmp_path / f"{i:02}.bmp", (2e9, 2e9))
    config = DataConfig(str(tmp_path), size=4, channels=3)
    before = data.open(config)
    assert "1 picture in 5" in str(describe(before)["fingerprint_reads"])
    target = tmp_path / f"{row:02}.bmp"
    original = target.read_bytes()
    for name, (change, expected) in CHANGES.items():
        change(target)
        after = data.open(config)
        differ = {part for part, digest in after.fingerprint_parts.items() if before.fingerprint_parts[part] != digest}
        if name == "another name":
            assert "names" in differ  # and where the name moves the picture to another place, its contents
        else:
            assert differ == expected, name
        assert after.fingerprint != before.fingerprint
        (tmp_path / "06b.bmp").unlink(missing_ok=True)
        target.write_bytes(original)
        os.utime(target, (2e9, 2e9))
        assert data.open(config).fingerprint == before.fingerprint


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "npy"])
def test_the_contents_of_a_small_set_alone_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A copy with other times is the same small set, and another large set; a copy with its times is the same."""
    import shutil

    top = tmp_path / "a" / "set"
    top.mkdir(parents=True)
    for i in range(4):
        save_noise(top / f"{i}.bmp", i)
    here = top
    if kind in ("zip", "tar"):
        here = Path(shutil.make_archive(str(tmp_path / "a" / "packed"), kind, top))
    if kind == "npy":
        here = tmp_path / "a" / "all.npy"
        np.save(here, np.stack([np.asarray(Image.open(path)) for path in sorted(top.iterdir())]))
    there = tmp_path / "b" / here.name
    there.parent.mkdir()
    (shutil.copytree if here.is_dir() else shutil.copy2)(here, there)
    for limit, equal in ((2**28, True), (100_000, False)):
        monkeypatch.setattr("unnoise.data.fingerprint.HASHED_BYTES", limit)

        def of(where: Path) -> str:
            return data.open(DataConfig(str(where), size=4, channels=3)).fingerprint

        first = of(here)
        assert of(there) == first  # copied with its times
        files = sorted(there.iterdir()) if there.is_dir() else [there]
        status = files[0].stat()
        os.utime(files[0], (1e9, 1e9))
        assert (of(there) == first) is equal
        os.utime(files[0], ns=(status.st_atime_ns, status.st_mtime_ns))


def test_fashion_comes_with_the_package() -> None:
    train, test = data.open(DataConfig()), data.open(DataConfig(path="fashion:test"))
    assert (len(train), len(test), train.shape) == (10_000, 2_000, (1, 28, 28))
    names = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")
    for pictures, each in ((train, 1000), (test, 200)):
        assert pictures.classes == names
        labels = pictures.labels()
        assert labels is not None
        assert np.bincount(labels).tolist() == [each] * 10
    assert train.fingerprint != test.fingerprint
    pixels = {train.pixels(i).tobytes() for i in range(len(train))}
    assert not sum(test.pixels(i).tobytes() in pixels for i in range(len(test)))  # held out
    # trousers are narrow, bags are wide: labels belong to their pictures
    assert train.labels() is not None
    x = train.batch(range(2000)).x
    width = (x > 0).any(2).float().sum((1, 2))
    of = [width[torch.from_numpy(train.labels()[:2000] == k)].mean().item() for k in (1, 8)]
    assert of[0] < 18 < 23 < of[1]
    folder = Path(data.__file__).parent / "fashion"
    assert (
        "The MIT License (MIT) Copyright (c) 2017 Zalando SE, https://tech.zalando.com"
        in (folder / "LICENSE").read_text()
    )
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 5_000_000


def test_the_classes_of_the_toy_set_are_separable() -> None:
    train, test = (data.open(DataConfig(path=path, size=16)) for path in ("toy", "toy:test"))
    assert (len(train), len(test), train.classes) == (1000, 200, ("disc", "square", "cross", "ring"))
    a, b = train.batch(range(1000)), test.batch(range(200))
    assert a.label is not None
    assert b.label is not None
    unit = [(batch.x.flatten(1) + 1) / (batch.x.flatten(1) + 1).norm(dim=1, keepdim=True) for batch in (a, b)]
    nearest = (unit[1] @ unit[0].T).argmax(1)
    assert (a.label[nearest] == b.label).float().mean() > 0.9
    assert len({row.numpy().tobytes() for row in torch.cat([a.x, b.x])}) == 1200  # held-out ones are others
    colour = data.open(DataConfig(path="toy", size=16, channels=3)).batch(range(1000)).x
    assert torch.equal(colour, a.x.expand(-1, 3, -1, -1))


def test_describe_returns_the_exact_statistics(folder: str) -> None:
    pictures = data.open(replace(CACHED, path=folder, crop="center"))
    about = describe(pictures)
    assert json.loads(json.dumps(about)) == about
    sizes = [Image.open(file).size for file in Path(folder).rglob("*.png")]
    for name, side in zip(("width", "height"), np.array(sizes).T):
        assert about["sizes"][name] == {"min": side.min(), "median": np.median(side), "max": side.max()}
    assert about["count"] == about["checked"] == N
    assert about["modes"] == {"RGB": N}
    assert about["classes"] == {"c0": 12, "c1": 11}
    assert about["captions"]["count"] == N
    x = pictures.batch(range(N)).x.double()
    assert about["values"]["mean"] == pytest.approx(x.mean((0, 2, 3)).tolist(), abs=1e-6)  # flips change neither
    assert about["values"]["std"] == pytest.approx(x.std((0, 2, 3), correction=0).tolist(), abs=1e-6)


def test_contact_sheet_has_a_row_for_each_class(tmp_path: Path) -> None:
    values = np.repeat(np.array([10, 20, 30, 10, 20, 30, 10], np.uint8), 16).reshape(7, 4, 4)
    np.savez(tmp_path / "a.npz", images=values, labels=np.array([0, 1, 2, 0, 1, 2, 0]))
    pictures = data.open(DataConfig(path=str(tmp_path / "a.npz"), size=4))
    sheet = np.asarray(data.contact_sheet(pictures, rows=3, columns=4))
    assert sheet.shape == (3 * 6 + 2, 4 * 6 + 2)
    shown = sheet[4::6, 4::6]  # a pixel inside each place
    assert shown.tolist() == [[10, 10, 10, 255], [20, 20, 255, 255], [30, 30, 255, 255]]
    np.save(tmp_path / "b.npy", values)
    spread = np.asarray(data.contact_sheet(data.open(DataConfig(path=str(tmp_path / "b.npy"), size=4)), 1, 3))
    assert spread[4, 4::6].tolist() == [10, 30, 20]  # numbers 0, 2 and 4 of 7


def test_pictures_with_transparent_pixels_are_counted(tmp_path: Path) -> None:
    grey = Image.fromarray(np.arange(240, 256, dtype=np.uint8).reshape(4, 4))
    deep = Image.fromarray(257 * np.arange(240, 256, dtype=np.uint16).reshape(4, 4))
    some, none = Image.new("L", (4, 4), 255), Image.new("L", (4, 4), 255)
    some.putpixel((1, 2), 254)
    for name, alpha in (("clear", some), ("opaque", none)):
        Image.merge("LA", (grey, alpha)).save(tmp_path / f"{name}-la.png")
        Image.merge("RGBA", (grey, grey, grey, alpha)).save(tmp_path / f"{name}-rgba.png")
    for name, key in (("clear", 243), ("opaque", 200)):
        grey.save(tmp_path / f"{name}-grey.png", transparency=key)
        deep.save(tmp_path / f"{name}-deep.png", transparency=257 * key)
    grey.convert("P").save(tmp_path / "clear-palette.png", transparency=245)
    grey.convert("RGB").save(tmp_path / "opaque-rgb.png")
    about = "5 pictures have transparent pixels, which are composited over data.background=255,255,255 (white)"
    assert data.open(DataConfig(path=str(tmp_path), size=4, channels=3)).notes == (about,)
    red = DataConfig(path=str(tmp_path), size=4, channels=3, background=(255, 0, 0), cache_bytes=0)
    assert data.open(red).notes == (
        "5 pictures of the 10 that were opened have transparent pixels, which are composited over "
        "data.background=255,0,0",
    )
    array = np.full((3, 5, 5, 4), 255, np.uint8)
    array[1, 2, 3, 3] = 0
    np.save(tmp_path / "a.npy", array)
    assert (
        data.open(DataConfig(path=str(tmp_path / "a.npy"), size=5, channels=3)).notes[0].startswith("1 pictures have")
    )


def test_a_batch_is_much_faster_than_a_training_step() -> None:
    pictures = data.open(DataConfig(flip=True))
    stream = data.batches(pictures, batch=128, seed=0)
    next(stream)
    spent = []
    for _ in range(60):
        began = time.perf_counter()
        next(stream)
        spent.append(time.perf_counter() - began)
    assert min(spent) < 1e-3  # seconds; the least of many, for the machine may be busy


def test_bytes_are_the_pictures_before_they_are_scaled():
    pictures = data.open(DataConfig(path="fashion:test", size=28, channels=1, flip=True))
    as_bytes, floats = (pictures.batch(range(6), seed=1, as_bytes=given) for given in (True, False))
    assert as_bytes.x.dtype == torch.uint8
    torch.testing.assert_close(floats.x, as_bytes.x / 127.5 - 1)
    assert torch.equal(data.scaled(as_bytes).x, floats.x)
    assert data.scaled(floats).x is floats.x
    control = as_bytes._replace(control=as_bytes.x.expand(-1, 3, -1, -1))
    torch.testing.assert_close(data.scaled(control).control, control.control / 255)
