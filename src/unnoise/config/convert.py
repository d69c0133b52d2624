"""A configuration is a frozen dataclass; this file is its way to and from YAML, JSON and the command line.

    to_dict(config)                      plain dicts, lists, numbers, text: what config.yaml and model.json hold
    from_dict(TrainConfig, data)         the inverse; what is missing comes from `base` or the defaults
    load(path, TrainConfig)              from a YAML file
    override(config, {"lr": "1e-4"})     text from a command line; the last part of a name is enough where it is unique

Laws: from_dict(type(c), to_dict(c)) == c, and the same through YAML text; an unknown key, a wrong type and a key given
twice are errors that name the file, the line, the key and what would be right. Nothing is built from a name in a file:
the types in the dataclass alone decide. No torch here, so that the command line answers at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import math
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml  # type: ignore[import-untyped]

from unnoise import errors
from unnoise.config import renamed
from unnoise.errors import UserError

T = TypeVar("T")
Key = tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """Where a value stands: its file, its line if that is known, its key."""

    file: str = ""
    key: Key = ()
    lines: Mapping[Key, int] = dataclasses.field(default_factory=dict)

    def at(self, name: object) -> Place:
        return replace(self, key=(*self.key, str(name)))

    def error(self, problem: str) -> UserError:
        line = self.lines.get(self.key)
        file = f"{self.file}:{line}" if self.file and line else self.file
        return UserError(": ".join(part for part in (file, ".".join(self.key), problem) if part))


# ---------------------------------------------------------------------------------------------------- out


def to_dict(config: Any) -> dict[str, Any]:
    """The whole configuration in dicts, lists, numbers and text."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value


def flat(config: Any) -> dict[str, Any]:
    """Every value under its dotted name: {"fit.lr": 2e-4, ...}."""
    return {".".join(key): value for key, value in _leaves(config)}


def _leaves(config: Any, key: Key = ()) -> Iterator[tuple[Key, Any]]:
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, (*key, f.name))
        else:
            yield (*key, f.name), value


def differences(old: Any, new: Any) -> dict[str, tuple[Any, Any]]:
    """The values that are not the same: {"fit.lr": (2e-4, 1e-4)}; None where one side lacks the key."""
    a, b = flat(old), flat(new)
    return {key: (a.get(key), b.get(key)) for key in a | b if a.get(key) != b.get(key)}


# ----------------------------------------------------------------------------------------------------- in


def from_dict(
    cls: type[T],
    data: Mapping[str, Any],
    where: str = "",
    *,
    base: T | None = None,
    lines: Mapping[Key, int] | None = None,
) -> T:
    """The configuration that `data` says; fields it does not name come from `base`, else from the defaults.

    Raises UserError with `where` (a file name), the line and the key of what is wrong.
    """
    return cast(T, _record(cls, data, Place(where, (), lines or {}), base))


def override(config: T, values: Mapping[str, Any], where: str = "") -> T:
    """`config` with some values replaced; texts are read as what the field is.

    A name is a dotted path ("fit.lr") or any end of one that is unique ("lr"). Another "net.kind" keeps the fields that
    both kinds have. Lists are "1,2,3", nothing is "none".
    """
    if not dataclasses.is_dataclass(config):
        raise TypeError("a configuration is a dataclass")
    keys = {name: _find(config, name, where) for name in values}
    data = to_dict(config)
    for name, key in sorted(keys.items(), key=lambda pair: pair[1][-1] != "kind"):  # what it is, then how
        holder = data
        for part in key[:-1]:
            if holder[part] is None:
                holder[part] = {}
            holder = holder[part]
        if key[-1] == "kind" and holder["kind"] != values[name]:
            _switch(config, key, holder, values[name], where)
        holder[key[-1]] = values[name]
    return from_dict(type(config), data, where)


def _switch(config: Any, key: Key, holder: dict[str, Any], kind: Any, where: str) -> None:
    """Drop the fields that the new kind does not have, or means otherwise."""
    owner: Any = config
    for part in key[:-2]:
        owner = getattr(owner, part)
    kinds = _kinds(get_type_hints(type(owner))[key[-2]])
    if kind not in kinds:
        raise Place(where, key).error(str(errors.unknown("kind", kind, kinds)))
    old, new = get_type_hints(type(getattr(owner, key[-2]))), get_type_hints(kinds[kind])
    for name in [n for n in holder if old[n] != new.get(n)]:
        del holder[name]


