"""The text encoders of Stable Diffusion folders: CLIP's text towers with their tokenizers.

    model_index.json                 the parts of the folder
    text_encoder/, tokenizer/        a tower and its tokenizer (clip.py)
    text_encoder_2/, tokenizer_2/    a second one: XL has both, its refiner only this one

Laws (tests/formats/test_pipelines.py): an encoder that is written and read again encodes captions as before, bit for
bit, and transformers computes the same to 1e-5.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unnoise.conditions import Cond
from unnoise.errors import UserError
from unnoise.formats import clip
from unnoise.formats.clip_tokenizer import ClipTokenizer
from unnoise.formats.files import read_json
from unnoise.nn.clip import ClipText

INDEX = "model_index.json"
PARTS = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
ZEROS = "force_zeros_for_empty_prompt"


class ClipEncoder:
    """The text encoder of Stable Diffusion 1 and 2: a tokenizer and a tower without its last `skip` blocks."""

    def __init__(self, tokenizer: ClipTokenizer, tower: ClipText, *, skip: int = 0) -> None:
        self.tokenizer, self.tower, self.skip = tokenizer, tower, skip

    @property
    def width(self) -> int:
        """The width of the embeddings."""
        return self.tower.config.width

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> Cond:
        """Embeddings (B, L, width), a row for each caption, without a mask: the networks were trained with padding."""
        return Cond(text=self.tower(self.tokens(captions), skip=self.skip).text)

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """Tokens (B, L) int64. Raises UserError for one that the tower has no embedding for."""
        found, rows = self.tokenizer.encode(captions), self.tower.config.vocabulary
        if found.max() >= rows:
            raise UserError(
                f"the tokenizer has the added token {self.tokenizer.content(int(found.max()))!r}, and the text encoder "
                f"has embeddings for {rows:,} tokens only: copy the text encoder that was trained with it"
            )
        return found

    def truncated(self, caption: str) -> str:
        """The end of a caption that exceeds the length; empty if nothing does."""
        return self.tokenizer.truncated(caption)


class DualClipEncoder:
    """The text encoder of Stable Diffusion XL: one or two towers.

    The embeddings of all towers before their last block are concatenated; the pooled embedding is the last tower's.
    With `zeros` the empty caption, which is the null condition, is encoded as zeros.
    """

    def __init__(self, parts: Sequence[ClipEncoder], *, zeros: bool) -> None:
        self.parts, self.zeros = tuple(parts), zeros

    @property
    def width(self) -> int:
        """The width of the embeddings."""
        return sum(each.width for each in self.parts)

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> Cond:
        """Embeddings (B, L, sum of the widths) and a pooled embedding (B, projection), a row for each caption."""
        found = [each.tower(each.tokens(captions), skip=1 + each.skip, normed=False) for each in self.parts]
        text, pooled = torch.cat([each.text for each in found], dim=2), found[-1].pooled
        if self.zeros:
            given = torch.tensor([bool(caption) for caption in captions])
            text, pooled = text * given[:, None, None], pooled * given[:, None]
        return Cond(text=text, pooled=pooled)

    def truncated(self, caption: str) -> str:
        """The end of a caption that exceeds the length; empty if nothing does."""
        return max((each.truncated(caption) for each in self.parts), key=len)


def read(folder: Path) -> ClipEncoder | DualClipEncoder | None:
    """What reads captions, of a folder whose index names it; None where it names no such part.

    Raises UserError that names what is wrong with which file.
    """
    index = read_json(folder / INDEX)
    for tower, cuts in zip(PARTS[::2], PARTS[1::2]):
        if is_part(index.get(tower)) and not is_part(index.get(cuts)):
            raise UserError(f"{folder / INDEX} lists a {tower} and no {cuts}: copy the whole folder")
    ends = [end for end in ("", "_2") if is_part(index.get(f"text_encoder{end}"))]
    parts = [_tower(folder / f"text_encoder{end}", folder / f"tokenizer{end}") for end in ends]
    if "_2" not in ends:
        return parts[0] if parts else None
    if not parts[-1].tower.config.projection:
        raise UserError(
            f"{folder / 'text_encoder_2'} has no projection: Stable Diffusion XL needs a CLIPTextModelWithProjection"
        )
    if len({part.tower.config.length for part in parts}) > 1:
        raise UserError(f"{folder}: text_encoder and text_encoder_2 have different max_position_embeddings")
    return DualClipEncoder(parts, zeros=index.get(ZEROS, True) is True)


def is_part(value: object) -> bool:
    """Whether this is the entry in model_index.json of a part that the folder contains."""
    return isinstance(value, list) and len(value) == 2 and value[1] is not None


def _tower(text_encoder: Path, tokenizer: Path) -> ClipEncoder:
    tower = clip.read(text_encoder)
    tokens = ClipTokenizer.load(tokenizer, tower.config.length)
    if not tower.config.largest_ends and tokens.end != tower.config.end:
        raise UserError(
            f"{tokenizer} ends texts with token {tokens.end}, and {text_encoder} expects token {tower.config.end}: "
            "they belong to different models"
        )
    return ClipEncoder(tokens, tower)


def write(folder: Path, words: ClipEncoder | DualClipEncoder) -> dict[str, Any]:
    """Write the text encoder's parts into a pipeline folder; returns their entries of its index.

    The last `skip` blocks of a tower are not written. Raises UserError if a tower of XL has some, since its pooled
    embedding depends on all blocks.
    """
    if isinstance(words, ClipEncoder):
        return _write_tower(folder, "", words)
    check(words)
    index: dict[str, Any] = {ZEROS: words.zeros}
    for end, each in zip(("", "_2")[-len(words.parts) :], words.parts):
        index |= _write_tower(folder, end, each)
    return index


def check(words: ClipEncoder | DualClipEncoder) -> None:
    """Raises UserError for a text encoder that `write` cannot write."""
    if isinstance(words, DualClipEncoder) and any(each.skip for each in words.parts):
        raise UserError(
            "towers with skipped blocks cannot be written for XL, whose pooled embedding needs all blocks: use "
            "Model.save, which keeps them"
        )


def _write_tower(folder: Path, end: str, words: ClipEncoder) -> dict[str, Any]:
    clip.write(folder / f"text_encoder{end}", _without_last(words.tower, words.skip))
    words.tokenizer.save(folder / f"tokenizer{end}")
    return {
        f"text_encoder{end}": ["transformers", clip.kind(words.tower)],
        f"tokenizer{end}": ["transformers", "CLIPTokenizer"],
    }


def _without_last(tower: ClipText, skip: int) -> ClipText:
    """The tower without its last blocks, and then without the projection of a pooled embedding, which is the last's."""
    with torch.device("meta"):
        short = ClipText(
            replace(tower.config, depth=tower.config.depth - skip, projection=0 if skip else tower.config.projection)
        )
    state = tower.state_dict()
    short.load_state_dict({name: state[name] for name in short.state_dict()}, assign=True)
    return short


def save(folder: Path, words: ClipEncoder | DualClipEncoder) -> None:
    """Write a folder that `read` reads, with the text encoder alone."""
    folder.mkdir(parents=True, exist_ok=True)
    write_index(folder, write(folder, words))


def write_index(folder: Path, index: Mapping[str, Any]) -> None:
    """Write model_index.json."""
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
