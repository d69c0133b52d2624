"""Laws of control images: each belongs to its picture, and is cropped and flipped with it."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise import data
from unnoise.config.cards import ModelCard
from unnoise.config.data import DataConfig
from unnoise.config.networks import ControlConfig, UNetConfig
from unnoise.data.control_images import edges
from unnoise.data.shapes import edges as outlines
from unnoise.data.shapes import scenes, segmentation
from unnoise.errors import UserError
from unnoise.generate.conditions import control_image
from unnoise.model import Model


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Pictures of several proportions in two classes, and control images that are the same at half the size."""
    top = tmp_path_factory.mktemp("beside")
    chosen = np.random.default_rng(0)
    for i in range(12):
        name = f"c{i % 2}/{i}"
        picture = Image.fromarray(
            np.kron(chosen.integers(0, 256, (6, 6 + i % 3, 3)), np.ones((4, 4, 1))).astype(np.uint8)
        )
        for folder, drawn, end in (("pictures", picture, "png"), ("drawings", picture, "bmp")):
            path = top / folder / f"{name}.{end}"
            path.parent.mkdir(parents=True, exist_ok=True)
            drawn.save(path)
    return top / "pictures", top / "drawings"


def configs(path: Path, control: str) -> list[DataConfig]:
    """With and without a cache, with centred and random crops."""
    whole = DataConfig(str(path), size=12, channels=3, flip=True, control=control)
    return [replace(whole, crop=crop, cache_bytes=kept) for crop in ("center", "random") for kept in (2**30, 0)]  # type: ignore[arg-type]


def test_a_control_image_is_cropped_and_flipped_with_its_picture(pictures: tuple[Path, Path]) -> None:
    for config in configs(pictures[0], str(pictures[1])):
        found = data.open(config)
        for batch in islice(data.batches(found, batch=5, seed=3), 8):
            assert batch.control is not None
            assert torch.equal(batch.control * 255, ((batch.x + 1) * 127.5).round())  # drawings that are the pictures


@pytest.mark.parametrize("crop", ["center", "random"])
def test_the_cache_does_not_change_control_images(pictures: tuple[Path, Path], crop: str) -> None:
    kept, read = [data.open(c) for c in configs(pictures[0], "edges") if c.crop == crop]
    assert kept.cached
    assert not read.cached
    one, other = (found.batch(range(12), seed=1, epoch=2).control for found in (kept, read))
    assert one is not None and other is not None  # noqa: PT018
    assert torch.equal(one, other)
    assert one.shape == (12, 3, 12, 12)
    assert set(one.unique().tolist()) == {0.0, 1.0}


def test_without_control_there_are_no_control_images() -> None:
    found = data.open(DataConfig("toy", size=16))
    assert found.batch([0]).control is None
    with pytest.raises(ValueError, match="set control"):
        found.control_image(0)


@pytest.mark.parametrize(("control", "truth"), [("edges", outlines), ("segmentation", segmentation)])
def test_the_control_images_of_shapes_are_exact(control: str, truth: object) -> None:
    found = data.open(DataConfig("shapes:test", size=16, channels=3, control=control))
    batch = found.batch([5, 0])
    drawn = [truth(scenes("shapes", "test", [i])[0], 16) for i in (5, 0)]  # type: ignore[operator]
    assert batch.control is not None
    assert (batch.control.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy().tolist() == np.stack(
        drawn
    ).tolist()


# Edges


def test_a_step_is_one_line_and_a_constant_picture_has_none() -> None:
    step = np.zeros((3, 8, 9), np.uint8)
    step[:, :, 4:] = 200
    found = edges(step)
    assert (found.any((0, 1))).tolist() == [False] * 3 + [True] + [False] * 5  # of the two columns, the first
    assert (found[:, :, 3] == 255).all()
    assert (edges(step.transpose(0, 2, 1)) == found.transpose(0, 2, 1)).all()
    assert not edges(np.full((1, 5, 5), 77, np.uint8)).any()


def test_a_faint_step_is_no_edge_and_one_channel_is_enough() -> None:
    step = np.zeros((3, 8, 8), np.uint8)
    step[1, :, 4:] = 25
    assert not edges(step).any()
    step[1, :, 4:] = 26  # a tenth of 255 is 25.5
    assert edges(step)[0].sum() == 255 * 8


def test_edges_do_not_depend_on_brightness_or_the_sign_of_a_step() -> None:
    chosen = np.random.default_rng(2).integers(0, 100, (3, 16, 16)).astype(np.uint8)
    assert edges(chosen).any()
    assert (edges(chosen + 120) == edges(chosen)).all()
    assert (edges(255 - chosen) == edges(chosen)).all()


def test_diagonal_lines_are_thin_and_connected() -> None:
    y, x = np.mgrid[:20, :20]
    for side in (x + y > 19, x > y, 2 * x > y + 8):
        found = edges(np.where(side, 255, 0).astype(np.uint8)[None])[0] > 0
        inner = found[2:-2, 2:-2]
        crossed = min(inner.any(0).mean(), inner.any(1).mean()), inner.sum(1).max()
        assert crossed[0] > 0.5
        assert crossed[1] <= 2
        assert inner.any(1).all()  # in every row


def test_edges_of_a_render_lie_on_the_true_outlines() -> None:
    found = data.open(DataConfig("shapes:test", size=32, channels=3))
    near = total = 0
    for row, scene in enumerate(scenes("shapes", "test", range(50))):
        true = outlines(scene, 32)[..., 0] > 0
        seen = edges(found.pixels(row))[0] > 0
        near, total = near + int((seen & true).sum()), total + int(seen.sum())
    assert near / total > 0.97


# What is wrong


def colours(control: torch.Tensor) -> set[tuple[int, ...]]:
    return {tuple(pixel) for pixel in (control * 255).round().int().permute(0, 2, 3, 1).reshape(-1, 3).tolist()}


@pytest.mark.parametrize("size", [7, 12, 24, 31, 50])
@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_a_segmentation_map_has_the_same_colours_at_every_size(size: int, mode: str, tmp_path: Path) -> None:
    """For two and for many classes, larger or smaller, also if the map is a pixel higher than its picture; and sampling
    resizes it in the same way as training."""
    chosen = np.random.default_rng(1)
    palette = chosen.integers(0, 256, (8, 3)).astype(np.uint8)
    palette[:2] = (0, 0, 0), (128, 0, 0)  # as in the maps of Pascal VOC
    truth = set()
    for folder in ("pictures", "maps"):
        (tmp_path / folder).mkdir()
    for i in range(4):
        picture = Image.fromarray(chosen.integers(0, 256, (24, 24, 3)).astype(np.uint8))
        picture.save(tmp_path / "pictures" / f"{i}.png")
        kinds = chosen.integers(0, 2 if i % 2 else 8, (73 if i == 3 else 72, 72)).astype(np.uint8)
        image = Image.fromarray(kinds) if mode == "L" else Image.fromarray(palette[kinds])
        image = image.quantize(8) if mode == "P" else image
        truth |= colours(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None] / 255)
        image.save(tmp_path / "maps" / f"{i}.png")
    config = DataConfig(str(tmp_path / "pictures"), size=size, channels=3, control=str(tmp_path / "maps"))
    told = data.open(config).batch(range(4)).control
    assert told is not None
    assert colours(told) <= truth
    control = ControlConfig(hint=(4,), scale=1)
    card = ModelCard(net=UNetConfig(size=size, controls=(control,)), size=(size, size))
    for i in range(3):
        mine = control_image(tmp_path / "maps" / f"{i}.png", Model(None, card), control)  # type: ignore[arg-type]
        assert torch.equal(mine, told[i : i + 1])


