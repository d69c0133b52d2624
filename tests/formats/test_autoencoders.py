"""Autoencoders compute what they compute in diffusers, in both directions; their files are checked before use."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from unnoise.config.autoencoders import AutoencoderConfig, KLConfig, TinyConfig, VQConfig
from unnoise.config.cards import AutoencoderCard, LatentsConfig, PreviewConfig
from unnoise.errors import UserError
from unnoise.formats import autoencoders
from unnoise.formats.autoencoders import AutoencoderModel, codec_of, is_autoencoder, load, read_card, write_diffusers
from unnoise.nn import build_autoencoder
from unnoise.noise import normal

theirs = pytest.importorskip("diffusers")

BLOCKS = {"block_out_channels": (8, 16), "norm_num_groups": 4, "sample_size": 16}
PLAIN = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2} | BLOCKS
ATTENDS = BLOCKS | {
    "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
    "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
}
TINY = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
TINY |= {"num_encoder_blocks": (1, 2), "num_decoder_blocks": (2, 1)}
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "kl": ("AutoencoderKL", PLAIN | {"layers_per_block": 2}),
    "kl, grey, three levels": (
        "AutoencoderKL",
        {"in_channels": 1, "out_channels": 1, "latent_channels": 3, "block_out_channels": (8, 8, 12)}
        | {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
        | {"norm_num_groups": 4},
    ),
    "kl, attention in a level": ("AutoencoderKL", ATTENDS | {"force_upcast": False}),
    "kl, sixteen channels": (
        "AutoencoderKL",
        PLAIN | {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False, "scaling_factor": 1.5}
        | {"shift_factor": 0.06, "mid_block_add_attention": False},
    ),
    "kl, channels of their own": (
        "AutoencoderKL",
        PLAIN | {"latents_mean": (0.1, -0.2, 0.3, 0.5), "latents_std": (1.0, 2.0, 0.5, 3.0), "scaling_factor": 1.0},
    ),
    "vq": ("VQModel", PLAIN | {"num_vq_embeddings": 23, "scaling_factor": 1.0}),
    "vq, two widths": ("VQModel", ATTENDS | {"num_vq_embeddings": 23, "vq_embed_dim": 5, "latent_channels": 4}),
    "tiny": ("AutoencoderTiny", TINY),
    "tiny, sixteen channels": ("AutoencoderTiny", TINY | {"latent_channels": 16, "scaling_factor": 0.5}),
}  # fmt: skip
OURS: dict[str, AutoencoderConfig] = {
    "kl": KLConfig(size=16, channels=(8, 16), blocks=1, attention=(False, True), groups=4, latent_channels=5),
    "kl, without 1x1 convolutions": KLConfig(
        size=16, channels=(8, 8), attention=(False,) * 2, groups=4, quant_conv=False, middle_attention=False
    ),
    "vq": VQConfig(size=16, channels=(8, 16), attention=(True, False), groups=4, codes=9, z_channels=6),
    "tiny": TinyConfig(width=8, encoder_blocks=(1, 0, 2), decoder_blocks=(2, 1, 1)),
}


def random_weights(net: nn.Module) -> nn.Module:
    """Weights that do not vanish, norms that are no identities, and a codebook as wide as latents are."""
    for name, parameter in net.named_parameters():
        parameter.data = 0.15 * normal(tuple(parameter.shape), name)
        if name.endswith("embedding.weight"):
            parameter.data *= 3
        elif "norm" in name and name.endswith("weight"):
            parameter.data += 1
    return net.eval().requires_grad_(False)


def made(name: str) -> Any:
    kind, settings = THEIRS[name]
    return random_weights(getattr(theirs, kind)(**settings))


def picture_for(channels: int, side: int = 24) -> torch.Tensor:
    return normal((2, channels, side, side + 8), "picture").clamp(-1, 1)


def agree(ours: Any, other: Any, channels: int) -> None:
    """Both encode and decode equally, to 1e-5 of the output's scale; of a distribution the mean, and a sample."""
    picture = picture_for(channels)
    found, encoded = ours.encode(picture), other.encode(picture)
    if hasattr(encoded, "latent_dist"):
        posterior = encoded.latent_dist
        noise = normal(tuple(posterior.mean.shape), "noise")
        latents, sampled = posterior.mode(), posterior.mean + posterior.std * noise
        assert (ours.encode(picture, noise) - sampled).abs().max() < 1e-5 * sampled.abs().max()
    else:
        latents = encoded.latents
    assert (found - latents).abs().max() < 1e-5 * latents.abs().max()
    want = other.decode(latents).sample
    assert (ours.decode(latents) - want).abs().max() < 1e-5 * want.abs().max()


@pytest.mark.parametrize("name", THEIRS)
def test_a_folder_of_diffusers_computes_the_same_here(name: str, tmp_path: Path) -> None:
    other = made(name)
    other.save_pretrained(tmp_path)
    assert is_autoencoder(tmp_path)
    agree(load(tmp_path).net, other, other.config.in_channels)


