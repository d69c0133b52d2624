"""The error for mistakes of a user: it states what is wrong, where, and one fix, and is shown without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """An error that the user can correct. The message is shown alone, without a traceback."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is Python's or torch's error for memory that cannot be allocated, on a CPU or a GPU."""
    phrases = ("out of memory", "can't allocate memory", "not enough memory")  # CUDA and MPS; Linux; Windows
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in phrases)
    )


def unknown(what: str, name: object, valid: Iterable[str], *, meant: str = "") -> UserError:
    """The error for a name that is not among the valid ones: `no sampler 'dimm'; did you mean 'ddim'? valid: ddim`

    `meant` is what the name is known to mean; by default the valid name of the most similar
    spelling is proposed, whatever its case.
    """
    names = list(valid)
    lower = {known.lower(): known for known in reversed(names)}
    near = difflib.get_close_matches(str(name).lower(), lower, n=1)
    hint = meant or (repr(lower[near[0]]) if near else "")
    hint = f"did you mean {hint}? " if hint else ""
    return UserError(f"no {what} {str(name)!r}; {hint}valid: {', '.join(names)}")