def _find(config: Any, name: str, where: str) -> Key:
    wanted = tuple(name.replace("-", "_").split("."))
    keys = [key for key, _ in _leaves(config)]
    # a field of another kind of network may be named beside `net.kind`; from_dict says whether it fits
    keys += [key for key in _other_kinds(config) if key not in keys]
    found = [key for key in keys if key[-len(wanted) :] == wanted]
    if wanted in found:
        return wanted
    found = [key for key in found if len(key) == min(map(len, found))]  # `net.width` before `net.text.width`
    if len(found) == 1:
        return found[0]
    for earlier in renamed.candidates(wanted):
        with contextlib.suppress(UserError):
            return _find(config, ".".join(earlier), where)
    if found:
        raise Place(where).error(f"{name!r} could be any of {', '.join('.'.join(k) for k in found)}; say which")
    for key, value in _leaves(config):  # schedule_options.s: an entry of a free dictionary
        for cut in range(len(key)):
            if isinstance(value, Mapping) and wanted[:-1] == key[cut:]:
                return (*key, wanted[-1])
    near = difflib.get_close_matches(name, {".".join(k) for k in keys} | {k[-1] for k in keys}, n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "`--dry-run` shows them all"
    raise Place(where).error(f"no setting {name!r}; {hint}")


def _other_kinds(config: Any, key: Key = ()) -> Iterator[Key]:
    hints = get_type_hints(type(config))
    for f in dataclasses.fields(config):
        for kind in _kinds(hints[f.name]).values():
            yield from ((*key, f.name, g.name) for g in dataclasses.fields(kind))
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            yield from _other_kinds(value, (*key, f.name))


def _kinds(hint: Any) -> dict[str, Any]:
    """The dataclasses of a union under what their field `kind` says: {"unet": UNetConfig, "dit": DiTConfig}; one that
    has no such field, beside None, under nothing."""
    options = [o for o in get_args(hint) if dataclasses.is_dataclass(o)]
    return {str(next((f.default for f in dataclasses.fields(o) if f.name == "kind"), "")): o for o in options}


def _record(cls: Any, data: Any, place: Place, base: Any) -> Any:
    if not isinstance(data, Mapping):
        raise place.error(f"should be a group of `key: value`, not {_show(data)}")
    hints = get_type_hints(cls)
    data = renamed.upgrade(cls.__name__, data)
    for name in data:
        if name not in hints:
            raise place.at(name).error(str(errors.unknown("setting", name, hints)))
    base = base if isinstance(base, cls) else None
    given = {}
    for f in dataclasses.fields(cls):
        old = getattr(base, f.name) if base is not None else None
        if f.name in data:
            given[f.name] = _value(data[f.name], hints[f.name], place.at(f.name), old)
        elif base is not None:
            given[f.name] = old
    return cls(**given)


def _value(value: Any, hint: Any, place: Place, base: Any = None) -> Any:
    """`value` as what the annotation `hint` says, or a UserError."""
    origin, options = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _record(hint, value, place, base)
    if origin in (Union, types.UnionType):
        return _one_of(value, hint, place, base)
    if origin is Literal:
        if value not in options:
            raise place.error(str(errors.unknown(place.key[-1], value, map(str, options))))
        return value
    if origin is tuple:
        return _row(value, options, place)
    if origin is dict:
        table = yaml.safe_load(value) if isinstance(value, str) else value
        if not isinstance(table, Mapping):
            raise place.error(f"should be a group of `key: value`, not {_show(value)}")
        return {str(k): _value(v, options[1], place.at(k)) for k, v in table.items()}
    try:
        return _SCALARS[hint](value)
    except (ValueError, TypeError, OverflowError):
        raise place.error(f"should be {_WORDS[hint]}, not {_show(value)}") from None


def _one_of(value: Any, hint: Any, place: Place, base: Any) -> Any:
    options = get_args(hint)
    if types.NoneType in options:
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null", "")):
            return None
        options = tuple(o for o in options if o is not types.NoneType)
    kinds = _kinds(hint)
    if not kinds:
        return _first(value, options, place, base)
    if not isinstance(value, Mapping):
        raise place.error(f"should be a group of `key: value`, not {_show(value)}")
    kind = value.get("kind", getattr(base, "kind", next(iter(kinds))))
    if kind not in kinds:
        raise place.at("kind").error(str(errors.unknown("kind", kind, kinds)))
    return _record(kinds[kind], value, place, base)


def _first(value: Any, options: tuple[Any, ...], place: Place, base: Any) -> Any:
    """A list where a list is allowed; else what the first of the plain kinds makes of it."""
    listed = isinstance(value, (list, tuple)) or (isinstance(value, str) and "," in value)
    options = tuple(o for o in options if (get_origin(o) is tuple) == listed) or options
    for option in options[:-1]:
        try:
            return _value(value, option, place, base)
        except UserError:
            continue
    return _value(value, options[-1], place, base)


def _row(value: Any, options: tuple[Any, ...], place: Place) -> tuple[Any, ...]:
    if isinstance(value, str):
        inside = value.strip().strip("[]()").strip()
        value = [part.strip() for part in inside.rstrip(",").split(",")] if inside else []
    if not isinstance(value, (list, tuple)):
        raise place.error(f"should be a list, not {_show(value)}")
    if options[-1] is Ellipsis:
        options = (options[0],) * len(value)
    if len(value) != len(options):
        raise place.error(f"should be {len(options)} values, not {len(value)}")
    return tuple(_value(v, o, place.at(i)) for i, (v, o) in enumerate(zip(value, options)))


def _bool(value: Any) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise ValueError


def _int(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            value = float(value)
    if value != int(value):
        raise ValueError
    return int(value)


def _float(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError
    number = float(value)  # YAML 1.1 reads 1e-4 as text
    if not math.isfinite(number):
        raise ValueError
    return number


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


_SCALARS: dict[Any, Callable[[Any], Any]] = {bool: _bool, int: _int, float: _float, str: _str, Any: lambda v: v}
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text (in quotes)"}


def _show(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
