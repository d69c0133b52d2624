"""diffusers is the judge: the same weights give the same numbers, in both directions, whatever the settings.

Every weight is random, those that are zero at birth and the norms' too, so that nothing hides behind a zero.
"""

from __future__ import annotations

import inspect
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.helpers.random_weights import randomised
from unnoise.conditions import Cond
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import UNetConfig, height_width
from unnoise.errors import UserError
from unnoise.formats import diffusers as ours
from unnoise.formats import schedulers, unet2d
from unnoise.formats.files import Tensors
from unnoise.nn import UNet
from unnoise.noise import normal
from unnoise.schedules import make_schedule

theirs = pytest.importorskip("diffusers")

GOOGLE = {  # the settings of google/ddpm-cifar10-32, ddpm-celebahq-256 and ddpm-ema-church-256, and those missing there
    "act_fn": "silu",
    "attention_head_dim": None,
    "center_input_sample": False,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "out_channels": 3,
    "time_embedding_type": "positional",
}
CIFAR = GOOGLE | {
    "block_out_channels": [8, 16, 16, 16],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "norm_num_groups": 4,
    "sample_size": 16,
}
CELEBA_CHURCH = GOOGLE | {
    "block_out_channels": [8, 8, 16, 16, 24, 24],
    "down_block_types": ["DownBlock2D"] * 4 + ["AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D"] + ["UpBlock2D"] * 4,
    "norm_num_groups": 4,
    "sample_size": 64,
}
GREY = {  # diffusers' own defaults: cosine first, no shift, padding 1, heads of 8, eps 1e-5
    "sample_size": 28,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "norm_num_groups": 4,
}
ADM = GREY | {
    "block_out_channels": [8, 16, 16],
    "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"],
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "resnet_time_scale_shift": "scale_shift",
    "attn_norm_num_groups": 4,
    "num_class_embeds": 5,
    "attention_head_dim": 4,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "cifar10": CIFAR,
    "celebahq and church": CELEBA_CHURCH,
    "old names of blocks": CIFAR | {"down_block_types": [f"UNetRes{n}" for n in CIFAR["down_block_types"]]},
    "grey 28x28": GREY,
    "classes": GREY | {"num_class_embeds": 11},
    "scale shift": GREY | {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4},
    "heads of 4": GREY | {"attention_head_dim": 4},
    "one head": GREY | {"attention_head_dim": None},
    "sines first, padding 1": CIFAR | {"downsample_padding": 1},
    "cosines first, padding 0": CIFAR | {"flip_sin_to_cos": True},
    "no shift": CIFAR | {"freq_shift": 0},
    "no middle attention": GREY | {"add_attention": False},
    "norms eps": CIFAR | {"norm_eps": 0.1},
    "one level": GREY | {"block_out_channels": [8], "down_block_types": ["AttnDownBlock2D"]}
    | {"up_block_types": ["AttnUpBlock2D"]},
    "dropout": GREY | {"dropout": 0.25},
    "four blocks": GREY | {"layers_per_block": 4},
    "a number": GREY | {"class_embed_type": "timestep"},
    "a joined picture": GREY | {"in_channels": 3},
    "a number, and a joined picture": GREY | {"class_embed_type": "timestep", "in_channels": 2},
    "taller than wide": GREY | {"sample_size": [28, 20]},
    "adm": ADM,
    "adm, plain where there is no step": ADM
    | {"down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D", "DownBlock2D"]}
    | {"up_block_types": ["ResnetUpsampleBlock2D", "AttnUpBlock2D", "UpBlock2D"]},
}  # fmt: skip
TIMES = torch.tensor([0.0, 999.0, 137.0])
LABELS = torch.tensor([4, 0, 1])


def judge(config: dict[str, Any]) -> Any:
    plain = dict(config)
    for key in ("down_block_types", "up_block_types"):
        plain[key] = [name.removeprefix("UNetRes") for name in plain[key]]
    return randomised(theirs.UNet2DModel(**plain))


