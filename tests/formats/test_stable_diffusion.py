"""diffusers is the judge of Stable Diffusion's networks: the same weights, the same numbers, in both directions.

Small networks with random weights everywhere, of Stable Diffusion 1's, 2's and XL's options. The full size is measured
by `make test-full`, which sets UNNOISE_FULL_SIZE: it takes 8 GiB and some minutes.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.random_weights import randomised
from unnoise.conditions import Cond
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import UNetConfig
from unnoise.errors import UserError
from unnoise.formats import condition_settings, controlnet, unet2d_condition
from unnoise.formats import diffusers as ours
from unnoise.formats.settings import assumed
from unnoise.nn import UNet
from unnoise.nn.controlnet import ControlNet, guess_scales
from unnoise.noise import normal

theirs = pytest.importorskip("diffusers")

PUBLISHED = {  # settings of every published file
    "act_fn": "silu", "attention_head_dim": 8, "center_input_sample": False, "downsample_padding": 1,
    "flip_sin_to_cos": True, "freq_shift": 0, "mid_block_scale_factor": 1, "norm_eps": 1e-5, "norm_num_groups": 32,
}  # fmt: skip
SD1 = PUBLISHED | {
    "sample_size": 8,
    "block_out_channels": [8, 16, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "attention_head_dim": 4,
    "cross_attention_dim": 12,
    "norm_num_groups": 4,
}
SD2 = SD1 | {"attention_head_dim": [1, 2, 4], "use_linear_projection": True, "upcast_attention": True}
XL = SD2 | {
    "block_out_channels": [8, 16, 16],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 3],
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 6 * 4 + 10,
    "upcast_attention": None,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "sd1": SD1,
    "sd2": SD2,
    "xl": XL,
    "inpainting": SD1 | {"in_channels": 9},
    "one block": SD1 | {"layers_per_block": 1},
    "classes": SD1 | {"num_class_embeds": 5},
    "a number": SD1 | {"class_embed_type": "timestep"},
    "a number, and classes without effect": SD1 | {"class_embed_type": "timestep", "num_class_embeds": 5},
    "a vector": SD1 | {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 10},
    "scale shift, sines first, padding 0": SD1
    | {"resnet_time_scale_shift": "scale_shift", "flip_sin_to_cos": False, "freq_shift": 1, "downsample_padding": 0},
    "eps of the norms": SD1 | {"norm_eps": 0.1},
}
TIMES = torch.tensor([0.0, 999.0, 137.0])
each_config = pytest.mark.parametrize("name", CONFIGS)


def condition(config: UNetConfig) -> Cond:
    return Cond(
        label=torch.tensor([4, 0, 1]) if config.classes else None,
        value=torch.tensor([[512.0, 64, 3, 0, 8, 1000]] * 3)[:, : config.values] if config.values else None,
        pooled=normal((3, config.vector), "vector") if config.vector else None,
        concat=normal((3, config.concat_channels, config.size, config.size), "image")
        if config.concat_channels
        else None,
        text=normal((3, 5, config.context), "words"),
    )


def pictures(config: UNetConfig) -> Tensor:
    return normal((3, config.in_channels, config.size, config.size), "pictures")


def said_to_theirs(config: UNetConfig, cond: Cond) -> dict[str, Any]:
    """The same condition in diffusers' arguments."""
    arguments: dict[str, Any] = {"encoder_hidden_states": cond.text}
    if config.value_width:
        return arguments | {"added_cond_kwargs": {"text_embeds": cond.pooled, "time_ids": cond.value}}
    for value in (cond.label, cond.pooled, None if cond.value is None else cond.value[:, 0]):
        if value is not None:
            arguments["class_labels"] = value
    return arguments


@torch.no_grad()
def verdict(net: Any, config: UNetConfig, **more: Any) -> Tensor:
    cond = condition(config)
    x = pictures(config) if cond.concat is None else torch.cat([pictures(config), cond.concat], dim=1)
    out: Tensor = net(x, TIMES, **said_to_theirs(config, cond), **more).sample
    return out


@torch.no_grad()
def answer(net: UNet, config: UNetConfig, **more: Any) -> Tensor:
    out: Tensor = net(pictures(config), TIMES, replace(condition(config), **more))
    return out


def close(got: Tensor, right: Tensor) -> None:
    assert right.std() > 0.1  # the output is not zero
    assert (got - right).abs().max() < 1e-5 * right.abs().max() + 1e-5


def loaded(config: UNetConfig, state: dict[str, Tensor]) -> UNet:
    net = UNet(config).eval()
    net.load_state_dict(state)
    return net


def saved(net: Any, folder: Path, config: dict[str, Any]) -> Path:
    """As diffusers saves it, with the settings as given: missing settings are not in the file."""
    net.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"_class_name": type(net).__name__} | config))
    return folder


