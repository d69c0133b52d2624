"""transformers folders of CLIP's text tower, read and written without transformers.

    config.json, model.safetensors      CLIPTextModel, or CLIPTextModelWithProjection

Laws (tests/nn/test_clip.py): embeddings are those of transformers, to 1e-5, with old and new names of tensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from unnoise.errors import UserError, unknown
from unnoise.formats.files import Shape, read_json, weights, what_is_wrong
from unnoise.formats.settings import missing
from unnoise.nn.clip import ACTIVATIONS, ClipConfig, ClipText

CONFIG, WEIGHTS = "config.json", "model"
VERSION = "5.23.0"  # of transformers; the defaults are those of this version

DEFAULTS: dict[str, Any] = {  # of CLIPTextConfig
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
REQUIRED = ("eos_token_id", "hidden_act", "layer_norm_eps", "num_attention_heads")  # no tensor's shape determines them
WITHOUT_EFFECT = {
    *("architectures", "attention_dropout", "bos_token_id", "chunk_size_feed_forward", "dropout", "dtype", "id2label"),
    *("gradient_checkpointing", "initializer_factor", "initializer_range", "is_encoder_decoder", "label2id"),
    *("model_type", "output_attentions", "output_hidden_states", "pad_token_id", "problem_type", "return_dict"),
    *("torch_dtype", "transformers_version"),
}


# --- the tower ---


def read(folder: Path) -> ClipText:
    """The tower in a folder, in float32. Raises UserError for a setting or tensors that are not supported."""
    given = read_json(folder / CONFIG)
    config = from_config(given, str(folder / CONFIG))
    found = weights(folder, WEIGHTS)
    if found is None:
        raise UserError(
            f"{folder} has no {WEIGHTS}.safetensors: copy the whole folder; a pytorch_model.bin is a pickle, which can "
            "run code, and is not opened"
        )
    wanted = shapes_of(config)
    tensors = found.without(("position_ids",))  # 0, 1, 2, ... in old files
    problem = what_is_wrong({_plain(name): shape for name, shape in tensors.shapes().items()}, wanted)
    if problem:
        raise UserError(f"{folder}: the configuration and the weights belong to different text towers: {problem}")
    return join(config, {_plain(name): tensor for name, tensor in tensors.load().items()})


def shapes_of(config: ClipConfig) -> dict[str, Shape]:
    """The shapes of a tower's tensors in a folder, by their names without prefix."""
    with torch.device("meta"):
        return {name: shape for parts in pieces(ClipText(config)).values() for name, shape in parts.items()}


def join(config: ClipConfig, state: dict[str, Tensor]) -> ClipText:
    """The tower of the tensors of a folder, which are removed from `state`."""
    with torch.device("meta"):
        net = ClipText(config)
    net.load_state_dict(
        {name: torch.cat([state.pop(part) for part in parts]) for name, parts in pieces(net).items()}, assign=True
    )
    return net.eval().requires_grad_(False)


def split(net: ClipText) -> dict[str, Tensor]:
    """The tensors of a folder, in float32, under their names without prefix: the inverse of `join`."""
    state: dict[str, Tensor] = {}
    ours = net.state_dict()
    for name, parts in pieces(net).items():
        rows = ours[name].detach().to("cpu", torch.float32).split([shape[0] for shape in parts.values()])
        state |= {part: row.clone() for part, row in zip(parts, rows, strict=True)}
    return state


def from_config(given: Mapping[str, Any], where: str) -> ClipConfig:
    """The tower of a config.json. Sizes may be missing, since tensors reveal wrong ones.

    Raises UserError for a setting without an equivalent, and for a required one that is missing.
    """
    if given.get("model_type", "clip_text_model") != "clip_text_model":
        raise UserError(f"{where} is the configuration of a {given['model_type']}: only clip_text_model is supported")
    for key in given:
        if key not in DEFAULTS and key not in WITHOUT_EFFECT and not key.startswith("_"):
            raise UserError(f"{where}: {unknown('setting of CLIPTextModel', key, DEFAULTS)}")
    for key in REQUIRED:
        if key not in given:
            raise missing(where, key)
    data = DEFAULTS | {key: value for key, value in given.items() if key in DEFAULTS}
    for key, value in data.items():
        if key in ("hidden_act", "layer_norm_eps"):
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{where}: {key} is {value!r}: only a whole number from 1 is supported")
    if data["hidden_act"] not in ACTIVATIONS:
        raise UserError(f"{where}: {unknown('hidden_act', data['hidden_act'], ACTIVATIONS)}")
    kinds = given.get("architectures") or ["CLIPTextModel"]
    return ClipConfig(
        vocabulary=data["vocab_size"],
        length=data["max_position_embeddings"],
        width=data["hidden_size"],
        hidden=data["intermediate_size"],
        depth=data["num_hidden_layers"],
        heads=data["num_attention_heads"],
        activation=data["hidden_act"],
        eps=float(data["layer_norm_eps"]),
        end=data["eos_token_id"],
        largest_ends=data["eos_token_id"] == 2,  # files before transformers 4.31, whose end is the largest token
        projection=data["projection_dim"] if "WithProjection" in kinds[0] else 0,
    )


def write(folder: Path, net: ClipText) -> None:
    """Write a folder that CLIPTextModel, or CLIPTextModelWithProjection loads, in all its versions."""
    config = net.config
    settings = {"architectures": [kind(net)], "model_type": "clip_text_model", "transformers_version": VERSION} | {
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "intermediate_size": config.hidden,
        "projection_dim": config.projection or config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "max_position_embeddings": config.length,
        "hidden_act": config.activation,
        "layer_norm_eps": config.eps,
        "bos_token_id": 0 if config.largest_ends else config.end - 1,
        "eos_token_id": 2 if config.largest_ends else config.end,
        "pad_token_id": 1,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    state = {
        ("" if name.startswith("text_projection") else "text_model.") + name: tensor
        for name, tensor in split(net).items()
    }
    save_file(state, folder / f"{WEIGHTS}.safetensors", metadata={"format": "pt"})


def kind(net: ClipText) -> str:
    """The transformers class of a tower."""
    return "CLIPTextModelWithProjection" if net.config.projection else "CLIPTextModel"


RENAMED = (  # unnoise, transformers
    ("table.", "embeddings.token_embedding."),
    ("positions.", "embeddings.position_embedding."),
    ("blocks.", "encoder.layers."),
    ("projection.", "text_projection."),
    (".norm1.", ".layer_norm1."),
    (".norm2.", ".layer_norm2."),
    (".out.", ".self_attn.out_proj."),
    (".linear_in.", ".mlp.fc1."),
    (".linear_out.", ".mlp.fc2."),
)


def pieces(net: ClipText) -> dict[str, dict[str, Shape]]:
    """For each tensor the transformers tensors that are concatenated in it, without prefix, with their shapes."""
    table: dict[str, dict[str, Shape]] = {}
    for name, tensor in net.state_dict().items():
        their, shape = name, tuple(tensor.shape)
        if name.startswith("norm."):
            their = f"final_layer_{name}"
        for ours, theirs in RENAMED:
            at_start = not ours.startswith(".")
            if their.startswith(ours) if at_start else ours in their:
                their = their.replace(ours, theirs, 1)
        if ".qkv." in their:
            third = (shape[0] // 3, *shape[1:])
            table[name] = {their.replace(".qkv.", f".self_attn.{to}_proj."): third for to in "qkv"}
        else:
            table[name] = {their: shape}
    return table


def _plain(name: str) -> str:
    return name.removeprefix("text_model.")
