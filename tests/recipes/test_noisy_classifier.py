"""A classifier of noisy pictures: its inputs are those of a diffusion, it is saved bit for bit, and it guides."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise import data
from unnoise.cli.main import main
from unnoise.conditions import Cond
from unnoise.config import presets, validate
from unnoise.config.cards import ModelCard, NoisyClassifierCard
from unnoise.config.data import DataConfig
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import UNetConfig
from unnoise.config.request import Request
from unnoise.config.training import Fit, LogConfig, NoisyClassifierConfig
from unnoise.denoiser import make_diffusion
from unnoise.errors import UserError
from unnoise.generate.frames import sample
from unnoise.guidance import classifier, noisy_classifier
from unnoise.guidance.noisy_classifier import NoisyClassifier
from unnoise.model import Model
from unnoise.nn import build
from unnoise.nn.noisy_classifier import AttentionPool, EncoderClassifier
from unnoise.recipes import noisy_classifier as recipe
from unnoise.training.player import SampleRNG
from unnoise.training.run import open_run

TOY = DataConfig(path="toy", size=16, channels=1)
NET = UNetConfig(
    size=16, in_channels=1, out_channels=1, channels=(8, 16), blocks=1, attention=(False, True), groups=4, classes=4,
    scale_shift=True,
)  # fmt: skip
COSINE = DiffusionConfig(schedule="cosine", predicts="v")
CONFIG = NoisyClassifierConfig(
    name="tiny",
    data=TOY,
    net=NET,
    process=COSINE,
    fit=Fit(images=512, batch=64, optimizer="adamw", lr=3e-3, warmup=2, ema=(100,), ema_rampup=0.1),
    log=LogConfig(log_every=4, checkpoint_every=1e9, grid_every=0),
)


def net_of(config: UNetConfig) -> EncoderClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = EncoderClassifier(config)
        for p in net.parameters():
            torch.nn.init.normal_(p, std=0.2)
    return net.eval().requires_grad_(False)


def card(**changes: object) -> NoisyClassifierCard:
    return replace(NoisyClassifierCard(net=NET, process=COSINE, classes=data.open(TOY).classes), **changes)  # type: ignore[arg-type]


def test_the_pool_is_the_mean_asking_all_places() -> None:
    """Against torch's own attention, with the pool's weights."""
    pool = AttentionPool(16, 5, pixels=9, heads=4).double()
    theirs = nn.MultiheadAttention(16, 4, batch_first=True).double()
    theirs.in_proj_weight.data = torch.cat([pool.query.weight, pool.kv.weight])
    theirs.in_proj_bias.data = torch.cat([pool.query.bias, pool.kv.bias])
    theirs.out_proj.weight.data, theirs.out_proj.bias.data = torch.eye(16).double(), torch.zeros(16).double()
    x = torch.randn(3, 16, 3, 3, dtype=torch.float64)
    places = x.flatten(2).transpose(1, 2)
    tokens = torch.cat([places.mean(1, keepdim=True), places], 1) + pool.position
    read = theirs(tokens[:, :1], tokens, tokens)[0][:, 0]
    assert torch.allclose(pool(x), pool.out(read), atol=1e-12)


def test_a_row_depends_on_its_time_and_not_on_its_neighbours() -> None:
    net = net_of(NET)
    x, time = torch.randn(4, 1, 16, 16), torch.tensor([10.0, 400.0, 400.0, 990.0])
    together = net(x, time)
    for i in range(4):
        assert torch.allclose(net(x[i : i + 1], time[i : i + 1])[0], together[i], atol=1e-4)
    assert not torch.allclose(net(x, time.flip(0)), together, atol=1e-3)


@pytest.mark.parametrize(
    "process",
    [
        COSINE,
        DiffusionConfig(schedule="edm", predicts="edm"),
        DiffusionConfig(schedule="variance-exploding", predicts="score"),
    ],
    ids=lambda process: process.schedule,
)
def test_its_inputs_are_those_of_a_diffusion_of_its_process(process: DiffusionConfig) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    class Spy(nn.Module):
        def forward(self, x: Tensor, time: Tensor, cond: Cond | None = None) -> Tensor:
            seen.append((x, time))
            return x

    x, t = torch.randn(3, 1, 16, 16), torch.tensor([0.1, 0.5, 0.999], dtype=torch.float64)
    make_diffusion(Spy(), process)(x, t)
    NoisyClassifier(Spy(), card(process=process))(x, t)
    assert torch.equal(seen[0][0], seen[1][0])
    assert torch.equal(seen[0][1], seen[1][1])


def test_the_logarithm_of_the_probability_of_each_rows_class() -> None:
    guide = NoisyClassifier(net_of(NET), card())
    x, t, label = torch.randn(3, 1, 16, 16), torch.tensor(0.4, dtype=torch.float64), torch.tensor([2, 0, 3])
    expected = -F.cross_entropy(guide(x, t), label, reduction="none")
    assert torch.allclose(guide.log_prob(label)(x, t), expected, atol=1e-6)


def test_saved_and_loaded_it_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    net = net_of(NET)
    noisy_classifier.write(tmp_path, net.state_dict(), card())
    found = noisy_classifier.load(tmp_path)
    x, t = torch.randn(2, 1, 16, 16), torch.tensor(0.3, dtype=torch.float64)
    assert found.card == card()
    assert torch.equal(found(x, t), NoisyClassifier(net, card())(x, t))
    assert not any(p.requires_grad for p in found.parameters())


def test_what_is_wrong_with_a_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        noisy_classifier.load(tmp_path / "gone")
    with pytest.raises(UserError, match="contains no noisy classifier"):
        noisy_classifier.load(tmp_path)
    (tmp_path / "classifier.json").write_text('{"format": "unnoise-classifier-1"}')
    with pytest.raises(UserError, match="clean pictures"):
        noisy_classifier.load(tmp_path)
    noisy_classifier.write(tmp_path, net_of(NET).state_dict(), card(net=replace(NET, channels=(8, 24))))
    with pytest.raises(UserError, match=r"model\.safetensors: the tensor .* has the shape"):
        noisy_classifier.load(tmp_path)
    noisy_classifier.write(tmp_path, net_of(NET).state_dict(), card(classes=("only one",)))
    with pytest.raises(UserError, match=r"classifier\.json: classes has 1 names for the \d+ classes"):
        noisy_classifier.load(tmp_path)
    (tmp_path / "classifier.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        noisy_classifier.load(tmp_path)
    with pytest.raises(UserError, match="at least two classes"):
        EncoderClassifier(replace(NET, classes=1))


# --- training ---


def test_a_training_learns_resumes_and_says_how_often_it_is_right(tmp_path: Path) -> None:
    ticks = []
    with open_run(tmp_path / "run", CONFIG) as run:
        ticks = list(recipe.train(CONFIG, run))
    assert len(ticks) == 8
    found = noisy_classifier.load(tmp_path / "run")
    right = found.card.info["accuracy"]
    assert list(right) == ["0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1"]
    assert all(0 <= value <= 1 for value in right.values())
    assert found.card.classes == data.open(TOY).classes
    assert (
        noisy_classifier.load(noisy_classifier.find(tmp_path / "run").parent / "checkpoints" / "step-00000008").card.net
        == NET
    )
    with open_run(tmp_path / "run", CONFIG) as run:
        assert list(recipe.train(CONFIG, run)) == []  # it is done


def test_the_loss_is_the_cross_entropy_at_the_samples_own_time_and_noise() -> None:
    guide = NoisyClassifier(net_of(NET), card())
    batch = data.open(TOY).batch(range(6))
    config = replace(CONFIG, shift=0, process=replace(COSINE, stratified=False))
    rows = SampleRNG(0, tuple(range(6)), 6)
    loss = recipe.objective(guide, config)(batch, rows)
    t = ((rows.uniform("time") * 1000).floor() + 1) / 1000  # each of the thousand steps, equally likely
    x_t = guide.schedule(t).mix(batch.x, rows.normal((1, 16, 16), "noise"))
    assert batch.label is not None
    assert torch.allclose(loss, F.cross_entropy(guide(x_t, t), batch.label, reduction="none"), atol=1e-5)
    assert 0 < t.min() < t.max() <= 1


def test_trainings_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="7 should be 4"):
        recipe.describe(replace(CONFIG, net=replace(NET, classes=7)), data.open(TOY))
    guide = NoisyClassifier(net_of(NET), card())
    with pytest.raises(UserError, match="needs the losses of a diffusion model"):
        recipe.objective(guide, replace(CONFIG, process=replace(COSINE, time_sampler="importance")))
    with pytest.raises(UserError, match="3 should be"):
        validate.check(replace(CONFIG, net=replace(NET, in_channels=3)))


def test_the_presets_come_back_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "fashion-noisy-classifier"]) == 0
    (tmp_path / "my.yaml").write_text(capsys.readouterr().out)
    from unnoise.recipes.settings import load

    settings = load(str(tmp_path / "my.yaml"))
    assert settings.config == presets.fashion_noisy_classifier()
    assert settings.config.process == presets.fashion().process  # the noise of the model that it guides


# --- guiding ---


@pytest.fixture(scope="module")
def model() -> Model:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = build(NET)
        for p in net.parameters():
            torch.nn.init.normal_(p, std=0.1)
    process = replace(COSINE, predicts="x0")  # what the network predicts is not the classifier's business
    kind = ModelCard(net=NET, process=process, size=(16, 16), channels=1, classes=data.open(TOY).classes)
    return Model(make_diffusion(net.eval().requires_grad_(False), process).eval(), kind)


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    noisy_classifier.write(tmp_path, net_of(NET).state_dict(), card())
    return tmp_path


def test_a_request_names_the_classifier(model: Model, guide: Path) -> None:
    """By hand and by request: the same picture; and with guidance 0 the model itself is unconditional."""
    from unnoise.guidance import clip_denoised
    from unnoise.noise import Seeds
    from unnoise.samplers import ddim, last, walk
    from unnoise.samplers.timesteps import even

    label, seeds = torch.tensor([1, 2]), (3, 4)
    found = noisy_classifier.load(guide)
    times = even(model.diffusion.schedule, 3)
    noise = Seeds(seeds, model.x_shape)
    for guidance, told in ((1.0, Cond(label)), (0.0, Cond(torch.tensor([4, 4])))):
        request = Request.of(
            seeds=seeds, labels=tuple(model.classes[i] for i in label), steps=3, classifier=str(guide),
            classifier_scale=2.0, guidance=guidance, precision="float32",
        )  # fmt: skip
        denoiser = clip_denoised(classifier(model.diffusion.given(told), found.log_prob(label), 2.0))
        by_hand = last(walk(denoiser, noise.start(), times, ddim(), noise))
        by_request = sample(model, request).pixels
        off = (by_request.float() - (by_hand * 127.5 + 127.5).clamp(0, 255)).abs().max()
        assert off <= 1
        without = sample(model, request.but(classifier="")).pixels
        assert not torch.equal(without, by_request)


def test_a_classifier_guides_a_model_that_knows_no_classes(guide: Path) -> None:
    """By hand and by request: the same picture. The labels are the classifier's, and the network has none."""
    from unnoise.generate.frames import generate
    from unnoise.guidance import clip_denoised
    from unnoise.noise import Seeds
    from unnoise.samplers import ddim, last, walk
    from unnoise.samplers.timesteps import even

    net = replace(NET, classes=0)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        built = build(net)
        for p in built.parameters():
            torch.nn.init.normal_(p, std=0.1)
    kind = ModelCard(net=net, process=COSINE, size=(16, 16), channels=1)
    model = Model(make_diffusion(built.eval().requires_grad_(False), COSINE).eval(), kind)
    found = noisy_classifier.load(guide)
    names, seeds = found.card.classes, (3, 4, 5)
    request = Request.of(
        seeds=seeds, labels=(names[1], names[2], names[1]), steps=3, classifier=str(guide), classifier_scale=2.0,
        precision="float32", batch=2,
    )  # fmt: skip
    drawn = sample(model, request)
    assert drawn.labels == request.prompt.labels
    denoiser = clip_denoised(classifier(model.diffusion.given(Cond()), found.log_prob(torch.tensor([1, 2, 1])), 2.0))
    begin = Seeds(seeds, model.x_shape)
    by_hand = last(walk(denoiser, begin.start(), even(model.diffusion.schedule, 3), ddim(), begin))
    assert (drawn.pixels.float() - (by_hand * 127.5 + 127.5).clamp(0, 255)).abs().max() <= 1
    assert not torch.equal(drawn.pixels, sample(model, Request.of(seeds=seeds, steps=3, precision="float32")).pixels)
    chosen = sample(model, request.but(labels=()))  # a class by the seed
    assert set(chosen.labels) <= set(names)
    with pytest.raises(UserError, match="no-such"):
        next(generate(model, request.but(labels=("no-such",))))
    with pytest.raises(UserError, match="not conditioned on classes"):
        sample(model, request.but(classifier=""))