def pictures(config: UNetConfig) -> Tensor:
    return normal((len(TIMES), config.in_channels, *height_width(config.size)), "pictures")


def joined(config: UNetConfig) -> Tensor:
    return normal((len(TIMES), config.concat_channels, *height_width(config.size)), "joined")


@torch.no_grad()
def answer(config: UNetConfig, state: dict[str, Tensor]) -> Tensor:
    net = UNet(config).eval()
    net.load_state_dict(state)
    cond = Cond(
        label=LABELS if config.classes else None,
        value=LABELS[:, None].float() if config.values else None,
        concat=joined(config) if config.concat_channels else None,
    )
    out: Tensor = net(pictures(config), TIMES, cond)
    return out


@torch.no_grad()
def verdict(net: Any, config: UNetConfig) -> Tensor:
    labels = LABELS if config.classes or config.values else None
    x = torch.cat([pictures(config), joined(config)], dim=1)
    out: Tensor = net(x, TIMES, class_labels=labels).sample
    return out


def saved(net: Any, folder: Path, config: dict[str, Any]) -> Path:
    """As diffusers saves it, with the settings as given: missing settings are not in the file."""
    net.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"} | config))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small network as diffusers saves it."""
    return saved(judge(GREY), tmp_path / "theirs", GREY)


def complain(folder: Path, **settings: Any) -> str:
    """The error for these settings, or without those that are `...`."""
    file = folder / "config.json"
    data = json.loads(file.read_text()) | settings
    file.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}))
    with pytest.raises(UserError) as error:
        ours.read(folder)
    return str(error.value)


# --- the same numbers ---


@pytest.mark.parametrize("name", CONFIGS)
def test_networks_saved_by_diffusers_compute_the_same_here(name: str, tmp_path: Path) -> None:
    net = judge(CONFIGS[name])
    config, state, _, _ = ours.read(saved(net, tmp_path / "theirs", CONFIGS[name]))
    expected = verdict(net, config)
    assert expected.std() > 0.1  # the output is not zero
    torch.testing.assert_close(answer(config, state), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_networks_written_here_compute_the_same_in_diffusers(name: str, tmp_path: Path) -> None:
    config = unet2d.from_config(CONFIGS[name], "test")
    net = randomised(UNet(config))
    names = tuple(f"class {i}" for i in range(config.classes))
    ours.write(tmp_path / "ours", config, net.state_dict(), DiffusionConfig(), names)
    loaded, report = theirs.UNet2DModel.from_pretrained(tmp_path / "ours" / "unet", output_loading_info=True)
    assert not any(report.values()), report
    expected = answer(config, net.state_dict())
    assert expected.std() > 0.1
    torch.testing.assert_close(verdict(loaded.eval(), config), expected, atol=1e-5, rtol=0)


def test_the_cifar10_network_in_full(tmp_path: Path) -> None:
    settings = CIFAR | {"block_out_channels": [128, 256, 256, 256], "norm_num_groups": 32, "sample_size": 32}
    net = judge(settings)
    config, state, _, _ = ours.read(saved(net, tmp_path, settings))
    assert config == UNetConfig(null_class=False)
    assert sum(tensor.numel() for tensor in state.values()) == 35_746_307
    torch.testing.assert_close(answer(config, state), verdict(net, config), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_settings_and_weights_survive_a_round_trip(name: str, tmp_path: Path) -> None:
    config = unet2d.from_config(CONFIGS[name], "test")
    if config.classes:
        config = replace(config, classes=config.classes - 1, null_class=True)
    state = randomised(UNet(config)).state_dict()
    names = tuple(f"class {i}" for i in range(config.classes))
    ours.write(tmp_path / "ours", config, state, DiffusionConfig(), names)
    again, weights, process, hints = ours.read(tmp_path / "ours")
    assert again == config
    assert process == DiffusionConfig()
    assert hints["classes"] == names
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[name], state[name]) for name in state)


