"""Laws of the world of shapes: what is drawn is what is said, what is read is what was drawn, and what is held out
stays out."""

from __future__ import annotations

import io
import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from unnoise import data
from unnoise.config.data import DataConfig
from unnoise.data.registry import SETS
from unnoise.data.shapes import (
    BACKGROUNDS,
    COLOURS,
    KINDS,
    Claim,
    Scene,
    Shape,
    Told,
    caption,
    caption_accuracy,
    caption_correct,
    centre_shift,
    edges,
    held_out,
    mask,
    mask_iou,
    masks,
    parse,
    read,
    relation,
    render,
    renders,
    scenes,
    segmentation,
)
from unnoise.data.shapes.reader import AREAS, LOW, components
from unnoise.data.shapes.scene import KIND_COLOURS, LARGE, RELATIONS
from unnoise.data.shapes.source import GAP, MARGIN
from unnoise.errors import UserError

NAMES = ("shapes", "shapes-one", "shapes-two")
MANY = scenes("shapes", "train", range(150)) + scenes("shapes", "test", range(50))

# Inside or not, each kind said anew as a set of points: u to the right, v down, in radii
INSIDE = {
    "circle": lambda u, v: u * u + v * v <= 1,
    "square": lambda u, v: (abs(u) <= 1) & (abs(v) <= 1),
    "triangle": lambda u, v: (v <= 1) & (v >= -1) & (abs(u) <= (v + 1) / 2),
    "diamond": lambda u, v: abs(u) + abs(v) <= 1,
    "cross": lambda u, v: ((abs(u) <= 1) & (abs(v) <= 1 / 3)) | ((abs(v) <= 1) & (abs(u) <= 1 / 3)),
    "ring": lambda u, v: (u * u + v * v <= 1) & (u * u + v * v >= 1 / 4),
}


def points(side: int) -> tuple[np.ndarray, np.ndarray]:
    """The middles of side x side cells of the unit square."""
    middles = (np.arange(side) + 0.5) / side
    return np.meshgrid(middles, middles)


def told(scene: Scene) -> Counter[tuple[str, str, str]]:
    return Counter((shape.kind, shape.colour, shape.size) for shape in scene.shapes)


# Pictures


@pytest.mark.parametrize("kind", KINDS)
def test_coverage_equals_the_mean_of_many_samples_in_a_pixel(kind: str) -> None:
    size, fine = 32, 16
    for centre, radius in [((0.5, 0.5), 0.25), ((0.41, 0.57), 0.131), ((0.333, 0.62), 0.3)]:
        drawn = render(Scene("black", (Shape(kind, "white", centre, radius),)), size)[..., 0] / 255
        x, y = points(size * fine)
        inside = INSIDE[kind]((x - centre[0]) / radius, (y - centre[1]) / radius)
        true = inside.reshape(size, fine, size, fine).mean((1, 3))
        assert abs(drawn - true).max() < 0.3  # at corners, where the distance is a bound
        assert (
            abs(drawn - true).sum() < (0.21 if radius == 0.3 else 0.4) * radius * size
        )  # corners weigh more in small ones
        assert abs(drawn.sum() / true.sum() - 1) < 0.03


def test_an_upright_square_is_covered_exactly() -> None:
    drawn = render(Scene("black", (Shape("square", "white", (0.5, 0.5), 2.25 / 8),)), 8)
    assert drawn[4, :, 0].tolist() == [0, 64, 255, 255, 255, 255, 64, 0]


def test_a_picture_is_the_same_alone_and_among_others() -> None:
    for size in (16, 33):
        together = renders(MANY[:150], size)  # more than are drawn at a time
        assert all((render(scene, size) == pixels).all() for scene, pixels in zip(MANY, together))


@pytest.mark.parametrize("kind", KINDS)
def test_areas_and_centres_of_mass_are_those_of_the_shapes(kind: str) -> None:
    x, y = points(500)
    inside = INSIDE[kind](2 * x - 1, 2 * y - 1)
    assert inside.mean() * 4 == pytest.approx(AREAS[kind], abs=0.02)
    assert (2 * y - 1)[inside].mean() == pytest.approx(LOW.get(kind, 0.0), abs=5e-3)