def test_a_classifier_of_other_noise_pictures_or_classes_is_refused(
    model: Model, tmp_path_factory: pytest.TempPathFactory
) -> None:
    wrong = {
        "was trained with the schedule linear in 1000 steps, the model with cosine in 1000": card(
            process=replace(COSINE, schedule="linear")
        ),
        "was trained with the schedule cosine in 500 steps": card(process=replace(COSINE, steps=500)),
        "was trained with the schedule cosine, zero terminal SNR": card(process=replace(COSINE, zero_snr=True)),
        "reads pictures of 32x32 with 1 channels, the model has 16x16 with 1": card(net=replace(NET, size=32)),
        "has the classes a, b": card(net=replace(NET, classes=2), classes=("a", "b")),
    }
    for why, other in wrong.items():
        folder = tmp_path_factory.mktemp("wrong")
        noisy_classifier.write(folder, net_of(other.net).state_dict(), other)
        with pytest.raises(UserError, match=why):
            sample(model, Request.of(labels=("0",), classifier=str(folder)))


def test_what_a_request_cannot_mean_is_refused(model: Model, guide: Path) -> None:
    with pytest.raises(UserError, match="needs a class for every picture, not 'none'"):
        sample(model, Request.of(labels=("none",), classifier=str(guide)))
    with pytest.raises(UserError, match="no noise level lies between 2 and 1"):
        sample(model, Request.of(guidance=2.0, guidance_interval=(2.0, 1.0)))


