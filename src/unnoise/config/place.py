"""The place of a value in a file, for errors: `train.yaml:3: fit.lr: should be a number, not "fast"`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from unnoise.errors import UserError

Key = tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """A key in a file, and the line of each key if the lines are known."""

    file: str = ""
    key: Key = ()  # under today's names
    written: Key = ()  # as the file has it, which may be an earlier name
    lines: Mapping[Key, int] = field(default_factory=dict)  # by the key as the file has it

    def at(self, name: object, written: str | None = None) -> Place:
        """The place of an entry in the group at this place; `written` is its name in the file if that is another."""
        return replace(self, key=(*self.key, str(name)), written=(*self.written, written or str(name)))

    @property
    def name(self) -> str:
        """The key as the file has it: `fit.lr`."""
        return ".".join(self.written)

    def error(self, problem: str) -> UserError:
        """An error that begins with file, line and key; an entry of a list has the line of the list's key."""
        ends = range(len(self.written), 0, -1)
        line = next((self.lines[self.written[:end]] for end in ends if self.written[:end] in self.lines), None)
        file = f"{self.file}:{line}" if self.file and line else self.file
        now = f" (now {'.'.join(self.key)})" if self.key != self.written else ""
        return UserError(": ".join(part for part in (file, self.name + now, problem) if part))
