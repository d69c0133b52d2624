"""YAML text of plain values: no aliases, of which a few lines expand to billions of values, and no deep nesting."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import yaml  # type: ignore[import-untyped]

from unnoise.config.place import Key, Place
from unnoise.errors import UserError

DEEPEST = 32  # groups and lists inside each other; a configuration has 4


def parse_yaml(text: str, where: str, lines: dict[Key, int] | None = None) -> Any:
    """The value of YAML text; the line of every key is added to `lines`.

    Raises UserError, which begins with `where`, for text that is not YAML, for an alias, for a key given twice and for
    a value that YAML does not define.
    """
    try:
        loader = _Plain(text)
        node = loader.get_single_node()
        _lines(node, Place(where), {} if lines is None else lines)
        return None if node is None else loader.construct_document(node)
    except UserError:
        raise
    except yaml.MarkedYAMLError as e:
        line = f":{e.problem_mark.line + 1}" if e.problem_mark else ""
        raise UserError(f"{where}{line}: this is not YAML: {e.problem}") from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as e:  # month 13, 10,000 digits
        raise UserError(f"{where}: this is not YAML: {(str(e) or type(e).__name__).splitlines()[0]}") from None


class _Plain(yaml.SafeLoader):  # type: ignore[misc]
    """Plain values alone: no aliases, and no deep nesting."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """One value. Raises MarkedYAMLError for an alias, and beyond DEEPEST."""
        wrong = f"groups inside each other more than {DEEPEST} deep" if self.depth > DEEPEST else ""
        if self.check_event(yaml.AliasEvent):
            wrong = "an alias (*name), which is not read: write the value again"
        if wrong:
            raise yaml.MarkedYAMLError(problem=wrong, problem_mark=self.peek_event().start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _lines(node: Any, place: Place, lines: dict[Key, int]) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    for name, value in node.value:
        at, line = place.at(name.value), name.start_mark.line + 1
        if at.key in lines:
            raise replace(at, lines={at.key: line}).error(f"given twice; the first is in line {lines[at.key]}")
        lines[at.key] = line
        _lines(value, at, lines)
