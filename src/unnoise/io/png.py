"""PNG with a recipe inside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from unnoise.errors import UserError
from unnoise.io.atomic import publish


def write_png(path: Path, picture: Image.Image, recipe: Mapping[str, Any] | None) -> None:
    """Write a PNG with its recipe, or without one (None)."""
    info = PngImagePlugin.PngInfo()
    if recipe is not None:
        info.add_text("unnoise", json.dumps(recipe))
        info.add_itxt("parameters", parameters(recipe))
    publish(path, lambda beside: picture.save(beside, format="PNG", pnginfo=info))


def parameters(recipe: Mapping[str, Any]) -> str:
    """The recipe as other programs write it: the prompt (or the label), the negative prompt, then `Steps: 50, ...`."""
    request = recipe.get("request", {})
    known = {
        "Steps": request.get("steps"),
        "Sampler": request.get("sampler"),
        "Schedule type": request.get("spacing", request.get("grid")),  # `grid` before it was renamed
        "CFG scale": request.get("guidance"),
        "Seed": recipe.get("seed"),
        "Size": "x".join(map(str, recipe.get("size", ()))) or None,
        "Model hash": str(recipe.get("model", {}).get("sha256", ""))[:10] or None,
        "Model": Path(str(recipe.get("model", {}).get("path", ""))).name or None,
        "Version": f"unnoise {recipe.get('versions', {}).get('unnoise', '')}".strip(),
    }
    line = ", ".join(f"{name}: {value}" for name, value in known.items() if value is not None)
    negative = f"\nNegative prompt: {request['negative_prompt']}" if request.get("negative_prompt") else ""
    return f"{recipe.get('prompt') or recipe.get('label') or ''}{negative}\n{line}"


def read_recipe(path: Path) -> dict[str, Any] | None:
    """The recipe inside a picture; None where it has none. UserError where the file is no readable picture."""
    try:
        with Image.open(path) as picture:
            picture.load()  # chunks may stand behind the pixels
            text = picture.info.get("unnoise")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not a picture that can be read: {error}") from error
    if not isinstance(text, str):
        return None
    try:
        recipe = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: its recipe is damaged ({error}). Was the file edited after it was made?") from error
    if not isinstance(recipe, dict):
        raise UserError(f"{path}: its recipe is damaged (no JSON object). Was the file edited after it was made?")
    return recipe
