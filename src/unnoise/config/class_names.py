"""Names of classes that labels can name: "none" is no class, "all" every class, and an empty label a random class."""

from __future__ import annotations

from collections.abc import Iterable

RESERVED = frozenset(("", "none", "all"))


def unreserved(names: Iterable[str]) -> tuple[str, ...]:
    """These names, in their order, with "_" after a reserved one: a class "none" is called "none_".

    Data sets and models are both read with it, so that the classes of a set are those of a model trained on it.
    """
    given = tuple(names)
    found: list[str] = []
    for name in given:
        if name.strip() in RESERVED:
            name += "_"
            while name in given or name in found:
                name += "_"
        found.append(name)
    return tuple(found)
