"""The loop's laws: a draw belongs to its place; parts add up; averages forget by half-life; NaN changes nothing."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from torch import nn

from tests.helpers.tiny_training import FIT, TinyConfig, batches, changed, make_net, objective
from unnoise import noise
from unnoise.config.training import Fit
from unnoise.errors import UserError
from unnoise.training.loop import fit, rate, steps
from unnoise.training.player import Player, SampleRNG
from unnoise.training.train_state import TrainState
from unnoise.training.turn import NonFinite


def trained(
    config: TinyConfig, count: int = 10**9, dropout: float = 0.0, dtype: torch.dtype = torch.float32
) -> TrainState:
    net = make_net(dropout)
    learner = TrainState(net, config.fit, dtype=dtype)
    ticks = fit(Player(net, config.fit, objective(net)), batches(config, 0), states=learner)
    for _ in itertools.islice(ticks, count):
        pass
    return learner


# --- draws ---


def test_a_draw_belongs_to_its_place():
    """Whatever part of whatever batch a sample is in, its draws are the same; others' are others."""
    rows = SampleRNG(7, tuple(range(40, 48)), 8)
    assert torch.equal(rows.normal((2, 3), "noise")[3], noise.normal((2, 3), 7, "noise", 43))
    assert torch.equal(rows[2:5].uniform("t"), rows.uniform("t")[2:5])
    assert torch.equal(rows[2:5].index, torch.tensor([2, 3, 4]))
    assert not torch.equal(rows.uniform("t"), rows.uniform("label"))
    assert not torch.equal(rows.uniform("t"), SampleRNG(8, rows.places, 8).uniform("t"))


# --- a step against the formula ---


