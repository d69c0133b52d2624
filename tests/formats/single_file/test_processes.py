"""Betas of the training code are read as the schedule that they came from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers.checkpoints import LATENT, SD1, save, unet_tensors
from unnoise.denoiser import make_diffusion
from unnoise.formats.single_file.processes import betas_settings
from unnoise.model import load


def roots(begin: float, end: float, count: int = 1000) -> torch.Tensor:
    """ldm's make_beta_schedule("linear")."""
    return torch.linspace(begin**0.5, end**0.5, count, dtype=torch.float64) ** 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("begin", "end"), [(0.00085, 0.012), (0.0015, 0.0195), (0.0015, 0.0155)])
def test_betas_are_recognised_also_in_half_precision(begin: float, end: float, dtype: torch.dtype) -> None:
    found = betas_settings(roots(begin, end).to(dtype).double())
    assert found == {
        "beta_schedule": "scaled_linear", "beta_start": begin, "beta_end": end, "num_train_timesteps": 1000
    }  # fmt: skip
    line = torch.linspace(1e-4, 0.02, 500, dtype=torch.float64)
    assert betas_settings(line.to(dtype).double())["beta_schedule"] == "linear"


def test_other_betas_are_a_table() -> None:
    betas = roots(0.001, 0.02) ** 1.1
    assert betas_settings(betas) == {"num_train_timesteps": 1000, "trained_betas": betas.tolist()}


def test_the_levels_of_a_file_are_those_of_its_betas(tmp_path: Path) -> None:
    """alpha^2 after k steps is the product of 1 - beta, which is what alphas_cumprod of such a file contains."""
    betas = roots(0.0015, 0.0195)
    state = unet_tensors(LATENT) | {"betas": betas.float()}
    model = load(save(tmp_path / "x.safetensors", state))
    schedule = make_diffusion(model.diffusion.net, model.card.process).schedule
    t = torch.tensor([1, 400, 1000], dtype=torch.float64) / 1000
    right = (1 - betas).cumprod(0)[torch.tensor([0, 399, 999])]
    torch.testing.assert_close(schedule(t).alpha ** 2, right, rtol=1e-6, atol=0)


def test_stable_diffusion_without_betas_has_its_own(tmp_path: Path) -> None:
    process = load(save(tmp_path / "x.safetensors", unet_tensors(SD1))).card.process
    assert (process.schedule, process.steps, process.predicts) == ("scaled-linear", 1000, "eps")
    assert process.schedule_options == {"begin": 0.00085, "end": 0.012}
    notes = load(save(tmp_path / "y.safetensors", unet_tensors(LATENT))).card.notes
    assert any("has no betas: those from 0.0001 to 0.02, linear, are assumed" in note for note in notes)
