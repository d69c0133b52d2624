"""Control images, by which a ControlNet is conditioned: edges, segmentations, or pictures of a folder or a column.

Edges are thinned Sobel gradients, white on black: the steepest channel of each pixel, scaled so that a step from black
to white is 1, where it is at least EDGE and not below the neighbours across the edge (Canny 1986, without its smoothing
and its second threshold). A set with exact outlines, as `shapes`, has those instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from os.path import splitext
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unnoise.config.data import DataConfig
from unnoise.data.decode import control_resampling, decode
from unnoise.data.source import Source, Unreadable, reason
from unnoise.errors import UserError, unknown

EDGE = 0.1  # threshold, as a fraction of the step from black to white
SHOWN = 5  # missing control images named in a message

Pixels = NDArray[np.uint8]
ControlImages = Callable[[int, Pixels], Pixels]  # an index in the source and its picture (C, h, w) -> (3, h, w)


def control_images(source: Source, config: DataConfig, controls: Source | None) -> ControlImages:
    """The function that computes or reads the control images of `config.control`; `controls` is its folder, or None.

    Raises UserError if the set has no such control images, or if a picture has none in the folder.
    """
    colour = replace(config, channels=3)
    if controls is not None:
        return _matched(source, controls, colour)
    if config.control in source.controls:
        render = source.controls[config.control]
        return lambda row, pixels: decode(render(row), colour, control=True).pixels
    if config.control == "edges":
        return lambda row, pixels: edges(pixels)
    raise unknown(
        f"control of {source.where}",
        config.control,
        [*{"edges": 0, **source.controls, **source.control_columns}, "a folder of control images"],
    )


def edges(pixels: Pixels) -> Pixels:
    """The edges in a picture (C, h, w), as (3, h, w): 255 on edges, 0 elsewhere."""
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
        ridge |= along & (steep > before) & (steep >= behind)  # the first of two that are equally steep
    found = ridge & (steep >= (EDGE * 4 * 255) ** 2)
    return np.repeat(np.where(found, 255, 0).astype(np.uint8)[None], 3, axis=0)


def _directions(down: NDArray[np.int32], across: NDArray[np.int32]) -> list[tuple[tuple[int, int], NDArray[np.bool_]]]:
    """Four steps (rows, columns), each with the mask of pixels whose gradient is closest to that direction."""
    a, b = np.abs(across), np.abs(down)
    flat, upright = 2 * b < a, 2 * a < b  # within 26.6 degrees of an axis
    falling = ~flat & ~upright & (across * down > 0)
    return [((0, 1), flat), ((1, 0), upright), ((1, 1), falling), ((1, -1), ~flat & ~upright & ~falling)]


def _stem(name: str) -> str:
    """A name without its suffix, with composed accents: macOS decomposes those of file names."""
    return normalize("NFC", splitext(name)[0])


def _matched(source: Source, controls: Source, config: DataConfig) -> ControlImages:
    """The control images in `controls` with the names of the pictures, whatever their suffixes."""
    stems = {_stem(name): row for row, name in enumerate(controls.names)}
    exact = {name: row for row, name in enumerate(controls.names)}
    found = [exact.get(name, stems.get(_stem(name))) for name in source.names]
    missing = [name for name, row in zip(source.names, found) if row is None]
    if missing:
        listed = ", ".join(missing[:SHOWN]) + (f" and {len(missing) - SHOWN:,} more" if len(missing) > SHOWN else "")
        raise UserError(
            f"{controls.where} has no control image for {listed}; give one of the same name, in the same sub-folder, "
            f"for each picture in {source.where}"
        )
    rows = [row for row in found if row is not None]

    def read(row: int, pixels: Pixels) -> Pixels:
        name = controls.names[rows[row]]
        try:
            control = decode(controls.read(rows[row]), config, control=True).pixels
        except (OSError, Unreadable) as error:
            raise UserError(f"the control image {name} in {controls.where} cannot be read: {reason(error)}") from error
        height, width = pixels.shape[1:]
        if max(abs(control.shape[1] - height), abs(control.shape[2] - width)) > 1:
            raise UserError(
                f"the control image {name} in {controls.where} is {control.shape[2]} x {control.shape[1]} but its "
                f"picture is {width} x {height}, at size {config.size}; give it the proportions of the picture"
            )
        if control.shape[1:] == (height, width):
            return control
        image = Image.fromarray(np.ascontiguousarray(control.transpose(1, 2, 0)))  # its longer side was rounded
        return np.asarray(image.resize((width, height), control_resampling(image))).transpose(2, 0, 1)

    return read
