"""Metadata files of a tree: the formats agree, file names are compared as paths, and other pictures are no targets."""

from __future__ import annotations

import csv
import io
import json
import sys
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.trees import Put, png, to_folder, to_zip
from unnoise import data
from unnoise.config.data import DataConfig
from unnoise.data.registry import find
from unnoise.errors import UserError

Rows = list[dict[str, object]]


def jsonl(rows: Rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def csv_file(rows: Rows) -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, names)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def parquet(rows: Rows) -> bytes:
    pa = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


FORMATS: dict[str, Callable[[Rows], bytes]] = {
    "metadata.jsonl": jsonl,
    "metadata.csv": csv_file,
    "metadata.parquet": parquet,
}


def captions(path: str) -> dict[str, str]:
    found = find(path)
    return dict(zip(found.names, found.captions or ("",) * len(found.names)))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_layout(put: Put, name: str) -> None:
    rows: Rows = [
        {"file_name": "a/1.png", "text": 'a "cup",\nblue', "label": "cup", "age": 3, "score": 0.5},
        {"file_name": "a/2.png", "text": "1", "label": "plate", "age": 20, "score": None},
    ]
    found = find(put({"a/1.png": png(1), "a/2.png": png(2), name: FORMATS[name](rows)}))
    assert found.captions == ('a "cup",\nblue', "1")
    assert (found.classes, found.labels.tolist() if found.labels is not None else None) == (("cup", "plate"), [0, 1])
    assert found.values["age"].tolist() == [3.0, 20.0]
    assert np.array_equal(found.values["score"], [0.5, np.nan], equal_nan=True)
    assert found.notes == ()


@pytest.mark.parametrize("name", FORMATS)
def test_labels_that_are_whole_numbers_are_rows_in_every_format(put: Put, name: str) -> None:
    rows: Rows = [{"file_name": f"{k}.png", "label": k} for k in (2, 0, 10)]
    found = find(put({**{f"{k}.png": png(k) for k in (2, 0, 10)}, name: FORMATS[name](rows)}))
    assert found.labels is not None
    assert [found.classes[k] for k in found.labels] == [name.removesuffix(".png") for name in found.names]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\u2028\u2029\x85"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_ends_at_a_newline_and_nowhere_else(put: Put, separator: str, end: str) -> None:
    texts = [f"a red{separator}square", f"{separator}b", f"c{separator}"]
    lines = [json.dumps({"file_name": f"{k}.png", "text": text}, ensure_ascii=False) for k, text in enumerate(texts)]
    for last in ("", end):
        found = find(put({**{f"{k}.png": png(k) for k in range(3)}, "metadata.jsonl": end.join(lines) + last}))
        assert found.captions == tuple(texts)


@pytest.mark.parametrize("file", FORMATS)
@pytest.mark.parametrize(
    "given",
    ["./sub/a.png", "sub\\a.png", "sub//a.png", ".\\sub\\a.png", "sub/./a.png", "other/../sub/a.png", "sub\\\\a.png"],
)
def test_names_are_compared_as_paths(tmp_path: Path, file: str, given: str) -> None:
    rows: Rows = [{"file_name": given, "text": "A"}]
    files: dict[str, bytes | str] = {"sub/a.png": png(1), "b.png": png(2), file: FORMATS[file](rows)}
    assert captions(str(to_folder(tmp_path, files))) == {"b.png": "", "sub/a.png": "A"}


