"""What reads captions in folders of Stable Diffusion's kind: CLIP's text towers with their tokenizers.

    model_index.json                 which of these parts there are
    text_encoder/, tokenizer/        a tower and what cuts texts for it (clip.py)

Laws (tests/test_pipelines.py): what is written reads captions as before, bit for bit, here, and to 1e-5 in
transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from unnoise.conditions import Cond
from unnoise.errors import UserError
from unnoise.formats import clip
from unnoise.formats.clip import ClipTokenizer
from unnoise.formats.files import read_json
from unnoise.nn.clip import ClipText

INDEX = "model_index.json"
PARTS = ("text_encoder", "tokenizer")


class ClipWords:
    """What reads captions beside a network: a tokenizer and a tower, whose last `skip` blocks are left out."""

    def __init__(self, tokenizer: ClipTokenizer, tower: ClipText, *, skip: int = 0) -> None:
        self.tokenizer, self.tower, self.skip = tokenizer, tower, skip

    @torch.no_grad()
    def read(self, captions: Sequence[str]) -> Cond:
        """Words, a row a caption; all of them count, the padding too, as the networks were trained."""
        return Cond(words=self.tower(self.tokenizer.read(captions), skip=self.skip).words)

    def surplus(self, caption: str) -> str:
        return self.tokenizer.surplus(caption)


def read(folder: Path) -> ClipWords | None:
    """What reads captions, of a folder whose index names it; None where it names no such part.

    Raises UserError that names what is wrong with which file.
    """
    index = read_json(folder / INDEX)
    if not is_part(index.get("text_encoder")):
        return None
    if not is_part(index.get("tokenizer")):
        raise UserError(f"{folder / INDEX} names a text_encoder and no tokenizer: copy the whole folder")
    return _tower(folder / "text_encoder", folder / "tokenizer")


def is_part(value: object) -> bool:
    """Whether this is what an index says of a part that is there."""
    return isinstance(value, list) and len(value) == 2 and value[1] is not None


def _tower(text_encoder: Path, tokenizer: Path) -> ClipWords:
    tower = clip.read(text_encoder)
    read_by = ClipTokenizer.load(tokenizer, tower.config.length)
    if not tower.config.largest_ends and read_by.end != tower.config.end:
        raise UserError(
            f"{tokenizer} ends texts with token {read_by.end}, {text_encoder} reads their vector at "
            f"{tower.config.end}: they are not of one model"
        )
    return ClipWords(read_by, tower)


def write(folder: Path, words: ClipWords) -> dict[str, Any]:
    """The parts of a folder, and what its index says of them. Blocks that are left out are not written."""
    clip.write(folder / "text_encoder", _without_last(words.tower, words.skip))
    words.tokenizer.save(folder / "tokenizer")
    return {
        "text_encoder": ["transformers", clip.kind(words.tower)],
        "tokenizer": ["transformers", "CLIPTokenizer"],
    }


def _without_last(tower: ClipText, skip: int) -> ClipText:
    with torch.device("meta"):
        short = ClipText(replace(tower.config, depth=tower.config.depth - skip))
    state = tower.state_dict()
    short.load_state_dict({name: state[name] for name in short.state_dict()}, assign=True)
    return short


def save(folder: Path, words: ClipWords) -> None:
    """A folder that `read` reads, of these parts alone."""
    folder.mkdir(parents=True, exist_ok=True)
    write_index(folder, write(folder, words))


def write_index(folder: Path, said: Mapping[str, Any]) -> None:
    (folder / INDEX).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
