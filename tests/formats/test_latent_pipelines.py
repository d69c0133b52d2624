"""Pipelines with their autoencoder: pictures are those of diffusers' own pipelines, from a folder and a saved model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.formats.test_autoencoders import ATTENDS, PLAIN, edit, random_weights
from tests.formats.test_pipelines import NOISE, pipeline
from tests.helpers.random_weights import randomised
from unnoise.cli.main import main
from unnoise.config.autoencoders import KLConfig
from unnoise.config.cards import AutoencoderCard, LatentsConfig
from unnoise.config.request import Request
from unnoise.errors import UserError
from unnoise.formats.autoencoders import AutoencoderModel
from unnoise.generate.frames import sample
from unnoise.generate.job import place
from unnoise.model import Model, load
from unnoise.nn import build_autoencoder
from unnoise.noise import Seeds, normal

theirs = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")

VAE = {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "sample_size": 64}
VAE |= {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
SCHEDULERS = {"ddim": "DDIMScheduler", "euler": "EulerDiscreteScheduler", "dpm++2m": "DPMSolverMultistepScheduler"}


def stable_diffusion(folder: Path, **settings: Any) -> Any:
    """A Stable Diffusion folder with its autoencoder; returns diffusers' autoencoder."""
    net, _ = pipeline(folder)
    for parameter in net.parameters():  # so that x stays of unit scale, and pictures are not all clipped
        parameter.data *= 0.3
    net.save_pretrained(folder / "unet")
    vae = random_weights(theirs.AutoencoderKL(**VAE | settings))
    vae.save_pretrained(folder / "vae")
    return vae


def judge_of(folder: Path, scheduler: str) -> Any:
    """The pipeline that diffusers makes of a folder, with another scheduler of the same settings."""
    judge = theirs.DiffusionPipeline.from_pretrained(folder)
    how = dict(json.loads((folder / "scheduler" / "scheduler_config.json").read_text()))
    how |= {"timestep_spacing": "trailing"}  # the spacing that all three have the same timesteps in
    judge.scheduler = getattr(theirs, scheduler).from_config(how)
    judge.set_progress_bar_config(disable=True)
    return judge


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_pictures_are_those_of_diffusers(sampler: str, guidance: float, tmp_path: Path) -> None:
    """20 steps of each sampler on the same timesteps; of 255 levels a picture differs by one at most."""
    stable_diffusion(tmp_path / "sd")
    assert main(["export", str(tmp_path / "sd"), str(tmp_path / "out")]) == 0
    model, judge = load(tmp_path / "sd"), judge_of(tmp_path / "out", SCHEDULERS[sampler])
    request = Request.of(
        seeds=(3,), prompts=("a red cat",), sampler=sampler, spacing="trailing", steps=20, guidance=guidance,
        precision="float32",
    )  # fmt: skip
    x = Seeds((3,), model.x_shape).start()
    right = judge(
        "a red cat", num_inference_steps=20, guidance_scale=guidance, height=64, width=64, output_type="np", latents=x
    ).images[0]
    found = sample(model, request).array()[0].astype(int)
    assert found.std() > 10  # a picture, neither flat nor clipped
    assert np.abs(found - np.round(255 * right)).max() <= 1


def test_a_saved_model_keeps_its_autoencoder(tmp_path: Path) -> None:
    stable_diffusion(tmp_path / "sd")
    model = load(tmp_path / "sd")
    assert not model.latent_only
    assert (model.x_shape, model.picture_shape) == ((4, 8, 8), (3, 64, 64))
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert again.autoencoder is not None
    assert again.card.codec == model.card.codec == LatentsConfig(factor=8, scale=0.18215)
    request = Request.of(seeds=(3,), prompts=("a red cat",), steps=2, precision="float32")
    assert torch.equal(sample(again, request).pixels, sample(model, request).pixels)
    preview = again.autoencoder.codec.preview(normal((1, 4, 8, 8), "x"))
    assert preview is not None
    assert preview.shape == (1, 3, 8, 8)
    file = tmp_path / "saved" / "autoencoder" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError):  # its manifest covers these files too
        load(tmp_path / "saved")


