"""A request is prepared once: prompts are encoded, files opened and the network copied once; errors come first."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.helpers.random_weights import randomised
from tests.test_model import small
from unnoise import nn
from unnoise.acceleration import placement
from unnoise.config.cards import ModelCard
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import ControlConfig, TextConfig, UNetConfig
from unnoise.config.request import Request
from unnoise.denoiser import make_diffusion
from unnoise.errors import UserError
from unnoise.generate import conditions, job
from unnoise.generate.frames import collect, frames
from unnoise.generate.job import place, prepare, timesteps
from unnoise.model import Model
from unnoise.text.tokenizer import Tokenizer

FLOAT = {"precision": "float32", "steps": 3}


@pytest.fixture(scope="module")
def text_model() -> Model:
    """A model of captions and one control image, with random weights."""
    net = UNetConfig(
        size=8, in_channels=1, out_channels=1, channels=(8, 16), blocks=1, attention=(False, True), groups=4,
        text=TextConfig(vocabulary=300, length=8, width=8, depth=1, heads=2),
        controls=(ControlConfig(channels=1, hint=(4,), scale=1),),
    )  # fmt: skip
    card = ModelCard(net, DiffusionConfig(schedule="cosine", predicts="v"), size=(8, 8), channels=1)
    text = Tokenizer.learn(["a dog", "a cat"], vocabulary=300, length=8)
    return Model(make_diffusion(randomised(nn.build(net)), card.process).eval(), card, text=text)


def test_prompts_are_encoded_and_files_opened_once_however_many_seeds(
    text_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (8, 8), 255).save(tmp_path / "edges.png")
    encoded: list[list[str]] = []
    opened: list[Path] = []
    encode, decode = Tokenizer.encode, conditions.open_picture
    monkeypatch.setattr(Tokenizer, "encode", lambda self, texts: encoded.append(list(texts)) or encode(self, texts))
    monkeypatch.setattr(conditions, "open_picture", lambda file, *rest: opened.append(file) or decode(file, *rest))
    request = Request.of(
        seeds=tuple(range(7)), prompts=("a dog",), negative_prompt="a cat", guidance=2.0, batch=2,
        controls=(str(tmp_path / "edges.png"),), **FLOAT,
    )  # fmt: skip
    ready = prepare(text_model, request)
    assert len(collect(ready)) == 7
    assert encoded == [["a dog"], ["a cat"]]
    assert opened == [tmp_path / "edges.png"]
    each = request.but(prompts=("a dog", "a cat") * 3 + ("a dog",))
    encoded.clear()
    tokens = prepare(text_model, each).cond.tokens
    assert encoded == [["a dog", "a cat"], ["a cat"]]
    assert torch.equal(tokens, encode(text_model.text, list(each.prompt.prompts)).tokens)


def test_a_placed_model_is_copied_once_for_all_its_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[object] = []
    monkeypatch.setattr(job, "place_diffusion", lambda *what: copies.append(what) or placement.place(*what))
    placed = place(small(), precision="float32")
    jobs = [prepare(placed, Request.of(seeds=(seed,), labels=("dog",), **FLOAT)) for seed in (1, 2)]
    assert copies == []  # errors are found before the network is copied
    for ready in jobs:
        list(frames(ready))
        list(frames(ready))
    assert len(copies) == 1


def test_a_job_is_a_value() -> None:
    """It gives the same pictures again, from threads too; some of its rows are the pictures of these rows."""
    ready = prepare(small(), Request.of(seeds=(3, 4, 5, 6), labels=("dog", "cat", "bird", ""), guidance=2.0, **FLOAT))
    whole = collect(ready)
    found: dict[int, torch.Tensor] = {}
    threads = [threading.Thread(target=lambda i=i: found.setdefault(i, collect(ready))) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[i], whole) for i in range(2))
    assert torch.allclose(collect(ready[[3, 1]]), whole[[3, 1]], atol=1e-4)
    assert ready[[3, 1]].labels() == (ready.labels()[3], "cat")


def test_threads_that_begin_at_once_share_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first use of a placed model copies its network; a thread that comes meanwhile waits for that copy."""
    copies, begin = [], threading.Barrier(4)

    def slow(*args):
        copies.append(args)
        time.sleep(0.2)
        return real(*args)

    def use() -> None:
        begin.wait()
        found.append(placed.diffusion)

    real = job.place_diffusion
    monkeypatch.setattr(job, "place_diffusion", slow)
    placed, found = place(small(), precision="float32"), []
    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(copies) == 1
    assert len(found) == 4
    assert all(diffusion is found[0] for diffusion in found)


