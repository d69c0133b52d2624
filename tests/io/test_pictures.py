"""Generated pictures are a collection: indices, slices, length and order are those of a list of PIL images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from unnoise.errors import UserError
from unnoise.io.pictures import Pictures


def five() -> Pictures:
    pixels = torch.randint(0, 256, (5, 3, 4, 6), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return Pictures(pixels, (7, 3, 5, 1, 9), ("a", "b", "c", "d", "e"))


def test_it_behaves_as_the_list_of_its_pictures() -> None:
    pictures, each = five(), list(five())
    assert len(pictures) == len(each) == 5
    assert all(isinstance(picture, Image.Image) and picture.size == (6, 4) for picture in each)
    for at in range(-5, 5):
        assert pictures[at].tobytes() == each[at].tobytes()
    for part in (slice(1, 3), slice(None, None, 2), slice(-2, None), slice(9, 9)):
        found = pictures[part]
        assert [picture.tobytes() for picture in found] == [picture.tobytes() for picture in each[part]]
        assert (found.seeds, found.labels) == (pictures.seeds[part], pictures.labels[part])
    for at in (5, -6):
        with pytest.raises(IndexError):
            pictures[at]


def test_pictures_without_labels_and_of_grey_can_be_sliced() -> None:
    pictures = Pictures(five().pixels[:, :1], (7, 3, 5, 1, 9))
    assert pictures[1:].labels == ()
    assert pictures[0].mode == "L"


def test_the_suffix_chooses_the_format_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    for suffix, kind in ((".png", "PNG"), (".JPG", "JPEG"), (".webp", "WEBP")):
        five().save(tmp_path / f"sheet{suffix}")
        with Image.open(tmp_path / f"sheet{suffix}") as sheet:
            assert sheet.format == kind
    for name in ("sheet", "sheet.pong"):
        with pytest.raises(UserError, match=r"name it for example sheet\.png"):
            five().save(tmp_path / name)


def test_latents_can_be_sliced_and_not_shown() -> None:
    latents = Pictures(torch.zeros(3, 4, 2, 2), (0, 1, 2))
    assert latents[1:].pixels.shape == (2, 4, 2, 2)
    with pytest.raises(UserError, match="latents are no pictures"):
        latents[0]