# --- the network ---


@each_config
def test_networks_saved_by_diffusers_compute_the_same_here(name: str, tmp_path: Path) -> None:
    net = randomised(theirs.UNet2DConditionModel(**CONFIGS[name]))
    config, state, _, hints = ours.read(saved(net, tmp_path, CONFIGS[name]))
    close(answer(loaded(config, state), config), verdict(net, config))
    assert hints["channels"] == 4


@each_config
def test_networks_written_here_compute_the_same_in_diffusers(name: str, tmp_path: Path) -> None:
    config = unet2d_condition.from_config(CONFIGS[name], "test")
    net = randomised(UNet(config))
    classes = tuple(map(str, range(config.classes)))
    ours.write(tmp_path / "ours", config, net.state_dict(), DiffusionConfig(), classes)
    judge, report = theirs.UNet2DConditionModel.from_pretrained(tmp_path / "ours" / "unet", output_loading_info=True)
    assert not any(report.values()), report
    close(verdict(judge.eval(), config), answer(net, config))
    again = ours.read(tmp_path / "ours")
    assert again[0] == config
    assert all(torch.equal(tensor, again[1][key]) for key, tensor in net.state_dict().items())


FULL = PUBLISHED | {"sample_size": 64, "cross_attention_dim": 768}


def test_missing_settings_that_tensors_determine_have_the_defaults_of_the_class() -> None:
    """Those of Stable Diffusion 1, but for the width of its words: 859,520,964 parameters with 768."""
    config = unet2d_condition.from_config(FULL, "test")
    assert config == UNetConfig(
        size=64, in_channels=4, out_channels=4, channels=(320, 640, 1280, 1280), attention=(True, True, True, False),
        heads=8, norm_eps=1e-5, asymmetric_padding=False, cosine_first=True, frequency_shift=0.0, context=768,
        null_class=False, null_value=False,
    )  # fmt: skip
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in UNet(config).parameters()) == 859_520_964
    assert unet2d_condition.from_config(PUBLISHED | {"sample_size": 64}, "test").context == 1280


@pytest.mark.parametrize("key", PUBLISHED)
def test_settings_that_no_tensor_determines_have_the_defaults_of_the_class_and_are_stated(key: str) -> None:
    lacking = {name: value for name, value in FULL.items() if name != key}
    assert unet2d_condition.from_config(lacking, "test") == unet2d_condition.from_config(FULL, "test")
    (note,) = assumed(lacking, condition_settings.DEFAULTS, "UNet2DConditionModel", "there")
    assert note.startswith("there lacks settings; those of UNet2DConditionModel by default are assumed: ")
    assert note.endswith(f": {key} {condition_settings.DEFAULTS[key]!r}")
    assert assumed(FULL, condition_settings.DEFAULTS, "UNet2DConditionModel", "there") == []


def test_defaults_are_diffusers() -> None:
    import inspect

    for kind, mine in (
        (theirs.UNet2DConditionModel, condition_settings.DEFAULTS),
        (theirs.ControlNetModel, condition_settings.CONTROL_DEFAULTS),
    ):
        parameters = dict(inspect.signature(kind.__init__).parameters)
        parameters.pop("self")
        arguments = {k: list(p.default) if isinstance(p.default, tuple) else p.default for k, p in parameters.items()}
        assert mine == arguments


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dual_cross_attention": True}, "dual_cross_attention is True: only False"),
        ({"encoder_hid_dim": 3}, "encoder_hid_dim is 3: only None"),
        ({"addition_embed_type": "text"}, "addition_embed_type is 'text': only None or 'text_time'"),
        ({"mid_block_type": "UNetMidBlock2D"}, "mid_block_type is 'UNetMidBlock2D'"),
        ({"class_embeddings_concat": True}, "class_embeddings_concat is True"),
        ({"time_cond_proj_dim": 8}, "time_cond_proj_dim is 8"),
        ({"cross_attention_norm": "layer_norm"}, "cross_attention_norm is 'layer_norm'"),
        ({"resnet_out_scale_factor": 2.0}, "resnet_out_scale_factor is 2.0"),
        ({"layers_per_block": [1, 2, 2]}, "layers_per_block is .* one number for all levels"),
        ({"transformer_layers_per_block": [1, [2], 1]}, "transformer_layers_per_block is"),
        ({"attention_head_dim": [1, 2]}, "attention_head_dim is .* one for each of the 3"),
        ({"attention_head_dim": 3}, "heads 3 does not divide the 8 channels"),
        ({"cross_attention_dims": 3}, "no setting of UNet2DConditionModel 'cross_attention_dims'; did you mean"),
        ({"addition_embed_type": "text_time", "class_embed_type": "timestep"}, "only one of them is supported"),
        ({"up_block_types": ["UpBlock2D"] * 3}, "has attention at levels"),
        ({"down_block_types": ["AttnDownBlock2D"] * 3}, "down_block_types is 'AttnDownBlock2D'"),
        ({"sample_size": None}, "sample_size is missing"),
    ],
    ids=str,
)
def test_settings_without_an_equivalent_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        unet2d_condition.from_config(SD1 | settings, "there")


