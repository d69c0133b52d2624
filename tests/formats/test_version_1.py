"""Directories that version 1 of the format wrote load today, and give what the program of that time computed.

`data_files/version_1` was written by the program before settings and weights were renamed: `process.draw`, `joined`,
`label_dropout`, `drop_each`, `watch`, a card's `grid` and `latents`, a value's `untold`, and `tell.*` in the weights.
All weights are random and small. What it computed lies beside them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from unnoise.cli.main import main
from unnoise.codec import to_bytes
from unnoise.config.cards import PixelsConfig, ValueRange
from unnoise.config.request import Request
from unnoise.generate.frames import collect, sample
from unnoise.generate.job import prepare
from unnoise.guidance import noisy_classifier
from unnoise.io import checkpoint
from unnoise.io.weights import renamed
from unnoise.model import load

VERSION_1 = Path(__file__).parent.parent / "data_files" / "version_1"
EXPECTED = load_file(VERSION_1 / "expected.safetensors")
REQUEST = Request.of(
    seeds=(1, 2),
    labels=("dog", "none"),
    prompts=("a red bird", ""),
    values={"age": (3.0, 7.0)},
    steps=4,
    guidance=2.0,
    precision="float32",
)


@pytest.fixture
def noise_of_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise of the time when these files were written: PyTorch's generator, seeded by 63 bits of the key's hash.

    The numbers of a seed have changed since; what is compared is what the files make of the same numbers.
    """

    def source(*key: int | str) -> torch.Generator:
        digest = hashlib.blake2b(digest_size=8)
        for part in key:
            if isinstance(part, str):
                digest.update(b"s" + len(part.encode()).to_bytes(8, "little") + part.encode())
            else:
                digest.update(b"i" + part.to_bytes(16, "little", signed=True))
        return torch.Generator().manual_seed(int.from_bytes(digest.digest(), "little") >> 1)

    def normal(shape: Sequence[int], *key: int | str) -> torch.Tensor:
        return torch.randn(tuple(shape), generator=source(*key))

    def uniform(shape: Sequence[int], *key: int | str) -> torch.Tensor:
        return torch.rand(tuple(shape), generator=source(*key), dtype=torch.float64)

    monkeypatch.setattr("unnoise.noise.generator", source)
    monkeypatch.setattr("unnoise.noise.normal", normal)
    monkeypatch.setattr("unnoise.noise.uniform", uniform)


def test_the_files_are_of_version_1() -> None:
    """So that nobody writes them anew: earlier names are in all of them."""
    card = json.loads((VERSION_1 / "model" / "model.json").read_text())
    assert card["version"] == 1
    assert {"grid", "latents"} <= card["card"].keys()
    assert {"draw", "joined", "label_dropout", "drop_each"} <= card["card"]["process"].keys()
    assert "untold" in card["card"]["values"][0]
    run = yaml.safe_load((VERSION_1 / "run" / "config.yaml").read_text())
    assert "watch" in run
    assert run["process"]["draw"] == "logit-normal"
    folders = ("model", "classifier", "run/checkpoints/step-00000004")
    for folder in folders:
        assert any("tell." in name for name in load_file(VERSION_1 / folder / "model.safetensors"))


def test_a_model_is_loaded_under_todays_names() -> None:
    card = load(VERSION_1 / "model").card
    assert (card.spacing, card.codec, card.clip) == ("log-snr", PixelsConfig(), True)
    process = card.process
    assert (process.time_sampler, process.concat, process.cond_dropout, process.cond_dropout_each) == (
        "uniform", "", 0.2, 0.1,
    )  # fmt: skip
    assert card.values[1] == ValueRange("light", 0.0, 2.0, usual=1.0, null=0.5)


def test_a_model_samples_the_same_pictures(noise_of_then: None) -> None:
    """From the same noise at the same times, guided by class, values and text.

    On the machine that wrote them bit for bit; elsewhere sums are rounded. The times of that day went below the
    table's first entry, and today's do not.
    """
    model = load(VERSION_1 / "model")
    pictures = sample(model, REQUEST).pixels
    first = max(-5.1, model.diffusion.schedule.at(1.0).log_ratio.item())
    ratios = torch.linspace(first, 5.1, 4, dtype=torch.float64)
    times = torch.cat([model.diffusion.schedule.time(ratios), torch.zeros(1, dtype=torch.float64)])
    floats = collect(replace(prepare(model, REQUEST), times=times))
    assert torch.allclose(floats, EXPECTED["floats"], atol=1e-4)
    assert (to_bytes(floats).int() - EXPECTED["pictures"].int()).abs().max() <= 1
    for other in ({"labels": ("cat", "none")}, {"prompts": ("a cat", "")}, {"values": {"age": (9.0, 7.0)}}):
        assert (sample(model, REQUEST.but(**other)).pixels[0].int() - pictures[0].int()).abs().max() > 1, other


def test_a_loaded_model_is_saved_in_todays_format(tmp_path: Path) -> None:
    model = load(VERSION_1 / "model")
    model.save(tmp_path / "new")
    new = json.loads((tmp_path / "new" / "model.json").read_text())
    assert new["version"] == 2
    assert "latents" not in new["card"]
    assert not any("tell." in name for name in load_file(tmp_path / "new" / "model.safetensors"))
    assert torch.equal(sample(load(tmp_path / "new"), REQUEST).pixels, sample(model, REQUEST).pixels)


def test_a_noisy_classifier_computes_the_same_logits() -> None:
    classifier = noisy_classifier.load(VERSION_1 / "classifier")
    logits = classifier(EXPECTED["floats"], torch.tensor([0.2, 0.7], dtype=torch.float64))
    assert torch.allclose(logits, EXPECTED["logits"], atol=1e-5)
    assert classifier.card.process.cond_dropout == 0.2
    request = REQUEST.but(labels=("dog",), classifier=str(VERSION_1 / "classifier"), classifier_scale=5.0)
    model = load(VERSION_1 / "model")
    assert not torch.equal(sample(model, request).pixels, sample(model, request.but(classifier="")).pixels)


def test_a_run_is_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str], noise_of_then: None) -> None:
    """From step 4 of 8, with the same noise: `unnoise train RUN`, as then, ends in the weights of that time."""
    run = shutil.copytree(VERSION_1 / "run", tmp_path / "run")
    assert load(run).card.info["images"] == 64
    assert main(["train", str(run)]) == 0, capsys.readouterr().err
    end = run / "checkpoints" / "step-00000008"
    assert "step-00000004" in (run / "log.txt").read_text()
    assert "settings changed" not in (run / "log.txt").read_text()
    then = renamed(load_file(VERSION_1 / "run-at-the-end.safetensors"))
    now = load_file(end / "weights.safetensors")
    assert now.keys() == then.keys()
    for name, tensor in now.items():
        assert torch.allclose(tensor, then[name], atol=1e-5), name
    begun = checkpoint.read(run / "checkpoints" / "step-00000004" / "weights.safetensors")
    assert any((now[name] - begun[name]).abs().max() > 1e-3 for name in now)  # it has learned something since