@pytest.mark.parametrize("kind", ["outlines", "photograph"])
def test_other_control_images_are_resized_by_lanczos(kind: str, tmp_path: Path) -> None:
    """Lines of one pixel stay visible at a quarter of the size, where nearest pixels would miss all of them."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[1::4] = 255 if kind == "outlines" else np.random.default_rng(2).integers(100, 256, (16, 64, 3))
    for folder in ("pictures", "drawings"):
        (tmp_path / folder).mkdir()
        for name in "ab":
            Image.fromarray(image).save(tmp_path / folder / f"{name}.png")
    config = DataConfig(str(tmp_path / "pictures"), size=16, channels=3, control=str(tmp_path / "drawings"))
    batch = data.open(config).batch([0, 1])
    assert batch.control is not None
    assert batch.control.min() > 0.05
    assert torch.equal(batch.control * 255, ((batch.x + 1) * 127.5).round())  # as the picture, which is the same


def test_a_missing_control_image_is_named(pictures: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "c1").mkdir()
    Image.new("L", (12, 12)).save(tmp_path / "c1" / "7.png")
    with pytest.raises(
        UserError, match=r"has no control image for c0/0\.png, c0/2\.png.* and 6 more; give one of the same name"
    ):
        data.open(DataConfig(str(pictures[0]), size=12, channels=3, control=str(tmp_path)))


def test_a_control_image_of_other_proportions_is_refused(pictures: tuple[Path, Path], tmp_path: Path) -> None:
    for path in pictures[0].rglob("*.png"):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        Image.new("L", (12, 40)).save(tmp_path / path.parent.name / path.name)
    with pytest.raises(UserError, match=r"is 12 x 40 but its picture is 12 x 12, at size 12"):
        data.open(DataConfig(str(pictures[0]), size=12, channels=3, control=str(tmp_path)))


def test_a_control_image_that_cannot_be_read_is_named(pictures: tuple[Path, Path], tmp_path: Path) -> None:
    for path in pictures[0].rglob("*.png"):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        (tmp_path / path.parent.name / path.name).write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"the control image c0/0\.png in .* cannot be read: not a picture"):
        data.open(DataConfig(str(pictures[0]), size=12, channels=3, control=str(tmp_path)))


def test_a_kind_of_control_that_a_set_lacks_is_refused() -> None:
    with pytest.raises(UserError, match="no control of toy:train 'segmentation'; valid: edges"):
        data.open(DataConfig("toy", size=16, control="segmentation"))


def test_the_fingerprint_depends_on_control_images_and_is_unchanged_without(
    pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    plain = DataConfig("shapes:test", size=16, channels=3)
    seen = {
        control: data.open(replace(plain, control=control)).fingerprint for control in ("", "edges", "segmentation")
    }
    assert len(set(seen.values())) == 3
    config = DataConfig(str(pictures[0]), size=12, channels=3, control=str(pictures[1]))
    before = data.open(config).fingerprint
    moved = tmp_path / "moved"
    for path in pictures[1].rglob("*.bmp"):
        (moved / path.parent.name).mkdir(parents=True, exist_ok=True)
        (moved / path.parent.name / path.name).write_bytes(path.read_bytes())
    assert data.open(replace(config, control=str(moved))).fingerprint == before
    with Image.open(moved / "c0" / "0.bmp") as picture:
        picture.rotate(180).save(moved / "c0" / "0.bmp")
    assert data.open(replace(config, control=str(moved))).fingerprint != before
