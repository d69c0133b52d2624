"""The losses of an autoencoder and its discriminator, each averaged over the numbers of a picture.

    autoencoder      mean |x - y| + w_p d(x, y) + KL or codebook + c w_g g,     g = -mean D(y)
    discriminator    (mean relu(1 - D(x)) + mean relu(1 + D(y))) / 2

y is the reconstruction of x. Rombach et al. 2022 (App. G) add up the numbers of a picture, and those of its latents; as
means, their weight of KL becomes 1e-6 times the number of latents over the number of a picture's (`kl_weight`), and the
same holds for the limit of c. c makes the gradient of g at the decoder's last weight as large as the reconstruction's
(Esser et al. 2021, eq. 7). Codes and latents are drawn together as in van den Oord et al. 2017, where the commitment
weight is that of the latents.

Laws (tests/recipes/test_autoencoder_losses.py): KL of N(0, I) is 0, of N(m, I) m^2 / 2; the gradients of LDM's sums,
divided by the size of a picture; c by hand; neither network's loss moves the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from unnoise.nn.autoencoder import Posterior

EPS = 1e-4  # added to the norm of g's gradient
LIMIT = 1e4  # of c


def absolute(x: Tensor, y: Tensor) -> Tensor:
    """The mean absolute difference of pictures (B, C, H, W): (B,)."""
    return (x - y).abs().flatten(1).mean(1)


def kl_divergence(posterior: Posterior) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)), averaged over the latents of a picture: (B,)."""
    mean, logvar = (each.float() for each in posterior)
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).flatten(1).mean(1)


def kl_weight(published: float, latents: Sequence[int], picture: Sequence[int]) -> float:
    """The weight of a mean over latents of this shape beside a mean over a picture, from that of the two sums."""
    return published * torch.Size(latents).numel() / torch.Size(picture).numel()


def codebook_loss(latents: Tensor, vectors: Tensor, commitment: float) -> Tensor:
    """mean (stop(latents) - vectors)^2 + commitment mean (latents - stop(vectors))^2, of (B, C, H, W): (B,)."""
    codes = (latents.detach() - vectors).square().flatten(1).mean(1)
    return codes + commitment * (latents - vectors.detach()).square().flatten(1).mean(1)


def generator_loss(fake: Tensor) -> Tensor:
    """-D(y), averaged over the patches of a picture: (B,)."""
    return -fake.float().flatten(1).mean(1)


def discriminator_losses(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """The two halves of the hinge loss, averaged over the patches of a picture: (B,) each."""
    return {
        "real": 0.5 * F.relu(1 - real.float()).flatten(1).mean(1),
        "fake": 0.5 * F.relu(1 + fake.float()).flatten(1).mean(1),
    }


def adaptive_weight(
    reconstruction: Tensor,
    adversarial: Tensor,
    last: Tensor,
    *,
    numbers: int = 1,
    average: Callable[[Tensor], Tensor] = lambda gradient: gradient,
) -> Tensor:
    """The ratio of the norms of two losses' gradients with respect to the weight `last`, (); it has no gradient.

    The losses are means over the batch, (). It is at most 1e4 / `numbers`, where the reconstruction is a mean over so
    many numbers of a sum that the limit is meant for. `average` averages a gradient over processes.
    """
    norms = [
        average(torch.autograd.grad(loss, last, retain_graph=True)[0].float()).norm()
        for loss in (reconstruction, adversarial)
    ]
    ratio: Tensor = norms[0] / (norms[1] + EPS)
    return ratio.clamp(0.0, LIMIT / numbers)
