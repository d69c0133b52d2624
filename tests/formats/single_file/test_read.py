"""Checkpoint files of random weights are read as the diffusers folders that diffusers' converter makes of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.formats.single_file.test_autoencoder import settings as autoencoder_settings
from tests.formats.single_file.test_infer import meaning
from tests.helpers.checkpoints import KL, SD1, UNETS, VQ, random_tensors, save, unet_tensors, vae_tensors, whole
from tests.nn.test_clip import small_tokenizer
from unnoise.conditions import Cond
from unnoise.config.cards import LatentsConfig
from unnoise.config.networks import ControlConfig
from unnoise.errors import UserError
from unnoise.formats import controlnet, names, unet2d_condition
from unnoise.formats.single_file import entries, unet
from unnoise.formats.single_file.contents import CLASSES
from unnoise.formats.single_file.read import averaged
from unnoise.model import Model, load
from unnoise.noise import normal

theirs = pytest.importorskip("diffusers")
converter: Any = pytest.importorskip("diffusers.loaders.single_file_utils")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with CLIP's tokenizer in tokenizer/, beside which checkpoint files are read."""
    small_tokenizer(tmp_path / "tokenizer")
    return tmp_path


def inputs(name: str) -> tuple[torch.Tensor, Cond]:
    config = UNETS[name]
    cond = Cond(text=normal((2, 5, config.context), "text"))
    if config.vector:
        cond = Cond(text=cond.text, pooled=normal((2, config.vector), "pooled"))
    if config.values:
        cond = Cond(text=cond.text, pooled=cond.pooled, value=torch.tensor([[512.0, 512, 0, 0, 512, 512]] * 2))
    if config.classes:
        cond = Cond(text=cond.text, label=torch.tensor([1, 3]))
    return normal((2, config.in_channels, 8, 8), "x"), cond


@pytest.mark.parametrize("name", ["sd1", "sd2", "xl", "inpainting", "unclip", "upscaler"])
@torch.no_grad()
def test_a_network_computes_what_diffusers_does_with_the_converted_tensors(name: str, folder: Path) -> None:
    file = save(folder / f"{name}.safetensors", whole(name))
    model = load(file)
    settings = unet2d_condition.to_config(UNETS[name])
    net = theirs.UNet2DConditionModel(**settings)
    net.load_state_dict(converter.convert_ldm_unet_checkpoint(load_file(file), settings))
    x, cond = inputs(name)
    beside = normal((2, UNETS[name].concat_channels, 8, 8), "beside")
    more: dict[str, Any] = {}
    if cond.value is not None:
        more["added_cond_kwargs"] = {"text_embeds": cond.pooled, "time_ids": cond.value}
    elif cond.pooled is not None or cond.label is not None:
        more["class_labels"] = cond.pooled if cond.label is None else cond.label
    right = net.eval()(torch.cat([x, beside], dim=1), 7, encoder_hidden_states=cond.text, **more).sample
    cond = replace(cond, concat=beside) if beside.numel() else cond
    got = model.diffusion.net(x, torch.tensor([7.0, 7.0]), model.diffusion.net.encode(cond))
    assert (got - right).abs().max() < 1e-5 * right.abs().max()


@pytest.mark.parametrize("name", UNETS)
def test_settings_are_inferred(name: str, folder: Path) -> None:
    state = whole(name)
    if name == "classes":
        state[CLASSES] = random_tensors({"": (11, 64)})[""]
    model = load(save(folder / f"{name}.safetensors", state))
    assert meaning(model.card.net) == meaning(UNETS[name])
    v = name in ("sd2", "unclip", "upscaler")
    assert model.card.process.predicts == ("v" if v else "eps")
    assert model.card.size == {"xl": (128, 128), "refiner": (128, 128)}.get(name, (96, 96) if v else (64, 64))
    assert model.card.process.learned_variance == (name == "pixels")


@torch.no_grad()
def test_a_whole_model_samples_from_a_prompt(folder: Path) -> None:
    """Half precision is read as float32; the embeddings of XL are those of both towers, side by side."""
    for name, width in (("sd1", 64), ("sd2", 128), ("xl", 192), ("refiner", 128)):
        state = {key: value.half() if value.is_floating_point() else value for key, value in whole(name).items()}
        model = load(save(folder / f"{name}.safetensors", state, **{"modelspec.resolution": "64x64"}))
        assert {parameter.dtype for parameter in model.diffusion.parameters()} == {torch.float32}
        cond = model.conditioner.encode((), ["a red cat"])
        assert cond.text is not None
        assert cond.text.shape == (1, 77, width)
        assert (cond.pooled is None) == (name in ("sd1", "sd2"))
        if name == "sd1":
            pixels = model.sample(prompts="a red cat", steps=1).pixels
            assert pixels.isfinite().all()


def test_padding_of_openclip_is_token_zero(folder: Path) -> None:
    model = load(save(folder / "xl.safetensors", whole("xl")))
    first, second = (part.tokens(["a"])[0, -1].item() for part in model.text.parts)  # type: ignore[union-attr]
    assert (first, second) == (599, 0)