@pytest.mark.parametrize("name", CONFIGS)
def test_settings_are_written_as_they_were_read(name: str) -> None:
    written = unet2d.to_config(unet2d.from_config(CONFIGS[name], "test"))
    kinds = ("down_block_types", "up_block_types")  # where a level has no step, two kinds are one
    assert {key: written[key] for key in CONFIGS[name] if key not in kinds} == {
        key: value for key, value in CONFIGS[name].items() if key not in kinds
    }
    assert [kind.startswith("Attn") for kind in written["down_block_types"]] == [
        "Attn" in kind for kind in CONFIGS[name]["down_block_types"]
    ]


def test_a_number_of_heads_is_written_as_a_width_where_there_is_one(tmp_path: Path) -> None:
    config = UNetConfig(size=8, channels=(8, 16), attention=(False, True), heads=4, groups=4, blocks=1)
    net = randomised(UNet(config))
    ours.write(tmp_path / "ours", config, net.state_dict(), DiffusionConfig())
    loaded = theirs.UNet2DModel.from_pretrained(tmp_path / "ours" / "unet").eval()
    torch.testing.assert_close(verdict(loaded, config), answer(config, net.state_dict()), atol=1e-5, rtol=0)
    with pytest.raises(UserError, match="4 heads are 2, 4 wide"):
        unet2d.to_config(replace(config, attention=(True, True)))


def test_a_scheduler_without_clipping_is_eulers_own() -> None:
    """clip_sample is of DDPM and DDIM: it stands in XL's published file, and Euler's class has no such setting."""
    published = {
        "_class_name": "EulerDiscreteScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "beta_start": 0.00085, "clip_sample": False, "interpolation_type": "linear", "num_train_timesteps": 1000,
        "prediction_type": "epsilon", "sample_max_value": 1.0, "set_alpha_to_one": False, "skip_prk_steps": True,
        "steps_offset": 1, "timestep_spacing": "leading", "trained_betas": None, "use_karras_sigmas": False,
    }  # fmt: skip
    found = schedulers.from_config(published, "there")
    assert (found.sampler, found.spacing, found.clip, found.process.schedule) == (
        "euler",
        "leading",
        False,
        "scaled-linear",
    )
    assert found.spacing_options == {"offset": 1}
    karras = schedulers.from_config(published | {"use_karras_sigmas": True}, "there")
    assert (karras.spacing, karras.spacing_options) == ("karras", {"entries": "leading", "offset": 1})
    for kind in ("EulerDiscreteScheduler", "PNDMScheduler"):
        assert not schedulers.from_config({"_class_name": kind, "clip_sample": True}, "there").clip


def test_missing_settings_have_the_defaults_of_the_class() -> None:
    own = {name: p.default for name, p in inspect.signature(theirs.UNet2DModel).parameters.items()}
    assert {n: list(value) if isinstance(value, tuple) else value for n, value in own.items()} == unet2d.DEFAULTS


# --- the files it may come in ---


def test_a_pipeline_with_everything_at_the_top(tmp_path: Path) -> None:
    """As google/ddpm-cifar10-32 lies on the hub."""
    folder = saved(judge(CIFAR), tmp_path, CIFAR)
    index = {"_class_name": "DDPMPipeline", "_diffusers_version": "0.1.1"}
    index |= {"scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    settings = {
        "_class_name": "DDPMScheduler",
        "_diffusers_version": "0.1.1",
        "beta_end": 0.02,
        "beta_schedule": "linear",
    }
    settings |= {"beta_start": 0.0001, "clip_sample": True, "num_train_timesteps": 1000, "trained_betas": None}
    (folder / "scheduler_config.json").write_text(json.dumps(settings | {"variance_type": "fixed_large"}))
    config, _, process, hints = ours.read(folder)
    assert config.channels == (8, 16, 16, 16)
    assert process == DiffusionConfig()
    assert (hints["sampler"], hints["clip"], hints["channels"], hints["classes"]) == ("ddpm-large", True, 3, ())


