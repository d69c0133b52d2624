"""Every file of anyone is opened as a regular file, and no more of it is read than its limit: at every door."""

from __future__ import annotations

import json
import lzma
import os
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unnoise import data, model
from unnoise.config import files
from unnoise.config.data import DataConfig
from unnoise.data.registry import find
from unnoise.errors import UserError
from unnoise.formats.files import Tensors, read_json
from unnoise.generate.conditions import open_picture
from unnoise.generate.describe import describe
from unnoise.io import checkpoint
from unnoise.io.hashing import sha256
from unnoise.io.json_files import DEEPEST, parse_json, read_object
from unnoise.io.picture_files import load_picture
from unnoise.io.reading import NotRegular, open_regular, read_bytes, read_text
from unnoise.io.weights import read_header
from unnoise.metrics.classifier import load_classifier
from unnoise.text.tokenizer import Tokenizer

DOORS: dict[str, Callable[[Path], object]] = {  # file name: what opens a file of that name
    "a.bin": open_regular,
    "a.txt": read_text,
    "a.json": read_object,
    "b.json": read_json,
    "a.yaml": files.read,
    "a.png": load_picture,
    "b.png": describe,
    "c.png": lambda path: open_picture(path, 8, 3, "picture"),
    "d.png": sha256,
    "a.npy": lambda path: find(str(path)),
    "a.npz": lambda path: find(str(path)),
    "a.zip": lambda path: find(str(path)),
    "a.tar": lambda path: find(str(path)),
    "a.tar.xz": lambda path: find(str(path)),
    "a.parquet": lambda path: find(str(path)),
    "train-images-idx3-ubyte": lambda path: find(str(path)),
    "train-images-idx3-ubyte.gz": lambda path: find(str(path)),
    "tokenizer.json": lambda path: Tokenizer.load(path, 8),
    "a.safetensors": read_header,
    "b.safetensors": checkpoint.read,
    "c.safetensors": Tensors.of,
    "model.json": lambda path: model.load(path.parent),
    "classifier.json": lambda path: load_classifier(path.parent),
}


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as s:
        here = os.getcwd()
        os.chdir(path.parent)  # the name of a socket has at most 107 bytes
        try:
            s.bind(path.name)
        finally:
            os.chdir(here)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [pipe, listening, device])
@pytest.mark.parametrize("name", DOORS)
def test_what_is_no_regular_file_is_refused_at_once(name: str, make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / name)
    with pytest.raises(UserError):
        DOORS[name](tmp_path / name)


@pytest.mark.timeout(60)
def test_a_pipe_among_pictures_is_broken_or_left_out_also_after_indexing(tmp_path: Path) -> None:
    for i in range(8):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    os.mkfifo(tmp_path / "8.png")
    os.mkfifo(tmp_path / "0.txt")
    source = find(str(tmp_path))
    assert len(source.names) == 8  # what is a pipe at the start is no picture
    (tmp_path / "3.png").unlink()
    os.mkfifo(tmp_path / "3.png")
    found = data.open(DataConfig(path=str(tmp_path), size=8, channels=1, max_broken=0.5))
    assert len(found) == 7


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bytes(tmp_path / "a", 5) == b"12345"
    with pytest.raises(UserError, match="larger than the 4 bytes"):
        read_bytes(tmp_path / "a", 4)
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(2**34)  # a sparse file
    with pytest.raises(UserError, match="larger than"):
        read_object(tmp_path / "a.json")
    with pytest.raises(UserError, match="larger than"):
        files.read(tmp_path / "a.json")


def test_text_in_another_encoding_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes("name: café".encode("latin-1"))
    with pytest.raises(UserError, match=r"a\.yaml is not a text file in UTF-8 \(byte 9 is 0xe9\)"):
        files.read(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_bytes("\ufeffname: café".encode())
    assert files.read(tmp_path / "a.yaml")[0] == {"name": "café"}


def test_a_missing_file_is_an_oserror_and_a_folder_is_not_regular(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")
    with pytest.raises(NotRegular, match="is a folder"):
        open_regular(tmp_path)
    with pytest.raises(OSError, match="is a folder"):  # so that a reader of many pictures skips it
        open_regular(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1,]", "\ud800", '"' + "\x00", "1" * 5000, "[" * 100_000, "nul"])
def test_text_that_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^here is not JSON"):
        parse_json(text, "here")


def test_json_may_be_nested_and_not_without_end() -> None:
    assert parse_json("[" * DEEPEST + "]" * DEEPEST, "here")
    with pytest.raises(UserError, match="deep"):
        parse_json("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "here")


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "train.yaml:2: this is not YAML: an alias"),
        ("a: " + "[" * 100 + "]" * 100, "deep"),
        ("a: 2001-99-99", "month"),
        ("a: " + "1" * 5000, "digits"),
        ("a: !!python/object/apply:os.system [true]", "constructor"),
        ("? [a]\n: b", "unhashable"),
        ("a: \x00", "unacceptable character"),
        ("- a\n", "a group of"),
    ],
)
def test_yaml_has_plain_values_alone(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        files.read(tmp_path / "train.yaml")
    assert why in str(error.value)


def header(tensors: object, data: bytes = bytes(4)) -> bytes:
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "entry",
    [
        {"shape": [1] * 300_000},
        {"shape": [-1]},
        {"shape": [1.5]},
        {"shape": [True]},
        {"shape": [2**64]},
        {"shape": None},
        {"data_offsets": [0, "4"]},
        {"data_offsets": [0]},
        {"dtype": ["F32"]},
        {"dtype": {}},
    ],
)
@pytest.mark.parametrize("door", [read_header, checkpoint.read, Tensors.of])
def test_a_header_of_weights_with_odd_values_is_damaged(
    door: Callable[[Path], object], entry: dict[str, object], tmp_path: Path
) -> None:
    whole = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    (tmp_path / "a.safetensors").write_bytes(header({"a": whole}))
    door(tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes(header({"a": whole | entry}))
    with pytest.raises(UserError):
        door(tmp_path / "a.safetensors")


def test_a_header_whose_length_begins_like_a_pickle_is_read(tmp_path: Path) -> None:
    """A header of 640 bytes is 0x280, and 80 02 is how pickles begin."""
    entry = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "__metadata__": {"x": ""}}
    entry["__metadata__"]["x"] = "x" * (640 - len(json.dumps(entry)))
    (tmp_path / "a.safetensors").write_bytes(header(entry))
    assert (tmp_path / "a.safetensors").read_bytes()[:2] == b"\x80\x02"
    assert read_header(tmp_path / "a.safetensors").parameters == 1


@pytest.mark.parametrize("hidden_in", ["picture", "header"])
def test_a_small_archive_does_not_expand_without_end(hidden_in: str, tmp_path: Path) -> None:
    """A few kilobytes of xz hold 128 MiB, as a picture or as a header of the archive itself."""
    size = 2**27
    with lzma.open(tmp_path / "a.tar.xz", "wb", preset=0) as file:
        info = tarfile.TarInfo("a.png")
        info.size = size
        info.type = tarfile.REGTYPE if hidden_in == "picture" else tarfile.GNUTYPE_LONGNAME
        file.write(info.tobuf())
        for _ in range(size // 2**22):
            file.write(bytes(2**22))
    with pytest.raises(UserError, match="a decompression bomb"):
        find(str(tmp_path / "a.tar.xz"))


def test_an_array_of_more_than_its_file_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 8, 8), np.uint8))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole.replace(b"(4, 8, 8), }", b"(4, 8,80), }"))
    with pytest.raises(UserError, match="bytes, and it has fewer"):
        find(str(tmp_path / "a.npy"))