def test_a_requests_interval_and_contrast_reach_the_guide(model: Model) -> None:
    base = Request.of(seeds=(0, 1), labels=("0",), steps=4, guidance=3.0, precision="float32")
    plain = sample(model, base.but(guidance=1.0)).pixels
    everywhere = sample(model, base.but(guidance_interval=(0.0, 1e9))).pixels
    nowhere = sample(model, base.but(guidance_interval=(1e9, 1e9))).pixels
    assert torch.equal(everywhere, sample(model, base).pixels)
    assert torch.equal(nowhere, plain)
    assert not torch.equal(everywhere, plain)
    assert not torch.equal(sample(model, base.but(guidance_rescale=0.7)).pixels, everywhere)


def test_outside_its_interval_a_classifier_changes_nothing(model: Model, guide: Path) -> None:
    base = Request.of(seeds=(0,), labels=("0",), steps=3, guidance=0.0, precision="float32")
    guided = base.but(classifier=str(guide), guidance_interval=(1e9, 1e9))
    assert torch.equal(sample(model, guided).pixels, sample(model, base).pixels)
    assert not torch.equal(sample(model, guided).pixels, sample(model, base.but(guidance=1.0)).pixels)


def test_the_command_line_guides_by_a_classifier_and_remembers_it(
    model: Model, guide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save(tmp_path / "model")
    words = ["sample", str(tmp_path / "model"), "--label", "0", "--steps", "2", "--guidance", "0", "--out"]
    words += [str(tmp_path / "out"), "--classifier", str(guide), "--classifier-scale", "2"]
    words += ["--guidance-interval", "0.1", "10"]
    assert main(words) == 0
    (picture,) = (tmp_path / "out").glob("*.png")
    capsys.readouterr()
    assert main(["info", str(picture), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert f"--classifier {guide} --classifier-scale 2.0" in found["command"]
    assert "--guidance-interval 0.1 10.0" in found["command"]
