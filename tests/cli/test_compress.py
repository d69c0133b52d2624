"""`unnoise compress` and `decompress` before a model is loaded: what they refuse, and the table of errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from unnoise.cli.compress import error_table
from unnoise.cli.console import UsageError
from unnoise.cli.main import main
from unnoise.cli.paths import new_file


def test_the_table_has_at_most_eight_steps_from_the_first_to_the_last() -> None:
    steps = [(k / 10, 100.0 - k) for k in range(30)]
    lines = error_table(steps).splitlines()
    assert lines[0].split("  ") == ["bits per dimension", "RMSE (0 to 255)"]
    rows = [line.split() for line in lines[2:]]
    assert len(rows) == 8
    assert (rows[0], rows[-1]) == (["0.000", "100.0"], ["2.900", "71.0"])
    assert [line.split() for line in error_table(steps[:1]).splitlines()[2:]] == [["0.000", "100.0"]]
    assert len(error_table(steps[:3]).splitlines()) == 2 + 3


def test_an_existing_file_is_overwritten_only_on_request(tmp_path: Path) -> None:
    path = tmp_path / "a.un"
    assert new_file(path, "the file", False) == path
    path.write_text("x")
    with pytest.raises(UsageError, match="add --overwrite"):
        new_file(path, "the file", False)
    assert new_file(path, "the file", True) == path
    with pytest.raises(UsageError, match="it is a folder"):
        new_file(tmp_path, "the file", True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compress", "p.png", "-o", "p.un", "--seed", "-1"], "--seed -1: seeds are whole numbers from 0 to 2^63 - 1"),
        (["compress", "text", "-o", "p.un"], "text is not a picture that can be read"),
        (["compress", "p.png", "-o", "p.un", "--bits", "0"], "0.05 is coarse"),
        (["decompress", "text", "-o", "p.jpg"], "give a name that ends in .png"),
        (["decompress", "text", "-o", "o.png", "--strip", "s.gif"], "s.gif: the strip is written as PNG"),
        (["decompress", "folder", "-o", "o.png"], "folder is not a picture compressed by unnoise"),
        (["decompress", "text", "-o", "o.png"], "text"),
    ],
)
def test_wrong_usage_is_refused_before_the_model_is_loaded(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("constriction")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model.json").write_text("{}")
    (tmp_path / "text").write_text("no picture")
    from PIL import Image

    Image.new("L", (8, 8)).save("p.png")
    assert main([*words, "--model", "folder"]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert "loading" not in err
    assert out == ""