def test_shards(folder: Path) -> None:
    whole = ours.read(folder)[1]
    theirs.UNet2DModel.from_pretrained(folder).save_pretrained(folder, max_shard_size="40KB")
    (folder / "diffusion_pytorch_model.safetensors").unlink(missing_ok=True)
    assert len(list(folder.glob("*.safetensors"))) > 2
    again = ours.read(folder)[1]
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_a_shard_from_elsewhere(folder: Path) -> None:
    theirs.UNet2DModel.from_pretrained(folder).save_pretrained(folder, max_shard_size="40KB")
    (folder / "diffusion_pytorch_model.safetensors").unlink(missing_ok=True)
    file = folder / "diffusion_pytorch_model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"]["conv_in.weight"] = "../secrets.safetensors"
    file.write_text(json.dumps(index))
    with pytest.raises(UserError, match="is not the name of a safetensors file"):
        ours.read(folder)
    index["weight_map"]["conv_in.weight"] = index["weight_map"]["conv_out.weight"]
    file.write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"conv_in\.weight is not in"):
        ours.read(folder)


def test_a_half_precision_variant_becomes_float32(folder: Path) -> None:
    whole = ours.read(folder)[1]
    theirs.UNet2DModel.from_pretrained(folder).half().save_pretrained(folder, variant="fp16")
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    for name, tensor in ours.read(folder)[1].items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, whole[name].half().float(), atol=0, rtol=0)


def test_old_names_of_attention(folder: Path) -> None:
    whole = ours.read(folder)[1]
    file = folder / "diffusion_pytorch_model.safetensors"
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for name, tensor in load_file(file).items():
        for today, then in names.items():
            name = name.replace(f".{today}.", f".{then}.")
        old[name] = tensor
    assert "mid_block.attentions.0.proj_attn.bias" in old
    save_file(old, file)  # and without metadata
    again = ours.read(folder)[1]
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_a_pickle_is_refused_unless_it_is_allowed(folder: Path) -> None:
    whole = ours.read(folder)[1]
    file = folder / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
    with pytest.raises(UserError, match="is a pickle, which can run code"):
        ours.read(folder)
    again = ours.read(folder, pickles=True)[1]
    assert all(torch.equal(again[name], whole[name]) for name in whole)


