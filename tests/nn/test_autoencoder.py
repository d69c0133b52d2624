"""Autoencoders: published sizes, asymmetric steps down, the noise of a sample, the nearest vector of a codebook."""

from __future__ import annotations

from dataclasses import replace
from math import exp

import pytest
import torch

from unnoise import nn as networks
from unnoise.config.autoencoders import AutoencoderConfig, KLConfig, TinyConfig, VQConfig
from unnoise.config.cards import AutoencoderCard, PreviewConfig
from unnoise.config.convert import from_dict, to_dict
from unnoise.errors import UserError
from unnoise.nn import AutoencoderKL, AutoencoderTiny, VQModel, build_autoencoder
from unnoise.nn.autoencoder import Posterior
from unnoise.nn.vq_autoencoder import Codebook
from unnoise.noise import normal

KL = KLConfig(size=16, channels=(8, 16), blocks=1, attention=(False, True), groups=4)
VQ = VQConfig(size=16, latent_channels=3, codes=11, channels=(8, 16), blocks=1, attention=(False, False), groups=4)
TINY = TinyConfig(width=8, encoder_blocks=(1, 1), decoder_blocks=(1, 1))
SMALL: dict[str, AutoencoderConfig] = {"kl": KL, "vq": VQ, "tiny": TINY}
PUBLISHED: dict[int, AutoencoderConfig] = {  # parameters: Rombach et al. 2022 (their released weights), Bohan 2023
    83_653_863: KLConfig(),  # Stable Diffusion 1, 2, XL
    83_819_683: KLConfig(latent_channels=16, quant_conv=False, post_quant_conv=False),  # Stable Diffusion 3
    55_322_782: VQConfig(),  # LDM's VQ-f4
    2_445_063: TinyConfig(),  # TAESD
}


@pytest.mark.parametrize("count", PUBLISHED)
def test_the_published_networks_have_their_number_of_parameters(count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in build_autoencoder(PUBLISHED[count]).parameters()) == count


@pytest.mark.parametrize("kind", SMALL)
def test_shapes_of_any_size(kind: str) -> None:
    """Latents of H x W are the picture of factor H x factor W, odd ones too; pixels beyond a multiple are lost."""
    net, channels = build_autoencoder(SMALL[kind]), SMALL[kind].latent_channels
    for height, width in ((8, 8), (3, 5), (1, 7)):
        latents = net.encode(normal((2, 3, 2 * height, 2 * width), "picture"))
        assert latents.shape == (2, channels, height, width)
        assert net.decode(latents).shape == (2, 3, 2 * height, 2 * width)
    if kind != "tiny":
        assert net.encode(normal((1, 3, 9, 11), "picture")).shape == (1, channels, 4, 5)


@pytest.mark.parametrize("kind", SMALL)
def test_a_row_does_not_depend_on_the_others(kind: str) -> None:
    net = build_autoencoder(SMALL[kind])
    picture = normal((3, 3, 16, 16), "picture")
    for whole, alone in ((net.encode(picture), net.encode(picture[1:2])),):
        assert torch.allclose(whole[1:2], alone, atol=1e-6)
        assert torch.allclose(net.decode(whole)[1:2], net.decode(alone), atol=1e-5)


@pytest.mark.parametrize("kind", SMALL)
def test_a_card_is_read_back(kind: str) -> None:
    card = AutoencoderCard(net=SMALL[kind], preview=PreviewConfig((0.5,) * 12, (0.0, 1.0, 2.0)))
    assert from_dict(AutoencoderCard, to_dict(card)) == card


def test_a_step_down_pads_at_the_right_and_the_bottom() -> None:
    """A tap of the step at row 2 i + a reads pixel 2 i + a, so that the first tap is the pixel itself."""
    down = build_autoencoder(KL).get_submodule("encoder.down_blocks.0.step")
    weight = torch.zeros(8, 8, 3, 3)
    weight[0, 0] = torch.arange(1.0, 10.0).view(3, 3)
    down.load_state_dict({"conv.weight": weight, "conv.bias": torch.zeros(8)})
    for row, column in ((0, 0), (4, 6), (5, 3), (7, 7)):
        pixel = torch.zeros(1, 8, 8, 8)
        pixel[0, 0, row, column] = 1
        want = torch.zeros(4, 4)
        for i in range(4):
            for j in range(4):
                if 0 <= row - 2 * i <= 2 and 0 <= column - 2 * j <= 2:
                    want[i, j] = 1 + 3 * (row - 2 * i) + column - 2 * j
        assert torch.equal(down(pixel)[0, 0], want)


def test_noise_acts_by_the_deviation_within_the_clamp() -> None:
    logvar = torch.tensor([-100.0, -30.0, 0.0, 2.0, 20.0, 100.0]).view(1, 6, 1, 1)
    net = AutoencoderKL(replace(KL, latent_channels=6, quant_conv=False))
    bias = torch.cat([torch.arange(6.0), logvar.flatten()])
    net.encoder.conv_out.load_state_dict({"weight": torch.zeros(12, 16, 3, 3), "bias": bias})
    picture = torch.zeros(1, 3, 2, 2)
    mean = torch.arange(6.0).view(1, 6, 1, 1)
    assert torch.equal(net.encode(picture), mean)
    deviation = [exp(x / 2) for x in (-30, -30, 0, 2, 20, 20)]
    found = net.encode(picture, torch.full((1, 6, 1, 1), -2.0, dtype=torch.float64)) - mean
    assert torch.allclose(found.flatten(), -2 * torch.tensor(deviation), rtol=1e-5, atol=1e-6)
    assert torch.equal(net.encode(picture, torch.zeros(1, 6, 1, 1)), mean)


