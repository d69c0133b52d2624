"""`unnoise export`: the folder is the same model, and the printed lines are Python that loads it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.random_weights import randomised
from unnoise import nn
from unnoise.cli.export import hints
from unnoise.cli.main import main
from unnoise.config.cards import LatentsConfig, ModelCard, PixelsConfig
from unnoise.config.networks import EncoderConfig, UNetConfig
from unnoise.config.request import Request
from unnoise.formats.draw import script as draw_script
from unnoise.generate.frames import collect
from unnoise.generate.job import Start, prepare
from unnoise.model import Model, load, write_model

CONFIG = UNetConfig(
    size=16, in_channels=1, out_channels=1, channels=(8, 8), blocks=1, attention=(False,) * 2, groups=4, classes=10
)


def saved(folder: Path, classes: int, patch: int = 1) -> ModelCard:
    """The card of a model with random weights that is saved in a folder."""
    torch.manual_seed(0)
    config = replace(CONFIG, classes=classes, patch=patch)
    net = nn.build(config)
    for p in net.parameters():  # some layers are zero at initialisation
        torch.nn.init.normal_(p, std=0.1)
    folder.mkdir()
    card = ModelCard(net=config, size=(16, 16), channels=1, classes=tuple(f"class-{i}" for i in range(classes)))
    write_model(folder, net.state_dict(), card)
    return card


@pytest.fixture
def clothes(tmp_path: Path) -> Path:
    """A model with random weights of ten classes."""
    saved(tmp_path / "model", 10)
    return tmp_path / "model"


def test_the_exported_folder_is_the_same_model(
    clothes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "diffusers"
    assert main(["export", str(clothes), str(folder)]) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(folder)
    compile(err.splitlines()[-1], "hint", "exec")
    ours, theirs = load(clothes), load(folder)
    x, t = torch.randn(2, 1, 16, 16), torch.tensor([0.3, 0.9], dtype=torch.float64)
    cond = ours.conditioner.encode(["class-8", "none"])
    assert torch.equal(ours.diffusion(x, t, cond).mean, theirs.diffusion(x, t, cond).mean)
    assert main(["info", str(folder)]) == 0


def test_export_never_overwrites_and_names_unknown_schedulers(
    clothes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").write_text("x")
    assert main(["export", str(clothes), str(full)]) == 2
    assert "name a new folder" in capsys.readouterr().err
    assert main(["export", str(clothes), str(tmp_path / "new"), "--sampler", "heun"]) == 2
    assert "the sampler 'heun': use ddim, ddpm" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("context", "text", "latents", "contains"),
    [
        (0, False, False, 'DiffusionPipeline.from_pretrained("f")'),
        (16, False, True, 'UNet2DConditionModel.from_pretrained("f/unet")'),
        (16, True, True, 'DiffusionPipeline.from_pretrained("f", vae=vae)'),
        (16, True, False, "vae=None"),
    ],
)
def test_the_printed_lines_name_what_has_to_be_passed(context: int, text: bool, latents: bool, contains: str) -> None:
    encoder = EncoderConfig(path="some/encoder") if context and not text else None
    card = ModelCard(
        net=UNetConfig(context=context), codec=LatentsConfig() if latents else PixelsConfig(), encoder=encoder
    )
    lines = hints(Path("f"), card, text)
    compile(lines[-1], "hint", "exec")
    assert contains in "\n".join(lines)
    assert ("some/encoder" in "\n".join(lines)) == (encoder is not None)
    assert len(lines) == (2 if context else 1)


def draw(folder: Path, *options: str) -> torch.Tensor:
    """The picture (C, H, W) in [-1, 1] that draw.py in this folder writes, in a process of its own."""
    out = folder / "drawn.png"
    how = ("--steps", "4", "--seed", "7", "--out", str(out))
    command = [sys.executable, "-I", str(folder / "draw.py"), *options, *how]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    picture = torch.from_numpy(np.array(Image.open(out))).float()
    picture = picture[:, :, None] if picture.ndim == 2 else picture
    return picture.permute(2, 0, 1) / 127.5 - 1


def drawn_here(model: Model, request: Request) -> torch.Tensor:
    """The picture of unnoise from the starting noise of draw.py."""
    job = prepare(model, request)
    x = torch.randn((1, *model.x_shape), generator=torch.Generator().manual_seed(7))
    return collect(job.starting(Start(x, 1.0)))[0].clamp(-1, 1)


@pytest.mark.parametrize(("classes", "patch"), [(0, 1), (10, 1), (10, 2)])
def test_the_script_in_the_folder_draws_the_picture_of_unnoise(
    classes: int, patch: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("diffusers")
    card = saved(tmp_path / "model", classes, patch)
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "out")]) == 0
    again = load(tmp_path / "out").card.net
    assert replace(again, null_class=card.net.null_class) == card.net  # without classes there is none
    assert "draw.py --help" in capsys.readouterr().err
    labels = ("--label", card.classes[8]) if classes else ()
    model = load(tmp_path / "model")
    request = Request.of(seeds=(7,), labels=labels[1:], steps=4, precision="float32")
    right = drawn_here(model, request)
    assert right.std() > 0.1
    assert (draw(tmp_path / "out", *labels) - right).abs().max() < 2.5 / 255


def test_the_script_draws_a_prompt(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    from tests.formats.test_stable_diffusion import SD1
    from tests.nn.test_clip import small_tokenizer, small_tower
    from unnoise.formats import clip, unet2d_condition
    from unnoise.formats.clip_tokenizer import ClipTokenizer
    from unnoise.formats.text_encoders import ClipEncoder

    small_tower(tmp_path / "tower", hidden_size=12)
    small_tokenizer(tmp_path / "tokenizer")
    tower = clip.read(tmp_path / "tower")
    text = ClipEncoder(ClipTokenizer.load(tmp_path / "tokenizer", tower.config.length), tower)
    config = unet2d_condition.from_config(SD1 | {"in_channels": 3, "out_channels": 3}, "here")
    net = randomised(nn.build(config))
    card = ModelCard(net=config, size=(8, 8), clip=False)
    Model.from_state(card, net.state_dict(), "here", text).save(tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "out")]) == 0
    request = Request.of(seeds=(7,), prompts=("a red cat",), steps=4, precision="float32", guidance=2.0)
    right = drawn_here(load(tmp_path / "model"), request)
    assert right.std() > 0.1
    drawn = draw(tmp_path / "out", "--prompt", "a red cat", "--guidance", "2")
    assert (drawn - right).abs().max() < 2.5 / 255


def test_no_script_is_written_where_a_label_or_a_prompt_is_not_enough(tmp_path: Path) -> None:
    for more in ({"concat_channels": 1}, {"values": 1, "null_value": False}):
        card = ModelCard(net=replace(CONFIG, classes=0, **more), size=(16, 16), channels=1)
        assert draw_script(card, "DDIMScheduler", text=False) is None
    assert draw_script(ModelCard(net=replace(CONFIG, context=16)), "DDIMScheduler", text=False) is None
