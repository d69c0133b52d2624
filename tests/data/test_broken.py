"""What is broken costs itself and no more: skipped, listed by path with the reason, or nothing starts."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise import data
from unnoise.config.data import DataConfig
from unnoise.data.summary import describe
from unnoise.errors import UserError

GOOD = 100


def write_good(top: Path, count: int = GOOD) -> None:
    for i in range(count):
        chosen = np.random.default_rng(i)
        Image.fromarray(chosen.integers(0, 256, (8, 8, 3), np.uint8)).save(top / f"{i:03}.png")


def bomb(path: Path, side: int = 20_000) -> None:
    """A PNG of side x side grey zeros: 400 million pixels in under a megabyte (and no picture needed to make it)."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes((side + 1) * 100)) for _ in range(side // 100)) + packer.flush()
    parts = ((b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def write_broken(top: Path) -> dict[str, str]:
    """One of every kind, between the good ones, and a word of the reason for each."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    noise.save(top / "010b.jpg")
    whole = (top / "010b.jpg").read_bytes()
    (top / "010b.jpg").write_bytes(whole[: len(whole) // 2])
    (top / "020b.png").write_bytes(b"")
    (top / "030b.png").write_text("<!DOCTYPE html><title>404 Not Found</title>")
    (top / "040b.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")
    bomb(top / "050b.png", 10_000)
    (top / "060b.gif").write_bytes(np.random.default_rng(0).bytes(1000))
    (top / "070b.png").symlink_to(top / "nothing.png")
    Image.new("F", (8, 8)).save(top / "080b.tif")
    spoilt = bytearray((top / "000.png").read_bytes())
    spoilt[60] ^= 0xFF
    (top / "090b.png").write_bytes(spoilt)
    return {
        "010b.jpg": "truncated",
        "020b.png": "empty",
        "030b.png": "HTML",
        "040b.png": "git lfs pull",
        "050b.png": "bomb",
        "060b.gif": "not a picture",
        "070b.png": "No such file",
        "080b.tif": "32 bits",
        "090b.png": "",  # whatever zlib says
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, dict[str, str]]:
    """Good pictures alone, the same ones with broken ones between, and why those are broken."""
    good, mixed = tmp_path_factory.mktemp("good"), tmp_path_factory.mktemp("mixed")
    write_good(good)
    write_good(mixed)
    return str(good), str(mixed), write_broken(mixed)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("workers", "cache_bytes"), [(0, 2**30), (3, 2**30), (0, 0), (2, 0)])
def test_every_broken_file_is_listed_and_does_not_change_the_others(
    folders: tuple[str, str, dict[str, str]], workers: int, cache_bytes: int
) -> None:
    good, mixed, why = folders
    config = DataConfig(path=mixed, size=8, channels=3, max_broken=0.1, workers=workers, cache_bytes=cache_bytes)
    found = data.open(config)
    assert [broken.path for broken in found.broken] == list(why)
    for broken in found.broken:
        assert why[broken.path] in broken.why, broken
        assert broken.why
    alone = data.open(replace(config, path=good, workers=0))
    assert len(found) == len(alone) == GOOD
    assert torch.equal(found.batch(range(GOOD)).x, alone.batch(range(GOOD)).x)
    for a, b in zip(range(3), data.batches(found, batch=7, seed=1, workers=workers)):
        assert b.index == tuple(data.order(1, 0, GOOD)[a * 7 : (a + 1) * 7])
    told = describe(found)["broken"]
    assert told["count"] == len(why)
    assert {broken["path"] for broken in told["listed"]} == set(why)
    json.dumps(told)


def test_more_broken_pictures_than_max_broken_is_an_error(folders: tuple[str, str, dict[str, str]]) -> None:
    config = DataConfig(path=folders[1], size=8, channels=3)
    with pytest.raises(UserError) as told:
        data.open(config)
    message = str(told.value)
    assert "8.26% of the pictures" in message  # 9 of 109
    assert "max_broken = 1.00%" in message
    assert "010b.jpg: " in message
    assert "020b.png: empty" in message
    assert "and 4 more" in message
    data.open(replace(config, max_broken=9 / 109))
    with pytest.raises(UserError):
        data.open(replace(config, max_broken=9 / 109 - 1e-9))


def test_labels_and_captions_stay_with_their_pictures(tmp_path: Path) -> None:
    for i in range(6):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        path = tmp_path / "ab"[i % 2] / f"{i}.png"
        Image.new("L", (4, 4), 10 * i).save(path)
        path.with_suffix(".txt").write_text(f"{10 * i}")
    (tmp_path / "a" / "2.png").write_bytes(b"")
    found = data.open(DataConfig(path=str(tmp_path), size=4, channels=1, max_broken=0.5))
    batch = found.batch(range(5))
    values = [round((x + 1) * 127.5) for x in batch.x[:, 0, 0, 0].tolist()]
    assert values == [0, 40, 10, 30, 50]
    assert batch.caption == tuple(map(str, values)) == tuple(map(found.caption, range(5)))
    assert batch.label is not None
    assert batch.label.tolist() == [0, 0, 1, 1, 1] == found.labels().tolist()
    assert describe(found)["classes"] == {"a": 2, "b": 3}


def test_fewer_than_two_pictures_is_an_error(tmp_path: Path) -> None:
    write_good(tmp_path, 1)
    config = DataConfig(path=str(tmp_path), size=8, channels=3)
    with pytest.raises(UserError, match="1 picture to learn from; give at least 2"):
        data.open(config)
    write_good(tmp_path, 2)
    assert len(data.open(config)) == 2
    (tmp_path / "000.png").write_bytes(b"")
    with pytest.raises(UserError, match="1 picture"):
        data.open(replace(config, max_broken=1.0))


@pytest.mark.parametrize("wrong", [{"size": 0}, {"channels": 2}])
def test_impossible_shapes_are_errors(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match="give channels 1 or 3"):
        data.open(replace(DataConfig(path="toy"), **wrong))


def test_refused_members_of_an_archive_count(tmp_path: Path) -> None:
    import zipfile

    write_good(tmp_path, 4)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name in ("000.png", "001.png", "002.png", "003.png"):
            file.write(tmp_path / name, name)
        file.writestr("../escape.png", (tmp_path / "000.png").read_bytes())
    config = DataConfig(path=str(tmp_path / "a.zip"), size=8, channels=3)
    with pytest.raises(UserError, match=r"20\.00%.*\n.*\.\./escape\.png: the name leads out"):
        data.open(config)
    found = data.open(replace(config, max_broken=0.2))
    assert (len(found), found.checked, len(found.broken)) == (4, 5, 1)


def test_a_set_too_large_for_memory_is_checked_by_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unnoise.data.scan.SAMPLE", 10)
    write_good(tmp_path, 40)
    config = DataConfig(path=str(tmp_path), size=8, channels=3, cache_bytes=100, max_broken=0.1)
    assert data.open(config).checked == 10
    unseen = tmp_path / "001.png"  # not one of the ten spread over forty
    unseen.write_text("broken")
    found = data.open(config)
    assert (len(found), found.broken) == (40, ())
    batch = found.batch(range(40))
    assert [i for i in range(40) if batch.index[i] != i] == [1]
    assert [broken.path for broken in found.replaced] == ["001.png"]
    for i in range(0, 40, 2):
        (tmp_path / f"{i:03}.png").write_text("broken")
    with pytest.raises(UserError, match="are broken"):
        data.open(config)
    write_good(tmp_path, 40)
    for i in range(1, 40, 6):
        (tmp_path / f"{i:03}.png").write_bytes(b"")  # empty ones are seen without opening: 7 of 40
    with pytest.raises(UserError, match=r"17\.50%"):
        data.open(config)


def test_files_deleted_while_training_are_replaced(tmp_path: Path) -> None:
    write_good(tmp_path, 30)
    config = DataConfig(path=str(tmp_path), size=8, channels=3, cache_bytes=0, max_broken=0.1)
    found = data.open(config)
    stream = data.batches(found, batch=10, seed=3, workers=2)
    next(stream)
    os.remove(tmp_path / "007.png")
    seen = [next(stream) for _ in range(12)]
    stream.close()  # type: ignore[attr-defined]
    assert [broken.path for broken in found.replaced] == ["007.png"]
    assert sum(7 in batch.index for batch in seen[5:]) == 0  # what was made ahead may still hold it


PROBE = """
import resource, sys, time
from unnoise.data.decode import decode
from unnoise.data.source import Unreadable
from unnoise.config.data import DataConfig
config = DataConfig(size=8, channels=1, max_pixels=int(sys.argv[2]))
payload = open(sys.argv[1], "rb").read()
before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
try:
    decode(payload, config)
    print("decoded")
except Unreadable as error:
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(grown, time.perf_counter() - began, "torch" in sys.modules, error)
"""


@pytest.mark.parametrize(("side", "max_pixels"), [(20_000, 89_478_485), (9_400, 1_000_000), (13_000, 10**9)])
def test_a_bomb_is_refused_without_being_decoded(tmp_path: Path, side: int, max_pixels: int) -> None:
    bomb(tmp_path / "b.png", side)
    assert (tmp_path / "b.png").stat().st_size < 500_000
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE, str(tmp_path / "b.png"), str(max_pixels)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    grown, seconds, torch_loaded, why = run.stdout.split(maxsplit=3)
    assert int(grown) < 20_000  # kB; decoded, the least of them is 88 MB
    assert float(seconds) < 1.0
    assert torch_loaded == "False"  # decoding needs none of it
    assert "bomb" in why or "max_pixels" in why


def test_listing_the_sets_does_not_import_torch() -> None:
    code = "import sys, unnoise.data, unnoise.data.registry; print({'torch', 'pyarrow'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "set()"
