"""Pictures and their noise, over a whole model: there and back, between, and from one way many."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.helpers.random_weights import randomised
from tests.test_model import small
from unnoise import nn
from unnoise.cli.interpolate import nearest_end
from unnoise.cli.main import main
from unnoise.codec import from_bytes, to_bytes
from unnoise.conditions import Cond
from unnoise.config.cards import ModelCard, ValueRange
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import ControlConfig, TextConfig, UNetConfig
from unnoise.config.request import Request
from unnoise.denoiser import make_diffusion
from unnoise.errors import UserError
from unnoise.generate.frames import generate, sample
from unnoise.generate.interpolation import between, between_pictures, shared
from unnoise.generate.inversion import Inversion, from_noise, invert, prepare_inversion, reconstruct
from unnoise.generate.job import Start, prepare
from unnoise.model import Model
from unnoise.noise import Seeds
from unnoise.text.tokenizer import Tokenizer

HOW = Request.of(steps=6, precision="float32", sampler="ddim", clip=False, spacing="leading")


@pytest.fixture(scope="module")
def model() -> Model:
    """Random weights, asked for v: what is drawn depends on its noise, and bends it."""
    made = small()
    process = replace(made.card.process, predicts="v")
    return Model(make_diffusion(made.diffusion.net, process).eval(), replace(made.card, process=process))


def inverted(model: Model, x: torch.Tensor, cond: Cond, how: Request, convention: str = "exact") -> Inversion:
    job = prepare_inversion(model, replace(how, seeds=tuple(range(len(x)))), cond)
    return invert(job, x, convention=convention)


def drawn(model: Model, count: int = 3) -> torch.Tensor:
    how = Request.of(seeds=tuple(range(count)), labels=("cat",), steps=HOW.sampling.steps, precision=HOW.precision)
    return from_bytes(sample(model, how).pixels)


@pytest.mark.parametrize("convention", ["own", "target", "exact"])
def test_an_inversion_asks_no_time_below_the_table(model: Model, convention: str) -> None:
    """The network's time input is k - 1 at t = k/T: 0 at the first entry, also for a picture, whose time is 0."""
    asked: list[float] = []
    hook = model.diffusion.net.register_forward_pre_hook(lambda net, inputs: asked.extend(inputs[1].tolist()))
    try:
        cat = model.conditioner.encode(["cat"])
        inverted(model, torch.zeros((1, *model.x_shape)), cat, HOW.but(spacing="even"), convention)
    finally:
        hook.remove()
    assert asked
    assert min(asked) > -1e-6


def test_exact_inversion_draws_the_picture_again(model: Model) -> None:
    x = drawn(model)
    cat = model.conditioner.encode(["cat"] * 3)
    survived = {name: reconstruct(model, x, cat, HOW, convention=name) for name in ("own", "target", "exact")}
    assert survived["exact"].error < 1e-8
    assert survived["exact"].residual < 1e-4
    assert min(survived["own"].error, survived["target"].error) > 100 * survived["exact"].error
    assert torch.equal(survived["exact"].pictures, to_bytes(x))


def test_a_flow_is_inverted_to_noise_and_back(model: Model) -> None:
    """At its t = 1 there is nothing of the picture."""
    card = replace(model.card, process=replace(model.card.process, schedule="flow", predicts="flow"))
    flow = Model(make_diffusion(model.diffusion.net, card.process).eval(), card)
    x, how = drawn(flow), HOW.but(spacing="even")
    assert inverted(flow, x, flow.conditioner.encode(["cat"] * 3), how).deviation > 0.1
    assert reconstruct(flow, x, flow.conditioner.encode(["cat"] * 3), how).error < 1e-8


def test_a_batch_is_inverted_as_each_alone(model: Model) -> None:
    x = drawn(model)
    cond = model.conditioner.encode(["cat"] * 3)
    many = inverted(model, x, cond, HOW)
    few = inverted(model, x[1:2], cond[1:2], HOW)
    assert torch.allclose(many.noise[1], few.noise[0], atol=1e-3)
    assert many.residual.shape == (3,)


