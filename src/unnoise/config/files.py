"""Configurations as YAML files; errors name the line of their key."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import yaml  # type: ignore[import-untyped]

from unnoise.config.convert import T, from_dict, to_dict
from unnoise.config.place import Key
from unnoise.config.yaml_text import parse_yaml
from unnoise.errors import UserError
from unnoise.io.reading import read_text

MOST = 2**20  # bytes: a table of 10,000 betas has a quarter of it


def dumps(config: Any) -> str:
    """The configuration as YAML text, in the order of its fields."""
    return cast(str, yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True, width=120))


def load(path: str | Path, cls: type[T], *, base: T | None = None) -> T:
    """The configuration in a YAML file (JSON is YAML)."""
    data, lines = read(path)
    return from_dict(cls, data, str(path), base=base, lines=lines)


def read(path: str | Path) -> tuple[dict[str, Any], dict[Key, int]]:
    """The contents of a YAML file, and the line of every key. Raises UserError for a key given twice."""
    try:
        text = read_text(path, MOST)
    except OSError as e:
        raise UserError(f"cannot read the configuration {path}: {e.strerror or e}") from None
    lines: dict[Key, int] = {}
    data = parse_yaml(text, str(path), lines)
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise UserError(f"{path}: a configuration is a group of `key: value`, not {type(data).__name__}")
    return data, lines
