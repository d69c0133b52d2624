"""`unnoise runs`: every run has a line, also a damaged one, and its name cannot steer the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.tiny_training import changed, ticks
from unnoise.cli.main import main


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run, a stopped one and one without settings, in the folder `runs`."""
    monkeypatch.chdir(tmp_path)
    list(ticks(changed(images=16), Path("runs/00001-tiny")))
    for tick in ticks(changed(checkpoint_steps=4), Path("runs/00002-tiny")):
        if tick.step == 5:
            break
    Path("runs/00003-\x1b[2J/checkpoints").mkdir(parents=True)
    return Path("runs")


def test_runs_lists_the_runs_of_a_folder(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == 0
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["run", "preset", "status", "step", "loss", "time", "size"]
    assert lines[2][:6] == ["00001-tiny", "tiny", "finished", "2", "of", "2"]
    assert lines[3][:6] == ["00002-tiny", "tiny", "stopped", "4", "of", "10"]
    assert lines[4][:2] == ["00003-\\x1b[2J", "damaged"]
    assert "config.yaml" in err
    assert "\x1b" not in out + err
    assert main(["runs", str(three), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["status"] for each in found["runs"]] == ["finished", "stopped", "damaged"]


def test_runs_refuses_what_is_no_folder_of_runs(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "nowhere"]) == 2
    assert "there is no folder nowhere" in capsys.readouterr().err
    assert main(["runs", "runs/00001-tiny"]) == 2
    assert "unnoise info" in capsys.readouterr().err
    Path("empty").mkdir()
    assert main(["runs", "empty"]) == 0
    assert "no runs in empty" in capsys.readouterr().err