def test_guidance_is_part_of_the_way(model: Model) -> None:
    x = drawn(model, 2)
    how, cat = HOW.but(guidance=1.5), model.conditioner.encode(["cat"] * 2)
    assert reconstruct(model, x, cat, how).error < 1e-6
    plain = reconstruct(model, x, cat, HOW, convention="target").error
    guided = reconstruct(model, x, cat, how, convention="target").error
    assert guided != plain


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of captions, a number and a control image; beside it in its folder, two control images."""
    pytest.importorskip("tokenizers")
    text = TextConfig(vocabulary=300, length=8, width=8, depth=1, heads=2)
    net = UNetConfig(
        size=8, in_channels=1, out_channels=1, channels=(8, 16), blocks=1, attention=(False, True), groups=4,
        values=1, text=text, controls=(ControlConfig(channels=1, hint=(4,), scale=1),),
    )  # fmt: skip
    card = ModelCard(
        net,
        DiffusionConfig(schedule="cosine", predicts="v"),
        size=(8, 8),
        channels=1,
        values=(ValueRange("age", 0, 90),),
    )
    words = Tokenizer.learn(["a dog", "a cat"], vocabulary=300, length=8)
    made = Model(make_diffusion(randomised(nn.build(net)), card.process).eval(), card, text=words)
    base = tmp_path_factory.mktemp("listener")
    made.save(base / "listener")
    for name, rows in (("left", np.s_[:, :4]), ("top", np.s_[:4])):
        drawing = np.zeros((8, 8), np.uint8)
        drawing[rows] = 255
        Image.fromarray(drawing).save(base / f"{name}.png")
    return replace(made, card=replace(card, info={"folder": str(base)}))


SAID = [("a dog", 3.0, "left"), ("a cat", 3.0, "left"), ("a dog", 80.0, "left"), ("a dog", 3.0, "top")]


def saying(model: Model, words: str, age: float, drawing: str) -> dict[str, object]:
    file = f"{model.card.info['folder']}/{drawing}.png"
    return {"prompts": (words,), "values": {"age": (age,)}, "controls": (file,)}


@pytest.mark.parametrize("other", SAID[1:])
def test_words_numbers_and_drawings_are_part_of_the_way(listener: Model, other: tuple[str, float, str]) -> None:
    """Told the same both ways a picture comes back, told another on the way back it does not."""
    how = HOW.but(seeds=(0, 1), **saying(listener, *SAID[0]))
    x = draw_floats(listener, how)
    job, changed = prepare(listener, how), prepare(listener, how.but(**saying(listener, *other)))
    assert reconstruct(listener, x, job.cond, how).error < 1e-8
    noise = invert(changed, x).noise
    back = draw_floats(listener, how, from_noise(job, noise))
    assert (back - x).square().mean() > 1e-6


def draw_floats(model: Model, how: Request, start: Start | None = None) -> torch.Tensor:
    return torch.cat([frame.pictures for frame in generate(model, how, start) if frame.pictures is not None])


@pytest.mark.parametrize("said", SAID)
def test_shared_steps_have_the_conditions_of_the_request(listener: Model, said: tuple[str, float, str]) -> None:
    """The first picture, whose way is shared, is that of its seed."""
    how = Request.of(seeds=(3, 4), steps=8, sampler="ddpm", precision="float32", **saying(listener, *said))
    alone = sample(listener, how).pixels[:1].int()
    shared_way = sample(listener, how, shared(prepare(listener, how), 0.25)).pixels[:1].int()
    assert (alone - shared_way).abs().max() <= 1
    each = how.but(prompts=(said[0], "a horse"))
    assert torch.equal(shared(prepare(listener, each), 0.25).x, shared(prepare(listener, how), 0.25).x)


def test_the_command_inverts_what_it_draws(
    listener: Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(str(listener.card.info["folder"]))
    told = ["--prompts", "a dog", "--value", "age=3", "--controls", "left.png"]
    assert main(["invert", "listener", "top.png", *told, "--steps", "6", "--json"]) == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out)["squared_error"][0] < 1e-6
    for words in (["interpolate", "listener", "-n", "3"], ["vary", "listener", "-n", "2", "--shared", "0.5"]):
        assert main([*words, *told, "--steps", "2"]) == 0, capsys.readouterr().err
        assert main([*words, "--value", "size=3", "--overwrite"]) == 2
        assert "size" in capsys.readouterr().err


def test_a_picture_beside_the_noise_is_shown_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = UNetConfig(
        size=8, in_channels=1, out_channels=1, channels=(8, 16), attention=(False, True), groups=4, concat_channels=1
    )
    process = DiffusionConfig(schedule="cosine", predicts="v", concat="small")
    card = ModelCard(net, process, size=(8, 8), channels=1)
    Model(make_diffusion(randomised(nn.build(net)), process).eval(), card).save(tmp_path / "larger")
    Image.fromarray(np.array([[0, 200], [90, 255]], np.uint8)).save(tmp_path / "small.png")
    told = [str(tmp_path / "larger"), "--image", str(tmp_path / "small.png"), "--steps", "4"]
    assert main(["invert", *told, "0.png", "--json"]) == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out)["squared_error"][0] < 1e-6
    for command in (["interpolate", "-n", "3"], ["vary", "-n", "2", "--shared", "0.5"]):
        assert main([*command, *told, "-o", str(tmp_path / f"{command[0]}.png")]) == 0, capsys.readouterr().err


def test_what_cannot_be_inverted_is_refused(model: Model) -> None:
    x = drawn(model, 1)
    with pytest.raises(UserError, match="exact"):
        inverted(model, x, model.conditioner.encode(["cat"]), HOW, convention="exakt")
    with pytest.raises(UserError, match="no pictures"):
        invert(prepare(model, HOW), x[:0])
    with pytest.raises(ValueError, match="2 rows"):
        generate(model, Request.of(seeds=(1,)), Start(torch.zeros(2, 1, 8, 8), 1.0))


def test_a_strip_begins_and_ends_in_the_pictures_of_its_seeds(model: Model) -> None:
    start = between(prepare(model, HOW), [4, 9], 5)
    film = sample(model, HOW.but(seeds=tuple(range(5)), labels=("cat",)), start).pixels.int()
    ends = sample(model, HOW.but(seeds=(4, 9), labels=("cat",))).pixels.int()
    assert (film[[0, -1]] - ends).abs().max() <= 1
    assert (film[2] - ends).abs().max() > 1


def test_a_plane_has_its_seeds_in_its_corners(model: Model) -> None:
    start = between(prepare(model, HOW), [1, 2, 3, 4], 3, 4)
    corners = Seeds((1, 2, 3, 4), model.x_shape).start()
    assert start.x.shape == (12, 1, 8, 8)
    assert torch.allclose(start.x[[0, 2, 9, 11]], corners, atol=1e-4)
    with pytest.raises(UserError, match="3 seeds"):
        between(prepare(model, HOW), [1, 2, 3], 3)


def test_between_pictures_the_ends_are_noised_pictures(model: Model) -> None:
    a, b = drawn(model, 2)
    level = model.diffusion.schedule.at(0.5)
    for keep in (True, False):
        start = between_pictures(model, a, b, 5, t=0.5, seed=7, keep_variance=keep)
        noise = Seeds((7, 8), model.x_shape).start()
        assert torch.allclose(start.x[0], level.mix(a, noise[0]), atol=1e-5)
        assert torch.allclose(start.x[4], level.mix(b, noise[1]), atol=1e-5)
        assert start.t == 0.5
    straight = between_pictures(model, a, b, 5, keep_variance=False).x[2]
    assert between_pictures(model, a, b, 5).x[2].std() > straight.std()


def test_a_walk_that_starts_on_the_way_takes_the_steps_that_are_left(model: Model) -> None:
    start = Start(torch.zeros(1, 1, 8, 8), 0.5)
    frames = list(generate(model, Request.of(seeds=(0,), labels=("cat",), steps=10, precision="float32"), start))
    assert [frame.steps for frame in frames] == [5] * 5
    assert frames[-1].calls == 5
    between_two = list(generate(model, Request.of(seeds=(0,), steps=10, labels=("cat",)), Start(start.x, 0.47)))
    assert between_two[0].steps == 5


def test_pictures_share_what_is_settled(model: Model) -> None:
    """At t = 1 only the noise; later ever more; and the first picture is that of its seed."""
    how = Request.of(seeds=(3, 4, 5), labels=("cat",), steps=8, sampler="ddpm", precision="float32")
    alone = sample(model, how).pixels[:1].int()
    spreads = []
    for t in (1.0, 0.5, 0.125):
        start = shared(prepare(model, how), t)
        assert torch.equal(start.x[0], start.x[2])
        pixels = sample(model, how, start).pixels.int()
        assert (pixels[:1] - alone).abs().max() <= 1
        spreads.append(pixels.double().std(0).mean().item())
    assert spreads[0] > spreads[1] > spreads[2] == 0  # the last step adds no noise


def test_the_class_of_a_place_is_that_of_the_nearest_end() -> None:
    assert nearest_end(["a", "b"], 4, 1) == ("a", "a", "b", "b")
    assert nearest_end(["a"], 2, 2) == ("a",) * 4
    assert nearest_end(["a", "b", "c", "d"], 2, 2) == ("a", "b", "c", "d")


# --- the command line ---


@pytest.fixture(scope="module")
def folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("explore")
    model.save(base / "model")
    for seed, picture in enumerate(sample(model, Request.of(seeds=(0, 1), labels=("cat",), steps=6))):
        picture.save(base / f"{seed}.png")
    return base


@pytest.fixture(autouse=True)
def at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_invert_writes_noise_and_a_sheet(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["invert", "model", "0.png", "1.png", "--label", "cat", "--steps", "6", "--grid-spacing", "leading"]
    assert main([*words, "--noise", "n.safetensors", "--sheet", "sheet.png", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert max(said["squared_error"]) < 1e-6
    noise = load_file("n.safetensors")["noise"]
    assert noise.shape == (2, 1, 8, 8)
    with Image.open("sheet.png") as sheet, Image.open("0.png") as picture:
        assert sheet.height > 4 * picture.height


def test_invert_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.png").write_bytes(b"no picture")
    for words, said in (
        (["0.png", "--label", "cow"], "cow"),
        (["broken.png"], "the picture broken.png cannot be read"),
        (["2.png"], "no picture at 2.png"),
        ([], "no picture to invert"),
    ):
        assert main(["invert", "model", *words]) == 2
        assert said in capsys.readouterr().err
    assert main(["interpolate", "model", "0.png", "broken.png", "-o", "never.png"]) == 2
    assert "the picture broken.png cannot be read" in capsys.readouterr().err


def test_interpolate_and_vary_write_grids(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--steps", "3", "--json"]
    for words, file, count in (
        (
            ["interpolate", "model", "--seeds", "0,1", "-n", "4", "-o", "strip.png", "--labels", "cat,dog"],
            "strip.png",
            4,
        ),
        (["interpolate", "model", "--seeds", "0-3", "-n", "3", "--down", "2", "-o", "plane.png"], "plane.png", 6),
        (["interpolate", "model", "0.png", "1.png", "-n", "3", "-o", "mix.png"], "mix.png", 3),
        (["vary", "model", "--shared", "1,0.5", "-n", "2", "-o", "vary.png", "--label", "cat"], "vary.png", 4),
    ):
        assert main([*words, *few]) == 0, capsys.readouterr().err
        assert json.loads(capsys.readouterr().out) == {"grid": file, "pictures": count}
        with Image.open(file) as picture:
            assert np.asarray(picture).std() > 0
    for words, said in (
        (["interpolate", "model", "--seeds", "0-2"], "3 seeds"),
        (["interpolate", "model", "0.png"], "1 pictures"),
        (["interpolate", "model", "--seeds", "0,1", "--labels", "cat,dog,cat"], "3 classes"),
        (["vary", "model", "--shared", "2"], "'2'"),
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err