def test_samples_have_the_moments_of_the_posterior() -> None:
    noise = normal((100_000, 1, 1, 1), "noise")
    samples = Posterior(torch.tensor(1.5), torch.tensor(2 * -0.7)).sample(noise)
    assert (samples.mean() - 1.5).abs() < 0.01
    assert (samples.std() / exp(-0.7) - 1).abs() < 0.01


def test_the_quantizer_takes_the_nearest_vector_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    book = Codebook(37, 3)
    book.embedding.weight.data = normal((37, 3), "codebook") * torch.linspace(0.1, 3, 37)[:, None]
    latents = normal((2, 3, 5, 4), "latents")
    distances = (latents[:, None] - book.embedding.weight[None, :, :, None, None]).square().sum(dim=2)
    nearest = distances.argmin(dim=1)
    assert torch.equal(book.nearest(latents), nearest)
    monkeypatch.setattr("unnoise.nn.vq_autoencoder.PIECE", 37 * 3)  # three pixels at once
    assert torch.equal(book.nearest(latents), nearest)
    assert torch.allclose(book(latents), book.embedding.weight[nearest].permute(0, 3, 1, 2), atol=1e-6)
    entries = book.embedding.weight.view(37, 3, 1, 1)
    assert torch.equal(book.nearest(entries).flatten(), torch.arange(37))


def test_the_gradient_passes_through_the_quantizer() -> None:
    book, latents = Codebook(5, 3), normal((1, 3, 2, 2), "latents").requires_grad_()
    weights = normal((1, 3, 2, 2), "weights")
    (book(latents) * weights).sum().backward()
    assert torch.equal(latents.grad, weights)
    assert book.embedding.weight.grad is None


def test_latents_of_a_codebook_are_quantized_by_the_decoder() -> None:
    """A small change of the latents, less than to another vector, changes the picture in nothing."""
    net = VQModel(replace(VQ, codes=2))
    net.quantize.embedding.weight.data = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]])
    latents = normal((1, 3, 4, 4), "latents")
    sign = torch.where(latents[:, :1] > 0, 1.0, -1.0)
    assert torch.allclose(net.decode(latents), net.decode(torch.cat([sign, 0 * latents[:, 1:]], 1)), atol=1e-6)
    assert net.encode(normal((1, 3, 8, 8), "picture")).flatten().unique().numel() > 6  # the encoder's are not
    picture = normal((1, 3, 8, 8), "picture")
    assert torch.equal(net.encode(picture, normal((1, 3, 4, 4), "noise")), net.encode(picture))


def test_a_pixel_of_the_tiny_network_depends_on_latents_nearby() -> None:
    net = AutoencoderTiny(TINY)
    latents = normal((1, 4, 24, 4), "latents")
    other = torch.cat([latents[:, :, :18], 5 * latents[:, :, 18:]], dim=2)
    a, b = net.decode(latents), net.decode(other)
    assert torch.equal(a[:, :, :16], b[:, :, :16])
    assert not torch.equal(a[:, :, 34:], b[:, :, 34:])


@pytest.mark.parametrize("kind", SMALL)
def test_inputs_are_cast_to_the_weights(kind: str) -> None:
    net = build_autoencoder(SMALL[kind]).double()
    latents = net.encode(torch.zeros(1, 3, 8, 8))
    assert latents.dtype == net.decode(latents.float()).dtype == torch.float64


def test_a_level_attends_where_the_configuration_says() -> None:
    def attends(net: torch.nn.Module) -> set[str]:
        return {name for name, _ in net.named_modules() if name.endswith(".attention")}

    assert attends(AutoencoderKL(replace(KL, attention=(False, False), middle_attention=False))) == set()
    assert attends(AutoencoderKL(KL)) == {
        "encoder.down_blocks.1.blocks.0.attention",
        "encoder.mid_block.blocks.0.attention",
        "decoder.mid_block.blocks.0.attention",
        "decoder.up_blocks.0.blocks.0.attention",
        "decoder.up_blocks.0.blocks.1.attention",
    }


WRONG: dict[str, AutoencoderConfig] = {
    "channels 8 are not divisible by groups 3": replace(KL, groups=3),
    "attention must be true or false for each of the 2 levels": replace(KL, attention=(False,)),
    "channels must be a width for each level": replace(VQ, channels=(), attention=()),
    "latent_channels must be at least 1": replace(KL, latent_channels=0),
    "codes must be at least 1": replace(VQ, codes=0),
    "more than 1,024": replace(KL, blocks=300),
    "must each have a number for each level": replace(TINY, decoder_blocks=(1,)),
    "width must be at least 1": replace(TINY, width=0),
}


@pytest.mark.parametrize("message", WRONG)
def test_an_invalid_configuration_is_an_error_that_names_the_setting(message: str) -> None:
    with pytest.raises(UserError, match=message):
        networks.build_autoencoder(WRONG[message])


def test_a_configuration_of_a_file_is_checked_before_it_is_built() -> None:
    wrong = to_dict(AutoencoderCard(net=VQ))
    wrong["net"]["codes"] = 10**12
    with pytest.raises(UserError, match=r"net\.codes: should be from 1 to"):
        from_dict(AutoencoderCard, wrong)
