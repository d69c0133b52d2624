"""Configurations as YAML files; errors name the line of their key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import yaml  # type: ignore[import-untyped]

from unnoise.config.convert import T, from_dict, to_dict
from unnoise.config.place import Key, Place
from unnoise.errors import UserError


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
        text = Path(path).read_text(encoding="utf-8")
    except OSError as e:
        raise UserError(f"cannot read the configuration {path}: {e.strerror or e}") from None
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        lines: dict[Key, int] = {}
        _lines(node, Place(str(path)), lines)
        data = yaml.safe_load(text) or {}
    except yaml.MarkedYAMLError as e:
        line = f":{e.problem_mark.line + 1}" if e.problem_mark else ""
        raise UserError(f"{path}{line}: this is not YAML: {e.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UserError(f"{path}: this is not YAML: {e}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: a configuration is a group of `key: value`, not {type(data).__name__}")
    return data, lines


def _lines(node: Any, place: Place, lines: dict[Key, int]) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    for name, value in node.value:
        at, line = place.at(name.value), name.start_mark.line + 1
        if at.key in lines:
            raise replace(at, lines={at.key: line}).error(f"given twice; the first is in line {lines[at.key]}")
        lines[at.key] = line
        _lines(value, at, lines)