def test_the_last_block_of_the_second_version_is_not_used(folder: Path) -> None:
    state = whole("sd2")
    before = load(save(folder / "a.safetensors", state)).conditioner.encode((), ["a red cat"]).text
    for name in state:
        if "resblocks.2." in name:
            state[name] = state[name] + 1
    after = load(save(folder / "b.safetensors", state)).conditioner.encode((), ["a red cat"]).text
    assert before is not None
    assert after is not None
    assert torch.equal(before, after)


# --- autoencoders ---


@pytest.mark.parametrize("name", ["sd1", "xl"])
@torch.no_grad()
def test_the_autoencoder_computes_what_diffusers_does(name: str, folder: Path) -> None:
    """The scale of the latents is that of the family, which no tensor shows, or the training code's own."""
    state = whole(name) | vae_tensors(KL) | {"first_stage_model.loss.logvar": torch.zeros(())}
    model = load(save(folder / "x.safetensors", state))
    net = theirs.AutoencoderKL(**autoencoder_settings(KL))
    net.load_state_dict(converter.convert_ldm_vae_checkpoint(state, autoencoder_settings(KL)))
    picture, x = normal((1, 3, 32, 32), "picture"), normal((1, 4, 4, 4), "x")
    scale = 0.13025 if name == "xl" else 0.18215
    right = scale * net.encode(picture).latent_dist.mean
    assert (model.codec.encode(picture) - right).abs().max() < 1e-5 * right.abs().max()
    right = net.decode(x / scale).sample.clamp(-1, 1)
    assert (model.codec.decode(x) - right).abs().max() < 1e-5 * right.abs().max()
    state["scale_factor"] = torch.tensor(0.5)
    own = load(save(folder / "y.safetensors", state))
    assert own.card.codec.scale == 0.5  # type: ignore[union-attr]


def test_a_file_of_an_autoencoder_is_used_in_place_of_the_model_s(folder: Path) -> None:
    file = save(folder / "x.safetensors", whole("sd1"), **{"modelspec.resolution": "64x64"})
    bare = vae_tensors(KL, "", seed=9) | {"model_ema.decoderx": torch.zeros(1), "loss.logvar": torch.zeros(1)}
    vae = save(folder / "vae.safetensors", bare)
    assert load(file).latent_only
    model = load(file, vae=vae)
    assert model.autoencoder is not None
    assert torch.equal(model.autoencoder.net.state_dict()["quant_conv.bias"], bare["quant_conv.bias"])
    assert model.sample(prompts="a red cat", steps=1).array().shape == (1, 64, 64, 3)
    model.autoencoder.save(folder / "saved")
    again = load(file, vae=folder / "saved")
    assert again.codec.decode(torch.ones(1, 4, 2, 2)).equal(model.codec.decode(torch.ones(1, 4, 2, 2)))
    with pytest.raises(UserError, match="is an autoencoder, not a model: "):
        load(vae)
    with pytest.raises(UserError, match="is a model without an autoencoder"):
        load(file, vae=file)
    wrong = save(folder / "wrong.safetensors", vae_tensors(VQ, ""))
    with pytest.raises(UserError, match="latents of 3 channels and the model x of 4"):
        load(file, vae=wrong)


def test_a_codebook_is_read_with_a_model_of_its_latents(folder: Path) -> None:
    state = unet_tensors(UNETS["latent"]) | vae_tensors(VQ)
    model = load(save(folder / "x.safetensors", state))
    assert model.card.codec == LatentsConfig(factor=4, scale=1.0)
    assert torch.equal(
        model.autoencoder.net.state_dict()["quantize.embedding.weight"],  # type: ignore[union-attr]
        state["first_stage_model.quantize.embedding.weight"],
    )
    assert model.card.process.schedule_options == {"begin": 0.0015, "end": 0.0195}


# --- options ---


def test_the_moving_average_is_read_on_request(folder: Path) -> None:
    plain, mean = unet_tensors(SD1, ""), unet_tensors(SD1, "", seed=5)
    state = {f"model.diffusion_model.{name}": tensor for name, tensor in plain.items()}
    state |= {averaged(name): tensor for name, tensor in mean.items()}
    state["model_ema.decay"], state["model_ema.num_updates"] = torch.tensor(0.99), torch.tensor(3)
    file = save(folder / "x.safetensors", state)
    first = load(file)
    assert any("--ema reads it" in note for note in first.card.notes)
    assert torch.equal(first.diffusion.net.conv_in.weight, plain["input_blocks.0.0.weight"])
    second = load(file, ema=True)
    assert torch.equal(second.diffusion.net.conv_in.weight, mean["input_blocks.0.0.weight"])
    assert averaged("input_blocks.0.0.weight") == "model_ema.diffusion_modelinput_blocks00weight"
    config = unet2d_condition.to_config(SD1)
    right = converter.convert_ldm_unet_checkpoint(state, config, extract_ema=True)
    own = names.split(names.pieces_of(SD1), second.diffusion.net.state_dict())
    assert all(torch.equal(own[name], right[name]) for name in right)
    del state["model_ema.diffusion_modelout2bias"]
    with pytest.raises(UserError, match=r"out\.2\.bias is missing"):
        load(save(file, state), ema=True)
    with pytest.raises(UserError, match="has no moving average: leave --ema out"):
        load(save(folder / "y.safetensors", whole("inpainting")), ema=True)


