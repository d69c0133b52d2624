"""Configurations, which are frozen dataclasses, to and from plain dictionaries, and with some values replaced.

    to_dict(config)                      dictionaries, lists, numbers, text: the contents of config.yaml and model.json
    from_dict(TrainConfig, data)         the inverse; missing fields come from `base` or are the defaults
    override(config, {"lr": "1e-4"})     text from a command line; the last part of a name is enough if it is unique

Laws: from_dict(type(c), to_dict(c)) == c, and the same through YAML text (config/files.py). An unknown key, a wrong
type and a key given twice are errors with the file, the line, the key and what would be right. Nothing here imports
torch, so that the command line answers at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast, get_type_hints

from unnoise import errors
from unnoise.config import renamed, synonyms
from unnoise.config.parse import kinds, record
from unnoise.config.place import Key, Place
from unnoise.errors import UserError

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """The whole configuration as dictionaries, lists, numbers and text."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def from_dict(
    cls: type[T],
    data: Mapping[str, Any],
    where: str = "",
    *,
    base: T | None = None,
    lines: Mapping[Key, int] | None = None,
) -> T:
    """The configuration with the values in `data`; fields that it lacks come from `base`, or are the defaults.

    Raises UserError with `where` (a file name), the line and the key of a value that is wrong.
    """
    return cast(T, record(cls, data, Place(where, lines=lines or {}), base))


def flat(config: Any) -> dict[str, Any]:
    """Every value by its dotted name: {"fit.lr": 2e-4, ...}."""
    return {".".join(key): value for key, value in _leaves(config)}


def differences(old: Any, new: Any) -> dict[str, tuple[Any, Any]]:
    """The values that differ, old and new: {"fit.lr": (2e-4, 1e-4)}; None for a side that lacks the key."""
    a, b = flat(old), flat(new)
    return {key: (a.get(key), b.get(key)) for key in a | b if a.get(key) != b.get(key)}


def override(config: T, values: Mapping[str, Any], where: str = "") -> T:
    """`config` with some values replaced; text is converted to the type of the field.

    A name is a dotted path ("fit.lr") or the end of one if that is unique ("lr"); "size" and "channels" are those of
    the pictures ("data.size"), which the network's follow. Another "net.kind" keeps the fields that both kinds have and
    that were not at their defaults. A list is written "1,2,3", and nothing is "none".
    """
    if not dataclasses.is_dataclass(config):
        raise TypeError("a configuration is a dataclass")
    keys = {name: _find(config, name, where) for name in values}
    data = to_dict(config)
    for name, key in sorted(keys.items(), key=lambda pair: pair[1][-1] != "kind"):  # the kind before its fields
        holder = data
        for part in key[:-1]:
            if holder[part] is None:
                holder[part] = {}
            holder = holder[part]
        if key[-1] == "kind" and holder["kind"] != values[name]:
            _switch(config, key, holder, values[name], where)
        holder[key[-1]] = values[name]
    return from_dict(type(config), data, where)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value


def _leaves(config: Any, key: Key = ()) -> Iterator[tuple[Key, Any]]:
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, (*key, f.name))
        else:
            yield (*key, f.name), value


def _switch(config: Any, key: Key, holder: dict[str, Any], kind: Any, where: str) -> None:
    """Delete the fields that the new kind lacks or has with another type, and those at the old kind's defaults."""
    owner: Any = config
    for part in key[:-2]:
        owner = getattr(owner, part)
    known = kinds(get_type_hints(type(owner))[key[-2]])
    if kind not in known:
        raise Place(where, key, key).error(str(errors.unknown("kind", kind, known)))
    before = type(getattr(owner, key[-2]))
    old, new, defaults = get_type_hints(before), get_type_hints(known[kind]), to_dict(before())
    for name, value in list(holder.items()):
        fits = new.get(name) in (old[name], type(value))  # the same type, or one of several that the value has
        if not fits or value == defaults[name]:
            del holder[name]


def _find(config: Any, name: str, where: str) -> Key:
    """The key that `name` means. Raises UserError if there is none, or more than one."""
    wanted = tuple(name.replace("-", "_").split("."))
    keys = [key for key, _ in _leaves(config)]
    # a field of another kind of network may be named beside `net.kind`; from_dict checks whether it fits
    keys += [key for key in _other_kinds(config) if key not in keys]
    found = [key for key in keys if key[-len(wanted) :] == wanted]
    if wanted in found:
        return wanted
    found = [key for key in found if len(key) == min(map(len, found))]  # `net.width` before `net.text.width`
    found = [key for key in found if key[0] == "data"] or found  # the network's size and channels follow the data's
    if len(found) == 1:
        return found[0]
    for earlier in renamed.candidates(wanted):
        with contextlib.suppress(UserError):
            return _find(config, ".".join(earlier), where)
    if found:
        names = ", ".join(".".join(key) for key in found)
        raise Place(where).error(f"{name!r} could be any of {names}; write the whole name")
    for key, value in _leaves(config):  # schedule_options.s: an entry of a free dictionary
        for cut in range(len(key)):
            if isinstance(value, Mapping) and wanted[:-1] == key[cut:]:
                return (*key, wanted[-1])
    raise Place(where).error(f"no setting {name!r}; {_instead(name, keys)}")


def _instead(name: str, keys: Sequence[Key]) -> str:
    """What a name that is none of these keys may mean."""
    names = {".".join(key) for key in keys}
    meant, why = synonyms.meaning(name.rsplit(".", 1)[-1], synonyms.SETTINGS) or ("", "")
    if meant in names:
        return f"did you mean {meant!r}{', ' if why else ''}{why}?"
    near = difflib.get_close_matches(name, names | {key[-1] for key in keys}, n=3)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else "`--dry-run` lists all settings"


def _other_kinds(config: Any, key: Key = ()) -> Iterator[Key]:
    """The keys of every dataclass that a field may hold instead of the one that it holds."""
    hints = get_type_hints(type(config))
    for f in dataclasses.fields(config):
        for kind in kinds(hints[f.name]).values():
            yield from ((*key, f.name, g.name) for g in dataclasses.fields(kind))
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            yield from _other_kinds(value, (*key, f.name))
