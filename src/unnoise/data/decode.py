"""Decodes picture files to pixels: upright, opaque, 8 bits, grey or colour, with the shorter side resized.

How each kind is converted (tests/data/test_decode.py has a picture with known pixels for each):

    grey, colour           unchanged; grey repeated for 3 channels, colour to grey by ITU-R 601 luma
    transparent            (RGBA, LA, a palette's or a PNG's transparent colour) composited over `background`
    palette                looked up
    CMYK                   (255 - C)(255 - K) / 255 and so on; JPEGs are inverted first, as Adobe writes them
    16 bits grey           v / 257, rounded (65535 is 255); of colour with 16 bits the upper 8
    32 bits, float         broken: their range is not known
    animated               the first frame
    EXIF orientation       applied; colour profiles are not
    resizing               Lanczos, after all of the above; JPEGs much larger than needed are decoded at a smaller scale
    control images         with at most 32 colours, not only black and white: a segmentation map, resized to the nearest
                           pixels, because a mixture of two colours may be that of a third class. Others by Lanczos,
                           because thin black and white lines would break

Which formats are opened, and that pixel counts are checked against `max_pixels` before decoding: io/picture_files.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from unnoise.config.data import DataConfig
from unnoise.data.source import Unreadable
from unnoise.io.picture_files import open_picture

SUFFIXES = frozenset(
    (
        ".png",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".jif",
        ".mpo",
        ".webp",
        ".gif",
        ".apng",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".avif",
        ".jp2",
        ".j2k",
    )
)

MOST_CLASSES = 32  # a control image with at most so many colours is a segmentation map

STORED = "stored size"  # the key of Image.info for the size before a JPEG is decoded at a smaller scale

_UPRIGHT = {  # EXIF 2.3, tag 0x0112: how to turn the stored picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Picture(NamedTuple):
    """A decoded picture, with its size and mode in the file."""

    pixels: NDArray[np.uint8]  # (C, H, W), the shorter of H and W is config.size
    size: tuple[int, int]  # width and height in the file, upright
    mode: str  # as stored, by Pillow's name for it
    brightest: float  # the largest value as stored, as a fraction of white: 4095 / 65535 for 12 bits in 16
    transparent: bool = False  # whether a pixel is, in part or whole


def decode(data: bytes | NDArray[np.uint8], config: DataConfig, *, control: bool = False) -> Picture:
    """Decodes an encoded file, or converts pixels (H, W) or (H, W, C) uint8; `control` True resizes as a control image.

    Raises Unreadable with the reason.
    """
    with _reading():
        image = Image.fromarray(data) if isinstance(data, np.ndarray) else _open(data, config)
        width, height = _stored_size(image)
        turned = _orientation(image) >= 5
        mode, image = image.mode, _upright(image)
        brightest, flat = _brightest(image), _flatten(image, config.background)
        small = _resize(flat, config, control_resampling(flat) if control else Image.Resampling.LANCZOS)
        size = (height, width) if turned else (width, height)
        return Picture(_pixels(small, config.channels), size, mode, brightest, _transparent(image))


def control_resampling(image: Image.Image) -> Image.Resampling:
    """How a control image is resized: a segmentation map to the nearest pixels, anything else by Lanczos."""
    colours = image.convert("RGB").getcolors(MOST_CLASSES)
    found = {colour for _, colour in colours or ()}
    return Image.Resampling.NEAREST if found - {(0, 0, 0), (255, 255, 255)} else Image.Resampling.LANCZOS


def cover(data: bytes, height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """Decodes an encoded file to (C, height, width): resized to cover that size, then cropped at the centre.

    Transparent parts become white. Raises Unreadable with the reason.
    """
    config = DataConfig(size=max(height, width), channels=channels)
    with _reading():
        image = _flatten(_upright(_open(data, config)), config.background)
        if image.size != (width, height):
            image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
        return _pixels(image, channels)


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (Unreadable, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise OSError, SyntaxError, struct.error, KeyError ...
        raise Unreadable(str(error) or type(error).__name__) from error


def _pixels(image: Image.Image, channels: int) -> NDArray[np.uint8]:
    """(C, H, W)."""
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _open(data: bytes, config: DataConfig) -> Image.Image:
    """Checks the header, then loads the picture."""
    image = open_picture(data, config.max_pixels)
    if image.format == "JPEG":
        image.info[STORED] = image.size
        image.draft(None, (2 * config.size, 2 * config.size))  # never below twice the size that Lanczos resizes to
    image.load()
    return image


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height in the file, which is decoded smaller if it is a large JPEG."""
    size: tuple[int, int] = image.info.get(STORED, image.size)
    return size


def _orientation(image: Image.Image) -> int:
    """A key of _UPRIGHT, or 1 for a picture that is upright."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF does not make the pixels unusable
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _upright(image: Image.Image) -> Image.Image:
    orientation = _orientation(image)
    return image if orientation == 1 else image.transpose(_UPRIGHT[orientation])


def _brightest(image: Image.Image) -> float:
    """The largest value as a fraction of white; 1 where transparency or a palette decides what is white."""
    if _sixteen_bits(image):
        return float(np.asarray(image).max()) / 65535
    return float(np.max(image.getextrema())) / 255 if image.mode in ("L", "RGB") else 1.0


def _sixteen_bits(image: Image.Image) -> bool:
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def _flatten(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """The picture without transparency, in 8 bits: mode L or RGB."""
    if _sixteen_bits(image):
        image = _eight_bits(image)
    elif image.mode in ("I", "F"):
        raise Unreadable(f"pixels of mode {image.mode} (32 bits) have no known range: save it with 8 or 16 bits")
    if image.has_transparency_data:
        above = image.convert("RGBA")
        below = Image.new("RGB", image.size, background)
        below.paste(above, mask=above.getchannel("A"))
        return below
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _transparent(image: Image.Image) -> bool:
    """Whether the background is visible somewhere in the picture."""
    if not image.has_transparency_data:
        return False
    if image.mode.startswith("I;16") or image.mode == "I":
        return bool((np.asarray(image) == image.info.get("transparency")).any())
    return bool((np.asarray(image.convert("RGBA").getchannel("A")) < 255).any())


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    grey = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    clear = image.info.get("transparency")  # the transparent grey of a PNG, as a 16-bit value
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def _resize(image: Image.Image, config: DataConfig, resampling: Image.Resampling) -> Image.Image:
    """Resizes the shorter side to `size` and the other in proportion, rounded."""
    short = min(image.size)
    if short == config.size:
        return image
    width, height = (max(config.size, (side * config.size + short // 2) // short) for side in image.size)
    if width * height > max(config.max_pixels, config.size**2):
        raise Unreadable(f"{image.size[0]} x {image.size[1]} pixels are too thin to be resized to {config.size}")
    return image.resize((width, height), resampling)
