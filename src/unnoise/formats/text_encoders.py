"""What reads captions in folders of Stable Diffusion's kind: CLIP's text towers with their tokenizers.

    model_index.json                 which of these parts there are
    text_encoder/, tokenizer/        a tower and what cuts texts for it (clip.py)
    text_encoder_2/, tokenizer_2/    another: XL has both, its refiner this one alone

Laws (tests/formats/test_pipelines.py): what is written reads captions as before, bit for bit, here, and to 1e-5 in
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
PARTS = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
ZEROS = "force_zeros_for_empty_prompt"


class ClipEncoder:
    """What reads captions beside a network: a tokenizer and a tower, whose last `skip` blocks are left out."""

    def __init__(self, tokenizer: ClipTokenizer, tower: ClipText, *, skip: int = 0) -> None:
        self.tokenizer, self.tower, self.skip = tokenizer, tower, skip

    @property
    def width(self) -> int:
        """Of its words."""
        return self.tower.config.width

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> Cond:
        """Words, a row a caption; all of them count, the padding too, as the networks were trained."""
        return Cond(text=self.tower(self.tokenizer.encode(captions), skip=self.skip).text)

    def truncated(self, caption: str) -> str:
        return self.tokenizer.truncated(caption)


class DualClipEncoder:
    """Stable Diffusion XL's: what one or two towers make of a caption before their last block, side by side, and the
    last tower's vector. With `zeros` the empty caption, which is what a network hears that is told nothing, is zeros.
    """

    def __init__(self, parts: Sequence[ClipEncoder], *, zeros: bool) -> None:
        self.parts, self.zeros = tuple(parts), zeros

    @property
    def width(self) -> int:
        """Of its words."""
        return sum(each.width for each in self.parts)

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> Cond:
        """Words (B, L, the towers' widths together) and a vector (B, projection), a row a caption."""
        heard = [each.tower(each.tokenizer.encode(captions), skip=1 + each.skip, normed=False) for each in self.parts]
        words, vector = torch.cat([one.text for one in heard], dim=2), heard[-1].pooled
        if self.zeros:
            said = torch.tensor([bool(caption) for caption in captions])
            words, vector = words * said[:, None, None], vector * said[:, None]
        return Cond(text=words, pooled=vector)

    def truncated(self, caption: str) -> str:
        return max((each.truncated(caption) for each in self.parts), key=len)


def read(folder: Path) -> ClipEncoder | DualClipEncoder | None:
    """What reads captions, of a folder whose index names it; None where it names no such part.

    Raises UserError that names what is wrong with which file.
    """
    index = read_json(folder / INDEX)
    for tower, cuts in zip(PARTS[::2], PARTS[1::2]):
        if is_part(index.get(tower)) and not is_part(index.get(cuts)):
            raise UserError(f"{folder / INDEX} names a {tower} and no {cuts}: copy the whole folder")
    ends = [end for end in ("", "_2") if is_part(index.get(f"text_encoder{end}"))]
    parts = [_tower(folder / f"text_encoder{end}", folder / f"tokenizer{end}") for end in ends]
    if "_2" not in ends:
        return parts[0] if parts else None
    if not parts[-1].tower.config.projection:
        raise UserError(f"{folder / 'text_encoder_2'} has no projection: XL's is a CLIPTextModelWithProjection")
    if len({part.tower.config.length for part in parts}) > 1:
        raise UserError(f"{folder}: text_encoder and text_encoder_2 read texts of different lengths")
    return DualClipEncoder(parts, zeros=index.get(ZEROS, True) is True)


def is_part(value: object) -> bool:
    """Whether this is what an index says of a part that is there."""
    return isinstance(value, list) and len(value) == 2 and value[1] is not None


def _tower(text_encoder: Path, tokenizer: Path) -> ClipEncoder:
    tower = clip.read(text_encoder)
    read_by = ClipTokenizer.load(tokenizer, tower.config.length)
    if not tower.config.largest_ends and read_by.end != tower.config.end:
        raise UserError(
            f"{tokenizer} ends texts with token {read_by.end}, {text_encoder} reads their vector at "
            f"{tower.config.end}: they are not of one model"
        )
    return ClipEncoder(read_by, tower)


def write(folder: Path, words: ClipEncoder | DualClipEncoder) -> dict[str, Any]:
    """The parts of a folder, and what its index says of them. Blocks that are left out of a tower's words are not
    written; raises UserError where XL's leave some out, whose vector is of all of them.
    """
    if isinstance(words, ClipEncoder):
        return _write_tower(folder, "", words)
    check(words)
    said: dict[str, Any] = {ZEROS: words.zeros}
    for end, each in zip(("", "_2")[-len(words.parts) :], words.parts):
        said |= _write_tower(folder, end, each)
    return said


def check(words: ClipEncoder | DualClipEncoder) -> None:
    """Raises UserError for what `write` cannot say."""
    if isinstance(words, DualClipEncoder) and any(each.skip for each in words.parts):
        raise UserError("towers whose last blocks are left out cannot be written for XL, whose vector is of all blocks")


def _write_tower(folder: Path, end: str, words: ClipEncoder) -> dict[str, Any]:
    clip.write(folder / f"text_encoder{end}", _without_last(words.tower, words.skip))
    words.tokenizer.save(folder / f"tokenizer{end}")
    return {
        f"text_encoder{end}": ["transformers", clip.kind(words.tower)],
        f"tokenizer{end}": ["transformers", "CLIPTokenizer"],
    }


def _without_last(tower: ClipText, skip: int) -> ClipText:
    with torch.device("meta"):
        short = ClipText(replace(tower.config, depth=tower.config.depth - skip))
    state = tower.state_dict()
    short.load_state_dict({name: state[name] for name in short.state_dict()}, assign=True)
    return short


def save(folder: Path, words: ClipEncoder | DualClipEncoder) -> None:
    """A folder that `read` reads, of these parts alone."""
    folder.mkdir(parents=True, exist_ok=True)
    write_index(folder, write(folder, words))


def write_index(folder: Path, said: Mapping[str, Any]) -> None:
    (folder / INDEX).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