def test_a_folder_is_sampled_exported_and_read_by_diffusers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stable_diffusion(tmp_path / "sd")
    ask = ["--prompt", "a red cat", "--steps", "2", "--precision", "float32"]
    assert main(["sample", str(tmp_path / "sd"), *ask, "--out", str(tmp_path / "out")]) == 0
    (file,) = (tmp_path / "out").iterdir()
    with Image.open(file) as picture:
        assert picture.size == (64, 64)
    assert main(["sample", str(tmp_path / "sd"), *ask, "--latents", str(tmp_path / "x.safetensors")]) == 0
    capsys.readouterr()
    assert main(["export", str(tmp_path / "sd"), str(tmp_path / "exported")]) == 0
    printed = capsys.readouterr().err
    assert f'DiffusionPipeline.from_pretrained("{tmp_path / "exported"}")' in printed
    assert "--vae" not in (tmp_path / "exported" / "draw.py").read_text()
    judge = judge_of(tmp_path / "exported", "DDIMScheduler")
    assert type(judge.vae).__name__ == "AutoencoderKL"
    assert judge.vae.config.scaling_factor == 0.18215
    one, two = load(tmp_path / "sd"), load(tmp_path / "exported")
    x = normal((1, 4, 8, 8), "x")
    assert torch.equal(one.decode(x), two.decode(x))


def test_latents_alone_where_the_folder_has_no_autoencoder(tmp_path: Path) -> None:
    """An index may list a part whose folder was not copied: x is the same, and pictures are refused with the fix."""
    pipeline(tmp_path)
    model = load(tmp_path)
    assert model.latent_only
    with pytest.raises(UserError, match="copy the folder `vae` beside the network"):
        model.require_pictures()


def test_a_safety_checker_that_is_not_run_is_stated(tmp_path: Path) -> None:
    stable_diffusion(tmp_path)
    file = tmp_path / "model_index.json"
    index = json.loads(file.read_text()) | {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    assert not any("safety checker is" in note for note in load(tmp_path).card.notes)
    file.write_text(json.dumps(index))
    assert any("the safety checker is not run" in note for note in load(tmp_path).card.notes)


def latent_diffusion(folder: Path, **settings: Any) -> Any:
    """A folder of LDMPipeline: a network without text in the latents of a codebook."""
    net = theirs.UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8, **settings,
    )  # fmt: skip
    vqvae = random_weights(theirs.VQModel(**ATTENDS | {"num_vq_embeddings": 23, "scaling_factor": 1.0}))
    judge = theirs.LDMPipeline(vqvae, randomised(net), theirs.DDIMScheduler(**NOISE | {"clip_sample": False}))
    judge.save_pretrained(folder)
    judge.set_progress_bar_config(disable=True)
    return judge


def test_a_latent_diffusion_with_a_codebook_is_that_of_diffusers(tmp_path: Path) -> None:
    judge = latent_diffusion(tmp_path / "ldm")
    model = load(tmp_path / "ldm")
    assert (model.x_shape, model.picture_shape) == ((3, 8, 8), (3, 16, 16))
    noise = Seeds((3,), model.x_shape).start()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            f"{judge.__module__}.randn_tensor",
            lambda *_, **__: noise,
        )
        right = judge(num_inference_steps=5, output_type="np").images[0]
    found = sample(model, Request.of(seeds=(3,), sampler="ddim", spacing="leading", steps=5, precision="float32"))
    assert np.abs(found.array()[0].astype(int) - np.round(255 * right)).max() <= 1
    model.save(tmp_path / "saved")
    assert torch.equal(load(tmp_path / "saved").decode(noise), model.decode(noise))
    assert main(["export", str(tmp_path / "saved"), str(tmp_path / "out")]) == 0
    again = theirs.DiffusionPipeline.from_pretrained(tmp_path / "out")
    assert type(again).__name__ == "LDMPipeline"
    assert again.vqvae.config.scaling_factor == 1.0


def test_classes_of_a_latent_diffusion_are_sampled(tmp_path: Path) -> None:
    latent_diffusion(tmp_path, num_class_embeds=4)
    model = load(tmp_path)
    assert model.classes == ("0", "1", "2", "3")
    assert model.sample(labels="2", steps=1).array().shape == (1, 16, 16, 3)


