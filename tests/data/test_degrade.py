"""Pictures concatenated to x_t: the input of the network, and that known pixels are returned unchanged."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.tiny_training import contents, same
from unnoise import data, model
from unnoise.cli.main import main
from unnoise.cli.train_settings import settings_from_options
from unnoise.conditions import Cond
from unnoise.config.data import DataConfig
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.files import dumps
from unnoise.config.networks import NetConfig, UNetConfig
from unnoise.config.request import Request
from unnoise.config.training import Fit, LogConfig, TrainConfig
from unnoise.config.validate import check
from unnoise.data.degrade import BOX_DRAWS, boxes, downscale, mask_out, paste, upscale
from unnoise.errors import UserError
from unnoise.evaluation.evaluate import evaluate
from unnoise.generate.conditions import concat_image, null_condition
from unnoise.generate.describe import describe
from unnoise.generate.frames import generate
from unnoise.recipes.conditioning import concat_input, drop_conditions
from unnoise.recipes.cost import cost
from unnoise.recipes.diffusion import train
from unnoise.recipes.initialization import load_base
from unnoise.text.conditioner import Conditioner
from unnoise.training.player import SampleRNG


def test_a_square_becomes_its_mean_and_the_mean_a_square() -> None:
    x = torch.tensor([[[[0.0, 1.0, 4.0, 4.0], [2.0, 5.0, 8.0, 8.0]]]])
    assert downscale(x, 2).tolist() == [[[[2.0, 6.0]]]]
    assert upscale(downscale(x, 2), 2).tolist() == [[[[2.0, 2.0, 6.0, 6.0]] * 2]]


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_downscale_undoes_upscale(factor: int) -> None:
    small = torch.randn(2, 3, 4, 5)
    assert (downscale(upscale(small, factor), factor) - small).abs().max() < 1e-6
    assert torch.equal(upscale(small, factor)[:, :, ::factor, ::factor], small)


def test_the_hole_is_zero_and_marked_in_the_last_channel() -> None:
    """Zero inside, the picture outside; the last channel is the mask."""
    x, hole = torch.randn(2, 3, 4, 4), torch.zeros(2, 1, 4, 4)
    hole[0, :, 1:3, 2:] = 1
    image = mask_out(x, hole)
    assert image.shape == (2, 4, 4, 4)
    other = torch.where(hole > 0.5, torch.full_like(x, torch.nan), x)
    assert torch.equal(mask_out(other, hole), image)
    assert image[0, :3, 1:3, 2:].abs().max() == 0
    assert torch.equal(image[1, :3], x[1])
    assert torch.equal(image[:, 3:], hole)
    sample = torch.randn(2, 3, 4, 4)
    assert torch.equal(paste(sample, image), torch.where(hole > 0.5, sample, x))


def test_boxes_of_known_numbers() -> None:
    """Of 8 x 4 pixels: heights 2 to 6, widths 1 to 3; the first and the last of each."""
    draws = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.999, 0.999, 0.999, 0.999], [0.5, 0.0, 0.5, 0.999]])
    found = boxes(draws, 8, 4)[:, 0]
    expected = torch.zeros(3, 8, 4)
    expected[0, 0:2, 0:1] = 1
    expected[1, 2:8, 1:4] = 1
    expected[2, 2:6, 3:4] = 1  # height 2 + 2, of 5 places the third
    assert torch.equal(found, expected)
    assert len(BOX_DRAWS) == 4


def test_every_box_of_a_size_is_equally_likely() -> None:
    """Of 4 x 4: sides 1, 2 and 3, each a third of the time; places likewise. Within four standard errors."""
    n = 6_000
    found = boxes(torch.rand(n, 4, generator=torch.Generator().manual_seed(0)), 4, 4)[:, 0]
    heights = Counter(found.amax(2).sum(1).int().tolist())
    tops = Counter(box.amax(1).argmax().item() for box in found if box.amax(1).sum() == 2)
    assert set(heights) == {1, 2, 3}
    assert set(tops) == {0, 1, 2}
    for counts in (heights, tops):
        total = sum(counts.values())
        assert all(abs(c - total / 3) < 4 * (total * 2 / 9) ** 0.5 for c in counts.values())
    assert boxes(torch.tensor([[0.999] * 4]), 1, 1).item() == 1


# --- a training ---

NET = UNetConfig(
    size=4,
    in_channels=1,
    out_channels=1,
    channels=(16,),
    blocks=1,
    attention=(False,),
    middle_attention=False,
    groups=4,
    values=1,
)
PROCESS = DiffusionConfig(
    schedule="cosine", predicts="v", weight="snr-plus-one", concat_factor=2, cond_dropout_each=0.5
)
KINDS = {"low_res": 1, "masked": 2}  # and how many channels are joined to a grey picture
kinds = pytest.mark.parametrize("kind", list(KINDS))


def training(kind: str, folder: Path) -> TrainConfig:
    return TrainConfig(
        name=kind,
        data=DataConfig(path=str(folder), size=4, channels=1, values=("light",)),
        net=replace(NET, concat_channels=KINDS[kind]),
        process=replace(PROCESS, concat=kind),
        fit=Fit(images=200 * 16, batch=16, lr=5e-3, warmup=2, ema=(64,), precision="float32"),
        log=LogConfig(log_every=50, grid_every=200, grid_rows=2, grid_labels=3, grid_steps=2),
    )


@pytest.fixture(scope="module")
def lights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 constant grey pictures; the brightness is a condition too."""
    folder = tmp_path_factory.mktemp("lights")
    for i in range(32):
        Image.new("L", (4, 4), 8 * i).save(folder / f"{i}.png")
    lines = [json.dumps({"file_name": f"{i}.png", "light": i}) for i in range(32)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def trained(lights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("trained")
    for kind in KINDS:
        list(train(training(kind, lights), base / kind))
    return {kind: base / kind for kind in KINDS}


def test_the_concatenated_picture_of_a_batch_equals_its_formula() -> None:
    x = torch.arange(32.0).view(2, 1, 4, 4)
    rows = SampleRNG(5, (3, 8), 2)
    small = concat_input(x, replace(PROCESS, concat="low_res"), rows)
    assert small[0, 0].tolist() == [[2.5, 2.5, 4.5, 4.5]] * 2 + [[10.5, 10.5, 12.5, 12.5]] * 2
    assert torch.equal(small[1], small[0] + 16)
    draws = torch.stack([rows.uniform(f"box {name}") for name in ("height", "width", "top", "left")], dim=1)
    hole = boxes(draws, 4, 4)
    with_hole = concat_input(x, replace(PROCESS, concat="masked"), rows)
    assert torch.equal(with_hole, torch.cat([x * (1 - hole), hole], dim=1))
    alone = concat_input(x[1:], replace(PROCESS, concat="masked"), rows[1:])
    assert torch.equal(alone, with_hole[1:])  # a sample's own hole
    assert not torch.equal(hole[0], hole[1])


def test_concatenated_pictures_are_not_dropped_in_training_or_guidance() -> None:
    image = torch.randn(8, 2, 4, 4)
    whole = Cond(label=torch.zeros(8, dtype=torch.int64), concat=image)
    reader = Conditioner(("a",), 1)
    found = drop_conditions(
        whole, SampleRNG(0, tuple(range(8)), 8), DiffusionConfig(cond_dropout=1.0, cond_dropout_each=1.0), reader
    )
    assert found.label is not None
    assert found.concat is not None
    assert (found.label == 1).all()
    assert torch.equal(found.concat, image)
    null = null_condition(reader, Request.of(seeds=tuple(range(8))), whole)
    assert null.concat is not None
    assert torch.equal(null.concat, image)


@kinds
def test_training_uses_the_concatenated_picture(kind: str, trained: dict[str, Path]) -> None:
    """From pure noise the estimate has the brightness of the known pixels."""
    loaded = model.load(trained[kind])
    x, t = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor(0.99, dtype=torch.float64)
    lights = torch.tensor([-0.7, 0.0, 0.7]).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    image = lights
    if kind == "masked":
        hole = torch.zeros(3, 1, 4, 4)
        hole[:, :, 1:3, :2] = 1
        image = mask_out(lights, hole)
    cond = replace(loaded.conditioner.null(3), concat=image)
    means = loaded.diffusion(x, t, cond).mean
    inside = means if kind == "low_res" else means[:, :, 1:3, :2]
    assert (inside.mean((1, 2, 3)) - lights[:, 0, 0, 0]).abs().max() < 0.35
    with Image.open(trained[kind] / "samples" / "step-00000200.png") as sheet:
        line = 56 + 3  # a picture of 4 pixels, fourteen times as large, and the gap
        assert sheet.height == 2 * line + 3
        assert sheet.width > 3 * line + 3  # the seeds of each line are at the left
    notes = describe(trained[kind] / "samples" / "step-00000200.png")["warnings"]
    assert any("of the data set: add --image" in note for note in notes)


def test_it_resumes_bit_for_bit(lights: Path, tmp_path: Path) -> None:
    """Numbers, holes and dropped conditions depend on the sample, not on the order of calls."""
    config = training("masked", lights)
    config = replace(
        config,
        process=replace(config.process, cond_dropout=0.2, cond_dropout_each=0.2),
        fit=replace(config.fit, images=12 * 8, batch=8),
        log=replace(config.log, checkpoint_steps=5, grid_every=0),
    )
    list(train(config, tmp_path / "whole"))
    for tick in train(config, tmp_path / "run"):
        if tick.step == 5:
            break
    assert [tick.step for tick in train(config, tmp_path / "run")] == list(range(6, 13))
    assert same(contents(tmp_path / "run"), contents(tmp_path / "whole"))


# --- sampling ---


def test_a_small_picture_and_its_original_give_the_same_condition(trained: dict[str, Path], tmp_path: Path) -> None:
    loaded = model.load(trained["low_res"])
    pixels = np.kron(np.array([[0, 40], [200, 255]], np.uint8), np.ones((2, 2), np.uint8))
    Image.fromarray(pixels[::2, ::2]).save(tmp_path / "small.png")
    Image.fromarray(pixels).save(tmp_path / "large.png")
    Image.fromarray(pixels[:3, :3]).save(tmp_path / "between.png")
    Image.fromarray(pixels[:, :3].repeat(2, 0).repeat(2, 1)).save(tmp_path / "thin.png")
    small, large = (
        concat_image(loaded, Request.of(seeds=(1, 2), image=str(tmp_path / f"{name}.png")))
        for name in ("small", "large")
    )
    assert small is not None
    assert large is not None
    assert small.shape == (1, 1, 4, 4)
    assert torch.equal(small[0, 0], torch.from_numpy(pixels).float() / 127.5 - 1)
    assert (large - small).abs().max() < 1e-6
    with pytest.raises(UserError, match="is 3x3; this model turns 2x2 into 4x4"):
        loaded.sample(image=str(tmp_path / "between.png"), steps=1)
    with pytest.raises(UserError, match="not the aspect ratio of the model's pictures, 4x4"):
        loaded.sample(image=str(tmp_path / "thin.png"), steps=1)


def test_pixels_outside_the_mask_are_unchanged(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bit for bit, with guidance, in a batch; and again from the recipe."""
    known = np.random.default_rng(0).integers(0, 256, (4, 4)).astype(np.uint8)
    hole = np.zeros((4, 4), np.uint8)
    hole[1:3, :2] = 255
    hole[0, 3] = 127  # less than half white: known
    picture, mask = tmp_path / "picture.png", tmp_path / "mask.png"
    Image.fromarray(known).save(picture)
    Image.fromarray(hole).save(mask)
    words = [
        "sample",
        str(trained["masked"]),
        "--seeds",
        "0-2",
        "--steps",
        "3",
        "--guidance",
        "1.5",
        "--value",
        "light=15",
    ]
    words += ["--image", str(picture), "--mask", str(mask)]
    assert main([*words, "--out", str(tmp_path / "a")]) == 0
    found = [np.asarray(Image.open(tmp_path / "a" / f"seed-{seed:06d}.png")) for seed in range(3)]
    for sample in found:
        assert np.array_equal(sample[hole < 128], known[hole < 128])
    assert not np.array_equal(found[0][hole > 127], found[1][hole > 127])
    capsys.readouterr()
    assert main(["info", str(tmp_path / "a" / "seed-000001.png"), "--command"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert main([*shlex.split(out)[1:], "--out", str(tmp_path / "b")]) == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b" / "seed-000001.png")), found[1])
    Image.fromarray(255 - known).save(picture)
    mask.unlink()
    capsys.readouterr()
    assert main(["info", str(tmp_path / "a" / "seed-000001.png"), "--command"]) == 0
    err = capsys.readouterr().err
    assert "picture.png has changed since" in err
    assert "mask.png does not exist here" in err


def test_a_condition_with_a_picture_can_be_passed_directly(trained: dict[str, Path]) -> None:
    loaded = model.load(trained["masked"])
    x, hole = torch.full((2, 1, 4, 4), 0.25), torch.zeros(2, 1, 4, 4)
    hole[:, :, 0] = 1
    cond = replace(loaded.conditioner.null(2), concat=mask_out(x, hole))
    *_, last = generate(loaded, Request.of(seeds=(1, 2), steps=2), cond=cond)
    assert last.pictures is not None
    assert torch.equal(last.pictures[:, :, 1:], x[:, :, 1:])


def test_a_missing_or_extra_picture_is_an_error(trained: dict[str, Path], lights: Path, tmp_path: Path) -> None:
    small, with_hole = (model.load(trained[kind]) for kind in KINDS)
    file = str(lights / "3.png")
    with pytest.raises(UserError, match="needs an image input: add image="):
        small.sample(steps=1)
    with pytest.raises(UserError, match="has no mask input"):
        small.sample(image=file, mask=file, steps=1)
    with pytest.raises(UserError, match='needs an image input: add image="FILE", and mask='):
        with_hole.sample(steps=1)
    with pytest.raises(UserError, match="inpaints part of a picture: add mask="):
        with_hole.sample(image=file, steps=1)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match=r"the mask .*text.png cannot be read: not a picture"):
        with_hole.sample(image=file, mask=str(tmp_path / "text.png"), steps=1)
    pictures = data.open(DataConfig(str(lights), size=4, channels=1))
    with pytest.raises(UserError, match="needs a picture concatenated to the noise"):
        next(evaluate(small, EvaluateConfig(count=10), Request(), pictures, cache=None))
    plain = replace(small, card=replace(small.card, process=replace(small.card.process, concat="")))
    with pytest.raises(UserError, match="has no image input beside x_t: remove image and mask"):
        plain.sample(image=file, steps=1)


# --- a configuration ---


@kinds
def test_the_network_has_as_many_channels_as_are_concatenated(kind: str, lights: Path, tmp_path: Path) -> None:
    config = training(kind, lights)
    check(config)
    unsaid: NetConfig = replace(config.net, concat_channels=0) if isinstance(config.net, UNetConfig) else config.net
    with pytest.raises(
        UserError, match=rf"net.concat_channels 0 should be {KINDS[kind]}: the channels of process.concat '{kind}'"
    ):
        check(replace(config, net=unsaid))
    with pytest.raises(UserError, match=r"net.concat_channels . should be 0: process.concat is empty"):
        check(replace(config, process=PROCESS))
    (tmp_path / "my.yaml").write_text(dumps(replace(config, net=unsaid)).replace("  concat_channels: 0\n", ""))
    settings = settings_from_options(str(tmp_path / "my.yaml"))
    assert isinstance(settings.config, TrainConfig)
    assert settings.config == config
    assert cost(settings.config, timed=1).parameters > 0


def test_the_factor_divides_the_size_and_belongs_to_the_model(lights: Path, trained: dict[str, Path]) -> None:
    config = training("low_res", lights)
    with pytest.raises(UserError, match=r"concat_factor 3 should be 2 or more, and divide data.size 4"):
        check(replace(config, process=replace(config.process, concat_factor=3)))
    other = replace(config, base=str(trained["low_res"]), process=replace(config.process, concat_factor=4))
    with pytest.raises(UserError, match=r"process.concat_factor 4 should be 2, that of the base"):
        load_base(other, Path("nowhere"))
    assert data.open(config.data).batch([0]).x.shape == (1, 1, 4, 4)
