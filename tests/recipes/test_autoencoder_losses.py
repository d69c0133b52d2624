"""The losses of an autoencoder: unit values, LDM's sums in per-number units, and the adaptive weight by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.nn.autoencoder import Posterior
from unnoise.recipes import autoencoder_losses as losses


def test_kl_of_known_distributions() -> None:
    zero, mean = torch.zeros(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    assert losses.kl_divergence(Posterior(zero, zero)).tolist() == [0, 0]
    torch.testing.assert_close(losses.kl_divergence(Posterior(mean, zero)), mean.square().flatten(1).mean(1) / 2)
    logvar = torch.randn(2, 4, 3, 3)
    ours, theirs = torch.distributions.Normal(mean, logvar.mul(0.5).exp()), torch.distributions.Normal(0.0, 1.0)
    wanted = torch.distributions.kl_divergence(ours, theirs).flatten(1).mean(1)
    torch.testing.assert_close(losses.kl_divergence(Posterior(mean, logvar)), wanted)


def test_the_published_weight_as_a_weight_of_means() -> None:
    assert losses.kl_weight(1e-6, (4, 32, 32), (3, 256, 256)) == pytest.approx(1e-6 / 48)


def ldm(x: Tensor, y: Tensor, perceptual: Tensor, posterior: Posterior, fake: Tensor, last: Tensor) -> Tensor:
    """LPIPSWithDiscriminator's loss of a generator after the start, with its default weights: sums over numbers."""
    rec = (x - y).abs() + 1.0 * perceptual.view(-1, 1, 1, 1)
    nll = rec.sum() / len(x)
    kl = 0.5 * (posterior.mean.square() + posterior.logvar.exp() - 1 - posterior.logvar)
    g = -fake.mean()
    norms = [torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (nll, g)]
    d = (norms[0] / (norms[1] + 1e-4)).clamp(0, 1e4).detach()
    return nll + 1e-6 * kl.flatten(1).sum(1).mean() + d * 0.5 * g


@pytest.mark.parametrize("size", [1.0, 1e-6])  # of the discriminator's logits: with small ones the weight has its limit
def test_gradients_are_ldms_divided_by_the_numbers_of_a_picture(size: float) -> None:
    torch.manual_seed(0)
    last, x, z = torch.randn(3, 4).requires_grad_(), torch.rand(2, 3, 6, 6), torch.randn(2, 4, 6, 6)
    mean, logvar = torch.randn(2, 5, 3, 3).requires_grad_(), torch.randn(2, 5, 3, 3).requires_grad_()
    y = torch.einsum("oc,bchw->bohw", last, z + mean.sum() + logvar.sum())
    perceptual, fake = (x - y).square().flatten(1).mean(1), size * torch.tanh(y)[:, :1]
    posterior = Posterior(mean, logvar)
    weights = (last, mean, logvar)
    wanted = torch.autograd.grad(ldm(x, y, perceptual, posterior, fake, last), weights, retain_graph=True)
    rec = losses.absolute(x, y) + perceptual
    g = losses.generator_loss(fake)
    d = losses.adaptive_weight(rec.mean(), g.mean(), last, numbers=x[0].numel())
    kl = losses.kl_weight(1e-6, mean.shape[1:], x.shape[1:]) * losses.kl_divergence(posterior)
    found = torch.autograd.grad((rec + kl + 0.5 * d * g).mean(), weights)
    for mine, theirs in zip(found, wanted):
        torch.testing.assert_close(mine * x[0].numel(), theirs, rtol=1e-4, atol=1e-5)


def test_the_adaptive_weight_by_hand() -> None:
    last = torch.tensor([1.0, 2.0]).requires_grad_()
    rec, g = (torch.tensor([3.0, 4.0]) * last).sum(), (torch.tensor([0.0, 2.0]) * last).sum()
    found = losses.adaptive_weight(rec, g, last)
    assert found.item() == pytest.approx(5 / (2 + 1e-4))
    assert not found.requires_grad
    assert losses.adaptive_weight(rec, 0 * g, last).item() == 1e4  # 5 / 1e-4, within the limit
    assert losses.adaptive_weight(rec, 0 * g, last, numbers=100).item() == pytest.approx(100)
    halved = losses.adaptive_weight(rec, g, last, average=lambda gradient: gradient * torch.tensor([1.0, 0.5]))
    assert halved.item() == pytest.approx((9 + 4) ** 0.5 / (1 + 1e-4))


def test_the_commitment_moves_the_latents_alone() -> None:
    latents, codes = torch.randn(2, 3, 4, 4).requires_grad_(), torch.randn(2, 3, 4, 4).requires_grad_()
    losses.codebook_loss(latents, codes, 0.25).sum().backward()
    assert latents.grad is not None
    assert codes.grad is not None
    difference = 2 * (latents - codes).detach() / latents[0].numel()
    torch.testing.assert_close(codes.grad, -difference)
    torch.testing.assert_close(latents.grad, 0.25 * difference)


def test_the_hinge_losses() -> None:
    real, fake = torch.tensor([[2.0, 0.5]]), torch.tensor([[-2.0, 0.5]])
    found = losses.discriminator_losses(real, fake)
    assert {name: each.tolist() for name, each in found.items()} == {"real": [0.125], "fake": [0.375]}
    torch.testing.assert_close(losses.generator_loss(fake), torch.tensor([0.75]))
    both = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())  # LDM's hinge_d_loss
    torch.testing.assert_close(sum(found.values()), both[None])


def test_absolute_difference() -> None:
    x, y = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(losses.absolute(x, y).mean(), nn.L1Loss()(x, y))
