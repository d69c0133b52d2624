"""data.json of a run: which data set it began with, so that it resumes on no other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unnoise.errors import UserError
from unnoise.io.json_files import read_json


def check_same(file: Path, facts: Mapping[str, Any]) -> None:
    """Raises UserError where a data set is not the one that `file` describes, and names what changed.

    Data sets are equal if their "fingerprint" is; "count" and the digests in "parts" are for the message.
    """
    old = _read(file)
    if old["fingerprint"] == facts["fingerprint"]:
        return
    parts, fix = facts.get("parts", {}), "restore them, or begin a new run"
    changed = [name for name in parts if old.get("parts", parts).get(name) != parts[name]]
    if changed == ["times of modification"]:
        fix = f"copy them with cp -a or rsync -a, or, if you are sure of them, remove {file} and resume"
    raise UserError(
        f"{file.parent}: the pictures are not those that this run began with ({old['count']} pictures then, "
        f"{facts['count']} now{'; changed: ' if changed else ''}{', '.join(changed)}): {fix}"
    )


def _read(file: Path) -> dict[str, Any]:
    """The contents of data.json. Raises UserError where it does not identify the data set."""
    try:
        found = read_json(file)
        if isinstance(found.get("parts", {}), dict):
            return {**found, "fingerprint": found["fingerprint"], "count": found["count"]}
        raise TypeError("parts")
    except (UserError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{file} is damaged, so it is not known which pictures this run began with: restore it, or remove it if "
            "they are the same"
        ) from error