# --- unsupported settings ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dual_cross_attention": True}, "'dual_cross_attention'"),
        ({"act_fn": "mish"}, "act_fn is 'mish': only 'silu' or 'swish'"),
        ({"center_input_sample": True}, "center_input_sample is True"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type is 'fourier'"),
        ({"time_embedding_dim": 48}, "time_embedding_dim is 48: only null or 32"),
        ({"mid_block_type": None}, "mid_block_type is None"),
        ({"mid_block_scale_factor": 1.4}, "mid_block_scale_factor is 1.4"),
        ({"downsample_padding": 2}, "downsample_padding is 2"),
        ({"downsample_padding": False}, "downsample_padding is False"),
        ({"class_embed_type": "identity"}, "class_embed_type is 'identity'"),
        ({"resnet_time_scale_shift": "ada_group"}, "resnet_time_scale_shift is 'ada_group'"),
        ({"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups is null"),
        ({"attn_norm_num_groups": 2}, "attn_norm_num_groups is 2"),
        ({"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]}, "down_block_types is 'SkipDownBlock2D'"),
        ({"down_block_types": ["DownBlock2D"]}, "a block type for each of the 2"),
        ({"down_block_types": ["DownBlock2D", "DownBlock2D"]}, "attention at the same levels"),
        ({"down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D"]}, "one kind of resampling"),
        ({"upsample_type": "resnet"}, "one kind of resampling"),
        ({"attention_head_dim": 3}, "head_width 3 does not divide the 16 channels"),
        ({"norm_num_groups": None}, "norm_num_groups is None"),
        ({"norm_num_groups": 16}, "channels 8 are not divisible by groups 16"),
        ({"norm_eps": "small"}, "norm_eps is 'small'"),
        ({"sample_size": ...}, "sample_size is missing"),
        ({"sample_size": [28, 31]}, "size (28, 31) is not a multiple of 2"),
        ({"sample_size": [28]}, "sample_size is [28]"),
        ({"sample_size": [28, 0]}, "sample_size is 0"),
        ({"sample_size": 27}, "size 27 is not a multiple of 2"),
        ({"layers_per_block": 10**9}, "layers_per_block is 1000000000: only a whole number from 1 to 64"),
        ({"block_out_channels": [8, 10**9]}, "block_out_channels is 1000000000"),
        ({"block_out_channels": "8,16"}, "block_out_channels is '8,16'"),
        ({"block_out_channels": [8, 100000]}, "the configuration and the weights belong to different networks"),
        ({"num_class_embeds": 10**9}, "class_embedding.weight is missing"),
        ({"_class_name": "UNet1DModel"}, "UNet1DModel"),
    ],
    ids=str,
)
def test_unsupported_settings_are_named(folder: Path, settings: dict[str, Any], message: str) -> None:
    found = complain(folder, **settings)
    assert message in found
    assert str(folder) in found


def test_tensors_that_do_not_fit_are_named_before_any_is_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state["conv_out.bias"] = torch.zeros(7)
    state["surprise"] = torch.zeros(1)
    del state["conv_in.weight"]
    save_file(state, file)
    monkeypatch.setattr(Tensors, "load", lambda self: pytest.fail("weights were loaded"))
    with pytest.raises(UserError) as error:
        ours.read(folder)
    for message in ("conv_in.weight is missing", "surprise is unknown", "conv_out.bias is (7,) instead of (1,)"):
        assert message in str(error.value)


@pytest.mark.parametrize("kind", [torch.int8, torch.int32, torch.bool])
def test_weights_that_are_no_floating_point_numbers(folder: Path, kind: torch.dtype) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state["conv_out.bias"] = torch.zeros(1, dtype=kind)
    save_file(state, file)
    with pytest.raises(UserError, match=rf"{file}: conv_out\.bias is (I8|I32|BOOL): weights are"):
        ours.read(folder)
    torch.save(state, file.with_suffix(".bin"))
    file.unlink()
    with pytest.raises(UserError, match=rf"{file.with_suffix('.bin')}: conv_out\.bias is {kind}: weights are"):
        ours.read(folder, pickles=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"\0" * 5000, "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-lfs pointer"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"PK\x03\x04 archive", "pickle"),
        (struct.pack("<Q", 10**12) + b"{}", ""),
    ],
    ids=["empty", "zeros", "lfs", "html", "pickle", "nonsense"],
)
def test_a_file_that_is_something_else(folder: Path, content: bytes, message: str) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    file.write_bytes(content)
    with pytest.raises(UserError) as error:
        ours.read(folder)
    assert f"{file} is not a complete safetensors file: " in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize("kept", [4, 200, -1])
def test_a_file_that_was_cut_short(folder: Path, kept: int) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:kept])
    with pytest.raises(UserError) as error:
        ours.read(folder)
    assert "is not a complete safetensors file" in str(error.value)
    if kept == -1:
        assert f"it ends after {len(content) - 1:,} of {len(content):,} bytes" in str(error.value)


