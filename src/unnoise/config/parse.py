"""Plain values, from a file or a command line, as the types of a dataclass.

    parse("1e-4", float, place)             0.0001
    parse("1,2,3", tuple[int, ...], place)  (1, 2, 3)
    record(Fit, {"lr": 1e-4}, place, None)  Fit(lr=1e-4)

The annotations alone decide what is built; no name in a file chooses a class, except `kind` among those of a union.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from unnoise import errors
from unnoise.config import limits, renamed
from unnoise.config.place import Place
from unnoise.config.yaml_text import parse_yaml
from unnoise.errors import UserError


def record(cls: Any, data: Any, place: Place, base: Any) -> Any:
    """An instance of a dataclass with the fields that `data` has; the others come from `base`, or are the defaults.

    Earlier names of fields are translated. Raises UserError for an unknown name, and for a value of another type or out
    of the range in config/limits.py.
    """
    if not isinstance(data, Mapping):
        raise _no_group(data, place)
    hints = get_type_hints(cls)
    written = renamed.written(cls.__name__, data)
    data = renamed.upgrade(cls.__name__, data)
    for name in data:
        if name not in hints:
            raise place.at(name).error(str(errors.unknown("setting", name, hints)))
    base = base if isinstance(base, cls) else None
    given = {}
    for f in dataclasses.fields(cls):
        old = getattr(base, f.name) if base is not None else None
        if f.name in data:
            at = place.at(f.name, written[f.name])
            given[f.name] = parse(data[f.name], hints[f.name], at, old)
            limits.check(cls.__name__, f.name, given[f.name], at)
        elif base is not None:
            given[f.name] = old
    return cls(**given)


def parse(value: Any, hint: Any, place: Place, base: Any = None) -> Any:
    """`value` as the type of the annotation `hint`. Raises UserError if it is of another type."""
    origin, options = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        return record(hint, value, place, base)
    if origin in (Union, types.UnionType):
        return _union(value, hint, place, base)
    if origin is Literal:
        if value not in options:
            raise place.error(str(errors.unknown(place.key[-1], value, map(str, options))))
        return value
    if origin is tuple:
        return _tuple(value, options, place)
    if origin is dict:
        table = parse_yaml(value, place.name) if isinstance(value, str) else value
        if not isinstance(table, Mapping):
            raise _no_group(value, place)
        return {str(k): parse(v, options[1], place.at(k)) for k, v in table.items()}
    try:
        return _SCALARS[hint](value)
    except (ValueError, TypeError, OverflowError):
        raise place.error(f"should be {_NAMES[hint]}, not {_shown(value)}") from None


def kinds(hint: Any) -> dict[str, Any]:
    """The dataclasses of a union by the default of their field `kind`: {"unet": UNetConfig, "dit": DiTConfig}.

    A dataclass without that field, as in `TextConfig | None`, has the key "".
    """
    options = [o for o in get_args(hint) if dataclasses.is_dataclass(o)]
    return {str(next((f.default for f in dataclasses.fields(o) if f.name == "kind"), "")): o for o in options}


def _union(value: Any, hint: Any, place: Place, base: Any) -> Any:
    options = get_args(hint)
    if types.NoneType in options:
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null", "")):
            return None
        options = tuple(o for o in options if o is not types.NoneType)
    known = kinds(hint)
    if not known:
        return _first(value, options, place, base)
    if not isinstance(value, Mapping):
        raise _no_group(value, place)
    kind = value.get("kind", getattr(base, "kind", next(iter(known))))
    if kind not in known:
        raise place.at("kind").error(str(errors.unknown("kind", kind, known)))
    return record(known[kind], value, place, base)


def _first(value: Any, options: tuple[Any, ...], place: Place, base: Any) -> Any:
    """A list if the value is one and a list is allowed; otherwise the first type of the union that accepts it."""
    listed = isinstance(value, (list, tuple)) or (isinstance(value, str) and "," in value)
    options = tuple(o for o in options if (get_origin(o) is tuple) == listed) or options
    for option in options[:-1]:
        try:
            return parse(value, option, place, base)
        except UserError:
            continue
    return parse(value, options[-1], place, base)


def _tuple(value: Any, options: tuple[Any, ...], place: Place) -> tuple[Any, ...]:
    if isinstance(value, str):
        inside = value.strip().strip("[]()").strip()
        value = [part.strip() for part in inside.rstrip(",").split(",")] if inside else []
    if not isinstance(value, (list, tuple)):
        raise place.error(f"should be a list, not {_shown(value)}")
    if options[-1] is Ellipsis:
        options = (options[0],) * len(value)
    if len(value) != len(options):
        raise place.error(f"should be {len(options)} values, not {len(value)}")
    return tuple(parse(v, o, place.at(i)) for i, (v, o) in enumerate(zip(value, options)))


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
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text (in quotes)"}


def _no_group(value: Any, place: Place) -> UserError:
    return place.error(f"should be a group of `key: value`, not {_shown(value)}")


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value, default=str, ensure_ascii=False)
    except (ValueError, TypeError):  # a number of more than 4,300 digits; keys that are no text
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 60 else text[:57] + "..."
