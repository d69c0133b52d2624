"""Training in latents: the same training as in pixels, of the encodings, with or without files, and what it leaves."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.tiny_training import contents, launch, same
from unnoise import data, model, nn, noise
from unnoise.acceleration.placement import Placement
from unnoise.cli.measuring import data_for
from unnoise.codec import Latents
from unnoise.config.autoencoders import KLConfig, VQConfig
from unnoise.config.cards import AutoencoderCard, LatentsConfig, PixelsConfig
from unnoise.config.convert import override
from unnoise.config.data import DataConfig
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.networks import UNetConfig
from unnoise.config.request import Request
from unnoise.config.training import Fit, LogConfig, TrainConfig
from unnoise.data import dataset, degrade
from unnoise.data import latents as cache
from unnoise.denoiser import make_diffusion
from unnoise.errors import UserError
from unnoise.evaluation import bits_per_dim
from unnoise.formats.autoencoders import AutoencoderModel
from unnoise.generate.frames import frames, generate
from unnoise.generate.job import prepare
from unnoise.io import checkpoint
from unnoise.recipes import latents
from unnoise.recipes.conditioning import placeholder_conditioner
from unnoise.recipes.diffusion import objective, train
from unnoise.recipes.settings import resolve
from unnoise.training.distributed import ALONE
from unnoise.training.player import SampleRNG

KL = KLConfig(
    size=16, in_channels=1, latent_channels=2, channels=(8, 8, 8), blocks=1, attention=(False,) * 3,
    middle_attention=False, groups=4,
)  # fmt: skip
LATENTS = LatentsConfig(factor=4, picture_channels=1, scale=0.7, shift=0.1)
NET = UNetConfig(
    size=4, in_channels=2, out_channels=2, channels=(8, 8), blocks=1, groups=4, classes=4, attention=(False, False)
)
CONFIG = TrainConfig(
    name="small",
    data=DataConfig(path="toy", size=16, channels=1, flip=True, cache_bytes=0),
    net=NET,
    process=DiffusionConfig(schedule="cosine", predicts="v"),
    fit=Fit(images=12 * 16, batch=16, lr=3e-3, warmup=4, ema=(64,), ema_rampup=0.5, precision="float32"),
    log=LogConfig(log_every=4, checkpoint_steps=5, grid_every=12, grid_rows=2, grid_steps=2),
)


def autoencoder(seed: int = 0, net: KLConfig | VQConfig = KL, latents: LatentsConfig = LATENTS) -> AutoencoderModel:
    """One with random weights: nothing here depends on how well it reconstructs."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = nn.build_autoencoder(net)
    return AutoencoderModel(made.eval().requires_grad_(False), AutoencoderCard(net, latents))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("autoencoder") / "kl"
    autoencoder().save(path)
    return path


@pytest.fixture(scope="module")
def config(folder, tmp_path_factory):
    return replace(CONFIG, autoencoder=str(folder), latent_cache=str(tmp_path_factory.mktemp("cache") / "latents"))


@pytest.fixture(scope="module")
def straight(config, tmp_path_factory):
    path = tmp_path_factory.mktemp("straight")
    list(train(config, path))
    return path


def test_x_is_the_encoding_with_the_noise_of_seed_epoch_and_picture(config, folder, tmp_path):
    """Against codec.encode, which sampling and editing use too."""
    pictures = data.open(config.data)
    opened = latents.open_autoencoder(config, tmp_path)
    rows = latents.rows(config, pictures, opened, Placement(), ALONE)
    batch = rows.batch([5, 0, 700], seed=3, epoch=[2, 0, 9])
    eps = torch.stack([noise.normal((2, 4, 4), 3, "latent", *key) for key in ((2, 5), (0, 0), (9, 700))])
    wanted = autoencoder().codec.encode(pictures.batch([5, 0, 700], seed=3, epoch=[2, 0, 9]).x, eps)
    torch.testing.assert_close(batch.x, wanted)
    assert torch.equal(batch.label, pictures.batch([5, 0, 700]).label)