def test_members_of_an_archive_are_named_as_paths(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {f"{k}\\{i}.png": png(i) for k in ("cat", "dog") for i in range(2)}
    found = find(str(to_zip(tmp_path, {**files, "cat\\0.txt": "a cat"})))
    assert found.names == ("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png")
    assert found.classes == ("cat", "dog")
    assert found.captions == ("a cat", "", "", "")
    assert [found.read(i) for i in range(4)] == [png(0), png(1), png(0), png(1)]


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("given", ["NFC", "NFD"])
@pytest.mark.parametrize("file", [*FORMATS, "", "dataset.json"])
def test_names_are_compared_in_one_normal_form(put: Put, stored: str, given: str, file: str) -> None:
    def form(kind: str, name: str) -> str:
        return unicodedata.normalize(kind, name)  # type: ignore[arg-type]

    names = ["für Ġorġ/café.png", "für Ġorġ/öl.png"]
    files: dict[str, bytes | str] = {form(stored, name): png(i) for i, name in enumerate(names)}
    if file in FORMATS:
        files[file] = FORMATS[file]([{"file_name": form(given, name), "text": name} for name in names])
    elif file:
        files[file] = json.dumps({"labels": [[form(given, name), i] for i, name in enumerate(names)]})
    else:
        files |= {form(given, name).replace(".png", ".txt"): name for name in names}
    found = find(put(files))
    if file == "dataset.json":
        assert found.labels is not None
        assert found.labels.tolist() == [0, 1]
    else:
        assert found.captions == tuple(names)
    assert found.notes == ()


def test_an_exact_name_wins_over_another_form(tmp_path: Path) -> None:
    both = [unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD")]
    rows: Rows = [{"file_name": name, "text": str(k)} for k, name in enumerate(both)]
    found = captions(str(to_folder(tmp_path, {**{name: png(1) for name in both}, "metadata.jsonl": jsonl(rows)})))
    assert found == {name: str(k) for k, name in enumerate(both)}


def test_a_class_folder_is_one_class_in_both_forms(put: Put) -> None:
    files = {f"{unicodedata.normalize(form, 'café')}/{form}.png": png(1) for form in ("NFC", "NFD")}
    assert find(put({**files, "tea/1.png": png(2)})).classes == ("café", "tea")


@pytest.mark.parametrize("file", ["metadata.jsonl", "metadata.csv", "dataset.json"])
@pytest.mark.parametrize("encoding", ["latin-1", "shift_jis", "utf-16-le"])
def test_metadata_in_an_unknown_encoding_is_refused(put: Put, file: str, encoding: str) -> None:
    text = "茶碗" if encoding == "shift_jis" else "tasse bleutée"
    content = {
        "metadata.jsonl": jsonl([{"file_name": "1.png", "text": text}]).decode(),
        "metadata.csv": f"file_name,text\n1.png,{text}\n",
        "dataset.json": json.dumps({"labels": [["1.png", text]]}, ensure_ascii=False),
    }[file]
    with pytest.raises(UserError, match=rf"{file} cannot be read as UTF-8 text: save it as UTF-8"):
        find(put({"1.png": png(1), file: content.encode(encoding)}))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("file", ["metadata.jsonl", "metadata.csv"])
def test_metadata_with_a_byte_order_mark_is_read(put: Put, file: str, encoding: str) -> None:
    content = FORMATS[file]([{"file_name": "1.png", "text": "茶碗"}]).decode()
    assert captions(put({"1.png": png(1), file: content.encode(encoding)})) == {"1.png": "茶碗"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("file_name,text\n1.png,a cup, blue\n", r"line 2, has 3 cells and the header 2; .* double quotes"),
        ("file_name,text\n1.png\n", "line 2, has 1 cells"),
        ("file,text\n1.png,a cup\n", "has the columns file, text and no file_name"),
        ("file_name;text\n1.png;a cup\n", "has the columns file_name;text and no file_name"),
        ("", "no file_name"),
        ("file_name,text\n1.png," + "x" * 200_000, "cannot be read as CSV"),
    ],
)
def test_a_csv_that_would_be_misread_is_refused(put: Put, text: str, why: str) -> None:
    with pytest.raises(UserError, match=rf"metadata\.csv.*{why}"):
        find(put({"1.png": png(1), "metadata.csv": text}))


def test_a_parquet_without_file_names_is_refused(put: Put) -> None:
    with pytest.raises(UserError, match=r"metadata\.parquet has the columns text and no file_name"):
        find(put({"1.png": png(1), "metadata.parquet": parquet([{"text": "a"}])}))
    with pytest.raises(UserError, match=r"metadata\.parquet cannot be read as parquet"):
        find(put({"1.png": png(1), "metadata.parquet": b"PAR1 no PAR1"}))


@pytest.mark.parametrize("name", FORMATS)
def test_a_metadata_file_alone_is_said_to_need_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FORMATS[name]([{"file_name": "1.png", "text": "a"}]))
    with pytest.raises(UserError, match="describes pictures in other files: give the folder that contains them"):
        find(str(tmp_path / name))


