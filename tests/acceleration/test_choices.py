"""A stored measurement decides the precision `auto` of its architecture on its machine, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.unets import SMALL
from unnoise.acceleration import choices
from unnoise.acceleration.choices import Choice
from unnoise.acceleration.placement import best, fast_bfloat16
from unnoise.nn import UNet

USUAL = "bfloat16" if fast_bfloat16("cpu") else "float32"
OTHER = "float32" if fast_bfloat16("cpu") else "bfloat16"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def choice(net: UNet, **changes: str) -> Choice:
    made = Choice(machine=choices.machine("cpu"), architecture=choices.architecture(net), device="cpu", batch=4)
    return replace(made, precision=OTHER, **changes)  # type: ignore[arg-type]


def test_the_stored_precision_is_used_for_auto_alone() -> None:
    net = UNet(SMALL)
    assert best("cpu", "auto", net).precision == USUAL
    path = choices.save(choice(net))
    assert best("cpu", "auto", net).precision == OTHER
    assert best("cpu", "auto").precision == USUAL
    assert best("cpu", USUAL, net).precision == USUAL
    assert choices.read(path) == choice(net)


def test_an_architecture_is_its_settings_and_not_its_weights() -> None:
    choices.save(choice(UNet(SMALL)))
    again, wider = UNet(SMALL), UNet(replace(SMALL, channels=(8, 16, 32)))
    assert best("cpu", "auto", again).precision == OTHER
    assert best("cpu", "auto", wider).precision == USUAL


def test_the_choice_of_another_machine_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its file has another name, as it has by itself, or was renamed."""
    net = UNet(SMALL)
    here = choices.save(choice(net))
    here.write_text(json.dumps(vars(choice(net, machine="0" * 16))))
    assert choices.find(net, "cpu") == (None, "")
    assert best("cpu", "auto", net).precision == USUAL
    choices.save(choice(net))
    monkeypatch.setattr(choices, "processor", lambda: "another processor")
    assert choices.find(net, "cpu") == (None, "")


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"precision": "float8"}', "precision"),
        ('{"precision": "bfloat16", "batch": "many"}', "batch"),
        ('{"speed": 1}', "speed"),
    ],
)
def test_a_damaged_file_is_ignored_with_a_note(content: str, wrong: str) -> None:
    net = UNet(SMALL)
    path = choices.save(choice(net))
    path.write_text(content)
    found, note = choices.find(net, "cpu")
    assert found is None
    assert wrong in note
    assert str(path) in note
    assert "unnoise bench" in note
    assert best("cpu", "auto", net).precision == USUAL


def test_a_choice_that_cannot_be_written_leaves_the_one_before(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = UNet(SMALL)
    path = choices.save(choice(net))
    before = path.read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        choices.save(choice(net, date="later"))
    assert path.read_text() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]
