"""The sources of folders, archives, arrays, IDX files and tables: pictures, order, classes and captions."""

from __future__ import annotations

import gzip
import json
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.trees import Put, png, to_tar, to_zip, write
from unnoise.data.layout import natural
from unnoise.data.registry import find
from unnoise.errors import UserError


def test_natural_order() -> None:
    names = ["b/1.png", "a10.png", "a2.png", "a/2.png", "a/10.png", "a.png", "A.png", "a02.png"]
    # the files of a folder are adjacent; digits by value, then by their text
    assert sorted(names, key=natural) == [
        "A.png",
        "a/2.png",
        "a/10.png",
        "a.png",
        "a02.png",
        "a2.png",
        "a10.png",
        "b/1.png",
    ]
    assert natural("a" + "9" * 9) < natural("a" + "1" * 12) < natural("a" + "1" * 120)


def test_order_and_bytes(put: Put) -> None:
    found = find(put({"10.png": png(10), "9.png": png(9), "a.txt.png": png(3), "notes.md": "no", ".x.png": b"hidden"}))
    assert found.names == ("9.png", "10.png", "a.txt.png")
    assert [found.read(i) for i in range(3)] == [png(9), png(10), png(3)]
    assert found.sizes.tolist() == [len(png(9)), len(png(10)), len(png(3))]
    assert (found.classes, found.labels, found.captions) == ((), None, None)


def test_classes_are_the_folders_of_the_first_level_with_several(put: Put) -> None:
    found = find(put({f"all/of/{c}/{n}/{i}.png": png(i) for c in ("10", "9", "cat") for n in "ab" for i in range(2)}))
    assert found.classes == ("9", "10", "cat")
    assert found.labels is not None
    assert [found.classes[k] for k in found.labels] == [name.split("/")[2] for name in found.names]


def test_pictures_beside_folders_mean_no_classes(put: Put) -> None:
    found = find(put({"a/1.png": png(1), "b/2.png": png(2), "3.png": png(3)}))
    assert found.classes == ()
    assert any("beside" in note for note in found.notes)


def test_one_folder_is_no_class(put: Put) -> None:
    assert find(put({"a/1.png": png(1), "a/2.png": png(2)})).classes == ()


def test_splits_are_not_classes(put: Put) -> None:
    with pytest.raises(UserError, match=r"splits.*test, train|splits.*train"):
        find(put({"train/1.png": png(1), "test/2.png": png(2)}))


def test_captions_from_metadata(put: Put) -> None:
    rows = [{"file_name": "1.png", "text": "one"}, {"file_name": "gone.png", "text": "?"}]
    deep = [{"file_name": "2.png", "caption": "two, deep"}]
    found = find(
        put(
            {
                "1.png": png(1),
                "d/2.png": png(2),
                "3.png": png(3),
                "3.txt": "beside\n",
                "metadata.jsonl": "\n".join(map(json.dumps, rows)) + "\n\n",
                "d/metadata.jsonl": "\n".join(map(json.dumps, deep)),
            }
        )
    )
    assert dict(zip(found.names, found.captions or ())) == {"1.png": "one", "d/2.png": "two, deep", "3.png": "beside"}
    assert any("does not exist" in note for note in found.notes)


def test_captions_beside(put: Put) -> None:
    found = find(put({"1.png": png(1), "1.txt": " ein Löwe \n", "2.png": png(2)}))
    assert found.captions == ("ein Löwe", "")
    assert any("1 of 2 pictures have no caption" in note for note in found.notes)


def test_labels_from_metadata(put: Put) -> None:
    rows = [{"file_name": f"{i}.png", "label": label} for i, label in enumerate(["dog", "cat", "dog"])]
    found = find(put({**{f"{i}.png": png(i) for i in range(3)}, "metadata.jsonl": "\n".join(map(json.dumps, rows))}))
    assert found.classes == ("cat", "dog")
    assert found.labels is not None
    assert found.labels.tolist() == [1, 0, 1]


def test_an_error_in_metadata_names_its_line(put: Put) -> None:
    for line in ("{not json", '["a list"]', '{"text": "no name"}', "3"):
        with pytest.raises(UserError, match=r"metadata.jsonl, line 2"):
            find(put({"1.png": png(1), "metadata.jsonl": '{"file_name": "1.png"}\n' + line}))


