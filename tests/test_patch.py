"""A patch acts on a copy that shares the weights; the original is never changed."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn

from unnoise.patch import Patch, apply, patched, shared_copy


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 2)))


class Clamped(nn.Module):
    """A module whose output is clamped to [0, `high`]."""

    def __init__(self, inner: nn.Module, high: float) -> None:
        super().__init__()
        self.inner, self.high = inner, high

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x).clamp(0, self.high)
        return out


def clamp(high: float, name: str = "*") -> Patch[nn.Linear]:
    return Patch(nn.Linear, lambda module, _: Clamped(module, high), name)


def test_a_patch_acts_on_the_copy_and_leaves_the_original() -> None:
    model, x = net(), torch.randn(4, 3)
    before, modules = model(x), dict(model.named_modules())
    names = []

    def make(module: nn.Linear, name: str) -> nn.Module:
        names.append(name)
        return Clamped(module, 0.01)

    copy = patched(model, [Patch(nn.Linear, make)])
    assert names == ["0", "1.1"]
    assert copy(x).max() <= 0.01
    assert torch.equal(model(x), before)
    assert dict(model.named_modules()) == modules
    assert type(copy) is nn.Sequential


def test_the_copy_shares_parameters_and_buffers() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    copy = patched(model, [clamp(1.0, name="2")])
    assert [id(p) for p in copy.parameters()] == [id(p) for p in model.parameters()]
    assert [id(b) for b in copy.buffers()] == [id(b) for b in model.buffers()]


def test_modes_hooks_and_replacements_of_the_copy_do_not_reach_the_original() -> None:
    model, calls = net(), []
    for copy in (patched(model, []), patched(model, [clamp(1.0)])):
        copy.eval()
        for module in copy.modules():
            module.register_forward_hook(lambda *_: calls.append(1))
        copy(torch.ones(1, 3))
        assert calls
        calls.clear()
        model(torch.ones(1, 3))
        assert not calls
        assert all(module.training for module in model.modules())
        copy[1] = nn.Identity()
        assert isinstance(model[1], nn.Sequential)


def test_a_patch_that_changes_nothing_changes_nothing() -> None:
    model, x = net(), torch.randn(4, 3)
    before = model(x)
    assert torch.equal(patched(model, [])(x), before)
    assert torch.equal(patched(model, [Patch(nn.Linear, lambda module, _: module)])(x), before)


def test_two_threads_with_different_patches_get_what_each_would_get_alone() -> None:
    model = net()
    inputs = torch.randn(200, 4, 3)
    patches: list[list[Patch[nn.Linear]]] = [[], [clamp(0.1)], [clamp(0.01, name="1.*")]]
    alone = [[patched(model, each)(x) for x in inputs] for each in patches]
    outputs: list[list[Tensor]] = [[] for _ in patches]

    def work(place: int) -> None:
        for x in inputs:  # patched anew at each call, while others run the original
            outputs[place].append(patched(model, patches[place])(x))

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(patches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(a, b) for mine, right in zip(outputs, alone) for a, b in zip(mine, right, strict=True))


def test_each_patch_sees_the_replacements_of_those_before_it() -> None:
    model, x = net(), torch.randn(4, 3)
    lowered = Patch(Clamped, lambda module, name: Clamped(module.inner, 0.01), name="1.1")
    copy = patched(model, [clamp(0.5), lowered])
    assert [module.high for module in copy.modules() if isinstance(module, Clamped)] == [0.5, 0.01]
    assert copy(x).max() <= 0.01
    inside = patched(model, [clamp(0.5), Patch(nn.Linear, lambda module, name: nn.Identity(), name="0.inner")])
    assert torch.equal(inside[0](x), x.clamp(0, 0.5))


def test_a_replacement_of_the_callers_is_not_changed_by_the_next_patch() -> None:
    mine = Clamped(nn.Linear(3, 3), 1.0)
    linear = mine.inner
    patched(net(), [Patch(nn.Linear, lambda *_: mine, name="0"), Patch(nn.Linear, lambda *_: nn.Identity())])
    assert mine.inner is linear


def test_a_module_in_two_places_is_replaced_in_both() -> None:
    linear = nn.Linear(3, 3)
    copy = patched(nn.Sequential(linear, nn.ReLU(), linear), [clamp(0.1)])
    assert isinstance(copy[0], Clamped)
    assert copy[0] is copy[2]


def test_the_inside_of_a_replacement_is_not_matched_by_its_own_patch() -> None:
    copy = patched(net(), [Patch(nn.Module, lambda module, name: Clamped(module, 1.0), name="1*")])
    assert [type(module).__name__ for module in copy.modules()] == [
        "Sequential",
        "Linear",
        "Clamped",
        "Sequential",
        "ReLU",
        "Linear",
    ]


def test_a_patch_that_matches_nothing_is_an_error_that_lists_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"this Sequential has no Conv2d to patch: it has Linear, ReLU, Sequential"):
        patched(net(), [Patch(nn.Conv2d, lambda module, name: module)])
    with pytest.raises(ValueError, match=r"no Linear of this Sequential has a name like 'attention.\*': it has 0, 1.1"):
        patched(net(), [clamp(1.0, name="attention.*")])
    gone = Patch(nn.Linear, lambda module, name: nn.Identity())
    with pytest.raises(ValueError, match="has no Linear to patch"):
        patched(net(), [gone, clamp(1.0)])


def test_an_error_while_a_patch_is_applied_leaves_the_original() -> None:
    model = net()
    modules = dict(model.named_modules())

    def fails(module: nn.Linear, name: str) -> nn.Module:
        if name == "1.1":
            raise KeyError
        return nn.Identity()

    with pytest.raises(KeyError):
        patched(model, [Patch(nn.Linear, fails)])
    assert dict(model.named_modules()) == modules


def test_the_owner_of_a_network_applies_a_patch_in_place() -> None:
    model, x = net(), torch.randn(4, 3)
    owned = shared_copy(model)
    apply(owned, clamp(0.01))
    assert torch.equal(owned(x), patched(model, [clamp(0.01)])(x))
    assert isinstance(model[0], nn.Linear)
