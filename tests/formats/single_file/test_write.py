"""What is written as one file is read back bit for bit, and converted by diffusers; other models are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.formats.single_file.test_infer import meaning
from tests.helpers.checkpoints import KL, SD1, UNETS, VQ, save, unet_tensors, vae_tensors, whole
from tests.nn.test_clip import small_tokenizer
from unnoise.cli.main import main
from unnoise.config.networks import ControlConfig, DiTConfig, TextConfig
from unnoise.errors import UserError
from unnoise.formats import names, unet2d_condition
from unnoise.formats.single_file.write import write
from unnoise.formats.text_encoders import ClipEncoder
from unnoise.model import Model, load

converter: Any = pytest.importorskip("diffusers.loaders.single_file_utils")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small_tokenizer(tmp_path / "tokenizer")
    return tmp_path


def written(model: Model, file: Path) -> Path:
    text: Any = model.text
    write(file, model.card, model.diffusion.net.state_dict(), text, model.autoencoder)
    return file


@pytest.mark.parametrize("name", ["sd1", "sd2", "xl", "refiner", "inpainting", "unclip"])
def test_a_file_that_is_written_is_the_one_that_was_read(name: str, folder: Path) -> None:
    state = whole(name) | vae_tensors(KL)
    model = load(save(folder / "a.safetensors", state))
    again = load_file(written(model, folder / "b.safetensors"))
    without = {key for key in state if key.endswith(("position_ids", "logit_scale"))}
    assert again.keys() == state.keys() - without
    assert all(torch.equal(again[key], state[key]) for key in again)
    second = load(folder / "b.safetensors")
    assert meaning(second.card.net) == meaning(model.card.net)
    assert (second.card.process, second.card.size) == (model.card.process, model.card.size)


def test_diffusers_converts_a_file_that_is_written(folder: Path) -> None:
    """The prediction and the size are stated in the metadata."""
    model = load(save(folder / "a.safetensors", whole("sd2")), predicts="eps")
    file = written(model, folder / "b.safetensors")
    right = converter.convert_ldm_unet_checkpoint(load_file(file), unet2d_condition.to_config(model.card.net))
    own = names.split(names.pieces_of(model.card.net), model.diffusion.net.state_dict())
    assert own.keys() == right.keys()
    assert all(torch.equal(own[key], right[key]) for key in own)
    with safe_open(file, "pt") as opened:
        about = opened.metadata()
    assert (about["modelspec.prediction_type"], about["modelspec.resolution"]) == ("epsilon", "512x512")
    v = load(written(load(folder / "a.safetensors"), folder / "c.safetensors"))
    assert (v.card.process.predicts, v.card.size, v.card.notes) == ("v", (96, 96), ())


def test_a_tower_without_its_unused_block_is_written_with_a_copy_of_its_last(folder: Path) -> None:
    """As diffusers' folders have it. Readers leave the last block out, so that the embeddings stay the same."""
    model = load(save(folder / "a.safetensors", whole("sd2")))
    assert main(["export", str(folder / "a.safetensors"), str(folder / "sd2")]) == 0
    short = load(folder / "sd2")
    assert isinstance(short.text, ClipEncoder)
    assert (len(short.text.tower.blocks), short.text.skip) == (2, 0)
    again = load(written(short, folder / "b.safetensors"))
    for one in (short, again):
        assert torch.equal(one.text.encode(["a red cat"]).text, model.text.encode(["a red cat"]).text)  # type: ignore


def test_the_command_writes_one_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = save(folder / "a.safetensors", whole("sd1")), folder / "new" / "b.safetensors"
    assert main(["export", str(source), "--single-file", str(target)]) == 0
    assert load_file(target).keys() == load_file(source).keys() - {
        "cond_stage_model.transformer.text_model.embeddings.position_ids"
    }
    for ask, message in (
        (["--single-file", str(target)], "exists already"),
        (["--single-file", str(folder / "b.bin")], "give a name that ends in .safetensors"),
        (["--single-file", str(folder / "c.safetensors"), "--ema"], "has no moving average"),
        ([], "give either a folder to write, or --single-file"),
        ([str(folder / "x"), "--single-file", str(folder / "c.safetensors")], "give either a folder to write, or"),
    ):
        positional = [word for word in ask if not ask.index(word) and not word.startswith("--")]
        assert main(["export", str(source), *positional, *ask[len(positional) :]]) == 2, ask
        assert message in capsys.readouterr().err
    assert not (folder / "c.safetensors").exists()


def test_models_of_another_form_are_refused(folder: Path) -> None:
    model = load(save(folder / "a.safetensors", whole("sd1")))
    card, file = model.card, folder / "b.safetensors"
    text: Any = model.text
    state = model.diffusion.net.state_dict()
    for other, message in (
        (replace(card, net=DiTConfig()), "contains a U-Net, and this model is a dit"),
        (replace(card, net=replace(SD1, text=TextConfig())), "context of this one differ"),
        (replace(card, net=replace(SD1, controls=(ControlConfig(),))), "controls of this one differ"),
        (replace(card, process=replace(card.process, predicts="flow")), "predicts of this one differ"),
        (replace(card, process=replace(card.process, schedule="cosine")), "schedule of this one differ"),
        (replace(card, process=replace(card.process, schedule_options={})), "schedule_options of this one differ"),
        (replace(card, process=replace(card.process, zero_snr=True)), "zero_snr of this one differ"),
        (replace(card, net=replace(SD1, heads=4)), r"does not state heads \(4, 4\) \(read as \(8, 8\)\)"),
        (replace(card, net=replace(SD1, norm_eps=1e-6)), "does not state norm_eps"),
        (replace(card, net=replace(SD1, cosine_first=False)), "does not state cosine_first"),
    ):
        with pytest.raises(UserError, match=message):
            write(file, other, state, text)
    vae = load(save(folder / "c.safetensors", whole("sd1") | vae_tensors(KL))).autoencoder
    assert vae is not None
    latents = replace(vae.card.latents, scale=0.5)
    with pytest.raises(UserError, match=r"scale latents by 0\.18215, unlike this model's .*scale=0\.5"):
        write(file, card, state, text, replace(vae, card=replace(vae.card, latents=latents)))
    latent = load(save(folder / "d.safetensors", unet_tensors(UNETS["latent"]) | vae_tensors(VQ)))
    with pytest.raises(UserError, match="an autoencoder of the kind kl"):
        write(file, card, state, text, latent.autoencoder)
    text.skip = 1
    with pytest.raises(UserError, match="blocks of the text encoder are skipped"):
        write(file, card, state, text)
    assert not file.exists()