def test_a_prediction_is_chosen_or_stated_by_the_file(folder: Path) -> None:
    state = unet_tensors(UNETS["sd2"])
    plain = load(save(folder / "x.safetensors", state))
    assert any("v is assumed; for the other: unnoise export" in note for note in plain.card.notes)
    assert load(folder / "x.safetensors", predicts="eps").card.process.predicts == "eps"
    stated = load(save(folder / "y.safetensors", state, **{"modelspec.prediction_type": "epsilon"}))
    assert (stated.card.process.predicts, stated.card.size, stated.card.notes) == ("eps", (64, 64), ())
    state |= {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    zero = load(save(folder / "z.safetensors", state))
    assert (zero.card.process.predicts, zero.card.process.zero_snr) == ("v", True)
    with pytest.raises(UserError, match="--predicts x0: a checkpoint file predicts eps or v"):
        load(folder / "x.safetensors", predicts="x0")


def test_a_size_is_read_from_the_metadata(folder: Path) -> None:
    state = unet_tensors(SD1)
    for stated, size in (("768x512", (64, 96)), ("x", (64, 64)), ("13x8", (64, 64)), ("1e9x1", (64, 64))):
        model = load(save(folder / "x.safetensors", state, **{"modelspec.resolution": stated}))
        assert model.card.size == size


# --- errors ---

PARTS = ["model.diffusion_model.", "conditioner.embedders.0.", "conditioner.embedders.1.", "first_stage_model."]


@pytest.mark.parametrize("part", PARTS)
def test_every_tensor_is_needed_and_no_other_accepted(part: str, folder: Path) -> None:
    state = whole("xl") | vae_tensors(KL)
    own = sorted(name for name in state if name.startswith(part))
    for name in own[:: max(1, len(own) // 12)]:
        for other in ({}, {name + "x": state[name]}, {name: torch.zeros(*state[name].shape, 2)}):
            changed = {key: value for key, value in state.items() if key != name} | other
            with pytest.raises(UserError) as error:
                load(save(folder / "x.safetensors", changed))
            assert str(folder / "x.safetensors") in str(error.value), name


def test_unknown_tensors_are_named_and_counted(folder: Path) -> None:
    state = whole("sd1")
    more = {f"model.diffusion_model.adapter.{i}.weight": torch.zeros(1) for i in range(9)}
    with pytest.raises(UserError, match=r"adapter\.0\.weight is unknown; .*; and 5 more"):
        load(save(folder / "x.safetensors", state | more))
    model = load(save(folder / "x.safetensors", state | {"somewhere.else": torch.zeros(1)}))
    assert any("1 tensors are not read: somewhere.else" in note for note in model.card.notes)


def test_a_missing_tokenizer_and_other_parts_are_reported(tmp_path: Path) -> None:
    file = save(tmp_path / "x.safetensors", whole("sd1"))
    with pytest.raises(UserError, match=r"is in no checkpoint file: put CLIP's tokenizer .* or give its folder once"):
        load(file)
    small_tokenizer(tmp_path / "elsewhere")
    model = load(file, tokenizer=tmp_path / "elsewhere")
    assert model.text is not None
    model.save(tmp_path / "saved")
    with pytest.raises(UserError, match=r"are options of a checkpoint file, and .*saved is a folder: leave them out"):
        load(tmp_path / "saved", tokenizer=tmp_path / "elsewhere")
    other = unet_tensors(UNETS["sd2"]) | {k: v for k, v in whole("sd1").items() if k.startswith("cond_stage")}
    with pytest.raises(UserError, match="embeddings of width 64, and the U-Net needs 128: its parts belong"):
        load(save(tmp_path / "y.safetensors", other), tokenizer=tmp_path / "elsewhere")


# --- controls ---


@pytest.mark.parametrize("prefix", ["control_model.", ""])
def test_a_control_file_is_added_to_a_network(prefix: str, folder: Path) -> None:
    how = ControlConfig(hint=(8, 16), scale=2)
    shapes = names.wanted(controlnet.table_of(SD1, how))
    state = random_tensors(entries.wanted(unet.controlnet(SD1, how, shapes)), seed=3)
    file = save(folder / "control.safetensors", {prefix + name: tensor for name, tensor in state.items()})
    model = load(save(folder / "x.safetensors", whole("sd1"))).with_controlnets(file)
    assert model.controls == (how,)
    assert torch.equal(
        model.diffusion.net.state_dict()["controls.0.zero_middle.bias"], state["middle_block_out.0.bias"]
    )
    with pytest.raises(UserError, match=r"is a ControlNet, not a model: add it to a model with --control-model"):
        load(file)
    with pytest.raises(UserError, match=r"the tensors of .* are not those of"):
        Model.with_controlnets(load(save(folder / "y.safetensors", unet_tensors(UNETS["sd2"]))), file)
