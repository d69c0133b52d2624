"""Each kind of picture becomes the bytes that its pixels mean: tiny pictures with a known truth."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from unnoise.config.data import DataConfig
from unnoise.data.decode import cover, decode
from unnoise.data.source import Unreadable

BACKGROUND = (200, 100, 50)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(data: bytes | np.ndarray, *, size: int = 2, channels: int = 3, **options: object) -> np.ndarray:
    """(H, W, C) bytes."""
    config = DataConfig(size=size, channels=channels, background=BACKGROUND, **options)
    return decode(data, config).pixels.transpose(1, 2, 0)


def picture(values: object, mode: str | None = None) -> Image.Image:
    image = Image.fromarray(np.array(values, np.uint8))
    return image.convert(mode) if mode else image


def png(header: tuple[int, int, int, int], rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG made by hand: width, height, depth, colour type; filter bytes are in `rows`."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0)),
        *chunks,
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + body


COLOURS = [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]]]
GREYS = [[0, 85], [170, 255]]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_colour_is_unchanged(kind: str) -> None:
    assert decoded(encoded(picture(COLOURS), kind)).tolist() == COLOURS


def test_lossless_webp_is_unchanged() -> None:
    assert decoded(encoded(picture(COLOURS), "WEBP", lossless=True)).tolist() == COLOURS


def test_grey_is_repeated_and_colour_becomes_luma() -> None:
    assert decoded(encoded(picture(GREYS))).tolist() == [[[v] * 3 for v in row] for row in GREYS]
    luma = [[round(0.299 * r + 0.587 * g + 0.114 * b) for r, g, b in row] for row in COLOURS]  # ITU-R 601
    assert decoded(encoded(picture(COLOURS)), channels=1)[..., 0].tolist() == luma


def test_one_bit_is_black_and_white() -> None:
    assert decoded(encoded(picture([[0, 255], [255, 0]]).convert("1")), channels=1)[..., 0].tolist() == [
        [0, 255],
        [255, 0],
    ]


def over(colour: tuple[int, ...], alpha: int) -> list[int]:
    return [round((c * alpha + b * (255 - alpha)) / 255) for c, b in zip(colour, BACKGROUND)]


@pytest.mark.parametrize("alpha", [0, 1, 100, 254, 255])
def test_transparent_pixels_are_composited_over_the_background(alpha: int) -> None:
    rgba = picture(np.full((2, 2, 4), (11, 222, 133, alpha)))
    assert decoded(encoded(rgba)).tolist() == [[over((11, 222, 133), alpha)] * 2] * 2
    grey = Image.merge("LA", (Image.new("L", (2, 2), 40), Image.new("L", (2, 2), alpha)))
    assert decoded(encoded(grey)).tolist() == [[over((40, 40, 40), alpha)] * 2] * 2


def test_palette_is_looked_up_and_its_transparent_colour_shows_the_background() -> None:
    image = picture([[0, 1], [2, 1]])
    image = Image.frombytes("P", (2, 2), image.tobytes())
    image.putpalette([9, 8, 7, 60, 50, 40, 255, 255, 0])
    assert decoded(encoded(image)).tolist() == [[[9, 8, 7], [60, 50, 40]], [[255, 255, 0], [60, 50, 40]]]
    for kind in ("PNG", "GIF"):
        clear = decoded(encoded(image, kind, transparency=1))
        assert clear.tolist() == [[[9, 8, 7], list(BACKGROUND)], [[255, 255, 0], list(BACKGROUND)]]
    partly = decoded(encoded(image, transparency=bytes([255, 100, 0])))  # an alpha for each colour
    assert partly.tolist() == [[[9, 8, 7], over((60, 50, 40), 100)], [list(BACKGROUND), over((60, 50, 40), 100)]]


def test_png_transparent_colour_shows_the_background() -> None:
    rgb = decoded(encoded(picture(COLOURS), transparency=(0, 255, 0)))
    assert rgb.tolist() == [[[255, 0, 0], list(BACKGROUND)], COLOURS[1]]
    grey = decoded(encoded(picture(GREYS), transparency=170))
    assert grey.tolist() == [[[0] * 3, [85] * 3], [list(BACKGROUND), [255] * 3]]


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk_is_ink_on_paper(kind: str) -> None:
    inks = (64, 128, 0, 51)
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    data = encoded(Image.new("CMYK", (8, 8), inks), kind, **options)
    expected = [(255 - ink) * (255 - inks[3]) / 255 for ink in inks[:3]]
    assert np.abs(decoded(data, size=8)[4, 4] - expected).max() <= (3 if kind == "JPEG" else 1)


def test_sixteen_bits_are_scaled_not_truncated() -> None:
    values = np.array([[0, 257 * 100], [65535, 40000]], np.uint16)
    expected = [[0, 100], [255, round(40000 / 257)]]
    for kind in ("PNG", "TIFF"):
        assert decoded(encoded(Image.fromarray(values), kind), channels=1)[..., 0].tolist() == expected
    pgm = b"P5 2 2 65535\n" + values.astype(">u2").tobytes()
    assert decoded(pgm, channels=1)[..., 0].tolist() == expected
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    rounded = np.rint(every / 257).astype(np.uint8)
    assert (decoded(encoded(Image.fromarray(every)), size=256, channels=1)[..., 0] == rounded).all()


def test_sixteen_bit_colour_keeps_the_upper_eight() -> None:
    row = struct.pack(">6H", 65535, 0x1234, 0, 0xABCD, 0x00FF, 0x0100)
    data = png((2, 2, 16, 2), b"\0" + row + b"\0" + row)
    assert decoded(data).tolist() == [[[255, 0x12, 0], [0xAB, 0, 1]]] * 2


def test_sixteen_bit_transparent_grey_shows_the_background() -> None:
    rows = b"\0" + struct.pack(">2H", 0, 40000) + b"\0" + struct.pack(">2H", 40001, 65535)
    data = png((2, 2, 16, 0), rows, (b"tRNS", struct.pack(">H", 40000)))
    assert decoded(data).tolist() == [[[0] * 3, list(BACKGROUND)], [[156] * 3, [255] * 3]]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_thirty_two_bits_have_no_range(mode: str) -> None:
    with pytest.raises(Unreadable, match="32 bits"):
        decoded(encoded(Image.new(mode, (2, 2), 7), "TIFF"))


def test_animated_is_its_first_frame() -> None:
    first, second = Image.new("RGB", (2, 2), (255, 0, 0)), Image.new("RGB", (2, 2), (0, 0, 255))
    for kind in ("GIF", "PNG", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(first, kind, save_all=True, append_images=[second], duration=100, **options)
        assert decoded(data)[0, 0].tolist() == [255, 0, 0], kind


# A stored picture whose EXIF orientation is k must be shown like this (EXIF 2.3: where row 0 and column 0 lie).
UPRIGHT = [[1, 2, 3], [4, 5, 6]]
STORED = {
    1: UPRIGHT,
    2: [[3, 2, 1], [6, 5, 4]],  # column 0 is the right-hand side
    3: [[6, 5, 4], [3, 2, 1]],  # row 0 at the bottom, column 0 on the right
    4: [[4, 5, 6], [1, 2, 3]],  # row 0 at the bottom
    5: [[1, 4], [2, 5], [3, 6]],  # row 0 is the left-hand side, column 0 the top
    6: [[3, 6], [2, 5], [1, 4]],  # row 0 is the right-hand side, column 0 the top
    7: [[6, 3], [5, 2], [4, 1]],  # row 0 is the right-hand side, column 0 the bottom
    8: [[4, 1], [5, 2], [6, 3]],  # row 0 is the left-hand side, column 0 the bottom
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode(encoded(picture(STORED[orientation]), exif=exif), DataConfig(size=2, channels=1))
    assert found.pixels[0].tolist() == UPRIGHT
    assert found.size == (3, 2)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [2, 40])
def test_the_size_is_that_in_the_file_whatever_scale_it_is_decoded_at(orientation: int, kind: str, size: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode(encoded(Image.new("L", (250, 161)), kind, exif=exif), DataConfig(size=size, channels=1))
    assert found.size == ((161, 250) if orientation >= 5 else (250, 161))


def test_the_first_of_several_pictures_in_a_jpeg_is_read() -> None:
    data = encoded(
        Image.new("RGB", (8, 8), (200, 0, 0)), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))]
    )
    assert abs(decoded(data).astype(int) - (200, 0, 0)).max() < 8


def test_unknown_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 99
    assert decoded(encoded(picture(COLOURS), exif=exif)).tolist() == COLOURS


def test_shorter_side_becomes_size_and_proportions_are_preserved() -> None:
    config = DataConfig(size=10, channels=1)
    for size, shape in (((40, 20), (10, 20)), ((20, 30), (15, 10)), ((10, 10), (10, 10)), ((5, 7), (14, 10))):
        assert decode(encoded(Image.new("L", size, 77)), config).pixels.shape[1:] == shape
    assert (decode(encoded(Image.new("L", (40, 20), 77)), config).pixels == 77).all()  # Lanczos keeps a constant


def test_reducing_averages_instead_of_picking() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 256), np.uint8)
    small = decoded(encoded(picture(noise)), size=16, channels=1)
    assert small.std() < noise.std() / 8  # a mean of about 16 x 16 pixels; one of them would keep the spread


def test_a_large_jpeg_is_not_decoded_at_too_small_a_scale() -> None:
    squares = np.kron(np.indices((32, 32)).sum(0) % 2 * 255, np.ones((4, 4)))  # JPEGs go down to 1/8 at once
    two = [decoded(data, size=32, channels=1).astype(int) for data in (encoded(picture(squares), "JPEG", quality=95),
                                                                    encoded(picture(squares)))]  # fmt: skip
    assert np.abs(two[0] - two[1]).max() < 15  # decoded at too small a scale, it would be grey: off by 55
    ramp = np.tile(np.linspace(0, 255, 1024), (1024, 1))
    small = decoded(encoded(picture(ramp), "JPEG", quality=95), size=32, channels=1)[..., 0]
    truth = np.linspace(0, 255, 1024).reshape(32, 32).mean(1)
    assert np.abs(small - truth).max() < 3


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>404</html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "git lfs pull"),
        (b'<?xml version="1.0"?><svg/>', "SVG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n", "not a picture"),  # a program: never run
        (b"\x80\x04\x95cposix\nsystem\n", "not a picture"),
    ],
)
def test_the_reason_names_what_a_file_is(data: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        decoded(data)


def test_truncated_files_are_broken() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        data = encoded(Image.fromarray(noise), kind)
        with pytest.raises(Unreadable):
            decoded(data[: len(data) // 2])


def test_too_many_pixels_are_refused_by_the_header() -> None:
    data = encoded(Image.new("L", (101, 100)))
    assert decoded(data, max_pixels=10_100).shape == (2, 2, 3)
    with pytest.raises(Unreadable, match="max_pixels"):
        decoded(data, max_pixels=10_099)


def test_a_very_thin_picture_is_not_enlarged() -> None:
    with pytest.raises(Unreadable, match="thin"):
        decoded(encoded(Image.new("L", (60_000, 1))), size=64)


def test_pixels_are_converted_like_files() -> None:
    values = np.array(COLOURS, np.uint8)
    for channels in (1, 3):
        assert (decoded(values, channels=channels) == decoded(encoded(picture(values)), channels=channels)).all()


def test_cover_crops_at_the_centre() -> None:
    wide = [[[10 * x + y] * 3 for x in range(6)] for y in range(2)]
    data = encoded(picture(wide))
    assert cover(data, 2, 6, 3).transpose(1, 2, 0).tolist() == wide
    assert cover(data, 2, 2, 1).tolist() == [[[20, 30], [21, 31]]]
    assert cover(data, 2, 4, 1).tolist() == [[[10, 20, 30, 40], [11, 21, 31, 41]]]
    turned = encoded(picture(wide).transpose(Image.Transpose.ROTATE_90))
    assert cover(turned, 2, 2, 1).tolist() == [[[30, 31], [20, 21]]]


def test_cover_of_a_square_picture_is_resizing() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 4), np.uint8)
    data = encoded(Image.fromarray(noise))
    for channels in (1, 3):
        ours = decode(data, DataConfig(size=8, channels=channels)).pixels  # white under what is transparent, by default
        assert (cover(data, 8, 8, channels) == ours).all()
    assert cover(data, 8, 12, 3).shape == (3, 8, 12)
    assert cover(data, 80, 60, 3).shape == (3, 80, 60)
    with pytest.raises(Unreadable, match="HTML"):
        cover(b"<html>", 8, 8, 3)