def test_folders_that_are_not_whole(folder: Path, tmp_path: Path) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    file.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"has no diffusion_pytorch_model\.safetensors"):
        ours.read(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        ours.read(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json is missing"):
        ours.read(folder)
    assert not ours.is_folder(folder)


def test_a_pipeline_of_other_parts(folder: Path) -> None:
    parts = {"movq": ["diffusers", "VQModel"], "unet": ["diffusers", "UNet2DModel"], "safety": [None, None]}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "KandinskyV22Pipeline"} | parts))
    with pytest.raises(UserError, match="a KandinskyV22Pipeline with a part 'movq'"):
        ours.read(folder)


# --- processes ---

PROCESSES = {
    "linear": DiffusionConfig(),
    "linear, 250 steps": DiffusionConfig(steps=250),
    "linear, other ends": DiffusionConfig(schedule_options={"begin": 2e-4, "end": 0.01}),
    "scaled linear": DiffusionConfig(schedule="scaled-linear", schedule_options={"begin": 0.00085, "end": 0.012}),
    "cosine": DiffusionConfig(schedule="cosine", predicts="v"),
    "cosine, 40 steps": DiffusionConfig(schedule="cosine", steps=40, predicts="x0"),
    "sigmoid of betas": DiffusionConfig(schedule="sigmoid-beta"),
    "zero terminal": DiffusionConfig(schedule="scaled-linear", zero_snr=True, predicts="v"),
    "a table": DiffusionConfig(schedule="table", steps=3, schedule_options={"values": (0.1, 0.2, 0.5)}),
    "cosine, shifted": DiffusionConfig(schedule="cosine", schedule_options={"shift": 0.25}, predicts="v"),
    "cosine of another offset": DiffusionConfig(schedule="cosine", schedule_options={"offset": 0.02}),
}


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_the_noise_in_diffusers_is_the_noise_here(name: str, sampler: str, tmp_path: Path) -> None:
    process = PROCESSES[name]
    config = unet2d.from_config(GREY, "test")
    ours.write(tmp_path / "ours", config, UNet(config).state_dict(), process, sampler=sampler)
    kind = theirs.DDIMScheduler if sampler == "ddim" else theirs.DDPMScheduler
    scheduler = kind.from_pretrained(tmp_path / "ours" / "scheduler")
    schedule = make_schedule(process.schedule, process.schedule_options, steps=process.steps, zero_snr=process.zero_snr)
    times = torch.arange(1, process.steps + 1, dtype=torch.float64) / process.steps
    alpha2 = schedule(times).alpha.square()
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), alpha2, atol=1e-5, rtol=1e-3)  # theirs is float32
    names = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
    assert scheduler.config.prediction_type == names[process.predicts]

    _, _, again, hints = ours.read(tmp_path / "ours")
    assert hints["sampler"] == sampler
    back = make_schedule(again.schedule, again.schedule_options, steps=again.steps, zero_snr=again.zero_snr)
    torch.testing.assert_close(back(times).alpha.square(), alpha2, atol=1e-12, rtol=1e-9)
    assert (again.predicts, again.steps) == (process.predicts, process.steps)


@pytest.mark.parametrize("sampler", ["ddpm", "ddpm-large", "ddpm-learned", "ddim"])
def test_the_variance_is_written(sampler: str, tmp_path: Path) -> None:
    learned = sampler == "ddpm-learned"
    config = replace(unet2d.from_config(GREY, "test"), out_channels=2 if learned else 1)
    process = DiffusionConfig(learned_variance=learned)
    ours.write(tmp_path / "ours", config, UNet(config).state_dict(), process, sampler=sampler, clip=False)
    _, _, again, hints = ours.read(tmp_path / "ours")
    assert again == process
    assert (hints["sampler"], hints["clip"]) == (sampler, False)


