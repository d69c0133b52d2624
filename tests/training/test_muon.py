"""Muon is the quintic of the singular values, and torch's own where that is defined; a restart changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unnoise.config.presets import PRESETS
from unnoise.config.training import Fit
from unnoise.errors import UserError
from unnoise.nn import build
from unnoise.training.muon import MOMENTUM, QUINTIC, TIMES, Muon, assign, matrices, orthogonal
from unnoise.training.train_state import TrainState, optimizers


def quintic(s: torch.Tensor) -> torch.Tensor:
    a, b, c = QUINTIC
    for _ in range(TIMES):
        s = a * s + b * s**3 + c * s**5
    return s


@pytest.mark.parametrize("shape", [(3, 40, 56), (3, 56, 40), (1, 48, 48)])
def test_the_update_is_the_quintic_of_its_singular_values(shape: tuple[int, int, int]):
    """Against a decomposition: the same directions, each with f(f(f(f(f(s / |S|))))) in place of s."""
    updates = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(updates, full_matrices=False)
    expected = u * quintic(s / s.norm(dim=1, keepdim=True))[:, None] @ v
    torch.testing.assert_close(orthogonal(updates), expected, rtol=0, atol=1e-5)
    values = torch.linalg.svdvals(orthogonal(updates))
    assert values.max() < 1.25
    assert values.median() > 0.65


def test_steps_are_those_of_torch():
    """Three steps of torch.optim.Muon in its scale that matches Adam's; it rounds to bfloat16 on the way."""
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(48, 64, generator=generator), torch.randn(64, 32, generator=generator)]
    mine = [nn.Parameter(w.clone()) for w in start]
    theirs = [nn.Parameter(w.clone()) for w in start]
    ours = Muon(mine, lr=0.1, weight_decay=0.5)
    torchs = torch.optim.Muon(
        theirs, lr=0.1, weight_decay=0.5, momentum=MOMENTUM, nesterov=True, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(3):
        for a, b in zip(mine, theirs):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        ours.step()
        torchs.step()
    for a, b, w in zip(mine, theirs, start):
        moved = (b - w).norm()
        assert (a - b).norm() < 0.02 * moved


def test_a_convolution_is_the_matrix_of_its_rows():
    generator = torch.Generator().manual_seed(0)
    weight, grad = (torch.randn(40, 36, 3, 3, generator=generator) for _ in range(2))
    whole, flat = nn.Parameter(weight.clone()), nn.Parameter(weight.flatten(1).clone())
    whole.grad, flat.grad = grad, grad.flatten(1)
    Muon([whole], lr=0.1).step()
    Muon([flat], lr=0.1).step()
    assert torch.equal(whole.flatten(1), flat)
    assert not torch.equal(whole, weight)


def test_a_step_has_the_size_of_adams():
    """0.2 a number and unit of the rate, whatever the shape: what Adam's steps come to."""
    for shape in ((64, 64), (256, 64), (64, 256)):
        p = nn.Parameter(torch.zeros(shape))
        p.grad = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        Muon([p], lr=1.0).step()
        assert p.square().mean().sqrt().item() == pytest.approx(0.2, rel=0.2)


def test_no_gradient_moves_nothing():
    still, zero = nn.Parameter(torch.ones(32, 32)), nn.Parameter(torch.ones(32, 32))
    zero.grad = torch.zeros(32, 32)
    Muon([still, zero], lr=1.0).step()
    assert torch.equal(still, torch.ones(32, 32))
    assert torch.equal(zero, torch.ones(32, 32))


def test_it_is_for_the_matrices_of_the_inside():
    net = build(PRESETS["shapes-text"]().net)
    named = dict(net.named_parameters())
    chosen = matrices(net)
    assert {n for n, p in named.items() if n in chosen and (p.ndim < 2 or min(p.flatten(1).shape) < 32)} == set()
    for outside in ("conv_in.weight", "conv_out.weight", "text.table.weight", "text.positions.weight"):
        assert outside in named
        assert outside not in chosen
    assert sum(named[n].numel() for n in chosen) > 0.9 * sum(p.numel() for p in named.values())


def taught(learner: TrainState, steps: range) -> TrainState:
    for step in steps:
        x = torch.randn(8, 32, generator=torch.Generator().manual_seed(step))
        learner.net(x).square().mean().backward()
        learner.update(0.01, 0.0)
        learner.step += 1
    return learner


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 48), nn.Tanh(), nn.Linear(48, 3))


def test_a_restart_goes_on_as_if_there_had_been_none():
    how = Fit(optimizer="muon", lr=0.01, batch=8, ema=(100,), weight_decay=0.1)
    through = taught(TrainState(small(), how), range(6))
    first = taught(TrainState(small(), how), range(3))
    kept = first.state(), {100: first.average(100)}, {k: v.clone() for k, v in first.moments().items()}
    assert {k.rsplit("/")[-1] for k in kept[2]} == {"step", "exp_avg", "exp_avg_sq", "momentum"}
    assert {k for k in kept[2] if k.endswith("momentum")} == {"0.weight/momentum"}  # the last has three rows
    again = TrainState(small(), how)
    again.load(3, *kept)
    taught(again, range(3, 6))
    for a, b in zip(through.weights, again.weights):
        assert torch.equal(a, b)


def test_parts_of_matrices_are_refused():
    with pytest.raises(UserError, match=r"muon needs unsharded matrices.*adamw"):
        optimizers(Fit(optimizer="muon", fsdp=True), {"w": nn.Parameter(torch.zeros(32, 32))}, {"w"})


def test_matrices_are_dealt_by_what_they_cost():
    shapes = ((64, 64),) * 5 + ((1408, 256),) + ((64, 576),) * 6
    parts = assign(shapes, 2)
    assert sorted(sum(parts, ())) == list(range(12))
    costs = [sum(min(shapes[i]) ** 2 * max(shapes[i]) for i in hand) for hand in parts]
    assert max(costs) == 256**2 * 1408  # the dearest alone
    assert assign(shapes, 1) == (tuple(sorted(range(12), key=lambda i: -(min(shapes[i]) ** 2) * max(shapes[i]))),)
    assert assign(((4, 4),), 3) == ((0,), (), ())
