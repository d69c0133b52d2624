"""Captions: every known one is used, a text that cannot be decoded is none, and nothing is left out without a note."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.trees import Put, png, to_folder, write
from unnoise import data
from unnoise.config.data import DataConfig
from unnoise.data.registry import find

COUNTS = (5, 1, 3, 2)  # captions of each picture


def texts(picture: int) -> list[str]:
    return [f"words {k} of {picture}" for k in range(COUNTS[picture])]


def in_rows(top: Path) -> Path:
    rows = [{"file_name": f"{i}.png", "text": text} for i in range(len(COUNTS)) for text in texts(i)]
    return to_folder(top, {"metadata.jsonl": "\n".join(map(json.dumps, rows))})


def in_lists(top: Path) -> Path:
    rows = [{"file_name": f"{i}.png", "captions": texts(i)} for i in range(len(COUNTS))]
    return to_folder(top, {"metadata.jsonl": "\n".join(map(json.dumps, rows))})


def in_a_table(top: Path) -> Path:
    pa = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    import pyarrow.parquet as pq

    columns = {"image": [png(i) for i in range(len(COUNTS))], "caption": [texts(i) for i in range(len(COUNTS))]}
    pq.write_table(pa.table(columns), top / "a.parquet")
    return top / "a.parquet"


@pytest.mark.parametrize("store", [in_rows, in_lists, in_a_table])
def test_each_of_several_captions_is_used_once_in_as_many_epochs(tmp_path: Path, store) -> None:  # type: ignore[no-untyped-def]
    path = store(tmp_path)
    if path.is_dir():
        write(path, {f"{i}.png": png(i) for i in range(len(COUNTS))})
    found = data.open(DataConfig(path=str(path), size=4, channels=1))
    rows = range(len(COUNTS))
    for seed in (0, 7):
        seen = [found.batch(rows, seed=seed, epoch=epoch).caption or () for epoch in range(30)]
        for picture, count in enumerate(COUNTS):
            used = [captions[picture] for captions in seen]
            assert Counter(used) == dict.fromkeys(texts(picture), 30 // count)
            assert sorted(used[3 : 3 + count]) == texts(picture)
        reordered = found.batch([2, 0, 0], seed=seed, epoch=[4, 9, 2]).caption
        assert reordered == (seen[4][2], seen[9][0], seen[2][0])  # of the picture and the epoch, not of the batch
    assert list(found.every_caption()) == [text for i in rows for text in texts(i)]
    assert tuple(map(found.caption, rows)) == found.batch(rows).caption
    assert "3 pictures have several captions (10 together)" in " ".join(found.notes)


def test_pictures_begin_with_different_ones_of_their_captions(tmp_path: Path) -> None:
    rows = [{"file_name": f"{i}.png", "text": [str(k) for k in range(4)]} for i in range(400)]
    files = {f"{i}.png": png(i % 256) for i in range(400)}
    path = to_folder(tmp_path, {**files, "metadata.jsonl": "\n".join(map(json.dumps, rows))})
    first = data.open(DataConfig(path=str(path), size=4, channels=1)).batch(range(400)).caption
    counts = np.array(list(Counter(first).values()))
    assert len(counts) == 4
    assert abs(counts - 100).max() < 4 * np.sqrt(400 * 3 / 16)  # four standard deviations of a binomial


def test_the_fingerprint_covers_every_caption(tmp_path: Path) -> None:
    prints = set()
    for more in ([], ["b"], ["c"], ["b", "c"]):
        rows = [{"file_name": f"{i}.png", "text": ["a", *more]} for i in range(2)]
        files = {"0.png": png(0), "1.png": png(1), "metadata.jsonl": "\n".join(map(json.dumps, rows))}
        prints.add(data.open(DataConfig(path=str(to_folder(tmp_path, files)), size=4, channels=1)).fingerprint)
    assert len(prints) == 4


def test_a_part_of_a_set_has_its_own_captions(tmp_path: Path) -> None:
    path = write(in_rows(tmp_path), {f"{i}.png": png(i) for i in range(len(COUNTS))})
    part = find(str(path)).only(np.array([False, False, True, True]))
    assert part.captions == (texts(2)[0], texts(3)[0])
    assert part.more_captions == (tuple(texts(2)[1:]), tuple(texts(3)[1:]))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_caption_file_with_a_known_encoding_is_read(put: Put, encoding: str) -> None:
    found = find(put({"1.png": png(1), "1.txt": " una tasse bleutée 茶碗\n".encode(encoding)}))
    assert (found.captions, found.notes) == (("una tasse bleutée 茶碗",), ())


@pytest.mark.parametrize(
    "raw", ["bleuté".encode("latin-1"), "茶碗".encode("shift_jis"), "a cup".encode("utf-16-le"), b"\xff\xfea", b"\x80"]
)
def test_a_caption_file_that_cannot_be_decoded_is_no_caption(put: Put, raw: bytes) -> None:
    found = find(put({"1.png": png(1), "1.txt": raw, "2.png": png(2), "2.txt": "a cup"}))
    assert found.captions == ("", "a cup")
    assert (
        "1 caption files cannot be read as UTF-8 text and count as no caption (1.txt): save them as UTF-8"
        in found.notes
    )
    assert "1 of 2 pictures have no caption" in found.notes
    alone = find(put({"1.png": png(1), "1.txt": raw, "2.txt": ""}))
    assert alone.captions is None or alone.captions == ("", "")


def test_a_blank_text_is_no_caption(put: Put) -> None:
    lines = [
        '{"file_name": "1.png", "text": " ", "caption": "a cup"}',
        '{"file_name": "2.png", "text": ["", "b", "\\n"]}',
    ]
    found = find(
        put({"1.png": png(1), "2.png": png(2), "metadata.jsonl": "\n".join(lines), "3.png": png(3), "3.txt": " "})
    )
    assert (found.captions, found.more_captions) == (("a cup", "b", ""), None)


@pytest.mark.parametrize("name", ["1.caption", "1.CAPTION", "1.TXT"])
def test_captions_have_several_endings(put: Put, name: str) -> None:
    found = find(put({"1.png": png(1), name: "a thing\n"}))
    assert (found.captions, found.notes) == (("a thing",), ())


def test_of_two_caption_files_the_one_that_is_read_is_named(put: Put) -> None:
    both = {"1.png": png(1), "1.txt": "text", "1.caption": "caption"}
    found = find(put(both))
    assert (found.captions, found.notes) == (("text",), ("1 .caption are not read: .txt files have these captions",))
    metadata = '{"file_name": "1.png", "text": "metadata"}'
    found = find(put({**both, "metadata.jsonl": metadata}))
    assert found.captions == ("metadata",)
    assert found.notes == ("1 .caption, 1 .txt are not read: metadata has these captions",)


@pytest.mark.parametrize("half", ["\\ud83d", "\\ude00"])
def test_half_of_a_surrogate_pair_is_left_out_and_counted(put: Put, half: str) -> None:
    lines = [f'{{"file_name": "1.png", "text": "a cup {half}"}}', '{"file_name": "2.png", "text": "\\ud83d\\ude00 b"}']
    found = find(put({"1.png": png(1), "2.png": png(2), "metadata.jsonl": "\n".join(lines)}))
    assert found.captions == ("a cup ", "😀 b")
    assert found.notes == ("the captions of 1 pictures contain half of a surrogate pair, which is left out",)
