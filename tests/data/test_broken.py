"""Broken pictures are skipped and listed by path with the reason; too many of them are an error."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zipfile
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
FLOAT = "pixels of mode F (32 bits) have no known range: save it with 8 or 16 bits"


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
    """A broken file of every kind, and a word of the reason for each."""
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
    """A folder of good pictures, one that also has broken ones, and the reasons of those."""
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
    about = describe(found)["broken"]
    assert about["count"] == len(why)
    assert {broken["path"] for broken in about["listed"]} == set(why)
    json.dumps(about)


def test_more_broken_pictures_than_max_broken_is_an_error(folders: tuple[str, str, dict[str, str]]) -> None:
    config = DataConfig(path=folders[1], size=8, channels=3)
    with pytest.raises(UserError) as caught:
        data.open(config)
    message = str(caught.value)
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
    with pytest.raises(UserError, match="has 1 readable picture; give at least 2"):
        data.open(config)
    write_good(tmp_path, 2)
    assert len(data.open(config)) == 2
    (tmp_path / "000.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"1 readable picture; give at least 2\n  000\.png: empty \(0 bytes\)$"):
        data.open(replace(config, max_broken=1.0))


@pytest.mark.parametrize("cache_bytes", [2**30, 0])
@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_where_too_few_are_left_the_broken_ones_are_listed(tmp_path: Path, suffix: str, cache_bytes: int) -> None:
    """Also by `unnoise data`, which accepts any number of broken pictures."""
    top = tmp_path / "set"
    top.mkdir()
    for i in range(7):
        Image.new("F", (8, 8)).save(top / f"{i}.tif")
    write_good(top, 1)
    if suffix:
        with zipfile.ZipFile(f"{top}.zip", "w") as file:
            for path in sorted(top.iterdir()):
                file.write(path, path.name)
    config = DataConfig(f"{top}{suffix}", size=8, channels=3, max_broken=1.0, cache_bytes=cache_bytes)
    with pytest.raises(UserError, match="1 readable picture; give at least 2") as caught:
        data.open(config)
    lines = str(caught.value).splitlines()
    assert lines[1:6] == [f"  {i}.tif: {why}" for i, why in enumerate([FLOAT] * 5)]
    assert lines[6:] == ["  ... and 2 more"]


def save_grey(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(path)


@pytest.mark.parametrize(
    ("kind", "largest", "of", "factor"),
    [("u2", 4095, 65535, 16), ("u2", 16383, 65535, 4), ("u2", 1023, 65535, 64), ("u1", 15, 255, 17)],
)
def test_pictures_without_a_bright_value_have_a_note(
    tmp_path: Path, kind: str, largest: int, of: int, factor: int
) -> None:
    """12 bits in 16, for example: the note has the largest value of all pictures, not of the first."""
    for i, peak in enumerate((largest // 2, largest, largest // 3)):
        values = np.linspace(0, peak, 64).round().astype(kind).reshape(8, 8)
        save_grey(tmp_path / f"{i}.png", values)
    (note,) = data.open(DataConfig(str(tmp_path), size=4)).notes
    assert f"the 3 pictures stored as {'I;16' if kind == 'u2' else 'L'}" in note
    assert f"is {largest:,} of {of:,}" in note
    assert f"by {factor} " in note
    # bright pictures of another kind beside them do not hide them; scaled as the note says they have none
    Image.new("RGB", (8, 8), "white").save(tmp_path / "9.png")
    found = data.open(DataConfig(str(tmp_path), size=4))
    assert list(found.notes) == [note] == describe(found)["notes"]
    for path in tmp_path.glob("[0-2].png"):
        save_grey(path, (np.asarray(Image.open(path)).astype(int) * factor).astype(kind))
    assert data.open(DataConfig(str(tmp_path), size=4)).notes == ()


def test_an_array_without_a_bright_value_has_the_note_too(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((4, 8, 8), 4095, np.uint16))
    for size in (8, 4):  # as stored, and resized
        notes = data.open(DataConfig(str(tmp_path / "a.npy"), size=size)).notes
        assert any("is 16 of 255" in note for note in notes)
    np.save(tmp_path / "b.npy", np.zeros((4, 8, 8), np.uint8))  # nothing to scale
    assert data.open(DataConfig(str(tmp_path / "b.npy"), size=8)).notes == ()


@pytest.mark.parametrize("wrong", [{"size": 0}, {"channels": 2}])
def test_impossible_shapes_are_errors(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match="give channels 1 or 3"):
        data.open(replace(DataConfig(path="toy"), **wrong))


def test_refused_members_of_an_archive_count(tmp_path: Path) -> None:
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
        (tmp_path / f"{i:03}.png").write_bytes(b"")  # empty files are found without opening them: 7 of 40
    with pytest.raises(UserError, match=r"17\.50%"):
        data.open(config)


def test_files_deleted_while_training_are_replaced(tmp_path: Path) -> None:
    write_good(tmp_path, 30)
    config = DataConfig(path=str(tmp_path), size=8, channels=3, cache_bytes=0, max_broken=0.1)
    found = data.open(config)
    stream = data.batches(found, batch=10, seed=3, workers=2)
    next(stream)
    os.remove(tmp_path / "007.png")
    batches = [next(stream) for _ in range(12)]
    stream.close()  # type: ignore[attr-defined]
    assert [broken.path for broken in found.replaced] == ["007.png"]
    assert sum(7 in batch.index for batch in batches[5:]) == 0  # batches computed ahead may still contain it


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
