"""CLIP's text towers in a checkpoint file, under transformers' names or OpenCLIP's.

    transformer.resblocks.{i}.ln_1, attn, ln_2, mlp.c_fc, mlp.c_proj      OpenCLIP's block
    attn.in_proj_weight, in_proj_bias                                     its queries, keys and values, in this order
    text_projection                                                       a matrix that multiplies from the right

Stable Diffusion 1 has OpenAI's tower; 2 has OpenCLIP's ViT-H, of which the last block is not used; XL has the first and
OpenCLIP's ViT-bigG, both without their last block. Heads are 64 wide in all of them. A file contains no tokenizer.
Laws (tests/formats/single_file/test_text.py): the output is that of transformers with the tensors that diffusers'
converter makes of the file.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import NamedTuple

from unnoise.errors import UserError
from unnoise.formats import clip
from unnoise.formats.clip_tokenizer import ClipTokenizer
from unnoise.formats.files import Shape
from unnoise.formats.settings import LAYERS
from unnoise.formats.single_file.contents import OPEN_CLIP
from unnoise.formats.single_file.entries import Entry, plain
from unnoise.nn.clip import ClipConfig

HEAD_WIDTH = 64
TRUNCATED = 23  # blocks of ViT-H in files that diffusers' scripts wrote: the last, which is not used, is left out
PADDING = 0  # OpenCLIP's
BLOCK = {
    "layer_norm1": "ln_1",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


class Names(NamedTuple):
    """Where the shapes of a tower show its sizes: the tensors of embeddings, and of the two-layer network."""

    tokens: str
    positions: str
    blocks: str
    hidden: str
    projection: str


NAMES = {
    False: Names(
        "embeddings.token_embedding.weight",
        "embeddings.position_embedding.weight",
        "encoder.layers.",
        "encoder.layers.0.mlp.fc1.weight",
        "text_projection.weight",
    ),
    True: Names(
        "token_embedding.weight",
        "positional_embedding",
        "transformer.resblocks.",
        "transformer.resblocks.0.mlp.c_fc.weight",
        "text_projection",
    ),
}


def config_of(shapes: Mapping[str, Shape], kind: str, end: int, where: str) -> ClipConfig:
    """The sizes of a tower, from shapes under its names without prefix. `end`: the tokenizer's end token.

    Raises UserError for a tower of which these tensors are missing.
    """
    names = NAMES[kind == OPEN_CLIP]
    for name in names[:2] + names[3:4]:
        if len(shapes.get(name, ())) != 2:
            raise UserError(f"{where}: {name} of the text encoder is missing: part of it is not in this file")
    vocabulary, width = shapes[names.tokens]
    depth = len({n.removeprefix(names.blocks).split(".")[0] for n in shapes if n.startswith(names.blocks)})
    if width % HEAD_WIDTH or depth > LAYERS:
        raise UserError(f"{where}: a text encoder of width {width} with {depth} blocks is not one of CLIP's")
    return ClipConfig(
        vocabulary=vocabulary,
        length=shapes[names.positions][0],
        width=width,
        hidden=shapes[names.hidden][0],
        depth=depth,
        heads=width // HEAD_WIDTH,
        activation="gelu" if kind == OPEN_CLIP else "quick_gelu",
        end=end,
        projection=shapes[names.projection][-1] if kind == OPEN_CLIP and names.projection in shapes else 0,
    )


def entries(config: ClipConfig, kind: str) -> list[Entry]:
    """The entries of a tower; the folder's names have no prefix."""
    shapes = clip.shapes_of(config)
    if kind != OPEN_CLIP:
        return [Entry(name, shape, (name,)) for name, shape in shapes.items()]
    names = {"embeddings.token_embedding": "token_embedding", "final_layer_norm": "ln_final"}
    found: list[Entry] = []
    for i in range(config.depth):
        theirs, block = f"encoder.layers.{i}", f"transformer.resblocks.{i}"
        names |= {f"{theirs}.{name}": f"{block}.{other}" for name, other in BLOCK.items()}
        for leaf in ("weight", "bias"):
            parts = tuple(f"{theirs}.self_attn.{to}_proj.{leaf}" for to in "qkv")
            rows, *rest = shapes[parts[0]]
            found.append(Entry(f"{block}.attn.in_proj_{leaf}", (3 * rows, *rest), parts))
    position, projection = NAMES[False].positions, NAMES[False].projection
    found.append(Entry(NAMES[True].positions, shapes[position], (position,)))
    if config.projection:
        found.append(Entry(NAMES[True].projection, shapes[projection][::-1], (projection,), transposed=True))
    done = {part for entry in found for part in entry.parts}
    return [*found, *plain(names, {name: shape for name, shape in shapes.items() if name not in done})]


def skip_of(config: ClipConfig) -> int:
    """The last blocks of Stable Diffusion 2's tower that are not used: one, if the file has it."""
    return 0 if config.depth == TRUNCATED else 1


def tokenizer_of(tokenizer: ClipTokenizer, kind: str) -> ClipTokenizer:
    """The tokenizer with the padding of a tower: OpenCLIP's is token 0, CLIP's the end token."""
    found = copy.copy(tokenizer)
    found.pad = PADDING if kind == OPEN_CLIP else tokenizer.end
    return found