@pytest.mark.parametrize(
    ("process", "sampler", "message"),
    [
        (DiffusionConfig(schedule="flow", predicts="v"), "ddim", "unlike the schedule 'flow'"),
        (
            DiffusionConfig(schedule_options={"shift": 2.0}, zero_snr=True, predicts="v"),
            "ddim",
            "both shifted and of zero",
        ),
        (DiffusionConfig(predicts="edm"), "ddim", "not 'edm'"),
        (DiffusionConfig(), "heun", "cannot have the sampler 'heun'"),
        (DiffusionConfig(), "ddpm-learned", "did not learn a variance"),
        (DiffusionConfig(learned_variance=True), "ddim", "use ddpm-learned"),
    ],
)
def test_processes_without_an_equivalent_in_diffusers_are_refused(
    process: DiffusionConfig, sampler: str, message: str, tmp_path: Path
) -> None:
    config = unet2d.from_config(GREY, "test")
    with pytest.raises(UserError, match=message):
        ours.write(tmp_path / "ours", config, UNet(config).state_dict(), process, sampler=sampler)
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"_class_name": "EDMEulerScheduler"}, "'EDMEulerScheduler'"),
        ({"beta_schedule": "laplace"}, "beta_schedule is 'laplace'"),
        ({"beta_strat": 0.1}, "did you mean 'beta_start'"),
        ({"beta_end": 2}, "beta_end is 2"),
        ({"prediction_type": "flow"}, "prediction_type is 'flow'"),
        ({"variance_type": "learned"}, "variance_type is 'learned'"),
        ({"timestep_spacing": "karras"}, "timestep_spacing is 'karras'"),
        ({"num_train_timesteps": 0}, "num_train_timesteps is 0"),
        ({"trained_betas": [0.1, 0.2]}, "2 trained_betas for num_train_timesteps 1000"),
        ({"trained_betas": [0.1, 1.2]}, "above 0 and below 1"),
    ],
    ids=str,
)
def test_unsupported_schedulers_are_named(folder: Path, settings: dict[str, Any], message: str) -> None:
    (folder / "scheduler_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"scheduler_config\.json") as error:
        ours.read(folder)
    assert message in str(error.value)


def test_a_learned_variance_needs_its_channels(folder: Path) -> None:
    (folder / "scheduler_config.json").write_text('{"variance_type": "learned_range"}')
    with pytest.raises(UserError, match="with variance_type learned_range it is 2"):
        ours.read(folder)


def test_a_curve_is_written_as_its_table(tmp_path: Path) -> None:
    config = unet2d.from_config(GREY, "test")
    process = DiffusionConfig(schedule="cosine-continuous", steps=100, predicts="v")
    ours.write(tmp_path / "ours", config, UNet(config).state_dict(), process)
    scheduler = theirs.DDIMScheduler.from_pretrained(tmp_path / "ours" / "scheduler")
    alpha = torch.cos(torch.arange(1, 101, dtype=torch.float64) / 100 * torch.pi / 2)
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), alpha.square(), atol=1e-6, rtol=1e-3)
    with pytest.raises(UserError, match="above 0 and below 1"):  # its last beta is one
        ours.read(tmp_path / "ours")


def test_a_scheduler_of_old(folder: Path) -> None:
    settings = {"predict_epsilon": False, "tensor_format": "pt", "timestep_values": None, "steps_offset": 1}
    (folder / "scheduler_config.json").write_text(json.dumps(settings))
    _, _, process, hints = ours.read(folder)
    assert process.predicts == "x0"
    assert hints["info"]["scheduler"]["steps_offset"] == 1


# --- classes ---


