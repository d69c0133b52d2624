"""Patches: modules of a network replaced in a copy that shares its weights.

    net = patched(diffusion.net, [Patch(nn.Linear, lora), Patch(AttentionCore, edit, name="*.cross_attention.core")])

The copy has modules of its own, and the same parameters and buffers. The original is never changed, so that two threads
can use different patches of one network, and dropping the copy undoes the patches. Laws (tests/test_patch.py): no patch
changes nothing; the original computes the same bits while and after a patched copy exists; a patch that matches nothing
is an error; each patch sees the replacements of those before it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Generic, TypeVar

from torch import nn

Kind = TypeVar("Kind", bound=nn.Module)
Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True)
class Patch(Generic[Kind]):
    """Replaces modules by what `make` returns for the module and its name; the module itself leaves it as it is.

    It matches the modules below a network that are of type `kind` and whose dotted name matches `name`, a pattern as
    in fnmatch: `*` for any characters, dots included. The modules inside a replacement are not matched by the patch
    that made it.
    """

    kind: type[Kind]
    make: Callable[[Kind, str], nn.Module]
    name: str = "*"

    def matches(self, net: nn.Module) -> dict[str, Kind]:
        """The modules that match, by name; one that is used in several places has several names."""
        every = ((name, module) for name, module in net.named_modules(remove_duplicate=False) if name)
        return {
            name: module for name, module in every if isinstance(module, self.kind) and fnmatchcase(name, self.name)
        }


def patched(net: Net, patches: Sequence[Patch[Any]]) -> Net:
    """A copy of `net` that shares its parameters and buffers, with the patches applied in this order.

    Moving or casting the copy (`to`) would change the shared parameters: do that to a deep copy, as `place` does.
    Raises ValueError for a patch that matches no module.
    """
    net = shared_copy(net)
    for patch in patches:
        net = shared_copy(net)  # a replacement may be the caller's, and the next patch must not change it
        apply(net, patch)
    return net


def apply(net: nn.Module, patch: Patch[Any]) -> None:
    """Replace modules of `net` in place, for the only owner of a network. Raises ValueError if no module matches."""
    found = patch.matches(net)
    if not found:
        raise ValueError(_no_match(net, patch))
    made: dict[nn.Module, nn.Module] = {}
    replaced: list[str] = []
    for name, module in found.items():
        if any(name.startswith(f"{outer}.") for outer in replaced):
            continue
        if module not in made:
            made[module] = patch.make(module, name)
        if made[module] is not module:
            replaced.append(name)
            parent, _, leaf = name.rpartition(".")
            net.get_submodule(parent)._modules[leaf] = made[module]


def shared_copy(net: Net) -> Net:
    """A copy of a network whose modules, hooks and modes are its own and whose parameters and buffers are shared."""
    copies: dict[nn.Module, nn.Module] = {}
    for module in net.modules():
        twin = copies[module] = copy.copy(module)
        for name, value in vars(module).items():
            if isinstance(value, dict | set):  # parameters, buffers, modules, hooks
                twin.__dict__[name] = value.copy()
    for twin in copies.values():
        for name, child in twin._modules.items():
            if child is not None:
                twin._modules[name] = copies[child]
    return copies[net]  # type: ignore[return-value]  # a copy has the type of its original


def _no_match(net: nn.Module, patch: Patch[Any]) -> str:
    modules = {name: module for name, module in net.named_modules() if name}
    alike = [name for name, module in modules.items() if isinstance(module, patch.kind)]
    kind, network = patch.kind.__name__, type(net).__name__
    if alike:
        listed = ", ".join(alike[:8]) + (f" and {len(alike) - 8} more" if len(alike) > 8 else "")
        return f"no {kind} of this {network} has a name like {patch.name!r}: it has {listed}"
    kinds = sorted({type(module).__name__ for module in modules.values()})
    return f"this {network} has no {kind} to patch: it has {', '.join(kinds) or 'no modules'}"
