"""Fields of configurations: a default value together with the help text of its option.

    eta: float = setting(0.0, "DDIM: 0 is deterministic, 1 is ancestral")

The command line and the documentation read the text with `help_texts`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, cast

T = TypeVar("T")
HELP = "help"  # the key of the text in the metadata of a field


def setting(default: T, text: str) -> T:
    """Returns a dataclass field with this default and help text; every instance gets a dictionary of its own.

    The declared type is that of the value, as for `dataclasses.field`, so that a type checker compares the default with
    the annotation.
    """
    metadata = {HELP: text}
    if isinstance(default, dict):
        return cast(T, dataclasses.field(default_factory=lambda: dict(default), metadata=metadata))
    return dataclasses.field(default=default, metadata=metadata)


def help_texts(config: type) -> dict[str, str]:
    """The help text of every field of a dataclass that has one, by name."""
    fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(config)
    return {field.name: field.metadata[HELP] for field in fields if HELP in field.metadata}
