"""A model has everything that sampling needs; a picture belongs to its seed; errors name wrong files."""

from __future__ import annotations

import json
import math
import os
import pickle
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unnoise import nn as networks
from unnoise.acceleration import placement
from unnoise.acceleration.placement import best
from unnoise.codec import to_bytes
from unnoise.config.cards import ModelCard
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import DiTConfig, NetConfig, UNetConfig
from unnoise.config.request import Request
from unnoise.denoiser import PREDICTIONS, make_diffusion
from unnoise.errors import UserError
from unnoise.formats.directory import CARD, WEIGHTS, save_weights, write_model
from unnoise.formats.files import Tensors
from unnoise.generate.frames import generate, sample
from unnoise.generate.job import place
from unnoise.model import Model, load
from unnoise.text.conditioner import Conditioner

NET = UNetConfig(
    size=8, in_channels=1, out_channels=1, channels=(8, 16), blocks=1, attention=(False, True), groups=4, classes=3
)
NAMES = ("cat", "dog", "bird")


def small(net: NetConfig = NET, classes: tuple[str, ...] = NAMES, **process: object) -> Model:
    """A model with random weights everywhere, also where a network is initialised to zeros."""
    generator = torch.Generator().manual_seed(0)
    built = networks.build(net).eval()
    for parameter in built.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.25
    made = DiffusionConfig(schedule="cosine", steps=100, predicts="x0", **process)  # type: ignore[arg-type]
    card = ModelCard(net=net, process=made, size=(8, 8), channels=1, classes=classes)
    return Model(make_diffusion(built, made).eval(), card)


FLOAT = {"precision": "float32", "steps": 4}


def test_a_saved_model_generates_the_same_pictures(tmp_path: Path) -> None:
    for net in (NET, DiTConfig(size=8, in_channels=1, out_channels=1, patch=2, width=24, depth=2, heads=2, classes=3)):
        model = small(net)
        folder = tmp_path / net.kind
        folder.mkdir()
        model.save(folder)
        again = load(folder)
        assert again.card == model.card
        a, b = (m.sample(seeds=[1, 2], labels=["dog", "2"], sampler="ddpm", **FLOAT) for m in (model, again))
        assert torch.equal(a.pixels, b.pixels)
        assert a.labels == ("dog", "bird")


@pytest.mark.parametrize("names", [(), ("cat",), ("cat", "dog"), (*NAMES, "cow")])
def test_other_numbers_of_names_than_classes_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    small().save(tmp_path / "model")
    card = tmp_path / "model" / CARD
    content = json.loads(card.read_text())
    content["card"]["classes"] = list(names)
    card.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"{card}: classes has {len(names)} names for the 3 classes .*net\.classes"):
        load(tmp_path / "model", verify=False)


def test_names_of_weights_are_compared_before_they_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    model.save(tmp_path / "model")
    state = model.diffusion.net.state_dict() | {f"more.{i}": torch.zeros(1) for i in range(100)}
    save_weights(tmp_path / "model" / WEIGHTS, state)
    monkeypatch.setattr(Tensors, "load", lambda self: pytest.fail("loaded"))
    with pytest.raises(UserError, match=r"more\.0 is unknown"):
        load(tmp_path / "model", verify=False)