def test_files_of_latents_change_no_bit(config, straight, tmp_path):
    list(train(replace(config, latent_cache=None), tmp_path))
    assert same(contents(tmp_path), contents(straight))


def test_it_resumes_bit_for_bit_and_decodes_no_picture(config, straight, tmp_path, monkeypatch):
    for tick in train(config, tmp_path):
        if tick.step == 6:
            break
    pictures = data.open(config.data)

    def refuse(*_, **__):
        raise AssertionError("a picture is decoded")

    monkeypatch.setattr(dataset, "decode", refuse)
    monkeypatch.setattr(dataset, "as_x", refuse)
    assert [tick.step for tick in train(config, tmp_path, pictures=pictures)] == list(range(6, 13))
    assert same(contents(tmp_path), contents(straight))


SMALL = 2**17  # bytes of a shard: four for the data set


def in_processes(who, path, config):
    """A training with small shards, as one of several processes."""
    cache.SHARD_BYTES = SMALL
    list(train(config, Path(path), processes=who))


def test_two_processes_write_the_files_of_one(config, tmp_path, monkeypatch):
    short = replace(config, latent_cache=str(tmp_path / "two"), fit=replace(config.fit, images=32))
    children = launch(tmp_path / "said", in_processes, str(tmp_path / "run"), short, world=2)
    assert [child.end(120) for child in children] == [0, 0], [child.said() for child in children]
    monkeypatch.setattr(cache, "SHARD_BYTES", SMALL)
    alone = replace(short, latent_cache=str(tmp_path / "one"))
    latents.rows(alone, data.open(alone.data), latents.open_autoencoder(alone, tmp_path), Placement(), ALONE)
    one, two = (next((tmp_path / name).iterdir()) for name in ("one", "two"))
    files = sorted(path.name for path in one.iterdir())
    assert len(files) == 2 * 4 + 1
    assert one.name == two.name
    assert files == sorted(path.name for path in two.iterdir())
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in files)


def test_the_model_has_its_autoencoder_and_makes_pictures(config, straight, tmp_path):
    loaded = model.load(straight)
    assert loaded.card.codec == LATENTS
    assert loaded.picture_shape == (1, 16, 16)
    assert loaded.x_shape == (2, 4, 4)
    assert same(loaded.autoencoder.net.state_dict(), autoencoder().net.state_dict())
    pictures = loaded.sample(labels=("ring", "disc"), seeds=(1, 2), steps=2)
    assert pictures.pixels.shape == (2, 1, 16, 16)
    assert pictures.pixels.dtype == torch.uint8
    sheet = straight / "samples" / "step-00000012.png"
    with Image.open(sheet) as image:
        assert image.height > 4 * 16  # a line a class


def test_a_run_continues_with_its_own_copy(config, folder, tmp_path):
    """Though another autoencoder has taken its place."""
    moved = replace(config, autoencoder=str(shutil.copytree(folder, tmp_path / "kl")))
    for tick in train(moved, tmp_path / "run"):
        if tick.step == 6:
            break
    shutil.rmtree(tmp_path / "kl")
    autoencoder(1).save(tmp_path / "kl")
    list(train(moved, tmp_path / "run"))
    assert same(model.load(tmp_path / "run").autoencoder.net.state_dict(), autoencoder().net.state_dict())
    with pytest.raises(UserError, match="cannot be resumed with other settings of what is learned: autoencoder"):
        list(train(config, tmp_path / "run"))