@pytest.mark.parametrize("name", OURS)
def test_a_folder_of_ours_computes_the_same_in_diffusers(name: str, tmp_path: Path) -> None:
    net = random_weights(build_autoencoder(OURS[name]))
    latents = LatentsConfig(factor=OURS[name].factor, picture_channels=3, scale=0.7)
    kind = write_diffusers(tmp_path, AutoencoderModel(net, AutoencoderCard(net=OURS[name], latents=latents)))
    other, keys = getattr(theirs, kind).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(keys.values()), keys
    assert other.config.scaling_factor == 0.7
    agree(net, other.eval(), 3)


@pytest.mark.parametrize("name", THEIRS)
def test_what_is_read_is_written_again(name: str, tmp_path: Path) -> None:
    """The same tensors, and the same meaning of every setting, in diffusers' form and in unnoise's."""
    made(name).save_pretrained(tmp_path / "theirs")
    one = load(tmp_path / "theirs")
    write_diffusers(tmp_path / "again", one)
    two = load(tmp_path / "again")
    file = "diffusion_pytorch_model.safetensors"
    a, b = (load_file(tmp_path / each / file) for each in ("theirs", "again"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert one.card == two.card
    one.save(tmp_path / "own")
    own = load(tmp_path / "own")
    assert own.card == one.card
    assert all(torch.equal(x, y) for x, y in zip(own.net.state_dict().values(), one.net.state_dict().values()))


def test_the_settings_of_diffusers_reach_the_card(tmp_path: Path) -> None:
    found = {}
    for name in THEIRS:
        made(name).save_pretrained(tmp_path / name)
        found[name] = read_card(tmp_path / name)
    assert found["kl"].latents == LatentsConfig(factor=2, picture_channels=3, scale=0.18215)
    assert found["kl"].force_upcast
    assert not found["kl, attention in a level"].force_upcast
    assert found["kl, sixteen channels"].latents == LatentsConfig(factor=2, picture_channels=3, scale=1.5, shift=0.06)
    mean, std = (0.1, -0.2, 0.3, 0.5), (1.0, 2.0, 0.5, 3.0)
    assert found["kl, channels of their own"].latents == LatentsConfig(
        factor=2, picture_channels=3, scale=1.0, mean=mean, std=std
    )
    assert found["kl, grey, three levels"].latents == LatentsConfig(factor=4, picture_channels=1, scale=0.18215)
    assert found["vq"].latents.scale == 1
    net = found["vq, two widths"].net
    assert isinstance(net, VQConfig)
    assert (net.latent_channels, net.z_channels, net.codes) == (5, 4, 23)


def test_old_names_of_attention_are_read(tmp_path: Path) -> None:
    other = made("kl, attention in a level")
    other.save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(file)
    for new, name in old.items():
        state = {key.replace(f".{new}.", f".{name}."): value for key, value in state.items()}
    assert any(".query." in key for key in state)
    save_file(state, file)
    agree(load(tmp_path).net, other, 3)


def test_a_variant_and_shards_are_read(tmp_path: Path) -> None:
    other = made("kl")
    other.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert (tmp_path / "sharded" / "diffusion_pytorch_model.safetensors.index.json").is_file()
    agree(load(tmp_path / "sharded").net, other, 3)
    other.half().save_pretrained(tmp_path / "half", variant="fp16")
    assert not (tmp_path / "half" / "diffusion_pytorch_model.safetensors").exists()
    agree(load(tmp_path / "half").net, other.float(), 3)


def test_a_pickle_is_opened_only_where_it_is_allowed(tmp_path: Path) -> None:
    other = made("vq")
    other.save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(UserError, match="is a pickle, which can run code"):
        load(tmp_path)
    agree(load(tmp_path, pickles=True).net, other, 3)


def test_a_missing_scale_is_stated(tmp_path: Path) -> None:
    """Stable Diffusion 1's own file lacks it, and means the class's default; LDM's VQ autoencoders had none."""
    for name, kind in (("kl", "AutoencoderKL"), ("vq", "VQModel")):
        made(name).save_pretrained(tmp_path / name)
        edit(tmp_path / name, scaling_factor=...)
        assert read_card(tmp_path / name).latents.scale == 0.18215
        (note,) = autoencoders.notes(tmp_path / name)
        assert f"{kind} by default are assumed: scaling_factor 0.18215" in note


def edit(folder: Path, **settings: Any) -> None:
    """Change settings of a config.json; `...` removes one."""
    file = folder / "config.json"
    data = json.loads(file.read_text()) | settings
    file.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}))


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "no setting of AutoencoderKL 'use_tanh'": ("kl", {"use_tanh": True}),
    "act_fn is 'gelu': only 'silu' or 'swish'": ("kl", {"act_fn": "gelu"}),
    "norm_type is 'spatial': only 'group'": ("vq", {"norm_type": "spatial"}),
    "lookup_from_codebook is True": ("vq", {"lookup_from_codebook": True}),
    "latent_magnitude is 4": ("tiny", {"latent_magnitude": 4}),
    "upsample_fn is 'bilinear'": ("tiny", {"upsample_fn": "bilinear"}),
    "one width for all levels": ("tiny", {"decoder_block_out_channels": [8, 16]}),
    "out_channels is 1: only 3, the in_channels,": ("kl", {"out_channels": 1}),
    "only attention at the same levels": ("kl", {"up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"]}),
    "latents_mean is .0.0.: only a list of 4 numbers": ("kl", {"latents_mean": [0.0]}),
    "shift_factor and latents_mean both": ("kl", {"latents_mean": [0.0] * 4, "shift_factor": 0.1}),
    "have to be above 0": ("kl", {"scaling_factor": 0}),
    "sample_size is .16, 32.": ("kl", {"sample_size": [16, 32]}),
    "only AutoencoderKL, VQModel, AutoencoderTiny": ("kl", {"_class_name": "AutoencoderDC"}),
    "block_out_channels is .8, 0.|block_out_channels is 0": ("kl", {"block_out_channels": [8, 0]}),
    "belong to different networks: .*is missing": ("kl", {"layers_per_block": 3}),
    "belong to different networks: .*instead of": ("kl", {"latent_channels": 8}),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_file_is_an_error_that_names_the_setting(message: str, tmp_path: Path) -> None:
    name, settings = WRONG[message]
    made(name).save_pretrained(tmp_path)
    edit(tmp_path, **settings)
    with pytest.raises(UserError, match=message) as refused:
        load(tmp_path)
    assert str(tmp_path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_card_whose_parts_disagree_is_refused(tmp_path: Path) -> None:
    net, config = random_weights(build_autoencoder(OURS["kl"])), OURS["kl"]
    right = AutoencoderCard(net=config, latents=LatentsConfig(factor=2, picture_channels=3))
    wrong = {
        "latents.factor 4": replace(right, latents=LatentsConfig(factor=4, picture_channels=3)),
        "latents.mean should have a number for each of 5": replace(
            right, latents=LatentsConfig(factor=2, picture_channels=3, mean=(1.0,))
        ),
        "latents.scale and latents.std should be above 0": replace(
            right, latents=LatentsConfig(factor=2, picture_channels=3, scale=0.0)
        ),
        "preview does not fit": replace(right, preview=PreviewConfig((1.0,), (0.0,))),
    }
    for i, (message, card) in enumerate(wrong.items()):
        AutoencoderModel(net, card).save(tmp_path / str(i))
        with pytest.raises(UserError, match=message):
            load(tmp_path / str(i))
    AutoencoderModel(net, right).save(tmp_path / "later")
    file = tmp_path / "later" / "autoencoder.json"
    file.write_text(file.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(UserError, match="update unnoise"):
        load(tmp_path / "later")


def test_latents_with_a_mean_are_scaled_as_the_pipeline_of_xl_does(tmp_path: Path) -> None:
    """diffusers decodes x std / scaling_factor + mean, and encodes (latents - mean) scaling_factor / std."""
    made("kl, channels of their own").save_pretrained(tmp_path)
    edit(tmp_path, scaling_factor=0.5)
    model = load(tmp_path)
    picture = picture_for(3)
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (model.card.latents.mean, model.card.latents.std))
    latents = model.net.encode(picture)
    x = model.codec.encode(picture)
    assert torch.allclose(x, (latents - mean) * 0.5 / std, atol=1e-5)
    want = model.net.decode(x * std / 0.5 + mean).clamp(-1, 1)
    assert torch.allclose(codec_of(model.net, model.card).decode(x), want, atol=1e-5)


@pytest.mark.skipif(not os.environ.get("UNNOISE_FULL_SIZE"), reason="a minute: make test-full")
def test_the_autoencoder_of_stable_diffusion_in_full_both_ways(tmp_path: Path) -> None:
    levels = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    other = random_weights(
        theirs.AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512, **levels)
    )
    other.save_pretrained(tmp_path / "theirs")
    ours = load(tmp_path / "theirs")
    assert ours.card.net == KLConfig(size=512)
    write_diffusers(tmp_path / "ours", ours)
    back = theirs.AutoencoderKL.from_pretrained(tmp_path / "ours").eval()
    picture = picture_for(3, 64)[:1]
    for judge in (other, back):
        latents, found = judge.encode(picture).latent_dist.mode(), ours.net.encode(picture)
        assert (found - latents).abs().max() < 1e-5 * latents.abs().max()
        want = judge.decode(latents).sample
        assert (ours.net.decode(latents) - want).abs().max() < 1e-5 * want.abs().max()
