"""The error for mistakes of a user: it states what is wrong, where, and one fix, and is shown without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """An error that the user can correct. The message is shown alone, without a traceback."""


def unknown(what: str, name: object, valid: Iterable[str], *, meant: str = "") -> UserError:
    """The error for a name that is not among the valid ones: `no sampler 'dimm'; did you mean 'ddim'? valid: ddim`

    `meant` is what the name is known to mean; by default the valid name of the most similar spelling is proposed.
    """
    names = list(valid)
    near = [meant] if meant else [repr(name) for name in difflib.get_close_matches(str(name), names, n=1)]
    hint = f"did you mean {near[0]}? " if near else ""
    return UserError(f"no {what} {str(name)!r}; {hint}valid: {', '.join(names)}")
