"""Decoding undoes encoding; scale and shift cancel; a card describes the space of x, in its old form too."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from tests.test_model import small
from unnoise.codec import Codec, Latents, Pixels, from_bytes, make_codec, to_bytes
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


LATENTS = Latents(Shuffle(), channels=12, factor=2, scale=2.0, shift=-1.5)
CODECS: dict[str, Codec] = {"pixels": Pixels(3), "latents": LATENTS}
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
        other = replace(LATENTS, scale=scale, shift=shift)
        assert torch.allclose(other.decode(other.encode(PICTURES)), PICTURES, atol=1e-6)


def test_the_noise_of_encode_is_the_encoders() -> None:
    noise = normal((2, 12, 4, 2), "noise")
    found = LATENTS.encode(PICTURES, noise) - LATENTS.encode(PICTURES)
    assert torch.allclose(found, LATENTS.scale * noise, atol=1e-6)
    assert torch.equal(Pixels(3).encode(PICTURES, noise), PICTURES)


def test_a_card_describes_its_codec() -> None:
    described = LatentsConfig(factor=2, picture_channels=1, scale=0.5, shift=0.1)
    assert make_codec(PixelsConfig(), 1) == Pixels(1)
    assert make_codec(described, 4) == Latents(None, 4, 2, picture_channels=1, scale=0.5, shift=0.1)
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
        with pytest.raises(UserError, match="this model generates latents, and unnoise does not read the autoencoder"):
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