def test_tensors_that_are_missing_or_surplus_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = saved(theirs.UNet2DConditionModel(**SD1), tmp_path, SD1)
    file = folder / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    key = "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight"
    save_file({name: tensor for name, tensor in state.items() if name != key}, file)
    with pytest.raises(UserError, match=f"{key} is missing"):
        ours.read(folder)
    save_file(state | {"mid_block.extra": torch.zeros(1)}, file)
    with pytest.raises(UserError, match=r"mid_block\.extra is unknown"):
        ours.read(folder)
    save_file(state | {key: torch.zeros(8, 11)}, file)
    with pytest.raises(UserError, match=r"to_k\.weight is \(8, 11\) instead of \(8, 12\)"):
        ours.read(folder)


def test_half_precision_and_shards_are_read(tmp_path: Path) -> None:
    net = randomised(theirs.UNet2DConditionModel(**SD1))
    net.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    config, state, _, _ = ours.read(tmp_path / "shards")
    close(answer(loaded(config, state), config), verdict(net, config))
    net.half().save_pretrained(tmp_path / "half", variant="fp16")
    config, state, _, _ = ours.read(tmp_path / "half")
    close(answer(loaded(config, state), config), verdict(net.float(), config))


# --- controls ---

HOW: dict[str, Any] = {
    "conditioning_embedding_out_channels": [4, 6],
    "conditioning_channels": 2,
    "controlnet_conditioning_channel_order": "rgb",
}
CONTROLS = {
    "sd1": HOW,
    "sd2": HOW | {"controlnet_conditioning_channel_order": "bgr"},
    "xl": HOW,
    "classes": HOW | {"global_pool_conditions": True},
    "a number": HOW,
}


def control_config(name: str) -> dict[str, Any]:
    alike = {key: value for key, value in CONFIGS[name].items() if key in condition_settings.CONTROL_DEFAULTS}
    return alike | CONTROLS[name]


def with_control(config: UNetConfig, state: dict[str, Tensor], folder: Path) -> UNet:
    how, controls = controlnet.read(folder, config)
    prefixed = {f"controls.0.{key}": tensor for key, tensor in controls.items()}
    return loaded(replace(config, controls=(how,)), state | prefixed)


@pytest.mark.parametrize("guess", [False, True], ids=["plain", "a strength a depth"])
@pytest.mark.parametrize("name", CONTROLS)
def test_controls_saved_by_diffusers_compute_the_same_here(name: str, guess: bool, tmp_path: Path) -> None:
    base = randomised(theirs.UNet2DConditionModel(**CONFIGS[name]))
    control = randomised(theirs.ControlNetModel(**control_config(name)))
    config, state, _, _ = ours.read(saved(base, tmp_path / "unet", CONFIGS[name]))
    net = with_control(config, state, saved(control, tmp_path / "control", control_config(name)))
    hint = normal((3, 2, 16, 16), "hint").sigmoid()
    shown = hint.flip(1) if CONTROLS[name].get("controlnet_conditioning_channel_order") == "bgr" else hint
    cond = condition(config)
    with torch.no_grad():
        down, middle = control(
            pictures(config), TIMES, controlnet_cond=shown if shown is hint else hint, conditioning_scale=0.7,
            return_dict=False, **said_to_theirs(config, cond),
        )  # fmt: skip
    strength = torch.full((3, 1), 0.7)
    if guess:
        strength = guess_scales(strength, len(down) + 1, decay=0.5)
        down = [residual * 0.5 ** (len(down) - i) for i, residual in enumerate(down)]
    right = verdict(base, config, down_block_additional_residuals=down, mid_block_additional_residual=middle)
    assert (right - verdict(base, config)).abs().max() > 0.1
    close(answer(net, config, control=(hint,), control_scale=strength), right)


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_written_here_compute_the_same_in_diffusers(name: str, tmp_path: Path) -> None:
    config = unet2d_condition.from_config(CONFIGS[name], "test")
    how = unet2d_condition.control_from_config(control_config(name), config, "test")
    control = randomised(ControlNet(config, how))
    controlnet.write(tmp_path / "control", config, control.state_dict(), how)
    judge, report = theirs.ControlNetModel.from_pretrained(tmp_path / "control", output_loading_info=True)
    assert not any(report.values()), report
    again, state = controlnet.read(tmp_path / "control", config)
    assert again == how
    assert all(torch.equal(tensor, state[key]) for key, tensor in control.state_dict().items())
    cond, hint = condition(config), normal((3, 2, 16, 16), "hint")
    with torch.no_grad():
        down, middle = judge.eval()(
            pictures(config), TIMES, controlnet_cond=hint, return_dict=False, **said_to_theirs(config, cond)
        )
        words = control.contexts(tuple(control.keys_and_values(cond.text)), None)
        found = control(
            pictures(config), TIMES, cond, control.hint(hint), pooled=None, contexts=words, run=UNet(config).run
        )
    for mine, right in zip(found, [*down, middle], strict=True):
        close(mine, right)


