"""Surgery is undone bit for bit, whatever happens inside."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unnoise.patch import patched


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 2)))


def test_a_patch_acts_and_is_undone() -> None:
    model, x = net(), torch.randn(4, 3)
    before, modules = model(x), dict(model.named_modules())
    seen = []

    def make(module: nn.Linear, name: str) -> nn.Module:
        seen.append(name)
        return nn.Sequential(module, nn.Hardtanh(0, 0.01))

    with patched(model, nn.Linear, make) as inside:
        assert inside is model
        assert inside(x).max() <= 0.01
    assert seen == ["0", "1.1"]
    assert torch.equal(model(x), before)
    assert all(a is b for a, b in zip(dict(model.named_modules()).values(), modules.values()))


def test_a_patch_that_changes_nothing_changes_nothing() -> None:
    model, x = net(), torch.randn(4, 3)
    before = model(x)
    with patched(model, nn.Linear, lambda module, name: module):
        assert torch.equal(model(x), before)


def test_an_error_inside_undoes_too() -> None:
    model = net()
    first = model[0]
    with pytest.raises(KeyError), patched(model, nn.Linear, lambda module, name: nn.Identity()):
        raise KeyError
    assert model[0] is first

    def fails(module: nn.Linear, name: str) -> nn.Module:
        if name == "1.1":
            raise KeyError
        return nn.Identity()

    with pytest.raises(KeyError), patched(model, nn.Linear, fails):
        pass
    assert model[0] is first