def test_a_parquet_names_what_it_needs(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"metadata\.parquet needs pyarrow; run: pip install 'unnoise\[data\]'"):
        find(put({"1.png": png(1), "metadata.parquet": b"PAR1"}))


def test_rows_without_a_picture_and_keys_without_a_use_are_noted(put: Put) -> None:
    rows: Rows = [
        {"file_name": "1.png", "text": "a", "url": "http://x", "age": 3},
        {"file_name": "gone.png", "text": "b"},
        {"file_name": "half\ud83d.png", "text": "c"},
    ]
    notes = find(put({"1.png": png(1), "metadata.jsonl": "\n".join(map(json.dumps, rows))})).notes
    assert "2 rows of metadata.jsonl name a picture that does not exist (gone.png, half\\ud83d.png)" in notes
    assert "keys of the metadata that are not read: url (captions are text or caption)" in notes
    assert len(notes) == 2


def test_labels_that_folders_replace_are_noted(put: Put) -> None:
    rows: Rows = [{"file_name": f"{k}/1.png", "label": k * 2} for k in "ab"]
    found = find(put({**{f"{k}/1.png": png(1) for k in "ab"}, "metadata.jsonl": jsonl(rows)}))
    assert found.classes == ("a", "b")
    assert found.notes == ("keys of the metadata that are not read: label (captions are text or caption)",)


# ------------------------------------------------------------------------------------------ control images


@pytest.mark.parametrize("file", FORMATS)
@pytest.mark.parametrize("column", ["conditioning_image", "conditioning_image_file_name", "mask"])
def test_pictures_that_a_row_names_are_control_images(put: Put, file: str, column: str) -> None:
    rows: Rows = [{"file_name": f"high/{i}.png", column: f"low/{9 - i}.png", "text": "a slice"} for i in range(3)]
    files = {f"high/{i}.png": png(10 * i) for i in range(3)} | {f"low/{9 - i}.png": png(100 + i) for i in range(3)}
    path = put({**files, file: FORMATS[file](rows)})
    found = find(path)
    assert found.names == ("high/0.png", "high/1.png", "high/2.png")
    assert (found.classes, found.captions) == ((), ("a slice",) * 3)
    assert [note for note in found.notes if f"data.control={column}" in note and note.startswith("3 pictures")]
    opened = data.open(DataConfig(path=path, size=4, channels=1, control=column))
    control = opened.batch([2, 0, 1]).control
    assert control is not None
    assert (255 * control[:, 0, 0, 0]).round().tolist() == [102, 100, 101]


def test_control_images_of_a_column_are_those_of_a_folder(tmp_path: Path) -> None:
    edges = np.random.default_rng(0).integers(0, 256, 3)
    pictures = {f"p/{i}.png": png(i) for i in range(3)}
    rows: Rows = [{"file_name": f"p/{i}.png", "edges_of": f"c/{i}.png"} for i in range(3)]
    controls = {f"c/{i}.png": png(int(edges[i])) for i in range(3)}
    whole = to_folder(tmp_path, {**pictures, **controls, "metadata.jsonl": jsonl(rows)})
    by_column = data.open(DataConfig(path=str(whole), size=4, channels=1, control="edges_of"))
    by_folder = data.open(DataConfig(path=str(whole / "p"), size=4, channels=1, control=str(whole / "c")))
    assert torch.equal(by_column.batch([0, 1, 2]).control, by_folder.batch([0, 1, 2]).control)  # type: ignore[arg-type]
    before = by_column.fingerprint
    (whole / "c" / "1.png").write_bytes(png(255 - int(edges[1])))
    assert data.open(by_column.config).fingerprint != before


def test_a_picture_with_a_row_of_its_own_is_a_training_picture(put: Put) -> None:
    rows: Rows = [{"file_name": f"{i}.png", "next": f"{(i + 1) % 3}.png"} for i in range(3)]
    found = find(put({**{f"{i}.png": png(i) for i in range(3)}, "metadata.jsonl": jsonl(rows)}))
    assert found.names == ("0.png", "1.png", "2.png")
    assert found.notes == ("keys of the metadata that are not read: next (captions are text or caption)",)


