"""Conditional trainings: captions, control images, a base model. What is dropped, and what must stay."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace

import pytest
import torch
from PIL import Image

from tests.helpers.tiny_training import contents, same
from unnoise import data, model
from unnoise.conditions import Cond
from unnoise.config.data import DataConfig
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.networks import ControlConfig, TextConfig, UNetConfig
from unnoise.config.presets import PRESETS
from unnoise.config.request import Request
from unnoise.config.training import Fit, LogConfig, TrainConfig
from unnoise.config.validate import check
from unnoise.denoiser import make_diffusion
from unnoise.errors import UserError
from unnoise.evaluation.details import details
from unnoise.evaluation.evaluate import evaluate
from unnoise.generate.conditions import null_condition, text_and_labels
from unnoise.generate.frames import generate
from unnoise.model import Model
from unnoise.recipes.conditioning import batch_condition, drop_conditions
from unnoise.recipes.diffusion import objective, train
from unnoise.recipes.initialization import init_network, load_base
from unnoise.text.conditioner import Conditioner
from unnoise.text.tokenizer import Tokenizer
from unnoise.training.player import SampleRNG

pytest.importorskip("tokenizers")

NET = UNetConfig(
    size=16, channels=(8, 16), blocks=1, attention=(False, True), groups=4,
    text=TextConfig(vocabulary=320, length=20, width=16, depth=1, heads=2),
)  # fmt: skip
WORDED = TrainConfig(
    name="worded",
    data=DataConfig(path="shapes-one:test", size=16, channels=3),
    net=NET,
    process=DiffusionConfig(schedule="cosine", predicts="v", weight="snr-plus-one"),
    fit=Fit(images=12 * 8, batch=8, lr=3e-3, warmup=2, ema=(64,), precision="float32"),
    log=LogConfig(log_every=4, checkpoint_steps=6, grid_every=12, grid_rows=2, grid_labels=3, grid_steps=2),
)
CONTROLLED = replace(
    WORDED,
    name="controlled",
    data=replace(WORDED.data, control="edges"),
    net=replace(NET, controls=(ControlConfig(hint=(4, 8), scale=1),)),
    process=replace(WORDED.process, cond_dropout=0.5),
)


@pytest.fixture(scope="module")
def worded(tmp_path_factory):
    path = tmp_path_factory.mktemp("worded") / "run"
    list(train(WORDED, path))
    return path


@pytest.fixture(scope="module")
def controlled(worded, tmp_path_factory):
    path = tmp_path_factory.mktemp("controlled") / "run"
    list(train(replace(CONTROLLED, base=str(worded)), path))
    return path


# --- captions ---


def test_what_it_leaves_reads_and_draws(worded):
    loaded = model.load(worded)
    assert isinstance(loaded.text, Tokenizer)
    assert loaded.card.captions
    prompts = ("a red circle on white", "a blue square on black")
    pictures = loaded.sample(prompts=prompts, seeds=(1, 1), steps=2)
    assert pictures.pixels.shape == (2, 3, 16, 16)
    again = loaded.sample(prompts=prompts[1], seeds=(1,), steps=2)
    assert (again.pixels[0].int() - pictures.pixels[1].int()).abs().max() <= 1
    sheet = worded / "samples" / "step-00000012.png"
    with Image.open(sheet) as image:
        assert image.height > 3 * 96  # a line a caption, with its words below
        assert image.width == 8 + 2 * 98 - 2 + 8  # a column a seed


def cut_short(worded, length):
    """The model, its tokenizer reading `length` tokens."""
    loaded = model.load(worded)
    return replace(loaded, text=Tokenizer(loaded.text.text, length))


def test_a_training_says_how_many_of_its_captions_are_cut(worded, tmp_path):
    """As many as have more tokens than the encoder reads; nothing if none has."""
    pictures = data.open(WORDED.data)
    captions = [pictures.caption(row) for row in range(len(pictures))]
    long = Tokenizer.learn(captions, vocabulary=320, length=64)
    count = sum(len(ids) > 5 for ids in long._ids(captions))
    assert 0 < count < len(captions)
    short = replace(NET, text=replace(NET.text, length=7))
    for tick in train(replace(WORDED, net=short), tmp_path / "run"):
        assert tick.step == 1
        break
    lines = [line for line in (tmp_path / "run" / "log.txt").read_text().splitlines() if "longer than" in line]
    assert len(lines) == 1
    assert f"{count:,} of {len(captions):,} captions are longer than the text encoder reads" in lines[0]
    assert "longer than" not in (worded / "log.txt").read_text()


def test_an_evaluation_says_how_many_captions_are_cut(worded):
    pictures = data.open(WORDED.data)
    short, ask = cut_short(worded, 6), EvaluateConfig(metrics=("bpd",), bits_count=10, bits_steps=2)

    def said(loaded, how):
        warnings = list(evaluate(loaded, ask, how, pictures, cache=None))[-1].report["warnings"]
        return [text for text in warnings if "longer than" in text]

    (note,) = said(short, Request())
    rows = data.order(0, 0, len(pictures))[:10].tolist()
    count = sum(short.text.truncated(pictures.caption(row)) != "" for row in rows)
    assert note.startswith(f"{count} of 10 captions ")
    assert said(short, Request.of(prompts=("a red circle on white",)))[0].startswith("1 of 1 captions is")
    assert said(short, Request.of(prompts=("a",))) == []
    assert said(model.load(worded), Request()) == []


def test_bits_report_whether_captions_were_given(worded):
    loaded, ask = model.load(worded), EvaluateConfig(metrics=("bpd",), bits_count=4, bits_steps=2)

    def told(how, pictures):
        (entry,) = list(evaluate(loaded, ask, how, pictures, cache=None))[-1].report["metrics"]
        return details(entry)

    pictures = data.open(WORDED.data)
    plain = data.Dataset(replace(pictures.source, captions=None), pictures.config)
    assert "conditioned on their captions" in told(Request(), pictures)
    assert "conditioned on their captions" in told(Request.of(prompts=("a red circle",)), plain)
    assert "unconditional" in told(Request(), plain)
    assert "unconditional" in told(Request.of(labels=("none",)), pictures)


def test_a_prompt_that_is_cut_is_warned_of(worded):
    with pytest.warns(UserWarning, match=r"1 of 2 captions is longer than the text encoder reads.* circle on white'"):
        cut_short(worded, 5).sample(prompts=("a red circle on white", "a"), seeds=(1, 2), steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.load(worded).sample(prompts="a red circle on white", steps=1)


def test_the_network_is_conditioned_on_text(worded):
    loaded = model.load(worded)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor(0.5, dtype=torch.float64)
    batch_condition = loaded.conditioner.encode(prompts=["a red circle on white", "a blue square on black"])
    means = loaded.diffusion(x[:1].expand(2, -1, -1, -1), t, batch_condition).mean
    assert not torch.equal(means[0], means[1])


@pytest.mark.parametrize("stop", [6, 12])
def test_it_resumes_bit_for_bit(stop, worded, tmp_path):
    for tick in train(WORDED, tmp_path / "run"):
        if tick.step == stop:
            break
    assert [tick.step for tick in train(WORDED, tmp_path / "run")] == list(range(stop + 1, 13))
    assert same(contents(tmp_path / "run"), contents(worded))
    newest = "checkpoints/step-00000012/tokenizer.json"
    assert (tmp_path / "run" / newest).read_text() == (worded / newest).read_text()


def test_pictures_without_captions_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"fashion has none: put a text file"):
        next(train(replace(WORDED, data=replace(WORDED.data, path="fashion")), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_prompt_that_is_not_supported_is_answered_with_what_is(worded):
    loaded = model.load(worded)
    with pytest.raises(UserError, match=r"not conditioned on classes: leave label 'bag' out; it supports prompts$"):
        loaded.sample(labels=("bag",), steps=1)
    classes = Model(loaded.diffusion, replace(loaded.card, classes=("bag",), net=replace(NET, text=None)))
    with pytest.raises(
        UserError, match=r"not conditioned on text: leave prompt 'a bag' out; it supports labels \(1 class: bag\)$"
    ):
        classes.sample(prompts="a bag", steps=1)
    with pytest.raises(UserError, match="2 prompts for 3 seeds"):
        loaded.sample(prompts=("a", "b"), seeds=(1, 2, 3), steps=1)
    with pytest.raises(UserError, match="negative_prompt needs guidance above 1"):
        loaded.sample(prompts="a", negative_prompt="b", steps=1)
    with pytest.raises(UserError, match=r"has no ControlNet: remove controls; it supports prompts$"):
        loaded.sample(prompts="a", controls=("x.png",), steps=1)


def test_a_negative_prompt_takes_the_place_of_no_words(worded):
    """Guidance away from a prompt towards itself is the prompt, whatever the scale; away from others it is not."""
    loaded = model.load(worded)
    red = "a red circle on white"
    plain = loaded.sample(prompts=red, seeds=(3,), steps=3).pixels.int()
    itself = loaded.sample(prompts=red, negative_prompt=red, guidance=5.0, seeds=(3,), steps=3).pixels.int()
    assert (itself - plain).abs().max() <= 1
    blue = loaded.sample(prompts=red, negative_prompt="a blue square on black", guidance=5.0, seeds=(3,), steps=3)
    none = loaded.sample(prompts=red, guidance=5.0, seeds=(3,), steps=3)
    assert (blue.pixels.int() - none.pixels.int()).abs().max() > 1
    null = null_condition(
        loaded.conditioner,
        Request.of(negative_prompt=red),
        text_and_labels(loaded.conditioner, Request.of(prompts=(red,))),
    )
    assert torch.equal(null.tokens, loaded.conditioner.encode(prompts=[red]).tokens)


# --- what is dropped ---


def rows_of(count: int) -> SampleRNG:
    return SampleRNG(0, tuple(range(count)), count)


def test_conditions_are_dropped_independently_for_each_row_all_together_and_each_alone():
    """The null row is the empty caption and the label one past the last; rates within three standard errors."""
    words = Tokenizer.learn(["red", "blue"], vocabulary=300, length=5)
    reader = Conditioner(("a", "b"), 2, words)
    n = 10_000
    whole = Cond(label=torch.arange(n) % 2, tokens=words.encode(["red", "blue"] * (n // 2)).tokens)
    empty = words.encode([""]).tokens
    assert empty is not None

    def gone(process: DiffusionConfig) -> tuple[torch.Tensor, torch.Tensor]:
        found = drop_conditions(whole, rows_of(n), process, reader)
        label, tokens = found.label == 2, (found.tokens == empty).all(1)
        assert torch.equal(found.label[~label], whole.label[~label])
        assert torch.equal(found.tokens[~tokens], whole.tokens[~tokens])
        return label, tokens

    def near(share: torch.Tensor, p: float) -> bool:
        return abs(share.double().mean() - p) < 3 * (p * (1 - p) / n) ** 0.5

    label, words_gone = gone(DiffusionConfig(cond_dropout=0.1))
    assert torch.equal(label, words_gone)  # jointly
    assert near(label, 0.1)
    label, words_gone = gone(DiffusionConfig(cond_dropout=0.0, cond_dropout_each=0.2))
    assert near(label, 0.2)
    assert near(words_gone, 0.2)
    assert near(label & words_gone, 0.04)  # independently
    label, words_gone = gone(DiffusionConfig(cond_dropout=0.1, cond_dropout_each=0.2))
    assert near(label & words_gone, 0.1 + 0.9 * 0.04)
    assert not any(lost.any() for lost in gone(DiffusionConfig(cond_dropout=0.0)))


def test_drawings_stay_where_words_are_dropped():
    pictures = data.open(CONTROLLED.data)
    batch = pictures.batch(range(64))
    words = Tokenizer.learn(batch.caption or (), vocabulary=320, length=20)
    reader = Conditioner(text=words)
    whole = batch_condition(batch, reader, CONTROLLED)
    found = drop_conditions(whole, rows_of(64), DiffusionConfig(cond_dropout=1.0), reader)
    assert torch.equal(found.control[0], batch.control)
    assert torch.equal(found.tokens, words.encode([""] * 64).tokens)


# --- a model to begin from ---


def test_the_base_of_a_control_stays_as_it_is(worded, controlled):
    base = model.load(worded).diffusion.net.state_dict()
    whole = model.load(controlled).diffusion.net.state_dict()
    assert all(torch.equal(whole[name], value) for name, value in base.items())
    born = init_network(replace(CONTROLLED, base=str(worded)), model.load(worded)).state_dict()
    learned = [name for name in whole if name not in base]
    assert all(name.startswith("controls.0.") for name in learned)
    assert not torch.equal(whole["controls.0.zero_middle.weight"], born["controls.0.zero_middle.weight"])
    assert not torch.equal(whole["controls.0.conv_in.weight"], base["conv_in.weight"])
    assert torch.equal(born["controls.0.conv_in.weight"], base["conv_in.weight"])  # it began as a copy


def test_a_control_without_a_drawing_or_strength_is_the_base_bit_for_bit(worded, controlled, tmp_path):
    Image.new("RGB", (16, 16), "white").save(tmp_path / "drawing.png")
    drawing = (str(tmp_path / "drawing.png"),)
    ask = {"prompts": "a red circle on white", "seeds": (1, 2), "steps": 3, "guidance": 2.0}
    base = model.load(worded).sample(**ask).pixels
    batch_condition = model.load(controlled)
    assert torch.equal(batch_condition.sample(**ask).pixels, base)
    assert torch.equal(batch_condition.sample(**ask, controls=drawing, control_scale=(0.0,)).pixels, base)
    assert not torch.equal(batch_condition.sample(**ask, controls=drawing, control_scale=(30.0,)).pixels, base)


def test_guess_mode_leaves_the_unconditional_rows_unchanged(controlled, tmp_path):
    """Guidance 0 is the unconditional estimate alone, which in guess mode does not depend on the control image."""
    Image.new("RGB", (16, 16), "white").save(tmp_path / "drawing.png")
    batch_condition = model.load(controlled)
    ask = {"seeds": (1,), "steps": 3, "guidance": 0.0}
    plain = batch_condition.sample(**ask).pixels
    drawn = {"controls": (str(tmp_path / "drawing.png"),), "control_scale": (30.0,)}
    assert not torch.equal(batch_condition.sample(**ask, **drawn).pixels, plain)
    assert torch.equal(batch_condition.sample(**ask, **drawn, guess=True).pixels, plain)


def test_controls_of_one_base_add_up(worded, controlled, tmp_path):
    """Two of one at half strength are one; the base's own pictures where neither is given."""
    Image.effect_noise((16, 16), 90).convert("RGB").save(tmp_path / "drawing.png")
    drawing, base, one = str(tmp_path / "drawing.png"), model.load(worded), model.load(controlled)
    both = base.with_controlnets(one, one)
    assert len(both.controls) == 2
    ask = {"prompts": "a red circle", "seeds": (1,), "steps": 2, "clip": False}
    single = one.sample(**ask, controls=(drawing,), control_scale=(8.0,)).pixels.int()
    halves = both.sample(**ask, controls=(drawing, drawing), control_scale=(4.0,)).pixels.int()
    assert (halves - single).abs().max() <= 1
    quarter = both.sample(**ask, controls=(drawing, drawing), control_scale=(2.0, 6.0)).pixels.int()
    assert (quarter - single).abs().max() <= 1
    assert (both.sample(**ask).pixels.int() - single).abs().max() > 1
    assert torch.equal(both.sample(**ask).pixels, base.sample(**ask).pixels)
    with pytest.raises(UserError, match="belong to another network"):
        Model(base.diffusion, replace(base.card, net=replace(NET, channels=(8, 24)))).with_controlnets(one)