def test_names_and_the_null_row_are_kept_beside_diffusers_files(tmp_path: Path) -> None:
    config = replace(unet2d.from_config(GREY, "test"), classes=3, null_class=True)
    state = UNet(config).state_dict()
    ours.write(tmp_path / "ours", config, state, DiffusionConfig(), ("shirt", "shoe", "bag"))
    assert json.loads((tmp_path / "ours" / "unet" / "config.json").read_text())["num_class_embeds"] == 4
    assert ours.read(tmp_path / "ours")[0] == config
    (tmp_path / "ours" / "unnoise.json").write_text('{"classes": ["shirt"], "null_class": true}')
    with pytest.raises(UserError, match="1 classes and a null class are not the 4 rows"):
        ours.read(tmp_path / "ours")
    (tmp_path / "ours" / "unnoise.json").unlink()
    again, _, _, hints = ours.read(tmp_path / "ours")
    assert (again.classes, again.null_class, hints["classes"]) == (4, False, ("0", "1", "2", "3"))


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    config = unet2d.from_config(GREY, "test")
    with pytest.raises(UserError, match="is not an empty folder"):
        ours.write(tmp_path, config, UNet(config).state_dict(), DiffusionConfig())
    with pytest.raises(UserError, match="is missing"):
        ours.write(tmp_path / "new", config, {}, DiffusionConfig())
    with pytest.raises(UserError, match="1 names for the 0 classes"):
        ours.write(tmp_path / "new", config, UNet(config).state_dict(), DiffusionConfig(), ("shirt",))
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


# --- pipelines: the same pictures ---


def drawn_here(folder: Path, x: Tensor, sampler: str, steps: int) -> Tensor:
    """The pictures that the folder's own network, process and spacing make of x."""
    from unnoise.config.request import Request
    from unnoise.denoiser import make_diffusion
    from unnoise.guidance import clip_denoised
    from unnoise.noise import Seeds
    from unnoise.samplers import SAMPLERS, find_spacing, last, walk

    config, state, process, hints = ours.read(folder)
    net = UNet(config).eval()
    net.load_state_dict(state)
    diffusion = make_diffusion(net, process)
    denoiser = diffusion.given(Cond())
    denoiser = clip_denoised(denoiser) if hints["clip"] else denoiser
    times = find_spacing(hints["spacing"], process.steps)(diffusion.schedule, steps)
    with torch.no_grad():
        return last(walk(denoiser, x, times, SAMPLERS[sampler].make(Request()), Seeds((0,), x.shape[1:])))


@pytest.mark.parametrize("spacing", ["auto", "leading"])
@pytest.mark.parametrize("clip", [True, False])
def test_the_pipeline_generates_the_same_pictures(clip: bool, spacing: str, tmp_path: Path) -> None:
    config = replace(unet2d.from_config(GREY, "test"), size=16)
    state = randomised(UNet(config)).state_dict()
    ours.write(tmp_path / "ours", config, state, DiffusionConfig(), clip=clip, spacing=spacing)
    pipeline = theirs.DDIMPipeline.from_pretrained(tmp_path / "ours")
    pipeline.set_progress_bar_config(disable=True)
    x = torch.randn((1, 1, 16, 16), generator=torch.Generator().manual_seed(7))
    out = pipeline(
        generator=torch.Generator().manual_seed(7),
        num_inference_steps=10,
        use_clipped_model_output=True,
        output_type="np",
    ).images[0]
    expected = drawn_here(tmp_path / "ours", x, "ddim", 10)[0].permute(1, 2, 0)
    torch.testing.assert_close(torch.from_numpy(out), (expected / 2 + 0.5).clamp(0, 1), atol=1e-4, rtol=0)
    assert 0.05 < out.std() < 0.6  # a picture, not a colour


def test_the_ancestral_pipeline_of_diffusers_loads_exported_models(tmp_path: Path) -> None:
    config = replace(unet2d.from_config(GREY, "test"), size=8)
    ours.write(tmp_path / "ours", config, UNet(config).state_dict(), DiffusionConfig(), sampler="ddpm-large")
    pipeline = theirs.DDPMPipeline.from_pretrained(tmp_path / "ours")
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.scheduler.config.variance_type == "fixed_large"
    assert pipeline(num_inference_steps=2, output_type="np").images.shape == (1, 8, 8, 1)
    pipeline.save_pretrained(tmp_path / "theirs")
    again, _, process, hints = ours.read(tmp_path / "theirs")
    assert (again, process.schedule, hints["sampler"]) == (config, "linear", "ddpm-large")
