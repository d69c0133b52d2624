"""Surgery that can be undone: modules of a network replaced inside a `with`, and put back bit for bit at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import nn

Kind = TypeVar("Kind", bound=nn.Module)
Patch = Callable[[Kind, str], nn.Module]
"""(the module, its name in the network) -> what stands in its place; the module itself to leave it alone."""


def apply(net: nn.Module, kind: type[Kind], make: Patch[Kind]) -> list[tuple[nn.Module, str, nn.Module]]:
    """Replace every module of this kind below `net`; returns what `undo` needs. A replacement is not entered."""
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    found = [(name, module) for name, module in net.named_modules() if isinstance(module, kind) and name]
    try:
        for name, module in found:
            parent_name, _, leaf = name.rpartition(".")
            parent = net.get_submodule(parent_name)
            made = make(module, name)
            if made is not module:
                replaced.append((parent, leaf, module))
                setattr(parent, leaf, made)
    except BaseException:
        undo(replaced)
        raise
    return replaced


def undo(replaced: list[tuple[nn.Module, str, nn.Module]]) -> None:
    """Put back what `apply` took out, the last first."""
    for parent, leaf, module in reversed(replaced):
        setattr(parent, leaf, module)


@contextmanager
def patched(net: nn.Module, kind: type[Kind], make: Patch[Kind]) -> Iterator[nn.Module]:
    """`net` with its modules of this kind replaced, while the block runs."""
    replaced = apply(net, kind, make)
    try:
        yield net
    finally:
        undo(replaced)
