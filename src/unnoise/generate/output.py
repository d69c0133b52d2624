"""Samples on disk: a PNG per picture with its recipe, named by its seed and its class or prompt; tensors."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from unnoise.generate.recipe import picture_recipe
from unnoise.generate.rows import Row
from unnoise.generate.sheets import Sample
from unnoise.io.atomic import publish
from unnoise.io.images import image
from unnoise.io.png import write_png


def write_sample(
    folder: Path, sample: Sample, recipe: dict[str, Any] | None, names: Mapping[str, str], *, previews: int
) -> dict[str, Any]:
    """Write a picture, and `previews` of its previews beside it; returns its seed, its class or prompt, and its path.

    `names` maps each prompt to its part of the file's name; {} for a model of classes. `recipe` None: no recipe.
    """
    seed, label = sample.row
    path = folder / picture_name(sample.row, names)
    height, width = sample.pixels.shape[:2]
    if recipe is not None:
        recipe = picture_recipe(recipe, sample.row, sample.together, size=(width, height), prompted=bool(names))
    write_png(path, image(sample.pixels), recipe)
    shown = [(step, pixels) for step, pixels in sample.previews if step > 0]
    for i in range(min(previews, len(shown))):
        step, pixels = shown[(i + 1) * len(shown) // (previews + 1) if len(shown) > previews else i]
        write_png(path.with_name(f"{path.stem}-step-{step:04d}.png"), image(pixels), None)
    return {"seed": seed, "prompt" if names else "label": label, "path": str(path)}


def picture_name(row: Row, names: Mapping[str, str]) -> str:
    """The name of the file of a row's picture; `names` maps each prompt to its part of it."""
    seed, label = row
    return f"seed-{seed:06d}" + (f"-{names.get(label) or file_name(label)}" if label is not None else "") + ".png"


def file_names(prompts: Sequence[str]) -> dict[str, str]:
    """Each prompt as part of a file's name; prompts with the same first words also get their number."""
    plain = {text: file_name(text, empty="prompt" if text.strip() else "no-prompt") for text in prompts}
    often = Counter(plain.values())
    return {text: f"{name}-{prompts.index(text)}" if often[name] > 1 else name for text, name in plain.items()}


def file_name(label: str, most: int = 60, *, empty: str = "class") -> str:
    """A class's name or a prompt as part of a file's name: letters, digits and dashes, as many whole words as fit.

    `empty` where no letter or digit is left.
    """
    words = "".join(c if c.isalnum() else " " for c in label.lower()).split()
    name = "-".join(words) or empty
    return name if len(name) <= most else name[:most].rsplit("-", 1)[0]


def save_tensor(path: Path, name: str, tensor: Tensor, about: dict[str, Any]) -> None:
    """Write a tensor as safetensors, with `about` as JSON in its header."""
    metadata = {"unnoise": json.dumps(about, default=str)}
    publish(path, lambda beside: save_file({name: tensor.contiguous()}, beside, metadata=metadata))
