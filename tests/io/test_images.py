"""Pictures on disk: a recipe put in is the recipe read back, and the pixels are the pixels."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from PIL import Image, ImageFont, ImageSequence

from unnoise.cli import plot
from unnoise.errors import UserError
from unnoise.io import animation, fonts, images, png

RECIPE = {
    "model": {"path": "runs/00001-fashion", "weights": "", "sha256": "ab" * 32},
    "seed": 5,
    "label": "Ankle boot",
    "size": [28, 28],
    "request": {"sampler": "ddim", "steps": 20, "spacing": "trailing", "eta": 0.25, "guidance": 2.0, "clip": False},
    "together": "0-7:Ankle boot",
    "versions": {"unnoise": "0.1.0", "torch": "2.13.0"},
}


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 1), (16, 24, 3)])
def test_reading_a_png_returns_its_pixels_and_recipe(tmp_path, shape: tuple[int, ...]) -> None:
    pixels = noise(*shape)
    png.write_png(tmp_path / "a" / "b.png", images.image(pixels), RECIPE)
    with Image.open(tmp_path / "a" / "b.png") as back:
        assert np.array_equal(np.asarray(back), pixels.squeeze(-1) if shape[-1] == 1 else pixels)
    assert png.read_recipe(tmp_path / "a" / "b.png") == RECIPE
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.png"]  # nothing left beside it


def test_parameters_have_the_form_of_other_programs(tmp_path) -> None:
    png.write_png(tmp_path / "a.png", images.image(noise(4, 4)), RECIPE)
    with Image.open(tmp_path / "a.png") as back:
        label, line = back.info["parameters"].split("\n")
    assert label == "Ankle boot"
    known = dict(part.split(": ") for part in line.split(", "))
    assert known["Steps"] == "20"
    assert known["Schedule type"] == "trailing"
    assert known["Seed"] == "5"
    assert known["CFG scale"] == "2.0"
    assert known["Size"] == "28x28"
    assert known["Model hash"] == "ababababab"
    assert known["Schedule type"] == "trailing"
    assert "Schedule type: trailing" in png.parameters({"request": {"grid": "trailing"}}), "recipes of earlier versions"


def test_metadata_can_be_left_out(tmp_path) -> None:
    png.write_png(tmp_path / "a.png", images.image(noise(4, 4)), None)
    assert png.read_recipe(tmp_path / "a.png") is None


def test_a_grid_shows_every_pixel_of_every_picture_in_reading_order() -> None:
    pictures = [noise(28, 28) ^ np.uint8(i) for i in range(6)]
    sheet = np.asarray(images.grid(pictures, columns=3, scale=2, gap=3).convert("L"))
    assert sheet.shape == (2 * (56 + 3) + 3, 3 * (56 + 3) + 3)
    for i, pixels in enumerate(pictures):
        y, x = 3 + i // 3 * 59, 3 + i % 3 * 59
        assert np.array_equal(sheet[y : y + 56 : 2, x : x + 56 : 2], pixels)


def test_labels_are_left_of_the_grid() -> None:
    pictures = [noise(28, 28) for _ in range(4)]
    bare = images.grid(pictures, columns=2)
    named = images.grid(pictures, columns=2, rows=["Trouser", "Bag"])
    margin = named.width - bare.width
    assert named.height == bare.height
    assert np.array_equal(np.asarray(named)[:, margin:], np.asarray(bare))
    left = np.asarray(named.convert("L"))[:, :margin]
    assert (left[: bare.height // 2] < 128).any()
    assert (left[bare.height // 2 :] < 128).any()


def words_below(text: str) -> bytes:
    return images.captioned([([np.zeros((8, 8, 3), np.uint8)], text)], columns=1).tobytes()


def test_letters_that_the_default_font_lacks_are_rendered_in_another() -> None:
    """Two words of other letters are two pictures; of a font without them both are the same boxes."""
    try:
        ImageFont.truetype("DejaVuSans.ttf")
    except OSError:
        pytest.skip("DejaVu Sans, which has Cyrillic letters, is not installed")
    assert words_below("жж") != words_below("щщ")
    with_names = [images.with_labels(Image.new("RGB", (40, 40)), [name, "plain"]).tobytes() for name in ("жж", "щщ")]
    assert with_names[0] != with_names[1]


def test_letters_that_no_font_has_are_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "FONTS", ())
    assert words_below("жж") == words_below("щщ")
    assert fonts.boxes(["a plain prompt, (with) 7 \u00a0 signs!", ""]) == ""
    note = fonts.boxes(["щука", "жук"])
    assert "boxes replace ажкущ. Install one" in note
    assert "..." in fonts.boxes(["абвгдежзийклмн"])


def test_latin_text_is_rendered_in_the_default_font(monkeypatch: pytest.MonkeyPatch) -> None:
    there = words_below("a red circle")
    monkeypatch.setattr(fonts, "FONTS", ())
    assert words_below("a red circle") == there
    assert fonts.font_for(["a red circle"], 11).getname() == ImageFont.load_default(11).getname()


def test_a_gif_contains_every_frame_and_a_pause(tmp_path) -> None:
    frames = [Image.new("RGB", (20, 10), (k * 20, 0, 0)) for k in range(10)]
    animation.animation_writer(tmp_path / "walk.gif")(tmp_path / "walk.gif", frames, 2.0)
    with Image.open(tmp_path / "walk.gif") as back:
        times = [frame.info["duration"] for frame in ImageSequence.Iterator(back)]
        colours = [frame.convert("RGB").getpixel((3, 3))[0] for frame in ImageSequence.Iterator(back)]
    assert times == [200] * 9 + [1500]
    assert colours == sorted(colours)
    assert len(set(colours)) == 10


@pytest.mark.skipif(importlib.util.find_spec("imageio_ffmpeg") is None, reason="imageio-ffmpeg is not installed")
def test_an_mp4_is_written(tmp_path) -> None:
    frames = [Image.new("RGB", (21, 11), (k * 20, 0, 0)) for k in range(10)]
    animation.animation_writer(tmp_path / "walk.mp4")(tmp_path / "walk.mp4", frames, 1.0)
    assert (tmp_path / "walk.mp4").read_bytes()[4:8] == b"ftyp"


def test_mp4_without_its_package_is_an_error_with_the_command_to_install_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'unnoise\[video\]', or write a .gif"):
        animation.animation_writer(tmp_path / "walk.mp4")
    with pytest.raises(UserError, match=r"ends in \.gif or \.mp4"):
        animation.animation_writer(tmp_path / "walk.avi")


def test_a_failed_write_leaves_the_old_picture(tmp_path) -> None:
    (tmp_path / "a.png").write_text("before")

    def fail(beside) -> None:
        beside.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        png.publish(tmp_path / "a.png", fail)
    assert (tmp_path / "a.png").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("ticks", "shown"),
    [
        ([5, 9, 10, 19, 20, 39], [5, 9, 10, 20, 39]),
        ([7], [7]),
        ([1, 10, 100], [1, 10, 100]),
        ([98, 99, 100, 1000], [100, 1000]),
    ],
)
def test_tick_labels_do_not_overlap(ticks: list[float], shown: list[float]) -> None:
    assert plot.separate_ticks(ticks) == shown