def test_metadata_cannot_reach_outside(put: Put, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    rows = [{"file_name": "../secret.png", "text": "x"}, {"file_name": str(tmp_path / "secret.png"), "text": "y"}]
    found = find(put({"1.png": png(1), "metadata.jsonl": "\n".join(map(json.dumps, rows))}))
    assert found.names == ("1.png",)
    assert found.captions is None


def test_a_source_without_pictures_is_an_error(put: Put) -> None:
    with pytest.raises(UserError, match=r"no pictures in .*2 \.svg, 1 \.md"):
        find(put({"a.svg": "<svg/>", "b.svg": "<svg/>", "c.md": "text"}))


def test_links_in_a_folder(tmp_path: Path) -> None:
    write(tmp_path, {"real/1.png": png(1), "set/0.png": png(0)})
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "set" / "loop").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "dead.png").symlink_to(tmp_path / "nothing.png")
    found = find(str(tmp_path / "set"))
    assert found.names == ("0.png", "dead.png", "linked/1.png")
    assert found.sizes.tolist() == [len(png(0)), 0, len(png(1))]


@pytest.mark.parametrize("name", ["../1.png", "/etc/1.png", "a/../../1.png", "..\\1.png", "C:\\1.png", "C:1.png"])
def test_names_that_lead_out_of_an_archive_are_refused(name: str, tmp_path: Path) -> None:
    for pack in (to_zip, to_tar):
        target = pack(tmp_path, {"ok.png": png(1), "ok2.png": png(2), name: png(3)})
        before = sorted(tmp_path.parent.iterdir())
        found = find(str(target))
        assert found.names == ("ok.png", "ok2.png")
        assert [broken.why for broken in found.refused] == ["the name leads out of the archive"]
        assert [found.read(i) for i in range(2)] == [png(1), png(2)]
        assert sorted(tmp_path.parent.iterdir()) == before