def test_a_step_is_adam_on_the_mean_of_the_rows():
    """Against torch's own Adam, clipping and mean, written out."""
    config = changed(accumulate=1, images=24, weight_decay=0.0)
    learner = trained(config)
    net = make_net(0.0)
    adam = torch.optim.Adam(net.parameters(), lr=0.0, fused=False, foreach=False)
    stream = batches(config, 0)
    for step in range(3):
        rows = SampleRNG(0, tuple(range(step * 8, step * 8 + 8)), 8)
        adam.zero_grad()
        objective(net)(next(stream), rows).mean().backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        adam.param_groups[0]["lr"] = 0.05 * (step + 1) / 3
        adam.step()
    for weight, p in zip(learner.weights, net.parameters()):
        torch.testing.assert_close(weight, p.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_parts_add_up_to_the_batch(accumulate):
    whole, parts = trained(changed(accumulate=1)), trained(changed(accumulate=accumulate))
    for a, b in zip(whole.weights, parts.weights):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_weight_decay_is_adamw():
    """Decoupled: without a gradient the weights shrink by 1 - lr * decay a step."""
    how = Fit(images=3, batch=1, optimizer="adamw", lr=0.1, weight_decay=0.5, warmup=0, clip=None, ema=(1,))
    net = nn.Linear(1, 1, bias=False)
    before = net.weight.item()
    stream = itertools.repeat(_Single(torch.ones(1), (0,)))
    list(fit(Player(net, how, lambda batch, rows: 0 * net(batch.x[:, None])[:, 0]), stream))
    assert net.weight.item() == pytest.approx(before * 0.95**3, rel=1e-5)


class _Single(tuple):
    """One row: x (1,) and its index."""

    def __new__(cls, x, index):
        return super().__new__(cls, (x, index))

    x = property(lambda self: self[0])
    index = property(lambda self: self[1])


def test_the_rate_rises_and_falls():
    how = dataclasses.replace(FIT, images=100 * 8, batch=8, warmup=10, lr=2.0)
    assert [rate(how, step) for step in (0, 4, 9, 10)] == pytest.approx([0.2, 1.0, 2.0, 2.0])
    assert rate(how, 55) == pytest.approx(1.0)  # half of the cosine
    assert rate(how, 100) == pytest.approx(0.0, abs=1e-12)
    assert rate(dataclasses.replace(how, decay="constant"), 90) == 2.0
    assert rate(dataclasses.replace(how, warmup=0), 0) == 2.0


def test_a_training_sees_at_least_its_pictures():
    assert steps(Fit(images=17, batch=8)) == 3
    assert steps(Fit(images=16, batch=8)) == 2


# --- averages ---


def test_an_average_forgets_half_in_a_half_life():
    """Weights that jump from 0 to 1 and stay: after h pictures the average is 1/2, however they are batched."""
    for batch, half_life in ((4, 40), (8, 40), (1, 40)):
        how = Fit(images=10**6, batch=batch, lr=1e-30, ema=(half_life,), ema_rampup=None)
        net = nn.Linear(1, 1, bias=False)
        learner = TrainState(net, how)
        _still(learner, 0.0)
        for _ in range(half_life // batch):
            _still(learner, 1.0)
        assert learner.averages[half_life][0].item() == pytest.approx(0.5, abs=1e-5)


def test_a_young_average_forgets_faster():
    """While n pictures are seen, the half-life is at most rampup * n: the average of w_n = n is then near n."""
    how = Fit(images=10**6, batch=1, lr=1e-30, ema=(10**9,), ema_rampup=0.05)
    learner = TrainState(nn.Linear(1, 1, bias=False), how)
    for n in range(1, 1001):
        _still(learner, float(n))
    # a half-life of c n makes weights n^(a - 1), a = log(2) / c: the mean is n a / (a + 1)
    a = math.log(2) / 0.05
    assert learner.averages[10**9][0].item() == pytest.approx(1000 * a / (a + 1), rel=2e-3)


@pytest.mark.parametrize("batch", [1, 4])
def test_the_rampup_of_an_average_counts_this_batch(batch: int) -> None:
    """After k steps of B pictures k B are seen, this batch included, and the half-life is c k B: what is in the average
    decays by 2^(-1 / (c k)). Weights that jump from 0 to 1 after the first step leave 1 - 2^-(1/2 + ... + 1/n)/c."""
    c = 0.5
    how = Fit(images=10**6, batch=batch, lr=1e-30, ema=(10**9,), ema_rampup=c)
    learner = TrainState(nn.Linear(1, 1, bias=False), how)
    _still(learner, 0.0)
    decays = 0.0
    for n in range(2, 7):
        _still(learner, 1.0)
        decays += 1 / (c * n)
        assert learner.averages[10**9][0].item() == pytest.approx(1 - 2**-decays, abs=1e-6)


def _still(learner: TrainState, value: float) -> None:
    """A step after which the weight is `value`."""
    with torch.no_grad():
        learner.weights[0].fill_(value)
    learner._params[0].grad = torch.zeros_like(learner._params[0])
    learner.update(1e-30, 0.0)
    learner.step += 1


def test_several_averages_are_each_what_they_would_be_alone():
    both = trained(changed(ema=(40, 16)))
    for half_life in (40, 16):
        alone = trained(changed(ema=(half_life,)))
        assert all(torch.equal(a, b) for a, b in zip(both.averages[half_life], alone.averages[half_life]))


# --- bfloat16 ---


def test_bfloat16_computes_on_a_rounded_copy_and_learns_in_float32():
    learner = trained(changed(lr=1e-3), dtype=torch.bfloat16)
    exact = trained(changed(lr=1e-3))
    assert all(p.dtype == torch.bfloat16 for p in learner.net.parameters())
    assert learner.net.scale.dtype == torch.float32  # a buffer keeps its digits
    for weight, p, other, begin in zip(
        learner.weights, learner.net.parameters(), exact.weights, make_net().parameters()
    ):
        assert weight.dtype == torch.float32
        assert torch.equal(weight.bfloat16(), p)
        assert not torch.equal(weight, weight.bfloat16().float())  # digits that bfloat16 does not have
        moved = (other - begin.detach()).norm()
        assert (weight - other).norm() < 0.35 * moved


def test_bfloat16_parts_add_up_in_float32():
    """128 parts of 2^-8 onto 1 are 1.5; in bfloat16 each would be lost."""
    how = Fit(images=8, batch=8, ema=(1,))
    net = nn.Linear(1, 1, bias=False)
    learner = TrainState(net, how, dtype=torch.bfloat16)
    for part in [1.0, *[2.0**-9] * 256]:
        net.weight.grad = torch.full_like(net.weight, part)
        learner.collect()
    assert learner.gradient_norm().item() == pytest.approx(1.5)


# --- what is not finite ---


def test_a_bad_sample_stops_before_the_optimizer_and_is_named():
    bad = next(batches(TinyConfig(), 4)).index[3]
    config = changed(poison=(bad,), poison_step=4)
    net = make_net()
    learner = TrainState(net, config.fit)
    ticks = fit(Player(net, config.fit, objective(net)), batches(config, 0), states=learner)
    for _ in range(4):
        next(ticks)
    weights = [w.clone() for w in learner.weights]
    moments = {name: value.clone() for name, value in learner.moments().items()}
    with pytest.raises(NonFinite, match=rf"step 5: the loss is not finite.* it: {bad}\. ") as caught:
        next(ticks)
    assert caught.value.samples == (bad,)
    assert all(torch.equal(a, b) for a, b in zip(weights, learner.weights))
    assert all(torch.equal(moments[k], v) for k, v in learner.moments().items())
    assert all(torch.isfinite(a).all() for average in learner.averages.values() for a in average)


def test_skipping_goes_on_as_if_the_step_had_not_been():
    """Adam, averages and weights are finite, and the rest of the steps are taken."""
    config = changed(poison=(13,), non_finite="skip", max_skips=3)
    net = make_net()
    learner = TrainState(net, config.fit)
    ticks = list(fit(Player(net, config.fit, objective(net)), batches(config, 0), states=learner))
    skipped = [tick for tick in ticks if tick.event]
    assert len(ticks) == 10
    assert len(skipped) == 4  # once an epoch
    assert all("13" in tick.event for tick in skipped)
    assert all(torch.isfinite(w).all() for w in learner.weights)
    assert learner.moments()["first.weight/step"].item() == 6


def test_too_many_skips_in_a_row_stop():
    config = changed(poison=tuple(range(20)), non_finite="skip", max_skips=2)
    net = make_net()
    learner = TrainState(net, config.fit)
    with pytest.raises(NonFinite, match="step 3"):
        list(fit(Player(net, config.fit, objective(net)), batches(config, 0), states=learner))


def test_an_infinite_gradient_of_a_finite_loss_stops_too():
    how = Fit(images=4, batch=1, ema=(1,))
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    stream = itertools.repeat(_Single(torch.ones(1), (5,)))
    with pytest.raises(NonFinite, match=r"the gradient is not finite.* 5\."):
        list(fit(Player(net, how, lambda batch, rows: net(batch.x[:, None])[:, 0].abs().sqrt()), stream))
    assert net.weight.item() == 0.0


# --- at the border ---


def test_a_batch_that_cannot_be_shared_says_what_can():
    config = changed(batch=9)
    net = make_net()
    with pytest.raises(UserError, match=r"fit\.batch 9 cannot be split over .* multiple of 2"):
        next(fit(Player(net, config.fit, objective(net)), batches(config, 0)))


def test_the_callers_random_numbers_are_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    trained(changed(images=16), dropout=0.3)
    assert torch.equal(torch.rand(3), expected)


def test_waiting_for_data_is_measured():
    config = changed(images=16, slow=0.05)
    net = make_net()
    ticks = list(fit(Player(net, config.fit, objective(net)), batches(config, 0)))
    assert all(0.04 < tick.waiting * tick.seconds < 0.5 for tick in ticks)
    assert all(tick.rate == pytest.approx(8 / tick.seconds) for tick in ticks)
