"""Files are recognised by the names of their tensors, and named where they are something else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers.checkpoints import SD1, UNETS, save, unet_tensors, whole
from unnoise.cli.main import main
from unnoise.errors import UserError
from unnoise.formats.single_file.contents import CLASSES, CLIP, OPEN_CLIP, contents_of, require, what_else
from unnoise.formats.single_file.describe import describe
from unnoise.model import load

UNET = "model.diffusion_model.input_blocks.0.0.weight"


def test_parts_are_found_by_their_prefixes() -> None:
    found = contents_of([UNET, "first_stage_model.x", "model_ema.diffusion_modelx", "betas", CLASSES, "a.b", "ztsnr"])
    assert (found.unet, found.vae, found.control) == ("model.diffusion_model.", "first_stage_model.", None)
    assert (found.ema, found.classes, found.towers, found.unread) == (True, True, (), ("a.b",))
    assert found.parts == ["U-Net", "autoencoder", "table of classes", "moving average of the U-Net (--ema)"]
    for prefix, kind in (
        ("cond_stage_model.transformer.text_model.", CLIP),
        ("cond_stage_model.transformer.", CLIP),
        ("cond_stage_model.model.", OPEN_CLIP),
        ("conditioner.embedders.0.model.", OPEN_CLIP),
    ):
        end = "embeddings.token_embedding.weight" if kind == CLIP else "token_embedding.weight"
        assert contents_of([prefix + end]).towers == ((prefix, kind),)


@pytest.mark.parametrize("name", UNETS)
def test_a_whole_model_is_described_from_its_shapes(name: str, tmp_path: Path) -> None:
    state = whole(name)
    if name == "classes":
        state[CLASSES] = torch.zeros(11, 64)
    found = describe(save(tmp_path / "x.safetensors", state))
    families = {
        "sd1": "Stable Diffusion 1", "inpainting": "Stable Diffusion 1", "xl": "Stable Diffusion XL",
        "refiner": "Stable Diffusion XL refiner", "classes": "latent diffusion with classes",
        "latent": "diffusion without text", "pixels": "diffusion without text",
    }  # fmt: skip
    assert found["family"] == families.get(name, "Stable Diffusion 2")
    with_text = name in ("sd1", "sd2", "xl", "refiner")
    missing = "tokenizer" if with_text else "text encoder, tokenizer"
    no_text = name in ("classes", "latent", "pixels")
    assert found["missing"] == ("autoencoder" if no_text else f"autoencoder, {missing}")
    assert ("CLIP" in found["contents"]) == with_text


def test_a_network_alone_needs_no_prefix(tmp_path: Path) -> None:
    file = save(tmp_path / "x.safetensors", unet_tensors(SD1, ""))
    assert describe(file)["contents"] == "U-Net"
    assert load(file).card.net.context == 64


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("lora_unet_down.alpha", "a LoRA"),
        ("unet.down_blocks.0.lora.up.weight", "a LoRA"),
        ("emb_params", "the embedding of a new word"),
        ("model.diffusion_model.double_blocks.0.weight", "a transformer"),
        ("joint_blocks.0.x", "Stable Diffusion 3"),
        ("edm_mean", "EDM's scaling"),
        ("down_blocks.0.resnets.0.conv1.weight", "with diffusers' names: put it in a folder"),
        ("emb_proj.weight", "the weights of an unnoise model"),
        ("text_model.final_layer_norm.weight", "a text encoder"),
        ("something", "of an unknown kind: its 1 tensors begin with something"),
    ],
)
def test_other_files_are_named(name: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kind in what_else([name])
    file = save(tmp_path / "x.safetensors", {name: torch.zeros(2)})
    if not name.startswith("model."):
        assert main(["info", str(file)]) == 0
        assert kind in capsys.readouterr().out
    with pytest.raises(UserError) as error:
        load(file)
    assert kind in str(error.value)
    assert main(["sample", str(file), "-o", str(tmp_path / "out")]) == 2
    assert str(file) in capsys.readouterr().err


def test_a_part_is_required_in_one_sentence() -> None:
    for names, part, message in (
        (["decoder.up.0.block.0.conv1.weight"], "unet", "there is an autoencoder, not a model: "),
        (["control_model.a"], "unet", "there is a ControlNet, not a model: add it to a model with --control-model"),
        ([UNET], "vae", "there is a model without an autoencoder"),
        ([UNET], "control", "there is a model without a ControlNet"),
    ):
        with pytest.raises(UserError, match=message):
            require(contents_of(names), part, names, "there")


def test_info_lists_what_a_file_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(save(tmp_path / "x.safetensors", whole("sd2")))]) == 0
    out = capsys.readouterr().out
    assert "Stable Diffusion 2" in out
    assert "U-Net, text encoder (OpenCLIP)" in out
    assert "autoencoder, tokenizer" in out
    broken = {name: tensor for name, tensor in whole("sd2").items() if not name.endswith("out.2.weight")}
    assert main(["info", str(save(tmp_path / "y.safetensors", broken))]) == 0
    assert "it cannot be loaded: " in capsys.readouterr().err
