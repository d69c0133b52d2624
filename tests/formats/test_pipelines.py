"""Whole folders of Stable Diffusion's kind, small and of random weights: diffusers and transformers are the judges.

Its text encoders, latents and sampler settings have the same meaning here, and saved and exported models keep them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from tests.formats.test_stable_diffusion import SD1, XL
from tests.helpers.random_weights import randomised
from tests.nn.test_clip import END, small_tokenizer, small_tower
from unnoise.cli.main import main
from unnoise.conditions import Cond
from unnoise.config.request import Request
from unnoise.errors import UserError
from unnoise.formats.diffusers import write
from unnoise.formats.text_encoders import ClipEncoder, DualClipEncoder
from unnoise.generate.conditions import null_condition
from unnoise.generate.frames import sample
from unnoise.model import Model, load
from unnoise.noise import Seeds, normal

theirs = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")

NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}


def pipeline(folder: Path, **settings: Any) -> tuple[Any, Any]:
    """A Stable Diffusion folder, and diffusers' network and transformers' tower of it."""
    net = randomised(theirs.UNet2DConditionModel(**SD1 | settings))
    net.save_pretrained(folder / "unet")
    tower = small_tower(folder / "text_encoder", hidden_size=12)
    small_tokenizer(folder / "tokenizer")
    theirs.PNDMScheduler(**NOISE).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", "PNDMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "safety_checker": [None, None], "requires_safety_checker": False,
    }  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps(index))
    return net, tower


def test_a_pipeline_is_loaded_with_its_text_encoder(tmp_path: Path) -> None:
    net, tower = pipeline(tmp_path)
    model = load(tmp_path)
    assert isinstance(model, Model)
    assert model.latent_only
    assert model.card.process.schedule == "scaled-linear"
    assert model.card.clip is False
    cond = model.conditioner.encode((), ["a red cat", ""])
    assert isinstance(model.text, ClipEncoder)
    ids = model.text.tokenizer.encode(["a red cat", ""])
    torch.testing.assert_close(cond.text, tower(ids).last_hidden_state, atol=1e-5, rtol=0)
    x, t = normal((2, 4, 8, 8), "x"), torch.tensor(0.5, dtype=torch.float64)
    with torch.no_grad():
        right = net(x, torch.tensor(499.0), encoder_hidden_states=cond.text).sample
        level = model.diffusion.schedule(t)
        got = level.eps(x.double(), model.diffusion.given(cond)(x, t).mean.double())
    assert (got - right).abs().max() < 1e-4 * right.abs().max()


# --- latents ---


def test_latents_are_those_of_diffusers(tmp_path: Path) -> None:
    """Neither estimates nor results are clipped: one step to t = 0 is the estimate itself, far beyond [-1, 1]."""
    net, tower = pipeline(tmp_path)
    model = load(tmp_path)
    request = Request.of(
        seeds=(3,), prompts=("a red cat",), sampler="ddim", spacing="leading", steps=4, precision="float32"
    )
    drawn = sample(model, request).pixels
    scheduler = theirs.DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=True, prediction_type="epsilon")
    scheduler.set_timesteps(4)
    x = Seeds((3,), model.x_shape).start()
    with torch.no_grad():
        words = tower(model.text.tokenizer.encode(["a red cat"])).last_hidden_state  # type: ignore[union-attr]
        for t in scheduler.timesteps:
            x = scheduler.step(net(x, t, encoder_hidden_states=words).sample, t, x, eta=0.0).prev_sample
    assert drawn.dtype == torch.float32
    assert x.abs().max() > 3
    assert (drawn - x).abs().max() < 1e-3 * x.abs().max()
    assert torch.equal(sample(model, request.but(clip=False)).pixels, drawn)
    with pytest.raises(UserError, match="latents, which have no range"):
        sample(model, request.but(dynamic_threshold=0.9))


def test_latents_are_not_written_as_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline(tmp_path / "sd")
    new, picture = str(tmp_path / "out"), str(tmp_path / "picture.png")
    Image.new("RGB", (8, 8)).save(picture)
    for ask in (
        ["sample", "MODEL", "--prompt", "a red cat", "--out", new],
        ["evaluate", "MODEL", "--data", "toy"],
        ["compare", "MODEL", "--data", "toy", "--out", new],
        ["invert", "MODEL", picture],
        ["interpolate", "MODEL", "--seeds", "1,2", "-o", f"{new}.png"],
        ["vary", "MODEL", "-o", f"{new}.png"],
        ["compress", picture, "--model", "MODEL", "-o", new],
    ):
        assert main([str(tmp_path / "sd") if word == "MODEL" else word for word in ask]) == 2, ask
        assert "this model generates latents" in capsys.readouterr().err
        assert not list(tmp_path.glob("out*"))
    drawn = load(tmp_path / "sd").sample(prompts="a red cat", steps=1, seeds=(4, 5))
    ask = ["sample", str(tmp_path / "sd"), "--prompt", "a red cat", "--steps", "1", "--seeds", "4-5"]
    file = tmp_path / "latents.safetensors"
    assert main([*ask, "--latents", str(file)]) == 0
    assert torch.equal(load_file(file)["latents"], drawn.pixels)
    with safe_open(file, "pt") as opened:
        recipe = json.loads(opened.metadata()["unnoise"])
    assert recipe["model"]["weights"].endswith("unet/diffusion_pytorch_model.safetensors")
    assert (recipe["together"], recipe["prompts"]) == ("4-5:0", ["a red cat"])
    assert main([*ask, "--latents", str(file), "--grid", str(tmp_path / "grid.png")]) == 2
    assert main([*ask, "--latents", str(file), "--previews", "2"]) == 2
    assert main([*ask, "--latents", str(tmp_path / "latents.png")]) == 2
    assert "give a name that ends in .safetensors" in capsys.readouterr().err
    for show in (drawn.array, drawn.grid, lambda: list(drawn)):
        with pytest.raises(UserError, match="latents are no pictures"):
            show()


def test_missing_parts_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A network alone has no text encoder, and a missing schedule is not replaced by another."""
    pipeline(tmp_path / "sd")
    ask = ["sample", str(tmp_path / "sd" / "unet"), "--steps", "1", "--latents", str(tmp_path / "x.safetensors")]
    for words in ([], ["--prompt", "a red cat"]):
        assert main([*ask, *words]) == 2
        assert "its text encoder is not beside it" in capsys.readouterr().err
    small_tower(tmp_path / "sd" / "text_encoder", hidden_size=16)
    with pytest.raises(UserError, match="has embeddings of width 16, and the unet needs 12: its parts belong"):
        load(tmp_path / "sd")
    (tmp_path / "sd" / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(UserError, match=r"scheduler_config.json is missing: copy the whole folder"):
        load(tmp_path / "sd")


# --- what we save and export ---


def same_estimate(a: Model, b: Model) -> bool:
    """Whether both encode these captions and estimate alike, bit for bit."""
    x, t = normal((2, *a.x_shape), "x"), torch.tensor(0.5, dtype=torch.float64)
    conds = [model.conditioner.encode((), ["a red cat", ""]) for model in (a, b)]
    with torch.no_grad():
        means = [model.diffusion.given(cond)(x, t).mean for model, cond in zip((a, b), conds)]
    assert means[0].std() > 0.1
    return bool((conds[0].text == conds[1].text).all()) and torch.equal(*means)  # type: ignore[union-attr]


@pytest.mark.parametrize("skip", [0, 2])
def test_a_saved_pipeline_encodes_and_estimates_the_same(skip: int, tmp_path: Path) -> None:
    pipeline(tmp_path / "sd")
    model = load(tmp_path / "sd")
    assert isinstance(model.text, ClipEncoder)
    model.text.skip = skip
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert again.card == model.card
    assert same_estimate(model, again)
    again.save(tmp_path / "twice")
    assert same_estimate(model, load(tmp_path / "twice"))


def test_text_encoders_that_cannot_be_saved_are_refused(tmp_path: Path) -> None:
    class Deaf:
        def read(self, captions: Any) -> Cond:
            return Cond(text=torch.zeros(len(captions), 5, 12))

        def surplus(self, caption: str) -> str:
            return ""

    pipeline(tmp_path / "sd")
    model = replace(load(tmp_path / "sd"), text=Deaf())
    with pytest.raises(UserError, match="a Deaf cannot be saved with the model"):
        model.save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def judged(folder: Path) -> Any:
    """The pipeline that diffusers makes of a folder of ours, without an autoencoder."""
    pipeline = theirs.DiffusionPipeline.from_pretrained(folder, vae=None)
    pipeline.scheduler = type(pipeline.scheduler).from_pretrained(folder / "scheduler")  # with our steps_offset
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_diffusers_generates_the_same_from_an_exported_pipeline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own StableDiffusionPipeline: words, guidance and walk; the autoencoder is handed to it, or is none."""
    pipeline(tmp_path / "sd")
    assert main(["export", str(tmp_path / "sd"), str(tmp_path / "out")]) == 0
    assert f'DiffusionPipeline.from_pretrained("{tmp_path / "out"}", vae=vae)' in capsys.readouterr().err
    model = load(tmp_path / "out")
    assert same_estimate(load(tmp_path / "sd"), model)
    assert model.latent_only
    judge = judged(tmp_path / "out")
    assert type(judge).__name__ == "StableDiffusionPipeline"
    right = judge(
        "a red cat", num_inference_steps=5, guidance_scale=3.0, output_type="latent", height=64, width=64,
        latents=Seeds((3,), model.x_shape).start(),
    ).images  # fmt: skip
    request = Request.of(
        seeds=(3,), prompts=("a red cat",), spacing="leading", steps=5, guidance=3.0, precision="float32"
    )
    drawn = sample(model, request).pixels
    assert (drawn - right).abs().max() < 1e-3 * right.abs().max()


# --- controls ---

SHARED = {key: SD1[key] for key in SD1.keys() - {"sample_size", "up_block_types", "center_input_sample"}}


def control(folder: Path, **settings: Any) -> Path:
    """A ControlNetModel's folder, for control images of three channels, eight times as large as x."""
    widths = {"conditioning_embedding_out_channels": [4, 4, 6, 6]}
    net = theirs.ControlNetModel(**SHARED | widths | settings)
    torch.manual_seed(len(folder.name))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    net.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("count", [1, 2])
def test_controls_of_a_folder_are_used_and_exported(count: int, tmp_path: Path) -> None:
    """diffusers draws from what we export of a network and its controls what is drawn here."""
    pipeline(tmp_path / "sd")
    folders = [control(tmp_path / name) for name in ("edge", "depth")[:count]]
    files = [str(tmp_path / f"{name}.png") for name in ("edge", "depth")[:count]]
    for place, file in enumerate(files):
        Image.effect_noise((64, 64), 90 + 40 * place).convert("RGB").save(file)
    base = load(tmp_path / "sd")
    base.with_controlnets(*folders).save(tmp_path / "steered")
    assert main(["export", str(tmp_path / "steered"), str(tmp_path / "out")]) == 0
    judge = judged(tmp_path / "out")
    assert type(judge).__name__ == "StableDiffusionControlNetPipeline"
    scales = (0.7, 0.4)[:count]
    images = [Image.open(file) for file in files]
    right = judge(
        "a red cat", images if count > 1 else images[0], num_inference_steps=5, guidance_scale=3.0,
        output_type="latent", height=64, width=64, latents=Seeds((3,), base.x_shape).start(),
        controlnet_conditioning_scale=list(scales) if count > 1 else scales[0],
    ).images  # fmt: skip
    request = Request.of(
        seeds=(3,), prompts=("a red cat",), spacing="leading", steps=5, guidance=3.0, precision="float32"
    )
    plain = sample(base, request.but(sampler="ddim")).pixels
    controlled = request.but(controls=tuple(files), control_scale=scales, sampler="ddim")
    for model in (base.with_controlnets(*map(str, folders)), load(tmp_path / "steered"), load(tmp_path / "out")):
        drawn = sample(model, controlled).pixels
        assert (drawn - right).abs().max() < 1e-3 * right.abs().max()
    assert (plain - right).abs().max() > 0.05 * right.abs().max()  # 50 times that


def test_a_controlnet_folder_is_used_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline(tmp_path / "base", in_channels=3, out_channels=3)
    index = json.loads((tmp_path / "base" / "model_index.json").read_text())
    (tmp_path / "base" / "model_index.json").write_text(json.dumps({k: v for k, v in index.items() if k != "vae"}))
    control(tmp_path / "edges", in_channels=3)
    control(tmp_path / "foreign", in_channels=3, cross_attention_dim=16)
    image = tmp_path / "image.png"
    Image.effect_noise((64, 64), 90).convert("RGB").save(image)
    ask = ["sample", str(tmp_path / "base"), "--prompt", "a red cat", "--steps", "2", "--precision", "float32"]
    with_it = ["--control", str(image), "--control-model"]
    assert main([*ask, *with_it, str(tmp_path / "edges"), "--out", str(tmp_path / "out")]) == 0
    (file,) = (tmp_path / "out").iterdir()
    model = load(tmp_path / "base").with_controlnets(tmp_path / "edges")
    settings = {"prompts": "a red cat", "steps": 2, "precision": "float32"}
    assert (model.sample(**settings, controls=(str(image),)).array()[0] == np.asarray(Image.open(file))).all()
    assert (model.sample(**settings).array()[0] != np.asarray(Image.open(file))).any()
    assert main([*ask, *with_it, str(tmp_path / "foreign")]) != 0
    assert "a control of another network: context is 16 here, 12 in the network" in capsys.readouterr().err
    with pytest.raises(UserError, match="ControlNetModel, which needs another network"):
        load(tmp_path / "edges")


# --- XL ---


def xl_pipeline(folder: Path, *, refiner: bool = False, zeros: bool = True) -> Any:
    """A Stable Diffusion XL folder, or its refiner's, and what diffusers makes of it."""
    width, ids = (16, 5) if refiner else (28, 6)
    settings = XL | {"cross_attention_dim": width, "projection_class_embeddings_input_dim": ids * 4 + 10}
    unet = randomised(theirs.UNet2DConditionModel(**settings))
    unet.save_pretrained(folder / "unet")
    first = small_tower(folder / "text_encoder", hidden_size=12)
    second = small_tower(
        folder / "text_encoder_2", kind="CLIPTextModelWithProjection", hidden_act="gelu", projection_dim=10
    )
    for name, pad in (("tokenizer", END), ("tokenizer_2", "!")):
        small_tokenizer(folder / name, pad=pad)
    cuts = [
        transformers.CLIPTokenizer.from_pretrained(folder / name, model_max_length=9)
        for name in ("tokenizer", "tokenizer_2")
    ]
    scheduler = theirs.EulerDiscreteScheduler(**NOISE | {"steps_offset": 0}, timestep_spacing="leading")
    scheduler.save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": zeros,
        "scheduler": ["diffusers", "EulerDiscreteScheduler"], "unet": ["diffusers", "UNet2DConditionModel"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"], "vae": ["diffusers", "AutoencoderKL"],
    }  # fmt: skip
    if refiner:
        index |= {"text_encoder": [None, None], "tokenizer": [None, None], "requires_aesthetics_score": True}
    (folder / "model_index.json").write_text(json.dumps(index))
    towers = (None, second, None, cuts[1]) if refiner else (first, second, *cuts)
    made = theirs.StableDiffusionXLPipeline(
        None, *towers, unet, scheduler, force_zeros_for_empty_prompt=zeros, add_watermarker=False
    )
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("zeros", [True, False])
@torch.no_grad()
def test_xl_encodes_captions_and_sizes_as_diffusers_does(zeros: bool, tmp_path: Path) -> None:
    judge = xl_pipeline(tmp_path, zeros=zeros)
    model = load(tmp_path)
    cond, null = model.conditioner.encode((), ["a red cat 12"]), model.conditioner.null(1)
    words, empty, vector, no_vector = judge.encode_prompt("a red cat 12", do_classifier_free_guidance=True)
    for got, right in ((cond, (words, vector)), (null, (empty, no_vector))):
        torch.testing.assert_close(got.text, right[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(got.pooled, right[1], atol=1e-5, rtol=0)
        assert got.value.tolist() == [[64, 64, 0, 0, 64, 64]]  # type: ignore[union-attr]
    words, negative, vector, away = judge.encode_prompt(
        "a", negative_prompt="the cat", do_classifier_free_guidance=True
    )
    torch.testing.assert_close(model.conditioner.null(1, "the cat").text, negative, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.conditioner.null(1, "the cat").pooled, away, atol=1e-5, rtol=0)


def test_xl_generates_the_same_as_diffusers_after_saving_and_exporting(tmp_path: Path) -> None:
    """By its own Euler and spacing, guided, of another original size: here, after saving, and by diffusers of ours."""
    judge = xl_pipeline(tmp_path / "xl")
    model = load(tmp_path / "xl")
    right = judge(
        "a red cat", num_inference_steps=5, guidance_scale=3.0, output_type="latent", height=64, width=64,
        latents=Seeds((3,), model.x_shape).start(), original_size=(50, 64), crops_coords_top_left=(0, 9),
    ).images  # fmt: skip
    values = {"original_height": (50.0,), "crop_left": (9.0,)}
    request = Request.of(seeds=(3,), prompts=("a red cat",), values=values, steps=5, guidance=3.0, precision="float32")
    drawn = sample(model, request).pixels
    assert (drawn - right).abs().max() < 1e-3 * right.abs().max()
    assert torch.equal(sample(model, request.but(sampler="euler")).pixels, drawn)  # as its recipe has it
    assert not torch.equal(sample(model, request.but(spacing="karras")).pixels, drawn)
    assert (sample(model, request.but(values={})).pixels - right).abs().max() > 1e-2 * right.abs().max()
    model.save(tmp_path / "saved")
    assert torch.equal(sample(load(tmp_path / "saved"), request).pixels, drawn)
    assert main(["export", str(tmp_path / "saved"), str(tmp_path / "out")]) == 0
    assert same_estimate(load(tmp_path / "out"), model)
    again = judged(tmp_path / "out")
    assert type(again).__name__ == "StableDiffusionXLPipeline"
    assert again.config.force_zeros_for_empty_prompt
    for mine, theirs_ in zip(again.encode_prompt("a red cat"), judge.encode_prompt("a red cat")):
        if mine is not None:
            torch.testing.assert_close(mine, theirs_, atol=1e-5, rtol=0)


def test_parts_of_xl_that_cannot_be_written_are_refused_first(tmp_path: Path) -> None:
    xl_pipeline(tmp_path / "xl")
    model = load(tmp_path / "xl")
    assert isinstance(model.text, DualClipEncoder)
    model.text.parts[0].skip = 1
    state = model.diffusion.net.state_dict()
    with pytest.raises(UserError, match="skipped blocks cannot be written for XL"):
        write(tmp_path / "out", model.card.net, state, model.card.process, text=model.text)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="skipped blocks cannot be written for XL"):
        model.save(tmp_path / "saved")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "saved").exists()


@torch.no_grad()
def test_the_refiner_of_xl_has_five_values_and_a_null_aesthetic_score(tmp_path: Path) -> None:
    judge = xl_pipeline(tmp_path / "refiner", refiner=True, zeros=False)
    model = load(tmp_path / "refiner")
    assert (model.card.net.values, model.card.net.vector) == (5, 10)  # type: ignore[union-attr]
    request = Request.of(seeds=(0,), prompts=("a red cat",), guidance=3.0)
    cond = model.conditioner.encode((), request.prompt.prompts)
    null = null_condition(model.conditioner, request, cond)
    words, empty, vector, no_vector = judge.encode_prompt("a red cat", do_classifier_free_guidance=True)
    x, t = normal((1, *model.x_shape), "x"), torch.tensor(0.5, dtype=torch.float64)
    for each, right, score in ((cond, (words, vector), 6.0), (null, (empty, no_vector), 2.5)):
        ids = torch.tensor([[64.0, 64, 0, 0, score]])
        added = {"text_embeds": right[1], "time_ids": ids}
        wanted = judge.unet(x, torch.tensor(499.0), right[0], added_cond_kwargs=added).sample
        level = model.diffusion.schedule(t)
        got = level.eps(x.double(), model.diffusion.given(each)(x, t).mean.double())
        assert (got - wanted).abs().max() < 1e-4 * wanted.abs().max()
    assert main(["export", str(tmp_path / "refiner"), str(tmp_path / "out")]) == 0
    index = json.loads((tmp_path / "out" / "model_index.json").read_text())
    assert (index["_class_name"], index["requires_aesthetics_score"]) == ("StableDiffusionXLImg2ImgPipeline", True)
    assert load(tmp_path / "out").card.values == model.card.values