def test_a_control_of_another_network_is_refused(tmp_path: Path) -> None:
    config = unet2d_condition.from_config(SD1, "test")
    for settings, message in (
        ({"cross_attention_dim": 16}, "context is 16 here, 12 in the network"),
        ({"attention_head_dim": 2}, "heads or layers of level 0 differ"),
        ({"in_channels": 9}, "in_channels is 9, its network's 4"),
        ({"block_out_channels": [8, 16, 32]}, "channels is"),
        ({"layers_per_block": 1}, "blocks is 1 here, 2 in the network"),
        ({"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"]}, "attention is"),
        ({"norm_num_groups": 2}, "groups is 2 here, 4 in the network"),
        ({"norm_eps": 0.1}, "norm_eps is 0.1 here, 1e-05 in the network"),
        ({"resnet_time_scale_shift": "scale_shift"}, "scale_shift is True here, False in the network"),
        ({"downsample_padding": 0}, "asymmetric_padding is True here, False in the network"),
        ({"flip_sin_to_cos": False}, "cosine_first is False here, True in the network"),
        ({"freq_shift": 1}, "frequency_shift is 1.0 here, 0.0 in the network"),
        ({"use_linear_projection": True}, "linear_projection is True here, False in the network"),
        ({"class_embed_type": "timestep"}, "values is 1 here, 0 in the network"),
        ({"class_embed_type": "projection", "projection_class_embeddings_input_dim": 3}, "vector is 3 here, 0 in the"),
        ({"transformer_layers_per_block": 2}, "heads or layers of level 0 differ"),
        ({"num_class_embeds": 3}, "num_class_embeds is 3, its network's 0"),
        ({"conditioning_embed": 3}, "no setting of ControlNetModel"),
    ):
        with pytest.raises(UserError, match=message):
            unet2d_condition.control_from_config(control_config("sd1") | settings, config, "there")


# --- networks without an equivalent in diffusers ---


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"middle_attention": False}, "middle block without attention"),
        ({"residual_resampling": True}, "resampling by residual blocks"),
        ({"values": 2}, "second value, and no null embedding"),
        ({"classes": 2, "vector": 3}, "combination of classes, values and a vector"),
    ],
)
def test_networks_without_an_equivalent_in_diffusers_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        unet2d_condition.to_config(replace(unet2d_condition.from_config(SD1, "test"), **fields))


# --- the full size ---


@pytest.mark.skipif(not os.environ.get("UNNOISE_FULL_SIZE"), reason="8 GiB and minutes: make test-full")
def test_stable_diffusion_1_in_full_both_ways(tmp_path: Path) -> None:
    """What diffusers writes answers the same here, and what we write of it answers the same in diffusers."""
    torch.manual_seed(0)
    net = theirs.UNet2DConditionModel(**FULL).eval()  # its own weights at birth, which are nowhere zero
    assert sum(parameter.numel() for parameter in net.parameters()) == 859_520_964
    folder = saved(net, tmp_path / "theirs", FULL)
    config = unet2d_condition.from_config(FULL, "test")
    right = verdict(net, replace(config, size=16))
    del net
    config, state, _, _ = ours.read(folder)
    with torch.device("meta"):
        mine = UNet(config).eval()
    mine.load_state_dict(state, assign=True)
    got = answer(mine, replace(config, size=16))
    ours.write(tmp_path / "ours", config, state, DiffusionConfig())
    del mine, state
    judge, report = theirs.UNet2DConditionModel.from_pretrained(tmp_path / "ours" / "unet", output_loading_info=True)
    assert not any(report.values()), report
    back = verdict(judge.eval(), replace(config, size=16))
    for way, found in (("read", got), ("written", back)):
        print(f"{way}: largest difference {(found - right).abs().max():.1e} of {right.abs().max():.2f}")
        assert (found - right).abs().max() < 1e-4 * right.abs().max()
