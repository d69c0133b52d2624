"""The error for mistakes of a user: it states what is wrong, where, and one fix, and is shown without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """An error that the user can correct. The message is shown alone, without a traceback."""


def unknown(what: str, name: object, valid: Iterable[str]) -> UserError:
    """The error for a name that is not among the valid ones: `no sampler 'dimm'; did you mean 'ddim'? valid: ddim`"""
    names = list(valid)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UserError(f"no {what} {str(name)!r}; {hint}valid: {', '.join(names)}")