def test_a_row_without_a_label_has_the_class_of_its_seed() -> None:
    model = small()
    by_seed = prepare(model, Request.of(seeds=(6, 7, 8), **FLOAT)).labels()
    assert prepare(model, Request.of(seeds=(6, 7, 8), labels=("", "dog", ""), **FLOAT)).labels() == (
        by_seed[0],
        "dog",
        by_seed[2],
    )


@pytest.mark.parametrize(("time_sampler", "below"), [("uniform", False), ("importance", False), ("continuous", True)])
@pytest.mark.parametrize("schedule", ["vp-sde", "sigmoid", "variance-exploding"])
def test_a_curve_that_was_trained_on_steps_is_asked_at_those_alone(
    schedule: str, time_sampler: str, below: bool
) -> None:
    """Below t = 1/T no time was sampled in training, unless it was continuous."""
    made = small()
    process = replace(made.card.process, schedule=schedule, time_sampler=time_sampler, predicts="v")
    if schedule == "variance-exploding":
        process = replace(process, predicts="score")
    model = Model(make_diffusion(made.diffusion.net, process), replace(made.card, process=process))
    for sampler in ("euler", "unipc"):
        last = timesteps(model, Request.of(sampler=sampler))[-2].item()
        assert (last < 0.999 / process.steps) == below, sampler
        assert last > 0.999 / process.steps or below
    for steps in (process.steps, process.steps + 1):
        if below or steps == process.steps:
            assert len(timesteps(model, Request.of(sampler="ddpm", steps=steps))) == steps + 1
        else:
            with pytest.raises(UserError, match="101 steps do not fit a network of 100 steps"):
                timesteps(model, Request.of(sampler="ddpm", steps=steps))


def test_every_error_is_raised_by_prepare() -> None:
    placed = place(small(), precision="float32")
    for wrong, message in (
        ({"seeds": ()}, "no seeds"),
        ({"seeds": (-1,)}, "seed -1: seeds are whole numbers from 0"),
        ({"seeds": (2**63,)}, r"to 2\^63 - 1"),
        ({"seeds": (10**5000,)}, "seed of 16610 bits"),
        ({"seeds": (1.5,)}, "seed 1.5"),
        ({"batch": 0}, "set it to 1 or more"),
        ({"sampler": "dimm"}, "did you mean 'ddim'"),
        ({"eta": 0.5, "sampler": "heun"}, "eta is an option of DDIM"),
        ({"labels": ("horse",)}, "no class 'horse'"),
        ({"prompts": ("a dog",)}, "prompt"),
        ({"negative_prompt": "a dog", "guidance": 2.0}, "negative prompt"),
        ({"controls": ("a.png",)}, "no ControlNet: remove --control"),
        ({"image": "a.png"}, "no image input"),
        ({"guidance_interval": (2.0, 1.0)}, "no noise level"),
        ({"spacing": "leading", "steps": 101}, "network of 100 steps"),
        ({"sampler": "ddpm", "steps": 101}, "use 1 to 100, or the spacing log-snr"),
    ):
        with pytest.raises(UserError, match=message):
            prepare(placed, Request.of(**{"seeds": (1,), **wrong}))  # type: ignore[arg-type]
