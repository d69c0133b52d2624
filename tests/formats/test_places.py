"""A network that is loaded alone is the network of its pipeline; where files leave something open, a note states it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import unnoise
from tests.helpers.random_weights import randomised
from unnoise.cli.main import main
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import UNetConfig
from unnoise.errors import UserError
from unnoise.formats import diffusers, unet2d
from unnoise.formats.settings import AVERAGING
from unnoise.nn import UNet

NET = UNetConfig(
    size=16, in_channels=3, out_channels=3, channels=(8, 16), blocks=1, attention=(False, True), groups=4, classes=3
)
PROCESS = DiffusionConfig(schedule="cosine", predicts="v", steps=200)
CLASSES = ("shirt", "shoe", "bag")


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    folder = tmp_path / "pipeline"
    state = randomised(UNet(NET)).state_dict()
    diffusers.write(folder, NET, state, PROCESS, CLASSES, sampler="ddpm-large")
    return folder


def change(file: Path, **settings: Any) -> None:
    """Sets these entries of a JSON file; removes those that are `...`."""
    data = json.loads(file.read_text()) | settings
    file.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}))


def test_a_network_alone_is_that_of_its_pipeline(pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, alone = unnoise.load(pipeline), unnoise.load(pipeline / "unet")
    assert alone.card == whole.card
    assert alone.card.notes == ()
    assert (alone.card.process, alone.card.classes, alone.card.sampler) == (PROCESS, CLASSES, "ddpm-large")
    monkeypatch.chdir(pipeline / "unet")
    assert unnoise.load(".").card == whole.card
    assert unnoise.load("../unet/../unet").card == whole.card


def test_a_scheduler_beside_a_network_is_taken_without_an_index(pipeline: Path) -> None:
    (pipeline / "model_index.json").unlink()
    assert unnoise.load(pipeline / "unet").card.process == PROCESS


def test_the_scheduler_in_the_folder_comes_first(pipeline: Path) -> None:
    (pipeline / "unet" / "scheduler_config.json").write_text('{"prediction_type": "sample"}')
    assert unnoise.load(pipeline / "unet").card.process == DiffusionConfig(predicts="x0")


@pytest.mark.parametrize("named", ["unet", "unet_ema"])
def test_without_a_scheduler_a_note_states_what_is_assumed(named: str, pipeline: Path, tmp_path: Path) -> None:
    alone = (pipeline / "unet").rename(tmp_path / named)
    card = unnoise.load(alone).card
    assert card.process == DiffusionConfig()
    (note,) = card.notes
    assert note.startswith(f"{alone} has no scheduler beside it: linear betas")
    assert "a prediction of eps are assumed" in note


def test_notes_stay_with_a_saved_model(pipeline: Path, tmp_path: Path) -> None:
    change(pipeline / "scheduler" / "scheduler_config.json", thresholding=True)
    change(pipeline / "unet" / "config.json", norm_eps=..., freq_shift=...)
    loaded = unnoise.load(pipeline)
    lacking, ignored = loaded.card.notes
    assert lacking.endswith("freq_shift 0, norm_eps 1e-05")
    assert ignored.endswith("not applied by the sampler ddpm-large: thresholding True")
    loaded.save(tmp_path / "saved")
    assert unnoise.load(tmp_path / "saved").card.notes == loaded.card.notes


def test_a_number_of_channels_that_is_taken_for_latents_is_stated(tmp_path: Path) -> None:
    config = UNetConfig(size=8, in_channels=2, out_channels=2, channels=(8,), blocks=1, attention=(False,), groups=4)
    diffusers.write(tmp_path / "two", config, UNet(config).state_dict(), DiffusionConfig())
    loaded = unnoise.load(tmp_path / "two")
    assert loaded.latent_only
    assert "x has 2 channels, so it is assumed to be latents" in loaded.card.notes[0]


def test_an_index_that_lists_a_scheduler_needs_its_file(pipeline: Path) -> None:
    (pipeline / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(UserError, match=r"scheduler_config\.json is missing"):
        unnoise.load(pipeline)


# --- networks saved by diffusers' EMAModel ---


def test_settings_of_averaging_change_nothing(pipeline: Path) -> None:
    plain = unnoise.load(pipeline)
    averaging = {"decay": 0.9999, "inv_gamma": 1.0, "min_decay": 0.0, "optimization_step": 7000, "power": 2 / 3}
    averaging |= {"update_after_step": 0, "use_ema_warmup": False}
    assert averaging.keys() == AVERAGING
    change(pipeline / "unet" / "config.json", **averaging)
    averaged = unnoise.load(pipeline)
    assert averaged.card == plain.card
    change(pipeline / "unet" / "config.json", decays=0.9)
    with pytest.raises(UserError, match="no setting of UNet2DModel 'decays'"):
        unnoise.load(pipeline)


def test_the_settings_of_averaging_are_those_of_diffusers(tmp_path: Path) -> None:
    theirs = pytest.importorskip("diffusers")
    from diffusers.training_utils import EMAModel

    settings = {key: value for key, value in unet2d.to_config(NET).items() if key != "num_class_embeds"}
    net = theirs.UNet2DModel(**settings)
    EMAModel(net.parameters(), model_cls=theirs.UNet2DModel, model_config=net.config).save_pretrained(tmp_path / "ema")
    written = json.loads((tmp_path / "ema" / "config.json").read_text())
    assert {key for key in written if not key.startswith("_")} - unet2d.DEFAULTS.keys() == AVERAGING
    assert unnoise.load(tmp_path / "ema").card.net.in_channels == 3


# --- pictures that are not square ---


def test_pictures_that_are_not_square(tmp_path: Path) -> None:
    config = UNetConfig(
        size=(16, 24), in_channels=1, out_channels=1, channels=(8, 8), blocks=1, attention=(False,) * 2, groups=4
    )
    diffusers.write(tmp_path / "wide", config, randomised(UNet(config)).state_dict(), PROCESS)
    loaded = unnoise.load(tmp_path / "wide")
    assert (loaded.card.size, loaded.picture_shape) == ((16, 24), (1, 16, 24))
    pictures = loaded.sample(seeds=[1, 2], steps=2)
    assert pictures.pixels.shape == (2, 1, 16, 24)
    loaded.save(tmp_path / "saved")
    again = unnoise.load(tmp_path / "saved")
    assert again.card == loaded.card
    assert torch.equal(again.sample(seeds=[1, 2], steps=2).pixels, pictures.pixels)


# --- what the command line prints ---


def test_notes_are_printed_and_shown(pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(pipeline / "scheduler" / "scheduler_config.json", thresholding=True)
    note = f"note: {pipeline}/scheduler/scheduler_config.json: not applied by the sampler ddpm-large: thresholding True"
    unnoise.load(pipeline).save(tmp_path / "saved")
    for command in (
        ["info", str(pipeline)],
        ["info", str(tmp_path / "saved")],
        ["sample", str(pipeline), "--steps", "1", "--grid", str(tmp_path / "grid.png")],
        ["export", str(pipeline), str(tmp_path / "again")],
    ):
        assert main(command) == 0
        assert capsys.readouterr().err.count(note) == 1, command


def test_info_states_why_a_folder_cannot_be_loaded(pipeline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(pipeline / "scheduler" / "scheduler_config.json", beta_schedule="laplace")
    assert main(["info", str(pipeline)]) == 0
    assert "it cannot be loaded: " in capsys.readouterr().err