@pytest.mark.parametrize("size", [16, 32, 64])
def test_masks_outlines_and_segmentations_are_of_the_shapes(size: int) -> None:
    for scene in MANY[:30]:
        each = masks(scene, size)
        assert (each.sum(0) <= 1).all()  # they do not overlap
        assert (mask(scene, size) == each.any(0)).all()
        drawn, parts, lines = render(scene, size), segmentation(scene, size), edges(scene, size)
        assert (parts[~each.any(0)] == 0).all()
        for shape, where in zip(scene.shapes, each):
            assert (parts[where] == COLOURS[KIND_COLOURS[shape.kind]]).all()
            ink, ground = (np.array(COLOURS[name], float) for name in (shape.colour, scene.background))
            nearer_ink = np.linalg.norm(drawn - ink, axis=-1) < np.linalg.norm(drawn - ground, axis=-1)
            assert (nearer_ink[where]).mean() > 0.95  # a tie at just one half
        rim = ndimage.binary_dilation(each.any(0), np.ones((3, 3))) & ~ndimage.binary_erosion(each.any(0))
        assert (lines[..., 0] == lines[..., 2]).all()
        near = ndimage.binary_dilation((drawn != COLOURS[scene.background]).any(-1), np.ones((3, 3)), iterations=2)
        assert not lines[~near].any()
        assert not lines[ndimage.binary_erosion(each.any(0), iterations=3)].any()  # nowhere but along a rim
        assert lines[rim].mean() > 100  # and all along it


def test_an_outline_is_a_pixel_wide() -> None:
    scene = Scene("white", (Shape("square", "red", (0.5, 0.5), 0.25),))  # from 4 to 12 of 16 pixels
    line = edges(scene, 16)[8, :, 0] / 255
    assert line.sum() == pytest.approx(2, abs=0.02)  # two crossings
    assert line[[3, 4, 11, 12]] == pytest.approx(0.5, abs=0.01)


# Scenes


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("part", ["train", "test"])
def test_the_shapes_of_a_scene_are_apart_and_distinguishable(name: str, part: str) -> None:
    for scene in scenes(name, part, range(300)):
        items = [(shape.kind, shape.colour) for shape in scene.shapes]
        assert len(set(items)) == len(items)
        assert scene.background in BACKGROUNDS
        assert scene.background not in [shape.colour for shape in scene.shapes]
        for shape in scene.shapes:
            assert min(*shape.centre, *(1 - c for c in shape.centre)) >= shape.radius + MARGIN - 1e-9
            assert abs(shape.radius - LARGE) >= 0.02 - 1e-9
        for a, b in itertools.combinations(scene.shapes, 2):
            ways = [abs(p - q) for p, q in zip(a.centre, b.centre)]
            assert max(ways) >= a.radius + b.radius + GAP - 1e-9
            assert len(scene.shapes) == 3 or min(ways) <= 0.61 * max(ways)  # which relation holds is plain


def test_held_out_combinations_are_never_trained_on_and_always_tested() -> None:
    for name in NAMES:
        assert not any(map(held_out, scenes(name, "train", range(2000))))
        assert all(map(held_out, scenes(name, "test", range(200))))
    ones = [
        Scene(ground, (Shape(kind, colour, (0.5, 0.5), 0.2),))
        for kind, colour, ground in itertools.product(KINDS, COLOURS, BACKGROUNDS)
        if colour != ground
    ]
    kept = [scene for scene in ones if not held_out(scene)]
    assert 0.05 < 1 - len(kept) / len(ones) < 0.15
    assert {scene.shapes[0].colour for scene in kept} == set(COLOURS)
    singly = {(s.shapes[0].kind, s.shapes[0].colour, s.background) for s in ones if held_out(s)}
    for scene in scenes("shapes", "train", range(2000)):
        assert not any((s.kind, s.colour, scene.background) in singly for s in scene.shapes)
    shape = kept[0].shapes[0]
    assert not held_out(
        replace(kept[0], shapes=(replace(shape, centre=(0.3, 0.3), radius=0.13),))
    )  # place is no matter


def test_a_pair_is_held_out_in_either_order() -> None:
    for scene in MANY:
        assert held_out(scene) == held_out(replace(scene, shapes=scene.shapes[::-1]))


def test_a_scene_depends_on_its_number_alone() -> None:
    assert scenes("shapes", "train", [7, 3]) == tuple(scenes("shapes", "train", range(10))[i] for i in (7, 3))
    assert scenes("shapes", "train", range(5)) != scenes("shapes-two", "train", range(5))


