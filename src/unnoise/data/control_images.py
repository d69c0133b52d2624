"""What is drawn beside a picture, for a network to follow: outlines, segmentations, or drawings from a folder.

Outlines are thinned Sobel gradients, white on black: of each pixel the steepest channel, divided so that a step from
black to white is 1; kept where it is EDGE or more and no lower than both neighbours across the edge (Canny 1986,
without its smoothing and its second threshold). A set that knows its outlines gives those instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unnoise.config.data import DataConfig
from unnoise.data.decode import between, decode
from unnoise.data.source import Source, Unreadable, reason
from unnoise.errors import UserError, unknown

EDGE = 0.1  # of the step from black to white
SHOWN = 5  # missing drawings named in a message

Pixels = NDArray[np.uint8]
Drawer = Callable[[int, Pixels], Pixels]  # a place in the source and its picture (C, h, w) -> (3, h, w)


def drawer(source: Source, config: DataConfig, drawings: Source | None) -> Drawer:
    """Who draws what `config.control` asks for; `drawings` are those of a folder, None where it is none.

    Raises UserError where the set has no such drawings, or a picture has none.
    """
    asked = replace(config, channels=3)
    if drawings is not None:
        return _matched(source, drawings, asked)
    if config.control in source.controls:
        draw = source.controls[config.control]
        return lambda place, pixels: decode(draw(place), asked, drawing=True).pixels
    if config.control == "edges":
        return lambda place, pixels: edges(pixels)
    raise unknown(f"control of {source.where}", config.control, [*{"edges", *source.controls}, "a folder of drawings"])


def edges(pixels: Pixels) -> Pixels:
    """The outlines in a picture (C, h, w), as (3, h, w): 255 on edges, 0 elsewhere."""
    light = np.pad(pixels.astype(np.int32), ((0, 0), (1, 1), (1, 1)), mode="edge")
    down = light[:, 2:] - light[:, :-2]
    across = light[:, :, 2:] - light[:, :, :-2]
    down = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    across = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    squared = down**2 + across**2
    steepest = squared.argmax(0)[None]
    down, across, steep = (np.take_along_axis(part, steepest, 0)[0] for part in (down, across, squared))
    padded = np.pad(steep, 1)
    ridge = np.zeros(steep.shape, np.bool_)
    for step, along in _directions(down, across):
        before, behind = (
            padded[
                1 + s * step[0] : 1 + s * step[0] + steep.shape[0], 1 + s * step[1] : 1 + s * step[1] + steep.shape[1]
            ]
            for s in (-1, 1)
        )
        ridge |= along & (steep > before) & (steep >= behind)  # of two as steep, the first
    found = ridge & (steep >= (EDGE * 4 * 255) ** 2)
    return np.repeat(np.where(found, 255, 0).astype(np.uint8)[None], 3, axis=0)


def _directions(down: NDArray[np.int32], across: NDArray[np.int32]) -> list[tuple[tuple[int, int], NDArray[np.bool_]]]:
    """Four steps (rows, columns), and where the gradient points most nearly along each."""
    a, b = np.abs(across), np.abs(down)
    flat, upright = 2 * b < a, 2 * a < b  # within 26.6 degrees of an axis
    falling = ~flat & ~upright & (across * down > 0)
    return [((0, 1), flat), ((1, 0), upright), ((1, 1), falling), ((1, -1), ~flat & ~upright & ~falling)]


def _matched(source: Source, drawings: Source, config: DataConfig) -> Drawer:
    """Drawings of the same names, whatever their endings."""
    stem = {str(PurePosixPath(name).with_suffix("")): row for row, name in enumerate(drawings.names)}
    wanted = [str(PurePosixPath(name).with_suffix("")) for name in source.names]
    missing = [name for name, bare in zip(source.names, wanted) if bare not in stem]
    if missing:
        listed = ", ".join(missing[:SHOWN]) + (f" and {len(missing) - SHOWN:,} more" if len(missing) > SHOWN else "")
        raise UserError(
            f"{drawings.where} has no drawing for {listed}; give one of the same name, in the same sub-folder, "
            f"for each picture in {source.where}"
        )
    rows = [stem[bare] for bare in wanted]

    def draw(place: int, pixels: Pixels) -> Pixels:
        name = drawings.names[rows[place]]
        try:
            drawn = decode(drawings.read(rows[place]), config, drawing=True).pixels
        except (OSError, Unreadable) as error:
            raise UserError(f"the drawing {name} in {drawings.where} cannot be read: {reason(error)}") from error
        height, width = pixels.shape[1:]
        if max(abs(drawn.shape[1] - height), abs(drawn.shape[2] - width)) > 1:
            raise UserError(
                f"the drawing {name} in {drawings.where} is {drawn.shape[2]} x {drawn.shape[1]} where its picture is "
                f"{width} x {height}, at size {config.size}; draw it in the proportions of the picture"
            )
        if drawn.shape[1:] == (height, width):
            return drawn
        image = Image.fromarray(np.ascontiguousarray(drawn.transpose(1, 2, 0)))  # of another size, so rounded otherwise
        return np.asarray(image.resize((width, height), between(image))).transpose(2, 0, 1)

    return draw
