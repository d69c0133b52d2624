"""Likelihoods, the coder and features on a device that is not the CPU: the numbers of the CPU.

The device is pretended (tests/helpers/pretend_device.py). It has no float64, as MPS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from tests.helpers.networks import PLAIN, random_network
from tests.helpers.pretend_device import DEVICE, PretendDevice, host
from tests.helpers.random_weights import randomised
from unnoise.acceleration.placement import Placement, best, place, prepare
from unnoise.compression import coder
from unnoise.compression.symbols import Plan
from unnoise.conditions import NOTHING
from unnoise.config.diffusion import DiffusionConfig
from unnoise.denoiser import Denoiser, Diffusion, Estimate, make_diffusion
from unnoise.errors import UserError
from unnoise.likelihood import bound, ode
from unnoise.metrics.classifier import Accuracy, ClassifierEvaluator
from unnoise.metrics.features import classifier_features
from unnoise.nn.classifier import Classifier, Shape
from unnoise.noise import uniform

CPU, THERE = Placement("cpu", torch.float32), Placement(DEVICE, torch.float32)


def diffusion() -> Diffusion:
    return make_diffusion(random_network(PLAIN), DiffusionConfig()).eval().requires_grad_(False)


def pictures(count: int = 2) -> Tensor:
    """Of 256 grey levels, in [-1, 1]."""
    return (uniform((count, 3, 8, 8), "levels").float() * 255).round() / 127.5 - 1


def both(make: Callable[[Placement], Tensor], rtol: float) -> None:
    right = make(CPU)
    with PretendDevice(doubles=False):
        found = host(make(THERE))
    torch.testing.assert_close(found, right, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("variance", [bound.small, bound.learned])
def test_the_bound_is_that_of_the_cpu(variance: bound.Variance) -> None:
    """For each batch the host waits twice, for the costs and the errors, and at the end for the prior's term."""
    placed_on = {}

    def given(placement: Placement) -> Denoiser:
        denoiser = place(diffusion(), placement).given(NOTHING)
        placed_on[placement.device] = denoiser
        return Denoiser(denoiser.schedule, lambda x, t: Estimate(denoiser(x, t).mean, torch.full_like(x, 0.3)))

    def terms(placement: Placement, device: PretendDevice | None = None) -> Tensor:
        denoiser = given(placement)
        x = pictures().to(placement.device)
        if device is not None:
            device.seen.clear()
        steps = bound.chain(denoiser.schedule, torch.arange(8, -1, -1, dtype=torch.float64) / 8)
        noise = bound.noise_of(0, (3, 8, 8), placement.device)
        found = bound.last(bound.whole_bound(lambda rows: denoiser, x, steps, noise, variance=variance, batch=8))
        return torch.cat([found.prior[:, None], found.terms, found.errors], 1)

    right = terms(CPU)
    with PretendDevice(doubles=False) as device:
        found = terms(THERE, device)
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)
    assert sum(device.waits.values()) == 2 * 2 + 1, device.waits


def test_the_flow_has_the_bits_of_the_cpu() -> None:
    def bits(placement: Placement) -> Tensor:
        placed, x = prepare(diffusion(), placement), pictures(1).to(placement.device)
        (found,) = ode.bits(lambda rows: placed.given(NOTHING), x, rtol=0.5, atol=0.5)
        return found.bits

    both(bits, rtol=1e-3)


def test_the_coder_decodes_on_the_device_what_it_sent_there() -> None:
    pytest.importorskip("constriction")
    plan = Plan(seed=0, bits=8)
    with PretendDevice(doubles=False):
        denoiser = place(diffusion(), THERE).given(NOTHING)
        sent = coder.send(denoiser, pictures(1).to(DEVICE), plan, 80.0)
        found = list(coder.receive(denoiser, (3, 8, 8), plan, sent.payload, sent.pieces, device=DEVICE))
        assert sent.pieces > 4
        assert torch.equal(host(found[-1].mean), host(sent.way[-1].mean))


def test_the_coder_runs_with_repeatable_kernels_and_without_tf32() -> None:
    seen, cudnn = [], torch.backends.cudnn

    def estimate(x: Tensor, t: Tensor) -> Estimate:
        seen.append((cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32))
        return Estimate(0 * x)

    pytest.importorskip("constriction")
    coder.send(Denoiser(diffusion().schedule, estimate), pictures(1), Plan(seed=0, bits=8), 20.0)
    assert set(seen) == {(True, False, False)}


def test_features_are_those_of_the_cpu() -> None:
    def features(placement: Placement) -> Tensor:
        net = randomised(Classifier(Shape(8, 3, 4, 8, 16))).eval().to(placement.device)
        evaluator = ClassifierEvaluator(net, tuple("wxyz"), "a classifier", Accuracy(0.0, 0))
        return classifier_features(evaluator)(pictures(4).to(placement.device))

    both(features, rtol=1e-4)


# --- TF32 ---


@pytest.fixture
def as_before() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("tf32", [True, False])
@pytest.mark.parametrize("use", [place, lambda made, where: prepare(made.net, where)], ids=["place", "prepare"])
def test_float32_is_float32_unless_tf32_is_chosen(tf32: bool, use: Callable[..., object], as_before: None) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not tf32
    with PretendDevice():
        use(diffusion(), Placement(DEVICE, torch.float32, tf32=tf32))
    assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == tf32


def test_tf32_is_a_precision_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="tf32 is a number format of NVIDIA"):
        best("cpu", "tf32")
    monkeypatch.setattr("unnoise.acceleration.placement.find", lambda device: "cuda")
    assert best("cuda", "tf32").precision == "tf32"
    assert best("cuda", "tf32").dtype == torch.float32
    assert best("cuda", "float32") == Placement("cuda", torch.float32)
