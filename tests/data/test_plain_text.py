"""Names that are not UTF-8: their pictures are read, and the names are shown escaped everywhere."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

from tests.helpers.trees import png
from unnoise import data
from unnoise.config.data import DataConfig
from unnoise.data.plain_text import escaped
from unnoise.data.registry import find
from unnoise.data.summary import describe


def test_escapes_are_those_of_bytes_and_of_surrogates() -> None:
    assert escaped(os.fsdecode(b"caf\xe9 \xc3\xa9.png")) == "caf\\xe9 é.png"
    assert escaped("half \ud83d, whole 😀") == "half \\ud83d, whole 😀"
    assert escaped("plain") == "plain"


def test_pictures_whose_names_are_not_utf8_are_read(tmp_path: Path) -> None:
    top = os.fsencode(tmp_path)
    for folder in (b"caf\xe9", b"th\xe9"):
        os.mkdir(os.path.join(top, folder))
        for i in range(2):
            Path(os.fsdecode(os.path.join(top, folder, b"%d\xff.png" % i))).write_bytes(png(i))
    Path(os.fsdecode(os.path.join(top, b"caf\xe9", b"2\xff.png"))).write_bytes(b"")
    Path(os.fsdecode(os.path.join(top, b"caf\xe9", b"0\xff.txt"))).write_bytes(b"tea")
    found = data.open(DataConfig(path=str(tmp_path), size=4, channels=1, max_broken=0.5))
    assert found.classes == ("caf\\xe9", "th\\xe9")
    assert [found.name(row) for row in range(len(found))] == [
        "caf\\xe9/0\\xff.png", "caf\\xe9/1\\xff.png", "th\\xe9/0\\xff.png", "th\\xe9/1\\xff.png",
    ]  # fmt: skip
    assert found.caption(0) == "tea"
    assert [broken.path for broken in found.broken] == ["caf\\xe9/2\\xff.png"]
    json.dumps(describe(found), ensure_ascii=False).encode()


def test_members_of_a_tar_whose_names_are_not_utf8_are_read(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as file:
        for name in ("é1.png", "é2.png"):
            member = tarfile.TarInfo(name)
            member.size = len(png(1))
            file.addfile(member, io.BytesIO(png(1)))
    found = find(str(tmp_path / "a.tar"))
    assert found.names == ("\\xe91.png", "\\xe92.png")
    assert found.read(1) == png(1)