def test_every_kind_colour_background_count_size_and_relation_is_common() -> None:
    found = scenes("shapes", "train", range(2000))
    shapes = [shape for scene in found for shape in scene.shapes]
    for words, count in (
        ([s.kind for s in shapes], 6),
        ([s.colour for s in shapes], 8),
        ([s.size for s in shapes], 2),
        ([s.background for s in found], 4),
    ):
        shares = np.array(list(Counter(words).values())) / len(words)
        assert len(shares) == count
        assert 0.6 / count < shares.min() <= shares.max() < 1.5 / count
    counts = np.bincount([len(scene.shapes) for scene in found])[1:] / len(found)
    assert counts == pytest.approx([0.3, 0.6, 0.1], abs=0.04)
    said = Counter(parse(caption(s, i)).relation for i, s in enumerate(found) if len(s.shapes) == 2)
    shares = np.array([said[word] for word in (None, *RELATIONS)]) / said.total()
    assert shares == pytest.approx(np.array([8, 9, 3, 9, 3]) / 32, abs=0.03)  # the first three times of four


# Words


def test_parsing_a_caption_returns_its_scene() -> None:
    for seed, scene in enumerate(MANY):
        claim = parse(caption(scene, seed))
        assert claim.background == scene.background
        assert len(claim.shapes) == len(scene.shapes)
        found = [next(s for s in scene.shapes if (s.kind, s.colour) == (t.kind, t.colour)) for t in claim.shapes]
        assert all(t.size in (None, s.size) for t, s in zip(claim.shapes, found))
        if claim.relation:
            assert claim.relation == relation(found[0].centre, found[1].centre)


def test_a_seed_chooses_among_true_sentences() -> None:
    two = next(scene for scene in MANY if len(scene.shapes) == 2)
    said = {caption(two, seed) for seed in range(1000)}
    assert len(said) == 2 * 4 * 2 * 2  # the first one, sizes, related or not, how the ground is put
    assert caption(two, 5) == caption(two, 5)


def test_the_caption_of_two_shapes_does_not_depend_on_their_order_in_the_scene() -> None:
    pairs = [scene for scene in MANY if len(scene.shapes) == 2]
    for seed, scene in enumerate(pairs):
        assert caption(replace(scene, shapes=scene.shapes[::-1]), seed) == caption(scene, seed)
    assert {relation(*(shape.centre for shape in scene.shapes)) for scene in pairs} == {"left of", "above"}


def test_a_relation_is_relative_to_the_second_shape() -> None:
    assert relation((0.2, 0.5), (0.8, 0.6)) == "left of"
    assert relation((0.8, 0.5), (0.2, 0.6)) == "right of"
    assert relation((0.5, 0.2), (0.6, 0.8)) == "above"
    assert relation((0.5, 0.8), (0.6, 0.2)) == "below"


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        ("a red circle on white", Claim((Told("circle", "red"),), "white")),
        ("A small red circle on a white background.", Claim((Told("circle", "red", "small"),), "white")),
        ("a red circle", Claim((Told("circle", "red"),))),
        (
            "a large blue square above a green triangle on black",
            Claim((Told("square", "blue", "large"), Told("triangle", "green")), "black", "above"),
        ),
        (
            "a red ring, a small cyan cross and a black circle on yellow",
            Claim((Told("ring", "red"), Told("cross", "cyan", "small"), Told("circle", "black")), "yellow"),
        ),
    ],
)
def test_captions_are_parsed_to_their_claims(text: str, claim: Claim) -> None:
    assert parse(text) == claim


@pytest.mark.parametrize("text", ["", "a dog", "a red circle on", "red circle on white", "a red blue circle on white"])
def test_text_outside_the_grammar_is_an_error_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match="is no caption of shapes; say it as in 'a large red circle"):
        parse(text)


def test_only_two_shapes_are_related() -> None:
    with pytest.raises(UserError, match="relates more than two"):
        parse("a red circle above a blue circle and a green ring on white")


# The reader


