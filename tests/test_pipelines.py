"""Whole folders of Stable Diffusion's kind, small and of random weights: diffusers and transformers are the judges.

What such a folder says of words, latents and how to draw is what it means here; what we save and export of it says the
same.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from randomised import randomised
from test_clip import small_tokenizer, small_tower
from test_stable_diffusion_format import SD1
from unnoise.cli.main import main
from unnoise.errors import UserError
from unnoise.generate import draw
from unnoise.model import Model, load
from unnoise.noise import normal
from unnoise.settings import Request

theirs = pytest.importorskip("diffusers")

NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}


def pipeline(folder: Path) -> tuple[Any, Any]:
    """A Stable Diffusion folder, and diffusers' network and transformers' tower of it."""
    net = randomised(theirs.UNet2DConditionModel(**SD1))
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


def test_a_pipeline_is_loaded_with_what_reads_its_captions(tmp_path: Path) -> None:
    net, tower = pipeline(tmp_path)
    model = load(tmp_path)
    assert isinstance(model, Model)
    assert model.card.latents
    assert model.card.process.schedule == "scaled-linear"
    assert model.card.clip is False
    cond = model.reader.read((), ["a red cat", ""])
    ids = model.words.tokenizer.read(["a red cat", ""])  # type: ignore[union-attr]
    torch.testing.assert_close(cond.words, tower(ids).last_hidden_state, atol=1e-5, rtol=0)
    x, t = normal((2, 4, 8, 8), "x"), torch.tensor(0.5, dtype=torch.float64)
    with torch.no_grad():
        right = net(x, torch.tensor(499.0), encoder_hidden_states=cond.words).sample
        level = model.diffusion.schedule(t)
        got = level.eps(x.double(), model.diffusion.given(cond)(x, t).mean.double())
    assert (got - right).abs().max() < 1e-4 * right.abs().max()


# --- latents ---


def test_latents_are_drawn_as_diffusers_draws_them(tmp_path: Path) -> None:
    """Neither estimates nor results are clipped: one step to t = 0 is the estimate itself, far beyond [-1, 1]."""
    net, tower = pipeline(tmp_path)
    model = load(tmp_path)
    request = Request(seeds=(3,), prompts=("a red cat",), sampler="ddim", grid="leading", steps=4, precision="float32")
    drawn = draw(model, request).pixels
    scheduler = theirs.DDIMScheduler(
        **NOISE | {"steps_offset": 0}, clip_sample=False, set_alpha_to_one=True, prediction_type="epsilon"
    )
    scheduler.set_timesteps(4)
    from unnoise.noise import Seeds

    x = Seeds((3,), model.shape).start()
    with torch.no_grad():
        words = tower(model.words.tokenizer.read(["a red cat"])).last_hidden_state  # type: ignore[union-attr]
        for t in scheduler.timesteps:
            x = scheduler.step(net(x, t, encoder_hidden_states=words).sample, t, x, eta=0.0).prev_sample
    assert drawn.dtype == torch.float32
    assert x.abs().max() > 3
    assert (drawn - x).abs().max() < 1e-3 * x.abs().max()
    assert torch.equal(draw(model, replace(request, clip=False)).pixels, drawn)
    with pytest.raises(UserError, match="latents, which have no range"):
        draw(model, replace(request, threshold=0.9))


def test_latents_are_not_written_as_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline(tmp_path / "sd")
    assert main(["sample", str(tmp_path / "sd"), "--prompt", "a red cat", "--out", str(tmp_path / "out")]) != 0
    assert "this model draws latents" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    drawn = load(tmp_path / "sd").sample(prompts="a red cat", steps=1)
    for show in (drawn.array, drawn.grid, lambda: list(drawn)):
        with pytest.raises(UserError, match="latents are no pictures"):
            show()
