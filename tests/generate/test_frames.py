"""What a request says reaches the denoiser that is walked with: clipping, thresholds, the drawings in its files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.test_model import small
from unnoise import data
from unnoise.codec import Pixels
from unnoise.conditions import Cond
from unnoise.config.cards import ModelCard
from unnoise.config.data import DataConfig
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import ControlConfig, UNetConfig
from unnoise.config.request import Request
from unnoise.denoiser import make_diffusion
from unnoise.generate.conditions import add_control_images, control_image
from unnoise.generate.frames import generate
from unnoise.generate.job import starts_in_a_picture
from unnoise.model import Model
from unnoise.nn import UNet
from unnoise.nn.controlnet import guess_scales


class Unclipped(Pixels):
    """Pixels that are not clipped to the range of pictures when x is decoded."""

    def decode(self, x: Tensor) -> Tensor:
        return x.float()


class Plain(Model):
    """A model with that codec."""

    @property
    def codec(self) -> Unclipped:
        return Unclipped(3)


def last(**asked: object) -> Tensor:
    """What a walk of one step ends in: the estimate of the denoiser that it was made with."""
    request = Request.of(seeds=(1, 2, 3), labels=("dog",), steps=1, precision="float32", **asked)  # type: ignore[arg-type]
    model = Plain(**vars(small()))
    weights = dict(model.diffusion.net.named_parameters())
    weights["class_embedding.weight"].data *= 10
    weights["conv_out.weight"].data *= 4  # estimates beyond the range of pictures, also of a class alone
    *_, frame = generate(model, request)
    assert frame.pictures is not None
    return frame.pictures


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_estimates_are_clipped_after_they_are_guided(guidance: float) -> None:
    free = last(guidance=guidance, clip=False)
    assert free.abs().max() > 1.5  # there is something to clip
    assert torch.equal(last(guidance=guidance), free.clamp(-1, 1))
    before = torch.lerp(last(guidance=0.0), last(), guidance).clamp(-1, 1)  # the other order is something else
    assert guidance == 1 or not torch.allclose(before, free.clamp(-1, 1), atol=0.1)


@pytest.mark.parametrize("quantile", [0.8, 0.9, 0.995])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_threshold_is_each_pictures_own_quantile_after_guidance(quantile: float, guidance: float) -> None:
    free = last(guidance=guidance, clip=False)
    edge = torch.quantile(free.abs().flatten(1), quantile, dim=1).clamp(min=1).view(-1, 1, 1, 1)
    assert (edge > 1).any()
    assert torch.allclose(
        last(guidance=guidance, dynamic_threshold=quantile), free.clamp(-edge, edge) / edge, atol=1e-6
    )


# --- drawings ---


def following(size: int, *, channels: int = 3, scale: int = 1) -> Model:
    """The card of a model that follows a drawing; it is not drawn with."""
    control = ControlConfig(channels=channels, hint=(4,), scale=scale)
    net = UNetConfig(size=size, channels=(8, 8), blocks=1, attention=(False, False), groups=4, controls=(control,))
    return Model(None, ModelCard(net=net, size=(size, size)))  # type: ignore[arg-type]


@pytest.mark.parametrize("control", ["edges", "segmentation"])
def test_a_control_image_from_a_file_is_that_of_training(control: str, tmp_path: Path) -> None:
    """Bit for bit the same tensor, whoever saves what the training was shown."""
    told = data.open(DataConfig(path="shapes-two:test", size=24, channels=3, control=control)).batch(range(4)).control
    assert told is not None
    model = following(24)
    for i, hint in enumerate(told):
        file = tmp_path / f"{i}.png"
        Image.fromarray((hint * 255).round().byte().permute(1, 2, 0).numpy()).save(file)
        assert torch.equal(control_image(file, model, model.controls[0]), hint[None])


def test_a_file_is_followed_as_strongly_as_is_asked_and_deeper_parts_more_in_a_guess(tmp_path: Path) -> None:
    model = following(24)
    Image.effect_noise((24, 24), 90).convert("RGB").save(tmp_path / "a.png")
    ask = Request.of(seeds=(1, 2), controls=(str(tmp_path / "a.png"),), control_scale=(0.5,))
    plain, guessed = (
        add_control_images(model, Cond(), request).control_scale for request in (ask, ask.but(guess=True))
    )
    assert plain is not None
    assert plain.tolist() == [[0.5]] * 2
    assert guessed is not None
    assert torch.equal(guessed, guess_scales(plain, model.residuals))
    assert (guessed.diff(dim=-1) > 0).all()


@pytest.mark.parametrize(
    ("schedule", "grid", "share"),
    [
        ("cosine", "ddim-quadratic", 0.31),
        ("cosine", "even", None),
        ("linear", "ddim-quadratic", None),
        ("flow", "even", None),
    ],
)
def test_a_start_in_noise_where_part_of_the_picture_is_visible_is_reported(schedule, grid, share) -> None:
    """The quadratic grid begins at t = 0.8, where alpha is 0.31 on the cosine, and 0.04 on DDPM's betas."""
    net = UNetConfig(size=8, channels=(8,), blocks=1, attention=(False,), groups=2)
    process = DiffusionConfig(schedule=schedule, predicts="v")
    model = Model(make_diffusion(UNet(net), process), ModelCard(net=net, process=process))
    said = starts_in_a_picture(model, Request.of(spacing=grid, steps=20))
    assert (f"t = 0.80, where x_t is {share:.0%} picture" in said) if share else said == ""
