"""Evaluation of an autoencoder: known errors have known measures, and the command prints them for a run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.tiny_autoencoder import TINY, VQ, ticks
from unnoise import data
from unnoise.cli.main import main
from unnoise.config.cards import AutoencoderCard, LatentsConfig
from unnoise.config.evaluation import EvaluateConfig
from unnoise.errors import UserError
from unnoise.evaluation import autoencoder as evaluation
from unnoise.formats.autoencoders import AutoencoderModel
from unnoise.nn import build_autoencoder

PLAIN = replace(TINY.data, flip=False)


class Offset(nn.Module):
    """An autoencoder whose latents are the picture's pixels in 2x2 blocks, and whose pictures are too bright."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset

    def encode(self, picture: Tensor, noise: Tensor | None = None) -> Tensor:
        return nn.functional.pixel_unshuffle(picture, 2)

    def decode(self, latents: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(latents, 2) + self.offset


def model(offset: float, scale: float = 1.0) -> AutoencoderModel:
    latents = LatentsConfig(factor=2, picture_channels=1, scale=scale)
    return AutoencoderModel(Offset(offset), AutoencoderCard(replace(TINY.net, latent_channels=4), latents))


def report(model: AutoencoderModel, *metrics: str) -> dict[str, dict[str, object]]:
    config = EvaluateConfig(metrics=metrics, count=40)
    *_, last = evaluation.evaluate_autoencoder(model, config, data.open(PLAIN))
    assert last.report is not None
    return {entry["id"]: entry for entry in last.report["metrics"]}


def test_psnr_of_a_known_error() -> None:
    x = torch.rand(3, 1, 8, 8) - 0.5
    each = evaluation.psnr(x, x + 0.2 * torch.tensor([1.0, 0.1, 0.0])[:, None, None, None])
    torch.testing.assert_close(each, torch.tensor([20.0, 40.0, 100.0], dtype=torch.float64), atol=1e-4, rtol=0)


def test_an_autoencoder_that_loses_nothing() -> None:
    pytest.importorskip("torchmetrics")
    found = report(model(0.0), "psnr", "ssim", "std")
    assert found["psnr"]["value"] == 100
    assert found["ssim"]["value"] == pytest.approx(1)
    pictures = data.open(PLAIN)
    spread = pictures.batch(data.order(0, 0, len(pictures))[:40].tolist()).x.std(correction=0).item()
    assert found["std"]["value"] == pytest.approx(spread)
    assert report(model(0.0, 1 / spread), "std")["std"]["value"] == pytest.approx(1)


def test_ssim_is_of_each_picture() -> None:
    pytest.importorskip("torchmetrics")
    torch.manual_seed(0)
    x = torch.rand(3, 1, 16, 16) * 2 - 1
    y = (x + torch.tensor([0.0, 0.1, 0.8])[:, None, None, None] * torch.randn_like(x)).clamp(-1, 1)
    each = evaluation.ssim(x, y)
    torch.testing.assert_close(each, torch.cat([evaluation.ssim(a[None], b[None]) for a, b in zip(x, y)]))
    assert each[0] > each[1] > each[2]


def test_the_frechet_distance_is_that_of_the_reconstructions() -> None:
    config = EvaluateConfig(metrics=("frechet",), count=40, features="fashion")
    pictures = data.open(replace(PLAIN, size=28))
    values = []
    for offset in (0.0, 0.5):
        *_, last = evaluation.evaluate_autoencoder(model(offset), config, pictures)
        assert last.report is not None
        (entry,) = last.report["metrics"]
        values.append(entry["value"])
        assert entry["real"] > 0
    assert values[0] == pytest.approx(0, abs=1e-3)
    assert values[1] > 1


def test_the_perplexity_of_codes() -> None:
    assert evaluation.perplexity(torch.tensor([5, 5, 5, 5])) == pytest.approx(4)
    assert evaluation.perplexity(torch.tensor([7, 0, 0])) == pytest.approx(1)
    assert evaluation.perplexity(torch.tensor([3, 1])) == pytest.approx(4 / 3**0.75)
    torch.manual_seed(0)
    net = build_autoencoder(VQ).eval().requires_grad_(False)
    card = AutoencoderCard(VQ, LatentsConfig(factor=2, picture_channels=1))
    found = report(AutoencoderModel(net, card), "codes")["codes"]
    assert found["codes"] == 16
    assert 1 <= found["value"] <= found["used"] <= 16  # type: ignore[operator]


def test_names_and_counts_that_are_wrong() -> None:
    with pytest.raises(UserError, match="an autoencoder has no metric 'bpd'; valid: psnr, ssim"):
        evaluation.check_names(("bpd",))
    with pytest.raises(UserError, match="9 pictures are too few to measure"):
        next(evaluation.evaluate_autoencoder(model(0.0), EvaluateConfig(count=9), data.open(PLAIN)))


def test_the_commands_evaluate_and_info_on_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in ticks(TINY, tmp_path / "run"):
        pass
    arguments = ["evaluate", str(tmp_path / "run"), "--count", "20", "--metrics", "psnr,std"]
    assert main([*arguments, "--plot", str(tmp_path / "s.png"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry["id"] for entry in found["metrics"]] == ["psnr", "std"]
    assert found["n"] == 20
    assert any("which it was trained on" in warning for warning in found["warnings"])
    assert (tmp_path / "s.png").is_file()
    assert main(arguments) == 0
    assert "PSNR, dB" in capsys.readouterr().out
    assert main(["info", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "2 channels, 2 pixels to a latent along a side" in out
    assert "of 100 pictures" in out
    assert main(["info", str(tmp_path / "run" / "autoencoder")]) == 0
    assert "perceptual distance  none" in capsys.readouterr().out