def test_parts_of_different_models_are_refused(tmp_path: Path) -> None:
    stable_diffusion(tmp_path, latent_channels=3)
    with pytest.raises(UserError, match="latents of 3 channels and the model x of 4: they belong to different models"):
        load(tmp_path)
    stable_diffusion(tmp_path / "two")
    load(tmp_path / "two").save(tmp_path / "saved")
    file = tmp_path / "saved" / "autoencoder" / "autoencoder.json"
    file.write_text(file.read_text().replace("0.18215", "0.5"))
    (tmp_path / "saved" / "manifest.json").unlink()
    with pytest.raises(UserError, match="they should be equal"):
        load(tmp_path / "saved")


def test_an_autoencoder_is_no_model(tmp_path: Path) -> None:
    random_weights(theirs.AutoencoderKL(**PLAIN)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="AutoencoderKL"):
        load(tmp_path)


def test_networks_that_read_a_picture_say_what_is_missing(tmp_path: Path) -> None:
    """Inpainting (9 channels) is loaded; the upscaler has a part that is not supported."""
    stable_diffusion(tmp_path / "inpaint")
    pipeline(tmp_path / "inpaint", in_channels=9)
    file = tmp_path / "inpaint" / "model_index.json"
    model = load(tmp_path / "inpaint")
    assert (model.x_shape, model.card.net.in_channels, model.card.net.out_channels) == ((4, 8, 8), 4, 4)
    with pytest.raises(UserError):
        model.sample(prompts="a red cat", steps=1)
    index = json.loads(file.read_text()) | {"low_res_scheduler": ["diffusers", "DDPMScheduler"]}
    file.write_text(json.dumps(index | {"_class_name": "StableDiffusionUpscalePipeline"}))
    with pytest.raises(UserError, match="a StableDiffusionUpscalePipeline with a part 'low_res_scheduler'"):
        load(tmp_path / "inpaint")


# --- placement ---


def overflowing(*, force_upcast: bool) -> AutoencoderModel:
    """An autoencoder whose activations lie beyond what half precision can hold, and whose pictures do not."""
    config = KLConfig(channels=(8, 8), blocks=1, attention=(False, False), groups=4, middle_attention=False)
    net = random_weights(build_autoencoder(config))
    net.decoder.conv_in.weight.data *= 1e6  # type: ignore[union-attr, operator]
    return AutoencoderModel(net, AutoencoderCard(config, LatentsConfig(factor=2), force_upcast=force_upcast))


def test_force_upcast_decodes_in_float32_beside_a_half_precision_network(tmp_path: Path) -> None:
    """The overflow itself first: in float16 the picture is lost, in float32 it is not."""
    stable_diffusion(tmp_path)
    base, x = load(tmp_path), normal((1, 4, 8, 8), "x")
    for force_upcast in (True, False):
        own = overflowing(force_upcast=force_upcast)
        model: Model = replace(base, autoencoder=own, card=replace(base.card, codec=own.card.latents))
        right = own.codec.decode(x)
        assert right.isfinite().all()
        assert right.std() > 0.02
        half = replace(own, net=build_autoencoder(own.card.net).half())
        half.net.load_state_dict(own.net.state_dict())
        assert half.codec.decode(x).isnan().any()
        placed = place(model, "cpu", "bfloat16")
        error = (placed.decode(x) - right).abs().max()
        weights = next(placed.codec.autoencoder.parameters())  # type: ignore[union-attr]
        if force_upcast:
            assert error < 1e-3
            assert weights.dtype == torch.float32
        else:
            assert error > 1e-3
            assert weights.dtype == torch.bfloat16
        assert next(placed.diffusion.net.parameters()).dtype == torch.bfloat16


def test_a_missing_scale_of_a_pipeline_is_among_the_notes(tmp_path: Path) -> None:
    stable_diffusion(tmp_path)
    edit(tmp_path / "vae", scaling_factor=...)
    assert any("scaling_factor 0.18215" in note for note in load(tmp_path).card.notes)