def test_loading_initialises_nothing_at_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are read into a network without any: random ones, made first, would take as long and twice the memory."""
    nets = (NET, DiTConfig(size=8, in_channels=1, out_channels=1, patch=2, width=24, depth=2, heads=2, classes=3))
    for net in nets:
        small(net).save(tmp_path / net.kind)
    real, devices = networks.build, []

    def build(config: NetConfig) -> torch.nn.Module:
        net = real(config)
        devices.append({p.device.type for p in net.parameters()})
        return net

    monkeypatch.setattr(networks, "build", build)
    before = torch.get_rng_state()
    for net in nets:
        load(tmp_path / net.kind)
    assert devices == [{"meta"}] * 2
    assert torch.equal(torch.get_rng_state(), before)


def test_a_saved_class_called_none_is_not_the_null_row(tmp_path: Path) -> None:
    model = small()
    write_model(tmp_path, model.diffusion.net.state_dict(), model.card, None)
    card = tmp_path / CARD
    card.write_text(card.read_text().replace('"dog"', '"none"').replace('"bird"', '"all"'))
    again = load(tmp_path)
    assert again.classes == ("cat", "none_", "all_")
    asked = {"seeds": [1, 2, 3], "guidance": 3.0, **FLOAT}
    before = model.sample(labels=["cat", "dog", "none"], **asked)
    after = again.sample(labels=["cat", "none_", "none"], **asked)
    assert torch.equal(before.pixels, after.pixels)
    assert torch.equal(again.sample(labels=[0, 1, "none"], **asked).pixels, after.pixels)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "heun"])
def test_a_picture_belongs_to_its_seed(sampler: str) -> None:
    """Not to its batch, its neighbours or its place. Convolutions of another batch size may round by 1 of 255."""
    model = small()
    many = model.sample(seeds=range(7), labels=["cat"], sampler=sampler, batch=3, **FLOAT).pixels.int()
    for seed in (0, 5):
        alone = model.sample(seeds=[seed], labels=["cat"], sampler=sampler, **FLOAT).pixels.int()
        assert (many[seed] - alone[0]).abs().max() <= 1
    assert (many[0] - many[1]).abs().max() > 5


def test_previews_change_nothing() -> None:
    model = small()
    request = Request.of(seeds=(3, 4), labels=("cat",), steps=10, sampler="ddpm", precision="float32")
    plain = sample(model, request).pixels
    frames = list(generate(model, request.but(previews=3)))
    shown = [frame.step for frame in frames if frame.pictures is not None]
    assert shown == [2, 5, 8, 10]
    assert torch.equal(to_bytes(frames[-1].pictures), plain)  # type: ignore[arg-type]
    assert [frame.done for frame in frames] == [False] * 9 + [True]


def test_two_threads_get_what_each_gets_alone() -> None:
    model = small()
    requests = [Request.of(seeds=(i,), labels=("dog",), steps=6, sampler="ddpm", precision="float32") for i in range(4)]
    alone = [sample(model, request).pixels for request in requests]
    found: dict[int, torch.Tensor] = {}
    threads = [
        threading.Thread(target=lambda i=i: found.setdefault(i, sample(model, requests[i]).pixels)) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[i], alone[i]) for i in range(4))


def test_iteration_may_stop_at_any_step() -> None:
    frames = generate(small(), Request.of(seeds=(1,), steps=50, precision="float32"))
    assert next(frames).step == 1
    frames.close()


def test_guidance_one_is_none_and_others_differ() -> None:
    model = small()
    plain, one, three = (
        model.sample(seeds=[1], labels=["cat"], guidance=scale, **FLOAT).pixels for scale in (1.0, 1, 3.0)
    )
    assert torch.equal(plain, one)
    assert (plain.int() - three.int()).abs().max() > 3


def test_labels_are_read() -> None:
    reader = Conditioner(NAMES, 3)
    assert reader.encode(["dog", "0", "none"]).label.tolist() == [1, 0, 3]  # type: ignore[union-attr]
    assert [reader.name(i) for i in (0, 3)] == ["cat", "none"]
    by_seed = reader.random_class(range(300)).label
    assert by_seed is not None
    assert by_seed[5] == reader.random_class([5]).label  # it depends on the seed alone
    assert (torch.bincount(by_seed, minlength=3) > 70).all()
    with pytest.raises(UserError, match="did you mean 'dog'"):
        reader.encode(["dgo"])
    with pytest.raises(UserError, match="is not conditioned on classes"):
        Conditioner().encode(["dog"])
    with pytest.raises(UserError, match="has no null class"):
        Conditioner(NAMES).null(1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "dimm"}, "did you mean 'ddim'"),
        ({"spacing": "evn"}, "did you mean 'even'"),
        ({"sampler": "ddpm", "eta": 0.5}, "eta is an option of DDIM"),
        ({"sampler": "ddpm-learned"}, "no learned variance"),
        ({"labels": ("cat", "dog", "cat")}, "3 labels for 2 seeds"),
        ({"labels": ("cow",)}, "no class 'cow'"),
        ({"seeds": ()}, "no seeds"),
        ({"steps": 0}, "at least one step"),
        ({"batch": 0}, "batch"),
        ({"guidance": math.nan}, "guidance is nan: give a finite number"),
        ({"control_scale": (1.0, math.inf)}, r"control_scale is \(1.0, inf\): give a finite number"),
        ({"control_scale": (math.nan,)}, "control_scale is nan: give a finite number"),
        ({"eta": -3.0}, "eta is -3: give a number from 0 to 1"),
        ({"guidance_rescale": 5.0}, "guidance_rescale is 5: give a number"),
        ({"dynamic_threshold": math.nan}, "threshold is nan: give a number"),
        ({"dynamic_threshold": 99.5}, "threshold is 99.5: give a number"),
        ({"spacing": "leading", "steps": 101}, "101 steps do not fit a network of 100 steps"),
    ],
)
def test_impossible_requests_are_refused_before_the_first_step(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        next(generate(small(), Request.of(**{"seeds": (1, 2), **settings})))  # type: ignore[arg-type]


def test_models_without_classes() -> None:
    from dataclasses import replace

    model = small(replace(NET, classes=0), ())
    assert model.sample(seeds=[1], **FLOAT).labels == ()
    with pytest.raises(UserError, match="cannot be guided"):
        model.sample(seeds=[1], guidance=2.0, **FLOAT)


def test_estimates_are_clipped_if_the_request_and_the_card_allow_it() -> None:
    from dataclasses import replace

    allowed = small()
    refused = replace(allowed, card=replace(allowed.card, clip=False))
    ask = Request.of(seeds=(1,), labels=("dog",), **FLOAT)  # type: ignore[arg-type]
    clipped, free = (sample(allowed, ask.but(clip=clip)).pixels for clip in (True, False))
    assert not torch.equal(clipped, free)
    for clip in (True, False):
        assert torch.equal(sample(refused, ask.but(clip=clip)).pixels, free)


def saved(folder: Path) -> Path:
    """A model directory without its manifest, so that what is wrong is found by what it is."""
    small().save(folder)
    (folder / "manifest.json").unlink()
    return folder


def test_the_error_for_a_flipped_bit_names_the_file(tmp_path: Path) -> None:
    small().save(tmp_path / "model")
    file = tmp_path / "model" / WEIGHTS
    content = bytearray(file.read_bytes())
    content[-7] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"model.safetensors: not what was written"):
        load(tmp_path / "model")


def test_saving_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="is not empty"):
        small().save(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_the_error_for_a_wrong_file_names_its_kind(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    good = (folder / WEIGHTS).read_bytes()
    for content, message in (
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\x80\x02}q\x00.", "pickle"),
        (good[: len(good) // 2], "it ends after"),
    ):
        (folder / WEIGHTS).write_bytes(content)
        with pytest.raises(UserError, match=message):
            load(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(UserError, match="missing"):
        load(folder)


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = saved(tmp_path)
    state = load_file(folder / WEIGHTS)
    name = "conv_in.weight"
    for changed, message in (
        ({k: v for k, v in state.items() if k != name}, f"{name} is missing"),
        ({**state, "extra": torch.zeros(1)}, "extra is unknown"),
        ({**state, name: torch.zeros(2, 2)}, "instead of"),
    ):
        save_file(changed, folder / WEIGHTS)
        with pytest.raises(UserError, match=message):
            load(folder)


def test_cards_are_strict(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    good = json.loads((folder / CARD).read_text())
    for change, message in (
        ({"format": "other"}, "is not the card of an unnoise model"),
        ({"version": 3}, "update unnoise"),
        ({"card": {**good["card"], "clases": []}}, "clases"),
        ({"card": {**good["card"], "net": {**good["card"]["net"], "channels": [8, 10**6]}}}, "should be from 1 to"),
    ):
        (folder / CARD).write_text(json.dumps(good | change))
        with pytest.raises(UserError, match=message):
            load(folder)
    (folder / CARD).write_text("{")
    with pytest.raises(UserError, match="JSON"):
        load(folder)


def test_paths_without_a_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is an empty folder, not a model"):
        load(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        load(tmp_path / "file")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match="no checkpoint yet"):
        load(tmp_path / "run")


def test_grids_contain_every_picture(tmp_path: Path) -> None:
    pictures = small().sample(seeds=range(5), labels=["cat"], **FLOAT)
    pictures.save(tmp_path / "grid.png", columns=3)
    sheet = pictures.grid(3)
    assert sheet.size == (2 + 3 * 10, 2 + 2 * 10)
    for i, picture in enumerate(pictures):
        x, y = 2 + i % 3 * 10, 2 + i // 3 * 10
        assert list(sheet.crop((x, y, x + 8, y + 8)).convert("L").getdata()) == list(picture.getdata())


@pytest.mark.parametrize(
    ("keyword", "value", "instead"),
    [
        ("n", 3, r"each seed gives one picture, so write seeds=range\(3\)"),
        ("num_images", 2, r"seeds=range\(2\)"),
        ("seed", 7, "did you mean seeds=7"),
        ("label", "cat", "did you mean labels='cat'"),
        ("prompt", "a cat", "did you mean prompts='a cat'"),
        ("guidance_scale", 2.0, r"did you mean guidance=2\.0"),
        ("num_inference_steps", 9, "did you mean steps=9"),
        ("scheduler", "ddim", "did you mean sampler='ddim'"),
        ("stepps", 9, "did you mean steps=9"),
    ],
)
def test_a_keyword_of_another_name_is_answered_with_ours(keyword: str, value: object, instead: str) -> None:
    with pytest.raises(TypeError, match=f"'{keyword}'.*{instead}"):
        small().sample(**{keyword: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": "a cat"}, r"not conditioned on text: .* it supports labels \(3 classes: cat, dog, bird\)"),
        ({"seeds": ()}, r"for example seeds=range\(8\)"),
        ({"sampler": "heun", "eta": 0.5}, 'use sampler="ddim", or eta=0$'),
        ({"guidance_interval": (3.0, 1.0)}, r"guidance_interval=\(LOW, HIGH\)"),
        ({"controls": ("a.png",)}, "remove controls"),
    ],
)
def test_in_python_messages_name_keywords(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        small().sample(**settings)
    assert "--" not in str(error.value)


def test_one_seed_and_one_label_need_no_list() -> None:
    model = small()
    one, listed = model.sample(seeds=5, labels="dog", **FLOAT), model.sample(seeds=[5], labels=["dog"], **FLOAT)
    assert torch.equal(one.pixels, listed.pixels)
    assert model.sample(labels=1, **FLOAT).labels == ("dog",)


def test_a_model_moves_to_a_device_as_a_module_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples are computed there, unless a call names a device."""
    model = small()
    assert model.to("cpu") is model
    monkeypatch.setattr("unnoise.acceleration.placement.torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("unnoise.acceleration.placement.torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("unnoise.acceleration.placement.fast_bfloat16", lambda device: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    assert place(small()).placement.device == "cuda"
    assert place(model).placement.device == "cpu"
    assert place(model, "cuda").placement.device == "cuda"
    with pytest.raises(UserError, match="no device 'gpu'"):
        model.to("gpu")


@pytest.mark.parametrize("predicts", PREDICTIONS)
def test_a_pickled_model_samples_the_same_pictures(predicts: str) -> None:
    """Of every prediction, also after it has sampled: worker processes are sent models."""
    model = small()
    process = DiffusionConfig(schedule="cosine", steps=100, predicts=predicts)
    model = Model(make_diffusion(model.diffusion.net, process).eval(), replace(model.card, process=process))
    expected = model.sample(seeds=[1], labels=["dog"], **FLOAT)
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again.sample(seeds=[1], labels=["dog"], **FLOAT).pixels, expected.pixels)


@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_process_that_was_forked_after_loading_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait for threads that it does not have; with one thread it samples."""
    small().save(tmp_path / "model")
    model = load(tmp_path / "model")
    for threads, code in ((2, 7), (1, 0)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        child = os.fork()
        if child == 0:
            try:
                placement.place(model.diffusion, best("cpu", "float32"))
                os._exit(0)
            except UserError as error:
                os._exit(7 if "spawn" in str(error) else 1)
            except BaseException:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code