@pytest.mark.parametrize("size", [16, 24, 32, 64])
@pytest.mark.parametrize("sigma", [0.0, 0.1])
def test_every_clean_and_every_slightly_noisy_picture_is_read_right(size: int, sigma: float) -> None:
    noise = np.random.default_rng(size)
    for scene, pixels in zip(MANY, renders(MANY, size)):
        noisy = pixels + 127.5 * sigma * noise.standard_normal(pixels.shape)
        found = read(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
        assert (found.background, told(found.scene)) == (scene.background, told(scene))
        for shape in scene.shapes:
            near = min(found.shapes, key=lambda f: math.dist(f.centre, shape.centre))
            assert math.dist(near.centre, shape.centre) * size < 0.3 + 2 * sigma  # pixels
            assert abs(near.radius - shape.radius) * size < 0.3 + 2 * sigma
        assert found.confidence > (0.6 if sigma else 0.8)


def test_soft_and_compressed_pictures_are_read_right() -> None:
    for scene, pixels in zip(MANY[:100], renders(MANY[:100], 24)):
        soft = np.rint(ndimage.gaussian_filter(pixels.astype(float), (0.5, 0.5, 0))).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=90, subsampling=0)
        for spoilt in (soft, np.asarray(Image.open(file))):
            found = read(spoilt)
            assert (found.background, told(found.scene)) == (scene.background, told(scene))