def test_a_caption_that_is_the_name_of_a_picture_is_a_caption(put: Put) -> None:
    found = find(put({"a": b"", "1.png": png(1), "2.png": png(2), "metadata.csv": "file_name,text\n1.png,2.png\n"}))
    assert dict(zip(found.names, found.captions or ())) == {"1.png": "2.png", "2.png": ""}


def test_a_picture_without_its_control_image_is_named(put: Put) -> None:
    rows: Rows = [{"file_name": "1.png", "mask": "m/1.png"}, {"file_name": "2.png"}]
    path = put({"1.png": png(1), "2.png": png(2), "m/1.png": png(3), "metadata.jsonl": jsonl(rows)})
    with pytest.raises(UserError, match=r"mask in the metadata of .* has no control image for 2\.png"):
        data.open(DataConfig(path=path, size=4, channels=1, control="mask"))
    with pytest.raises(UserError, match=r"did you mean 'mask'\?.*valid: edges, mask"):
        data.open(DataConfig(path=path, size=4, channels=1, control="maks"))


# --------------------------------------------------------------------------------------------- dataset.json

SHARDS = {f"0000{i // 3}/img0000000{i}.png": png(i) for i in range(6)}


@pytest.mark.parametrize("top", ["", "cifar/"])
@pytest.mark.parametrize("form", [list, dict])
def test_labels_of_a_dataset_json_are_the_classes_and_its_folders_none(put: Put, top: str, form: type) -> None:
    labels = form([(name, (i * 2) % 3) for i, name in enumerate(SHARDS)])
    found = find(
        put(
            {top + name: data for name, data in SHARDS.items()} | {f"{top}dataset.json": json.dumps({"labels": labels})}
        )
    )
    assert (found.classes, found.notes) == (("0", "1", "2"), ())
    assert found.labels is not None
    assert found.labels.tolist() == [0, 2, 1, 0, 2, 1]


@pytest.mark.parametrize("labels", [None, []])
def test_a_dataset_json_without_labels_means_no_classes(put: Put, labels: object) -> None:
    found = find(put({**SHARDS, "dataset.json": json.dumps({"labels": labels})}))
    assert (found.classes, found.labels, found.notes) == ((), None, ())


@pytest.mark.parametrize("labels", [[[name, 1] for name in list(SHARDS)[1:]], [[name, [0.5, 0.5]] for name in SHARDS]])
def test_labels_that_are_missing_or_vectors_are_noted(put: Put, labels: object) -> None:
    found = find(put({**SHARDS, "dataset.json": json.dumps({"labels": labels})}))
    assert found.classes == ()
    assert [note for note in found.notes if "no classes" in note and "dataset.json" in note]


def test_another_dataset_json_is_reported_as_unused_and_a_damaged_one_refused(put: Put) -> None:
    found = find(put({"a/1.png": png(1), "b/1.png": png(2), "dataset.json": '{"images": []}'}))
    assert found.classes == ("a", "b")
    assert "1 .json are not read: they are neither pictures nor captions" in found.notes
    for damaged in ('{"labels": [["1.png", ', '{"labels": [3]}', '{"labels": 5}'):
        with pytest.raises(UserError, match=r"dataset\.json is not like"):
            find(put({"a/1.png": png(1), "b/1.png": png(2), "dataset.json": damaged}))


def test_a_zip_without_the_flag_of_utf8_has_its_names(tmp_path: Path) -> None:
    path = to_zip(tmp_path, {"café.png": png(1), "b.png": png(2), "metadata.csv": "file_name,text\ncafé.png,tea\n"})
    raw = path.read_bytes()
    for signature, place in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):  # the high byte of the flags: bit 11
        at = raw.find(signature)
        while at >= 0:
            raw = raw[: at + place] + bytes([raw[at + place] & ~0x08]) + raw[at + place + 1 :]
            at = raw.find(signature, at + 4)
    path.write_bytes(raw)
    with zipfile.ZipFile(path) as file:
        assert "café.png" not in file.namelist()  # what the flag is for
    assert captions(str(path)) == {"b.png": "", "café.png": "tea"}
