"""PNG files with the recipe of the picture, by which it can be generated again, in their metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from unnoise.errors import UserError
from unnoise.io.atomic import publish
from unnoise.io.json_files import parse_json
from unnoise.io.picture_files import load_picture


def write_png(path: Path, picture: Image.Image, recipe: Mapping[str, Any] | None) -> None:
    """Writes a PNG with its recipe; None: without."""
    info = PngImagePlugin.PngInfo()
    if recipe is not None:
        info.add_text("unnoise", json.dumps(recipe))
        info.add_itxt("parameters", parameters(recipe))
    publish(path, lambda beside: picture.save(beside, format="PNG", pnginfo=info))


def parameters(recipe: Mapping[str, Any]) -> str:
    """The recipe in the form of other programs: prompt (or label), negative prompt, then `Steps: 50, Sampler: ...`."""
    request = recipe.get("request", {})
    known = {
        "Steps": request.get("steps"),
        "Sampler": request.get("sampler"),
        "Schedule type": request.get("spacing", request.get("grid")),  # `grid` in recipes of earlier versions
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
    """The recipe in a picture; None if it has none. Raises UserError if the file or its recipe cannot be read."""
    text = load_picture(path).info.get("unnoise")
    if not isinstance(text, str):
        return None
    try:
        recipe = parse_json(text, "it")
    except UserError as error:
        raise UserError(f"{path}: its recipe is damaged ({error}). Was the file edited after it was made?") from error
    if not isinstance(recipe, dict):
        raise UserError(f"{path}: its recipe is damaged (no JSON object). Was the file edited after it was made?")
    return recipe
