"""Opening picture files that may come from anyone: raster formats only, with a limit on the number of pixels.

Formats that contain a program (EPS, for example, is one) are not opened. The pixels that a header announces are
compared with the limit before any of them is decoded, so that a decompression bomb uses no memory.
"""

from __future__ import annotations

import io
import threading
import warnings
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from unnoise.errors import UserError
from unnoise.io.reading import read_bytes

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
MOST_PIXELS = 89_478_485  # Pillow's own limit: 256 MiB of colour
FILE_BYTES = 256 * 2**20  # an encoded picture larger than this is not read

_filters = threading.Lock()  # warnings.catch_warnings replaces a global list: one thread at a time


def open_picture(data: bytes | BinaryIO, most: int = MOST_PIXELS) -> Image.Image:
    """The picture in an encoded file, of which the header has been read and the pixels have not.

    Raises UserError with the reason alone, without a path, for what is no picture and for more than `most` pixels.
    """
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        with _filters, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(file, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError("a decompression bomb, or far too large: " + str(error)) from error
    except UnidentifiedImageError as error:
        file.seek(0)
        raise UserError(what_it_is(file.read(512))) from error
    except Exception as error:  # Pillow's readers raise OSError, SyntaxError, struct.error, KeyError ...
        raise UserError(f"damaged: {error or type(error).__name__}") from error
    width, height = image.size
    if width * height > most:
        raise UserError(f"{width} x {height} pixels are more than max_pixels = {most:,}")
    return image


def load_picture(path: Path, most: int = MOST_PIXELS) -> Image.Image:
    """The whole picture in a file, with its metadata. Raises UserError, which names the file and the reason."""
    try:
        image = open_picture(read_bytes(path, FILE_BYTES), most)
        image.load()  # metadata may follow the pixels
        return image
    except Exception as error:
        raise UserError(f"{path} is not a picture that can be read: {error or type(error).__name__}") from error


def what_it_is(data: bytes) -> str:
    """The reason why a file that begins with these bytes is no picture, as far as they show."""
    head = data[:512].lstrip().lower()
    if not data:
        return "empty (0 bytes)"
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the file itself: run `git lfs pull`"
    if head.startswith((b"<!doctype html", b"<html")):
        return "an HTML page, not a picture: the download went wrong"
    if head.startswith((b"<?xml", b"<svg")):
        return "an XML or SVG file, not a raster picture"
    return "not a picture in a supported format (" + ", ".join(FORMATS) + ")"
