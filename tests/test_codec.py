"""Decoding undoes encoding; scale and shift cancel; a card describes the space of x, in its old form too."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from tests.test_model import small
from unnoise.codec import Codec, Latents, Pixels, fit_preview, fitted_preview, from_bytes, make_codec, to_bytes
from unnoise.config.cards import LatentsConfig, ModelCard, PixelsConfig
from unnoise.config.convert import from_dict, to_dict
from unnoise.errors import UserError
from unnoise.noise import normal


@dataclass(frozen=True)
class Shuffle:
    """An autoencoder without loss: each block of factor x factor pixels becomes channels, the noise is added."""

    factor: int = 2

    def encode(self, picture: Tensor, noise: Tensor | None = None) -> Tensor:
        mean = pixel_unshuffle(picture, self.factor)
        return mean if noise is None else mean + noise

    def decode(self, latents: Tensor) -> Tensor:
        return pixel_shuffle(latents, self.factor)


LATENTS = Latents(Shuffle(), 12, LatentsConfig(factor=2, scale=2.0, shift=-1.5))
EACH = LatentsConfig(factor=2, scale=0.5, mean=tuple(range(-6, 6)), std=tuple(0.3 * i for i in range(1, 13)))
CODECS: dict[str, Codec] = {
    "pixels": Pixels(3), "latents": LATENTS, "latents, each channel": Latents(Shuffle(), 12, EACH)
}  # fmt: skip
PICTURES = from_bytes(torch.arange(2 * 3 * 8 * 4).remainder(256).to(torch.uint8).view(2, 3, 8, 4))


@pytest.mark.parametrize("name", CODECS)
def test_decode_inverts_encode(name: str) -> None:
    codec = CODECS[name]
    x = codec.encode(PICTURES)
    assert torch.allclose(codec.decode(x), PICTURES, rtol=0, atol=1e-6)
    assert torch.equal(to_bytes(codec.decode(x)), to_bytes(PICTURES))
    assert tuple(x.shape[1:]) == (codec.channels, 8 // codec.factor, 4 // codec.factor)
    assert codec.picture_channels == 3
    assert codec.bounded == (float(x.abs().max()) <= 1)


@pytest.mark.parametrize("name", CODECS)
def test_decoded_pictures_are_clipped_floats(name: str) -> None:
    codec = CODECS[name]
    shown = codec.decode((5 * codec.encode(PICTURES)).half())
    assert shown.dtype == torch.float32
    assert shown.abs().max() == 1


def test_scale_and_shift_act_on_latents() -> None:
    """x = scale (latents - shift), so that latents of mean `shift` and deviation 1 / `scale` become standard."""
    latents = 0.5 * normal((64, 12, 4, 2), "latents") - 1.5
    standard = LATENTS.encode(Shuffle().decode(latents))
    assert standard.mean().abs() < 0.05
    assert (standard.std() - 1).abs() < 0.02
    for scale, shift in ((1.0, 0.0), (0.13025, 0.0), (0.3611, 0.1159)):
        other = replace(LATENTS, how=LatentsConfig(factor=2, scale=scale, shift=shift))
        assert torch.allclose(other.decode(other.encode(PICTURES)), PICTURES, atol=1e-6)


def test_mean_and_deviation_act_on_each_channel() -> None:
    """x = scale (latents - mean) / std of each channel: latents of these moments become standard, times the scale."""
    std, mean = (torch.tensor(each).view(12, 1, 1) for each in (EACH.std, EACH.mean))
    latents = std * normal((64, 12, 4, 2), "latents") + mean
    x = Latents(Shuffle(), 12, EACH).encode(Shuffle().decode(latents))
    assert x.mean(dim=(0, 2, 3)).abs().max() < 0.1
    assert (x.std(dim=(0, 2, 3)) / 0.5 - 1).abs().max() < 0.1


def test_a_side_that_is_no_multiple_of_the_factor_is_continued() -> None:
    picture = PICTURES[:, :, :7, :3]
    codec = Latents(Shuffle(), 12, LatentsConfig(factor=2))
    x = codec.encode(picture)
    assert tuple(x.shape) == (2, 12, 4, 2)
    back = codec.decode(x)
    assert torch.equal(back[:, :, :7, :3], picture)
    assert torch.equal(back[:, :, 7, :3], picture[:, :, 6])
    assert torch.equal(back[:, :, :, 3], back[:, :, :, 2])


def test_a_preview_is_the_best_linear_map() -> None:
    """Latents that are a linear map of the colours give the colours back; others the least squares of numpy."""
    matrix, bias = normal((3, 5), "matrix").double(), torch.tensor([0.1, -0.2, 0.3]).double()
    x = 0.1 * normal((4, 5, 6, 6), "x")
    colours = torch.einsum("oc,bchw->bohw", matrix, x.double()) + bias[:, None, None]
    pictures = F.interpolate(colours, scale_factor=4) + 0.01 * CHECKERED  # whose mean over 4 x 4 pixels is 0
    found = fit_preview(x, pictures)
    assert torch.allclose(torch.tensor(found.weight).view(3, 5).double(), matrix, atol=1e-5)
    assert torch.allclose(torch.tensor(found.bias).double(), bias, atol=1e-5)
    codec = Latents(None, 5, LatentsConfig(factor=4), found)
    assert torch.allclose(codec.preview(x), colours.clamp(-1, 1).float(), atol=1e-5)
    assert codec.preview(100 * x).abs().max() == 1
    assert Latents(None, 5).preview(x) is None
    other = pictures + normal((4, 3, 24, 24), "detail")
    rows = torch.cat([x, torch.ones(4, 1, 6, 6)], 1).permute(0, 2, 3, 1).reshape(-1, 6).double().numpy()
    means = other.unfold(2, 4, 4).unfold(3, 4, 4).mean(dim=(-1, -2)).permute(0, 2, 3, 1).reshape(-1, 3).double().numpy()
    best = np.linalg.lstsq(rows, means, rcond=None)[0]
    assert np.allclose(np.array(fit_preview(x, other).weight).reshape(3, 5), best[:5].T, atol=1e-5)


def test_a_preview_that_is_fitted_without_pictures_shows_what_is_decoded() -> None:
    codec = Latents(Shuffle(), 12, LatentsConfig(factor=2, scale=2.0))
    shown = replace(codec, preview_map=fitted_preview(codec))
    x = 0.5 * normal((2, 12, 8, 8), "x")
    want = F.avg_pool2d(codec.decode(x), 2)
    assert (shown.preview(x) - want).abs().mean() < 0.05
    assert fitted_preview(codec) == fitted_preview(codec)


CHECKERED = torch.tensor([[1.0, -1], [-1, 1]]).repeat(12, 12)


def test_the_noise_of_encode_is_the_encoders() -> None:
    noise = normal((2, 12, 4, 2), "noise")
    found = LATENTS.encode(PICTURES, noise) - LATENTS.encode(PICTURES)
    assert torch.allclose(found, LATENTS.how.scale * noise, atol=1e-6)
    assert torch.equal(Pixels(3).encode(PICTURES, noise), PICTURES)


def test_a_card_describes_its_codec() -> None:
    described = LatentsConfig(factor=2, picture_channels=1, scale=0.5, shift=0.1)
    assert make_codec(PixelsConfig(), 1) == Pixels(1)
    assert make_codec(described, 4) == Latents(None, 4, described)
    assert (make_codec(described, 4).factor, make_codec(described, 4).picture_channels) == (2, 1)
    card = ModelCard(channels=4, codec=described)
    assert from_dict(ModelCard, to_dict(card)) == card


def test_a_card_with_the_earlier_flag_is_read() -> None:
    """Cards before `codec` had `latents`, true or false."""
    plain = to_dict(ModelCard())
    del plain["codec"]
    assert from_dict(ModelCard, plain).codec == PixelsConfig()
    assert from_dict(ModelCard, plain | {"latents": False}).codec == PixelsConfig()
    assert from_dict(ModelCard, plain | {"latents": True}).codec == LatentsConfig()


def test_latents_without_an_autoencoder_are_not_decoded() -> None:
    codec = Latents(None)
    for refused in (lambda: codec.encode(PICTURES), lambda: codec.decode(torch.zeros(1, 4, 1, 1))):
        with pytest.raises(UserError, match="this model generates latents, and has no autoencoder"):
            refused()


def test_a_model_knows_the_shapes_of_x_and_of_pictures() -> None:
    model = small()
    assert model.x_shape == model.picture_shape == (1, 8, 8)
    assert not model.latent_only
    assert model.require_pictures() is model
    latent = replace(model, card=replace(model.card, codec=LatentsConfig(factor=4, picture_channels=3)))
    assert (latent.x_shape, latent.picture_shape) == ((1, 8, 8), (3, 32, 32))
    assert latent.latent_only
    x = torch.full((1, 1, 8, 8), 3.0, dtype=torch.float64)
    assert torch.equal(latent.decode(x), x.float())  # as they are
    assert torch.equal(model.decode(x), torch.ones(1, 1, 8, 8))
    with pytest.raises(UserError, match="--latents FILE"):
        latent.require_pictures()


def test_every_byte_comes_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_bytes(from_bytes(levels)), levels)
    assert from_bytes(levels)[[0, 255]].tolist() == [-1, 1]
    between = from_bytes(levels[:-1]) + 0.6 / 127.5  # nearer to the next level: rounded, not cut
    assert torch.equal(to_bytes(between), levels[1:])