def test_a_run_holds_its_base(worded, controlled, tmp_path):
    """A controlled training goes on, bit for bit, where its base has gone away since."""
    moved = tmp_path / "base"
    shutil.copytree(worded, moved)
    asked = replace(CONTROLLED, base=str(moved))
    for tick in train(asked, tmp_path / "run"):
        if tick.step == 6:
            break
    shutil.rmtree(moved)
    assert [tick.step for tick in train(asked, tmp_path / "run")] == list(range(7, 13))
    assert same(contents(tmp_path / "run"), contents(controlled))


def test_a_base_without_controls_is_trained_on(worded, tmp_path):
    asked = replace(WORDED, base=str(worded), fit=replace(WORDED.fit, lr=1e-12, images=16))
    list(train(asked, tmp_path / "run"))
    base, further = (model.load(path).diffusion.net.state_dict() for path in (worded, tmp_path / "run"))
    assert all((further[name] - value).abs().max() < 1e-9 for name, value in base.items())
    tokenizers = [model.load(path).text.text for path in (worded, tmp_path / "run")]
    assert tokenizers[0] == tokenizers[1]


def test_a_base_that_is_the_inner_part_is_grown_around(tmp_path):
    outer = replace(WORDED, net=replace(NET, channels=(8, 8)), fit=replace(WORDED.fit, images=64))
    core = replace(
        outer,
        data=replace(WORDED.data, size=8),
        net=replace(NET, size=8, channels=(8,), attention=(True,)),
        process=replace(WORDED.process, schedule_options={"shift": 0.5}),
    )
    list(train(core, tmp_path / "core"))
    learned = model.load(tmp_path / "core")
    asked = replace(outer, base=str(tmp_path / "core"))
    born = init_network(asked, learned).state_dict()
    table = learned.diffusion.net.state_dict()["text.table.weight"]
    assert torch.equal(born["text.table.weight"], table)
    for tick in train(asked, tmp_path / "grown"):
        if tick.step == 6:
            break
    shutil.rmtree(tmp_path / "core")  # the run holds what it began with
    assert [tick.step for tick in train(asked, tmp_path / "grown")] == [7, 8]
    assert model.load(tmp_path / "grown").text.text == learned.text.text
    learned.save(tmp_path / "core")
    unshifted = replace(asked, process=replace(asked.process, schedule_options={"shift": 2.0}))
    with pytest.raises(UserError, match=r"process.schedule_options \{'shift': 2.0\} should be \{\}, that of the base"):
        next(train(unshifted, tmp_path / "run"))
    other = replace(asked, net=replace(asked.net, channels=(16, 8)))
    with pytest.raises(UserError, match=r"net\.channels must begin with 8, 8"):
        next(train(other, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_what_does_not_fit_is_named(worded, tmp_path):
    with pytest.raises(UserError, match="name it with --set base="):
        next(train(CONTROLLED, tmp_path / "run"))
    other = replace(CONTROLLED, base=str(worded), process=replace(CONTROLLED.process, predicts="eps"))
    with pytest.raises(UserError, match=r"process.predicts eps should be v, that of the base"):
        load_base(other, tmp_path / "run")
    wider = replace(CONTROLLED, base=str(worded), net=replace(CONTROLLED.net, channels=(8, 32)))
    with pytest.raises(UserError, match=r"net.channels \(8, 32\) should be \(8, 16\)"):
        load_base(wider, tmp_path / "run")
    with pytest.raises(UserError, match="does not exist"):
        load_base(replace(CONTROLLED, base="nowhere"), tmp_path / "run")
    with pytest.raises(UserError, match="need each other"):
        check(replace(CONTROLLED, data=WORDED.data))
    with pytest.raises(UserError, match=r"net.dropout should be 0"):
        check(replace(CONTROLLED, net=replace(CONTROLLED.net, dropout=0.1)))


def test_a_drawing_that_cannot_be_used_is_named(controlled, tmp_path):
    loaded = model.load(controlled)
    (tmp_path / "text.png").write_text("no picture")
    Image.new("RGB", (16, 32)).save(tmp_path / "long.png")
    for name, why in (("gone.png", "gone.png"), ("text.png", "not a picture"), ("long.png", "not the aspect ratio")):
        with pytest.raises(UserError, match=why):
            loaded.sample(controls=(str(tmp_path / name),), steps=1)
    with pytest.raises(UserError, match="2 control images for a model that needs 1 control image"):
        loaded.sample(controls=("a.png", "b.png"), steps=1)


def test_a_condition_can_be_given_whole(worded):
    loaded = model.load(worded)
    said = ("a red circle on white", "a blue square on black")
    request = Request.of(seeds=(4, 5), steps=2)
    frames = list(generate(loaded, request, cond=loaded.conditioner.encode(prompts=said)))
    by_prompts = list(generate(loaded, request.but(prompts=said)))
    assert torch.equal(frames[-1].pictures, by_prompts[-1].pictures)


def test_the_presets_fit_together():
    control, text = PRESETS["shapes-control"](), PRESETS["shapes-text"]()
    assert replace(control.net, controls=()) == text.net
    check(replace(control, base="x"))
    assert json.dumps(PRESETS["emoji"]().name) == '"emoji"'


def test_conditions_move_to_the_device_of_the_pictures(worded):
    """On the meta device, as on a GPU: no condition stays on the CPU."""
    config = WORDED
    net = init_network(config).to("meta")
    words = model.load(worded).text
    goal = objective(make_diffusion(net, config.process), config, Conditioner(text=words))
    batch = data.open(config.data).batch(range(4))
    asked = []
    goal.diffusion.net.forward = lambda x, time, cond: asked.append(cond) or x
    goal(batch._replace(x=batch.x.to("meta")), rows_of(4))
    assert asked[0].tokens.is_meta


def test_controls_of_another_process_are_refused(worded, controlled):
    base, one = model.load(worded), model.load(controlled)
    other = replace(base, card=replace(base.card, process=replace(base.card.process, predicts="eps")))
    with pytest.raises(UserError, match="another process"):
        other.with_controlnets(one)
    wet = replace(
        base, card=replace(base.card, net=replace(NET, dropout=0.1))
    )  # dropout is none of a drawing's business
    assert len(wet.with_controlnets(one).controls) == 1


def test_a_drawing_has_to_be_there_to_be_followed_less(worded):
    loaded = model.load(worded)
    with pytest.raises(UserError, match="has no ControlNet: remove guess and control_scale; it supports prompts"):
        loaded.sample(prompts="a", control_scale=(0.5,), steps=1)