def test_other_pictures_have_low_confidence() -> None:
    chosen = np.random.default_rng(0)
    ramp = np.linspace(0, 255, 24)
    for pixels in (
        *(chosen.integers(0, 256, (24, 24, 3)) for _ in range(20)),
        *(np.kron(chosen.integers(0, 256, (n, n, 3)), np.ones((24 // n, 24 // n, 1))) for n in (1, 2, 3, 4, 6, 12)),
        np.broadcast_to(ramp[:, None], (24, 24, 3)),
        np.broadcast_to(ramp[:, None, None], (24, 24, 3)),
        np.full((24, 24, 3), 128),
        np.full((24, 24, 3), 255),
        ndimage.gaussian_filter(render(MANY[0], 24).astype(float), (6, 6, 0)),
    ):
        assert read(pixels.astype(np.uint8)).confidence < 0.5


def test_tiny_and_odd_forms() -> None:
    assert read(np.zeros((1, 1, 3), np.uint8)).shapes == ()
    assert read(np.zeros((2, 2, 3), np.uint8)).background == "black"
    for wrong in (np.zeros((4, 5, 3), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)):
        with pytest.raises(ValueError, match="give"):
            read(wrong)


def test_connected_parts_are_those_of_an_independent_labelling() -> None:
    chosen = np.random.default_rng(1)
    for share in (0.0, 0.2, 0.4, 0.6, 1.0):
        drawn = chosen.random((30, 40)) < share
        theirs, count = ndimage.label(drawn, np.ones((3, 3)))
        ours = components(drawn)
        assert len(set(zip(ours[drawn].tolist(), theirs[drawn].tolist()))) == count == ours.max() + 1
        assert (ours[~drawn] == -1).all()


# Judges


def test_a_caption_is_correct_for_its_own_picture() -> None:
    some = MANY[:150]
    pictures = renders(some, 24)
    captions = [caption(scene, seed) for seed, scene in enumerate(some)]
    counts = caption_accuracy(captions, pictures)
    assert all(count.right == count.of for count in counts.values())
    assert counts["all"].of == counts["number"].of == len(some)
    assert 0 < counts["relation"].of < counts["kind"].of
    shifted = caption_accuracy(captions[1:] + captions[:1], pictures)
    assert shifted["all"].share < 0.03  # another picture's caption
    assert 0.1 < shifted["background"].share < 0.4  # 4 grounds
    with pytest.raises(ValueError):
        caption_accuracy(captions, pictures[:-1])


TWO = Scene("white", (Shape("circle", "red", (0.25, 0.5), 0.15), Shape("square", "blue", (0.7, 0.55), 0.21)))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a small red circle left of a large blue square on white", set()),
        ("a large blue square right of a red circle on white", set()),
        ("a red circle and a blue square", set()),
        ("a red circle right of a blue square on white", {"relation"}),
        ("a red circle above a blue square on white", {"relation"}),
        ("a large red circle left of a blue square on white", {"size"}),
        ("a red circle left of a blue square on black", {"background"}),
        ("a red ring left of a blue square on white", {"kind"}),
        ("a red circle left of a green square on white", {"colour"}),
        ("a blue circle left of a red square on white", {"colour"}),
        ("a red circle on white", {"number"}),
        ("a red circle, a blue square and a green ring on white", {"number", "kind", "colour"}),
    ],
)
def test_each_attribute_is_evaluated_separately(text: str, wrong: set[str]) -> None:
    right = caption_correct(text, render(TWO, 24))
    assert {name for name, good in right.items() if not good} == (wrong | {"all"} if wrong else set())


def test_two_of_one_kind_and_colour_are_paired_by_their_relation() -> None:
    same = replace(TWO, shapes=(TWO.shapes[0], replace(TWO.shapes[0], centre=(0.7, 0.5))))
    for word in ("left of", "right of"):
        assert caption_correct(f"a red circle {word} a red circle on white", render(same, 24))["all"]
    assert not caption_correct("a red circle above a red circle on white", render(same, 24))["all"]


def test_a_picture_without_shapes_has_at_most_its_background_right() -> None:
    blank = np.full((24, 24, 3), 255, np.uint8)
    right = caption_correct("a large red circle left of a blue square on white", blank)
    assert {name for name, good in right.items() if good} == {"background"}


def test_masks_and_places_are_measured() -> None:
    overlaps = []
    for scene in MANY[:50]:
        pixels = render(scene, 32)
        overlaps.append(mask_iou(pixels, mask(scene, 32)))
        assert centre_shift(pixels, scene) < 0.01
    assert min(overlaps) > 0.85  # a side that covers just about half of its pixels
    assert np.mean(overlaps) > 0.995
    moved = replace(TWO, shapes=(replace(TWO.shapes[0], centre=(0.25, 0.6)), TWO.shapes[1]))
    assert centre_shift(render(moved, 64), TWO) == pytest.approx(0.05, abs=0.005)
    assert centre_shift(render(TWO, 64), replace(TWO, shapes=TWO.shapes[::-1])) < 0.005
    assert math.isnan(centre_shift(render(TWO, 64), replace(TWO, shapes=TWO.shapes[:1])))
    away = replace(TWO, shapes=(Shape("square", "red", (0.5, 0.875), 0.125),))
    assert mask_iou(render(away, 16), mask(replace(TWO, shapes=(Shape("square", "red", (0.5, 0.5), 0.125),)), 16)) == 0
    half = mask(replace(TWO, shapes=(Shape("square", "red", (0.625, 0.875), 0.125),)), 16)
    assert mask_iou(render(away, 16), half) == pytest.approx(1 / 3)  # half of each is shared
    assert mask_iou(np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.bool_)) == 1


# The sets


@pytest.mark.parametrize("name", NAMES)
def test_a_set_is_rendered_at_the_given_size(name: str) -> None:
    for size in (16, 24):
        found = data.open(DataConfig(f"{name}:test", size=size, channels=3))
        shown = scenes(name, "test", range(2000))
        batch = found.batch([0, 1999, 7])
        drawn = renders([shown[i] for i in (0, 1999, 7)], size).transpose(0, 3, 1, 2)
        assert np.abs(batch.x.numpy() - (drawn / 127.5 - 1)).max() < 1e-6
        assert batch.caption == tuple(caption(shown[i], i) for i in (0, 1999, 7))
        assert found.classes == (KINDS if name == "shapes-one" else ())
        if batch.label is not None:
            assert [KINDS[i] for i in batch.label] == [shown[i].shapes[0].kind for i in (0, 1999, 7)]


@pytest.mark.parametrize(("size", "times"), [(4, 4), (6, 3), (8, 2), (15, 2)])
def test_pictures_too_small_for_outlines_are_means_of_larger_ones(size: int, times: int) -> None:
    tiny = data.open(DataConfig("shapes-two:test", size=size, channels=3)).batch([0, 1999]).x
    shown = scenes("shapes-two", "test", range(2000))
    large = torch.tensor(renders([shown[0], shown[1999]], times * size)).permute(0, 3, 1, 2) / 127.5 - 1
    assert (tiny - torch.nn.functional.avg_pool2d(large, times)).abs().max() <= 0.5 / 127.5 + 1e-6


def test_the_sets_are_known_by_name() -> None:
    assert set(NAMES) <= set(SETS)
    with pytest.raises(UserError, match="no split of shapes"):
        data.open(DataConfig("shapes:tset", size=16, channels=3))