def test_an_autoencoder_with_a_codebook_trains_too(config, tmp_path):
    """Its latents are no samples: x does not depend on the epoch."""
    vq = VQConfig(
        size=16, in_channels=1, latent_channels=2, codes=16, channels=(8, 8, 8), blocks=1, attention=(False,) * 3,
        middle_attention=False, groups=4,
    )  # fmt: skip
    autoencoder(net=vq, latents=replace(LATENTS, scale=6.0)).save(tmp_path / "vq")
    short = replace(config, autoencoder=str(tmp_path / "vq"), fit=replace(config.fit, images=32))
    assert [tick.step for tick in train(short, tmp_path / "run")] == [1, 2]
    opened = latents.open_autoencoder(short, tmp_path / "run")
    still = replace(short, data=replace(short.data, flip=False))
    rows = latents.rows(still, data.open(still.data), opened, Placement(), ALONE)
    assert torch.equal(rows.batch([3], epoch=0).x, rows.batch([3], epoch=1).x)
    torch.testing.assert_close(rows.batch([3]).x, opened.codec.encode(rows.pictures.batch([3]).x))


def test_a_preview_needs_no_decoder_and_changes_no_picture(straight, monkeypatch):
    """It is the linear map of the estimate's latents, each as large as the pixels that it stands for."""
    loaded = model.load(straight)
    request = Request.of(seeds=(1, 2), labels=("ring",), steps=4, previews=2, precision="float32")
    plain = [each.pictures for each in generate(loaded, replace(request, previews=0)) if each.pictures is not None]
    job = prepare(loaded, request)
    decoded, seen, preview = [], [], Latents.preview
    decode = Latents.decode
    monkeypatch.setattr(Latents, "decode", lambda self, x: decoded.append(len(x)) or decode(self, x))
    monkeypatch.setattr(Latents, "preview", lambda self, x: seen.append(x) or preview(self, x))
    shown = [each.pictures for each in frames(job) if each.pictures is not None]
    assert len(shown) == 3
    assert decoded == [2]  # the finished pictures
    assert torch.equal(shown[-1], plain[0])
    weight = torch.tensor(loaded.autoencoder.card.preview.weight).view(1, 2)
    (bias,) = loaded.autoencoder.card.preview.bias
    for x, picture in zip(seen, shown, strict=False):
        colour = (weight[:, 0].view(-1, 1, 1) * x[:, 0:1] + weight[:, 1].view(-1, 1, 1) * x[:, 1:] + bias).clamp(-1, 1)
        torch.testing.assert_close(picture.view(2, 1, 4, 4, 4, 4).amax((3, 5)), colour)
        torch.testing.assert_close(picture.view(2, 1, 4, 4, 4, 4).amin((3, 5)), colour)


def test_it_is_evaluated_as_pictures(straight):
    loaded = model.load(straight)
    assert data_for(loaded, "toy").size == 16
    with pytest.raises(UserError, match="bits per dimension are those of pixels, and this model diffuses in latents"):
        bits_per_dim.check(("bpd",), loaded, EvaluateConfig())


def test_a_base_diffuses_in_the_same_latents(config, straight, tmp_path):
    short = replace(config, base=str(straight), fit=replace(config.fit, images=16))
    assert len(list(train(short, tmp_path / "run"))) == 1
    autoencoder(1).save(tmp_path / "other")
    with pytest.raises(UserError, match=r"in the latents of another autoencoder than .*other: set autoencoder="):
        next(train(replace(short, autoencoder=str(tmp_path / "other")), tmp_path / "refused"))
    base = model.load(straight)
    with pytest.raises(UserError, match="diffuses in latents: set autoencoder="):
        latents.check_base(short, base, None)
    pixels = replace(base, card=replace(base.card, codec=PixelsConfig()), autoencoder=None)
    with pytest.raises(UserError, match="diffuses in pixels, and this training in latents: leave out autoencoder"):
        latents.check_base(short, pixels, autoencoder())


# --- pictures beside x_t ---


