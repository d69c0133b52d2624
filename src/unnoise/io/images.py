"""Sheets of pictures: grids, with labels at the left and captions below."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from unnoise.io.fonts import Font, font_for

Pixels = NDArray[np.uint8]  # (H, W) grey or (H, W, 3) colour

PAPER, INK, FRAME = (255, 255, 255), (40, 40, 40), (190, 190, 190)


def image(pixels: Pixels) -> Image.Image:
    """The picture of (H, W), (H, W, 1) or (H, W, 3) bytes."""
    return Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels)


def enlargement(size: int, *, at_least: int = 56) -> int:
    """The smallest whole factor that enlarges `size` pixels to `at_least`."""
    return max(1, -(-at_least // size)) if size < at_least else 1


def enlarged(picture: Image.Image, size: int, scale: int | None = None) -> Image.Image:
    """The picture with each pixel repeated `scale` times in each direction; None: `enlargement(size)`."""
    scale = scale or enlargement(size)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def grid(
    pictures: Sequence[Pixels], *, columns: int, rows: Sequence[str] = (), scale: int | None = None, gap: int = 3
) -> Image.Image:
    """Pictures in reading order, `columns` per line, `gap` pixels apart, on white.

    Each is enlarged `scale` times by repeating pixels; None is the `enlargement` of the largest. `rows` are labels at
    the left, one per line. Pictures of unequal size are at the upper left of equal cells.
    """
    assert pictures, "a grid of no pictures"
    height = max(p.shape[0] for p in pictures)
    width = max(p.shape[1] for p in pictures)
    scale = scale or enlargement(min(height, width))
    across, down = width * scale + gap, height * scale + gap
    sheet = Image.new("RGB", (columns * across + gap, -(-len(pictures) // columns) * down + gap), PAPER)
    for i, pixels in enumerate(pictures):
        picture = enlarged(image(pixels).convert("RGB"), height, scale)
        sheet.paste(picture, (gap + i % columns * across, gap + i // columns * down))
    return with_labels(sheet, rows) if any(rows) else sheet


def with_labels(sheet: Image.Image, names: Sequence[str]) -> Image.Image:
    """A sheet of lines of equal height, with their names at the left."""
    line = sheet.height / len(names)
    font = font_for(names, max(10, min(18, line / 4)))
    margin = math.ceil(max(font.getlength(name) for name in names)) + 20
    out = Image.new("RGB", (margin + sheet.width, sheet.height), PAPER)
    out.paste(sheet, (margin, 0))
    draw = ImageDraw.Draw(out)
    for i, name in enumerate(names):
        draw.text((margin - 8, (i + 0.5) * line), name, fill=INK, font=font, anchor="rm")
    return out


def with_words(sheet: Image.Image, words: Sequence[str], across: int) -> Image.Image:
    """A sheet with a text below each of `len(words)` columns of equal width, which fill its right `across` pixels."""
    font, each = font_for(words, 11), across // len(words)
    lines = [wrapped(text, each - 6, font) for text in words]
    out = Image.new("RGB", (sheet.width, sheet.height + 14 * max(text.count("\n") + 1 for text in lines) + 8), PAPER)
    out.paste(sheet, (0, 0))
    draw = ImageDraw.Draw(out)
    for i, text in enumerate(lines):
        draw.multiline_text(
            (sheet.width - across + i * each + 4, sheet.height + 2), text, fill=INK, font=font, spacing=2
        )
    return out


def sheet(blocks: Mapping[tuple[str, str], Any], across: int = 2, below: Sequence[str] = ()) -> Image.Image:
    """A table of grids: each cell, by the names of its row and column, has pictures (B, C, H, W), `across` per line.

    `below` are texts below the pictures of a line.
    """
    rows = list(dict.fromkeys(row for row, _ in blocks))
    columns = list(dict.fromkeys(column for _, column in blocks))
    cells = {
        where: grid(list(pixels.permute(0, 2, 3, 1).numpy()), columns=min(across, len(pixels)), gap=1)
        for where, pixels in blocks.items()
    }
    width = max(cell.width for cell in cells.values()) + 6
    height = max(cell.height for cell in cells.values()) + 6
    body = Image.new("RGB", (width * len(columns), height * len(rows)), PAPER)
    for (row, column), cell in cells.items():
        body.paste(cell, (columns.index(column) * width + 3, rows.index(row) * height + 3))
    body = with_labels(body, rows)
    if below:
        body = with_words(body, [*below] * len(columns), width * len(columns))
    if not any(columns):
        return body
    font = ImageFont.load_default(16)
    out = Image.new("RGB", (body.width, body.height + 24), PAPER)
    out.paste(body, (0, 24))
    draw, margin = ImageDraw.Draw(out), body.width - width * len(columns)
    for at, column in enumerate(columns):
        draw.text((margin + (at + 0.5) * width, 12), column, fill=INK, font=font, anchor="mm")
    return out


def captioned(cells: Sequence[tuple[Sequence[Pixels], str]], *, columns: int, at_least: int = 96) -> Image.Image:
    """Cells of pictures of one size side by side with a text below them, `columns` cells per line."""
    font, gap = font_for([text for _, text in cells], 11), 8
    height, width = cells[0][0][0].shape[:2]
    scale = enlargement(min(height, width), at_least=at_least)
    across = len(cells[0][0]) * (width * scale + 2) - 2
    words = [wrapped(text, max(across, 120), font) for _, text in cells]
    cell = max(across, 120) + gap, height * scale + 4 + 14 * max(text.count("\n") + 1 for text in words) + gap
    sheet = Image.new("RGB", (columns * cell[0] + gap, -(-len(cells) // columns) * cell[1] + gap), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, ((pictures, _), text) in enumerate(zip(cells, words)):
        left, top = gap + i % columns * cell[0], gap + i // columns * cell[1]
        for j, pixels in enumerate(pictures):
            large = enlarged(image(pixels).convert("RGB"), height, scale)
            start = left + j * (width * scale + 2)
            sheet.paste(large, (start, top))
            draw.rectangle((start - 1, top - 1, start + large.width, top + large.height), outline=FRAME)
        draw.multiline_text((left, top + height * scale + 3), text, fill=INK, font=font, spacing=2)
    return sheet


def wrapped(text: str, width: int, font: Font) -> str:
    """The text in lines of at most `width` pixels; a longer word has a line of its own."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)
