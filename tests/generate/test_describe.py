"""Descriptions of runs and models: what their files contain, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from unnoise.config.cards import ModelCard
from unnoise.config.convert import to_dict
from unnoise.errors import UserError
from unnoise.generate.describe import describe, known_card
from unnoise.io import checkpoint
from unnoise.io.json_files import last_metrics, read_json


def write_card(folder: Path, classes: tuple[str, ...]) -> None:
    folder.mkdir(parents=True)
    card = to_dict(ModelCard(classes=classes))
    (folder / "model.json").write_text(json.dumps({"format": "unnoise model", "version": 1, "card": card}))
    save_file({"weight": np.zeros((3, 4), np.float32)}, folder / "model.safetensors")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that is a quarter done, with two checkpoints and a third that was cut off."""
    for step in ("000010", "000020", "000030"):
        write_card(tmp_path / "checkpoints" / f"step-{step}", (step,))
        if step != "000030":
            folder = tmp_path / "checkpoints" / f"step-{step}"
            (folder / "state.json").write_text(json.dumps({"step": int(step) // 20, "images": 100, "seconds": 1.5}))
            checkpoint._seal(folder)
    (tmp_path / "config.yaml").write_text("name: toy\nfit:\n  images: 400\n")
    (tmp_path / "metrics.jsonl").write_text('{"images": 50}\n{"images": 100, "loss": 0.5}\n{"images": 1')
    return tmp_path


def test_a_run_is_described_by_its_last_whole_line_and_its_newest_complete_checkpoint(run: Path) -> None:
    found = describe(run)
    assert (found["kind"], found["name"], found["done"]) == ("run", "toy", 0.25)
    assert found["last"] == {"images": 100, "loss": 0.5}
    assert found["checkpoints"] == ["step-000010", "step-000020"]
    assert found["model"]["card"]["classes"] == ["000020"]
    assert found["model"]["parameters"] == 12
    assert found["warnings"] == ["checkpoints/step-000030 is not a finished checkpoint and is not used"]


def test_a_run_without_a_checkpoint_cannot_be_sampled_from(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("name: toy\nnet:\n  kind: nonsense\n")
    first, second = describe(tmp_path)["warnings"]
    assert "cannot be sampled from" in first
    assert "cannot read the configuration" in second
    assert "model" not in describe(tmp_path)


def test_a_model_without_weights_is_described_with_a_warning(tmp_path: Path) -> None:
    write_card(tmp_path / "m", ("bag",))
    (tmp_path / "m" / "model.safetensors").unlink()
    found = describe(tmp_path / "m")
    assert found["card"]["classes"] == ["bag"]
    assert "is missing" in found["warnings"][0]


def test_the_card_of_a_run_is_that_of_its_newest_checkpoint(run: Path) -> None:
    card = known_card(run)
    assert card is not None
    assert card.classes == ("000020",)
    for path in run.glob("checkpoints/*/model.json"):
        path.write_text("{")
    assert known_card(run) is None


def test_a_diffusers_folder_is_described_by_its_network_s_settings(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "unet" / "config.json").write_text('{"sample_size": 8}')
    assert describe(tmp_path)["config"] == {"sample_size": 8}


def test_a_json_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UserError, match=r"a\.json is not JSON"):
        read_json(tmp_path / "a.json")


def test_metrics_of_a_run_that_has_not_started_are_empty(tmp_path: Path) -> None:
    assert last_metrics(tmp_path / "none.jsonl") == {}
    (tmp_path / "some.jsonl").write_text('[1]\n{"cut')
    assert last_metrics(tmp_path / "some.jsonl") == {}


def test_describing_needs_no_torch(run: Path) -> None:
    code = f"import sys; from unnoise.cli.main import main; assert main(['info', {str(run)!r}]) == 0\n"
    done = subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], capture_output=True)
    assert done.returncode == 0, done.stderr