def test_links_in_archives_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(99))
    with tarfile.open(tmp_path / "l.tar", "w") as file:
        for name, kind in (
            ("soft.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("pipe.png", tarfile.FIFOTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(secret)
            file.addfile(member)
    with zipfile.ZipFile(tmp_path / "l.zip", "w") as archive:
        info = zipfile.ZipInfo("soft.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, str(secret))
    for name, count in (("l.tar", 3), ("l.zip", 1)):
        found = find(str(tmp_path / name))
        assert found.names == ()
        assert [broken.why for broken in found.refused] == ["a link or device, not a file"] * count


def test_a_zip_bomb_is_not_decompressed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("a.png", png(1))
        with file.open("bomb.png", "w") as member:
            for _ in range(65):
                member.write(bytes(2**20))
    found = find(str(tmp_path / "b.zip"))
    assert found.names == ("a.png",)
    assert "bomb" in found.refused[0].why


def test_a_damaged_member_is_broken_and_a_damaged_archive_an_error(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 4000, np.uint8).tobytes()
    path = to_zip(tmp_path, {"a.png": noise, "b.png": png(1)})
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(Exception, match="CRC"):
        find(str(path)).read(0)
    for broken in (path, to_tar(tmp_path, {"a.png": noise})):
        broken.write_bytes(b"nothing of the kind")
        with pytest.raises(UserError, match="cannot be opened as an archive"):
            find(str(broken))


def idx_bytes(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


PIXELS = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_idx(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / f"t10k-images-idx3-ubyte{suffix}"
    path.write_bytes(pack(idx_bytes(PIXELS)))
    alone = find(str(path))
    assert alone.array is not None
    assert (alone.array == PIXELS).all()
    assert alone.labels is None
    beside = tmp_path / f"t10k-labels-idx1-ubyte{suffix}"
    beside.write_bytes(pack(idx_bytes(np.array([3, 0, 3, 1, 2], np.uint8))))
    found = find(str(path))
    assert found.classes == ("0", "1", "2", "3")
    assert found.labels is not None
    assert found.labels.tolist() == [3, 0, 3, 1, 2]
    beside.write_bytes(pack(idx_bytes(np.array([3, 0], np.uint8))))
    with pytest.raises(UserError, match="2 labels for 5 pictures"):
        find(str(path))
    path.write_bytes(pack(idx_bytes(PIXELS)[:-1]))
    with pytest.raises(UserError, match="header says 60"):
        find(str(path))
    path.write_bytes(pack(idx_bytes(PIXELS) + b"x"))
    with pytest.raises(UserError, match="or more, but its header says 60"):
        find(str(path))
    path.write_bytes(pack(struct.pack(">BBBB3I", 0, 0, 8, 3, 2**20, 2**10, 2**10) + bytes(100)))
    with pytest.raises(UserError, match="bomb"):
        find(str(path))


def test_a_truncated_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(PIXELS))[:-12])
    with pytest.raises(UserError, match=r"cannot be decompressed|header says"):
        find(str(path))


RGB = np.arange(5 * 6 * 7 * 3, dtype=np.uint8).reshape(5, 6, 7, 3)


@pytest.mark.parametrize(
    ("values", "truth"),
    [
        (RGB, RGB),
        (RGB.transpose(0, 3, 1, 2), RGB),
        (RGB[..., :1], RGB[..., 0]),
        (RGB[..., 0], RGB[..., 0]),
        (RGB.astype(np.int64), RGB),
        (RGB / 255, RGB),
        ((RGB / 127.5 - 1).astype(np.float32), RGB),
        (RGB.astype(np.float32), RGB),
        (RGB.astype(np.uint16) * 257, RGB),
        (RGB > 100, (RGB > 100) * np.uint8(255)),
    ],
)
def test_arrays_of_any_kind_are_the_same_bytes(tmp_path: Path, values: np.ndarray, truth: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", images=values)
    np.savez_compressed(tmp_path / "b.npz", values)
    for name in ("a.npy", "a.npz", "b.npz"):
        found = find(str(tmp_path / name))
        assert found.array is not None
        assert found.array.dtype == np.uint8
        assert found.array.shape == truth.shape
        assert (found.array == truth).all()


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (np.full((5, 4, 4), 300), "no known range"),
        (np.full((5, 4, 4), np.nan), "not finite"),
        (np.full((5, 4, 4), -3.0), "no known range"),
        (np.zeros((5, 4)), "give .N, H, W."),
        (np.zeros((5, 5, 5, 5), np.uint8), "give .N, H, W."),
        (np.zeros((5, 3, 4, 3), np.uint8), "ambiguous"),
        (np.zeros((0, 4, 4), np.uint8), "contains nothing"),
        (np.full((5, 4, 4), "x"), "type"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(tmp_path: Path, values: np.ndarray, why: str) -> None:
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(UserError, match=why):
        find(str(tmp_path / "a.npy"))


def test_array_labels_and_splits(tmp_path: Path) -> None:
    tmp_path = tmp_path / "a:b"
    tmp_path.mkdir()
    parts = {"x_train": RGB, "y_train": [[1], [0], [1], [0], [1]], "x_test": RGB[:2], "y_test": [0, 1]}
    np.savez(tmp_path / "a.npz", **parts, classes=["zebra", "ant"])
    train, test = find(str(tmp_path / "a.npz")), find(f"{tmp_path / 'a.npz'}:test")
    assert (len(train.names), len(test.names)) == (5, 2)
    assert train.classes == ("zebra", "ant")
    assert train.labels is not None
    assert train.labels.tolist() == [1, 0, 1, 0, 1]
    np.save(tmp_path / "b.npy", RGB)
    np.save(tmp_path / "b-labels.npy", np.array(["x", "y", "x", "x", "y"]))
    assert find(str(tmp_path / "b.npy")).classes == ("x", "y")
    np.save(tmp_path / "b-labels.npy", np.array([0, 1]))
    with pytest.raises(UserError, match="labels of shape"):
        find(str(tmp_path / "b.npy"))


class Runs:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_files_cannot_run_code(tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    np.save(tmp_path / "a.npy", np.array([Runs(trap)], object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", images=np.array([Runs(trap)], object))
    (tmp_path / "raw.npy").write_bytes(__import__("pickle").dumps(Runs(trap)))
    (tmp_path / "a.pkl").write_bytes(__import__("pickle").dumps(Runs(trap)))
    for name in ("a.npy", "a.npz", "raw.npy", "a.pkl"):
        with pytest.raises(UserError, match="could run code") as caught:
            find(str(tmp_path / name))
        assert "allow_pickle" not in str(caught.value)  # no hint to disable this protection
    assert not trap.exists()


def test_an_npz_bomb_is_not_decompressed(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((65, 1024, 1024), np.uint8))
    with pytest.raises(UserError, match="bomb"):
        find(str(tmp_path / "a.npz"))


def parquet(path: Path, columns: dict[str, list[object]], *, features: dict[str, object] | None = None) -> Path:
    pa = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    import pyarrow.parquet as pq

    made = pa.table(columns)
    if features:
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(made, path, row_group_size=3)
    return path


def test_parquet(tmp_path: Path) -> None:
    files = [png(i) for i in range(8)]
    columns = {"label": [k % 3 for k in range(8)], "text": [f"picture {k}" for k in range(8)]}
    plain = find(str(parquet(tmp_path / "a.parquet", {"jpg": files, **columns})))
    layout = [{"bytes": file, "path": f"{i}.png"} for i, file in enumerate(files)]
    named = {"label": {"names": ["ant", "bee", "cat", "dog"], "_type": "ClassLabel"}}
    hub = find(str(parquet(tmp_path / "b.parquet", {"image": layout, **columns}, features=named)))
    for found in (plain, hub):
        assert [found.read(i) for i in (7, 0, 3, 5, 1, 2, 4, 6)] == [files[i] for i in (7, 0, 3, 5, 1, 2, 4, 6)]
        assert found.labels is not None
        assert found.labels.tolist() == columns["label"]
        assert found.captions == tuple(columns["text"])
    assert plain.classes == ("0", "1", "2")
    assert hub.classes == ("ant", "bee", "cat", "dog")


def test_parquet_splits_and_shards(tmp_path: Path) -> None:
    files = [png(i) for i in range(8)]
    split = ["train", "test", "train", "train", "test", "train", "train", "test"]
    path = parquet(
        tmp_path / "a.parquet", {"image": files, "split": split, "label": list("abcabcab"), "text": list("ABCDEFGH")}
    )
    test = find(f"{path}:test")
    assert [test.read(i) for i in range(3)] == [files[1], files[4], files[7]]
    assert test.labels is not None
    assert [test.classes[k] for k in test.labels] == ["b", "b", "b"]
    assert test.captions == ("B", "E", "H")
    assert any(":test selects one" in note for note in find(str(path)).notes)
    numbers = [3, -1, 1, 0, -1, 2, 1, -1]  # held-out rows without labels, as they are often published
    hidden = parquet(tmp_path / "b.parquet", {"image": files, "split": split, "label": numbers})
    assert find(f"{hidden}:test").labels is None
    train = find(f"{hidden}:train")
    assert train.labels is not None
    assert (train.labels.tolist(), train.classes) == ([3, 1, 0, 2, 1], ("0", "1", "2", "3"))
    with pytest.raises(UserError, match="run from -1 to 3"):
        find(str(hidden))
    with pytest.raises(UserError, match="it has test, train"):
        find(f"{path}:dev")
    shards = tmp_path / "hub" / "data"
    shards.mkdir(parents=True)
    for name, part in (
        ("train-00001-of-2", files[4:6]),
        ("train-00000-of-2", files[:4]),
        ("test-00000-of-1", files[6:]),
    ):
        parquet(shards / f"{name}.parquet", {"image": part})
    train = find(f"{tmp_path / 'hub'}:train")
    assert [train.read(i) for i in range(6)] == files[:6]
    with pytest.raises(UserError, match="splits test, train"):
        find(str(tmp_path / "hub"))


def test_a_table_that_expands_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table says how many rows it has, and of how many bytes, before they are read."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    zeros = pa.table({"image": [bytes(2**16)] * 2000})
    pq.write_table(zeros, tmp_path / "a.parquet", use_dictionary=False, compression="gzip")
    with pytest.raises(UserError, match="a decompression bomb; split it"):
        find(str(tmp_path / "a.parquet"))
    pq.write_table(pa.table({"image": [b"x"] * 4}), tmp_path / "b.parquet")
    assert len(find(str(tmp_path / "b.parquet")).names) == 4
    monkeypatch.setattr("unnoise.data.table.MEMBERS", 3)
    with pytest.raises(UserError, match="has 4 rows"):
        find(str(tmp_path / "b.parquet"))


def test_text_in_an_array_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    names = np.array(["ab", "cd"])
    names.view("<u4")[0] = 0x110000
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 8, 8), np.uint8), labels=names)
    with pytest.raises(UserError, match="no characters"):
        find(str(tmp_path / "a.npz"))


def test_parquet_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="columns of bytes"):
        find(str(parquet(tmp_path / "a.parquet", {"x": [1, 2]})))
    (tmp_path / "b.parquet").write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(UserError, match="cannot be read as parquet"):
        find(str(tmp_path / "b.parquet"))


def test_paths_without_a_source_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no .*fashion, toy"):
        find(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="empty folder"):
        find(str(tmp_path))
    write(tmp_path, {"one.png": png(1), "x.h5": b"\x89HDF", "weights.pt": b"PK"})
    with pytest.raises(UserError, match="is one picture"):
        find(str(tmp_path / "one.png"))
    with pytest.raises(UserError, match="no format"):
        find(str(tmp_path / "x.h5"))
    with pytest.raises(UserError, match="could run code"):
        find(str(tmp_path / "weights.pt"))
    with pytest.raises(UserError, match="valid: train, test"):
        find("fashion:tset")
    with pytest.raises(UserError, match="no splits"):
        find(f"{tmp_path}:test")
    write(tmp_path / "arrays", {"set.npz": b"PK", "more.txt": "x"})
    with pytest.raises(UserError, match=r"did you mean .*set\.npz"):
        find(str(tmp_path / "arrays"))