class Spy(torch.nn.Module):
    """Records what is concatenated to x_t, and its inputs."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.seen = []

    def forward(self, x, time, cond):
        self.seen.append((x, cond.concat))
        return x * self.scale


def concatenated(config, concat):
    """The settings of a training with a picture beside x_t."""
    channels = {"masked": 3, "low_res": 2}[concat]
    process = replace(config.process, concat=concat, concat_factor=2)
    return replace(config, process=process, net=replace(NET, concat_channels=channels))


def test_an_inpainting_network_sees_x_the_mask_and_the_latents_of_the_masked_picture(config, tmp_path):
    """Written out: zeros in the box of each sample before it is encoded; a latent is in it if any of its pixels is."""
    masked = concatenated(config, "masked")
    opened = latents.open_autoencoder(masked, tmp_path)
    rows = latents.rows(masked, data.open(masked.data), opened, Placement(), ALONE)
    assert rows.shards is None
    batch, at, spy = rows.batch(range(6), seed=1, epoch=2), SampleRNG(0, tuple(range(6)), 6), Spy()
    loss = objective(make_diffusion(spy, masked.process), masked, placeholder_conditioner(masked), opened.codec)
    loss(batch, at)
    picture = data.open(masked.data).batch(range(6), seed=1, epoch=2).x
    box = degrade.boxes(torch.stack([at.uniform(name) for name in degrade.BOX_DRAWS], 1), 16, 16)
    coarse = box.view(6, 4, 4, 4, 4).amax((2, 4))[:, None]
    assert 0 < coarse.mean() < 1
    ((_, seen),) = spy.seen
    assert torch.equal(seen[:, :1], coarse)
    torch.testing.assert_close(seen[:, 1:], autoencoder().codec.encode(picture * (1 - box)))
    torch.testing.assert_close(batch.picture, picture)


def test_a_super_resolution_network_sees_the_latents_of_the_low_resolution_picture(config, tmp_path):
    low = concatenated(config, "low_res")
    opened, pictures = latents.open_autoencoder(low, tmp_path), data.open(low.data)
    batch, spy = latents.rows(low, pictures, opened, Placement(), ALONE).batch(range(4)), Spy()
    loss = objective(make_diffusion(spy, low.process), low, placeholder_conditioner(low), opened.codec)
    loss(batch, SampleRNG(0, (0, 1, 2, 3), 4))
    blocks = pictures.batch(range(4)).x.view(4, 1, 8, 2, 8, 2).mean((3, 5))
    coarse = blocks.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(spy.seen[0][1], autoencoder().codec.encode(coarse))


def test_an_inpainted_picture_keeps_its_known_pixels(config, tmp_path):
    """The bytes of the file, though the rest of the picture is decoded from latents."""
    masked = concatenated(config, "masked")
    list(train(replace(masked, fit=replace(masked.fit, images=32)), tmp_path / "run"))
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
    hole = np.zeros((16, 16), np.uint8)
    hole[3:11, 6:13] = 255
    for name, picture in (("picture", pixels), ("hole", hole)):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    files = {"image": str(tmp_path / "picture.png"), "mask": str(tmp_path / "hole.png")}
    found = model.load(tmp_path / "run").sample(labels="ring", seeds=(1, 2), steps=2, **files).pixels
    known = torch.from_numpy(hole == 0)
    assert all(torch.equal(each[0][known], torch.from_numpy(pixels)[known]) for each in found)
    assert not torch.equal(found[0], found[1])


# --- settings ---


def settings(folder, **values):
    return resolve("toy", {"--set": {"autoencoder": str(folder), **values}}).config


def test_the_network_follows_from_the_autoencoder(folder):
    found = settings(folder, size="32")
    assert (found.net.size, found.net.in_channels, found.net.out_channels) == (8, 2, 2)
    assert (found.data.size, found.data.channels, found.data.cache_bytes) == (32, 1, 0)
    learned = settings(folder, size="32", learned_variance="true")
    assert learned.net.out_channels == 4
    assert settings(folder, size="32", latent_cache="none").data.cache_bytes > 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": "65"}, r"data\.size 65 should be a multiple of 8, .* 4x4 pixels .* set data\.size=64"),
        ({"size": "3"}, r"set data\.size=8"),
        ({"size": "32", "net.size": "9"}, r"net\.size 9 should be 8, data\.size 32 / 4"),
        ({"size": "32", "net.in_channels": "3", "net.out_channels": "3"}, r"net\.in_channels 3 should be 2"),
        ({"size": "32", "data.channels": "3"}, r"data\.channels 3 should be 1"),
    ],
    ids=str,
)
def test_what_does_not_fit_the_autoencoder_is_one_sentence(values, message, folder):
    with pytest.raises(UserError, match=message) as refused:
        settings(folder, **values)
    assert "\n" not in str(refused.value)


def test_what_is_no_autoencoder_is_named(straight, tmp_path):
    with pytest.raises(
        UserError, match=r"there is no autoencoder .*nowhere: train one with `unnoise train autoencoder"
    ):
        settings(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is an empty folder, not an autoencoder"):
        settings(tmp_path)
    pixels = tmp_path / "pixels"
    short = override(CONFIG, {"images": "16", "grid_every": "0", "size": "4", "data.channels": "1",
                              "net.in_channels": "1", "net.out_channels": "1"})  # fmt: skip
    list(train(short, pixels))
    with pytest.raises(UserError, match="has no autoencoder, as it diffuses in pixels: train one"):
        settings(pixels)
    assert settings(straight, size="32").net.in_channels == 2  # a latent model has one
    unfinished = tmp_path / "unfinished" / "checkpoints" / "step-00000001"
    checkpoint.publish(unfinished, autoencoder().save)
    with pytest.raises(UserError, match=r"has no scale of its latents, .* finish it, `unnoise train .*unfinished`"):
        settings(tmp_path / "unfinished")
    with pytest.raises(
        UserError, match=r"is an autoencoder, not a model: train a model in its latents: `unnoise train latent --set"
    ):
        model.load(straight / "checkpoints" / "step-00000012" / "autoencoder")


@pytest.mark.parametrize(("factor", "wanted"), [(1 / 6, False), (1 / 2, True), (2, True), (6, False)])
def test_a_missing_scale_is_found(factor, wanted, folder, config, tmp_path):
    """The factor that the message names makes the deviation 1."""
    x = data.open(config.data).batch(range(0, 1000, 15)).x
    eps = torch.randn(len(x), 2, 4, 4, generator=torch.Generator().manual_seed(0))
    std = float(autoencoder().codec.encode(x, eps).std())
    autoencoder(latents=replace(LATENTS, scale=0.7 / std * factor)).save(tmp_path / "kl")
    short = replace(config, autoencoder=str(tmp_path / "kl"), fit=replace(config.fit, images=16))
    if wanted:
        assert len(list(train(short, tmp_path / "run"))) == 1
        return
    with pytest.raises(UserError, match=r"a standard deviation of .* multiply the scale in its files") as refused:
        next(train(short, tmp_path / "run"))
    assert float(str(refused.value).rsplit(" ", 1)[1]) == pytest.approx(1 / factor, rel=0.2)


def test_the_facts_of_a_dry_run(config, tmp_path):
    from unnoise.recipes.cost import count
    from unnoise.recipes.latent_cost import in_pixels, latent_cost

    found = latent_cost(config)
    assert found["shape"] == [2, 4, 4]
    assert found["compression"] == 16 * 16 / (2 * 4 * 4)
    assert found["stored"] == 4 * 2 * 2 * 32  # two views, mean and log variance
    assert latent_cost(replace(config, latent_cache=None))["stored"] is None
    pixels = in_pixels(config)
    assert (pixels.net.size, pixels.net.in_channels, pixels.net.out_channels) == (16, 1, 1)
    counts = count(pixels, Placement())
    assert found["in_pixels"]["flops"] == counts.flops
    assert 12 < counts.flops / count(config, Placement()).flops < 16  # 16 times the pixels, half the channels
    assert json.dumps(found)
