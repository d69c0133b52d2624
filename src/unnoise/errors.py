"""The one error that is meant for people: what is wrong, where, why, and one fix. It is shown without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the person who asked can put right. The message is the whole report."""


def unknown(what: str, name: object, valid: Iterable[str]) -> UserError:
    """`no sampler 'dimm'; did you mean 'ddim'? valid: ddim, ddpm, heun`"""
    names = list(valid)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UserError(f"no {what} {str(name)!r}; {hint}valid: {', '.join(names)}")
