"""`unnoise export`: the folder is the same model, and the printed lines are Python that loads it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from unnoise import nn
from unnoise.cli.export import hints
from unnoise.cli.main import main
from unnoise.config.cards import LatentsConfig, ModelCard, PixelsConfig
from unnoise.config.networks import EncoderConfig, UNetConfig
from unnoise.model import load, write_model


@pytest.fixture
def clothes(tmp_path: Path) -> Path:
    """A model with random weights of ten classes."""
    torch.manual_seed(0)
    config = UNetConfig(
        size=16, in_channels=1, out_channels=1, channels=(8, 8), blocks=1, attention=(False,) * 2, groups=4, classes=10
    )
    net = nn.build(config)
    for p in net.parameters():  # some layers are zero at initialisation
        torch.nn.init.normal_(p, std=0.1)
    (tmp_path / "model").mkdir()
    card = ModelCard(net=config, size=(16, 16), channels=1, classes=tuple(f"class-{i}" for i in range(10)))
    write_model(tmp_path / "model", net.state_dict(), card)
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
