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

import dataclasses
import difflib
import json
import math
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml  # type: ignore[import-untyped]

from unnoise import errors
from unnoise.errors import UserError
from unnoise.settings import Fit, NoisyClassifierConfig, Process, TrainConfig, UNetConfig, Watch

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


def dumps(config: Any) -> str:
    """YAML, in the order of the fields."""
    return cast(str, yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True, width=120))


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


def load(path: str | Path, cls: type[T], *, base: T | None = None) -> T:
    """The configuration in a YAML file (JSON is YAML)."""
    data, lines = read(path)
    return from_dict(cls, data, str(path), base=base, lines=lines)


def read(path: str | Path) -> tuple[dict[str, Any], dict[Key, int]]:
    """What a YAML file says, and the line of every key. A key given twice is an error."""
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
        raise UserError(f"{path}: a configuration is a list of `key: value`, not {type(data).__name__}")
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


# -------------------------------------------------------------------------------------------------- ranges


def check(config: TrainConfig | NoisyClassifierConfig) -> None:
    """Raise one UserError that lists every number out of its range; nothing here needs torch or the data."""
    wrong = [*_wrong_fit(config.fit), *_wrong_watch(config.watch), *_wrong_process(config.process)]
    net, data = config.net, config.data
    wrong += _at_least({"data.size": data.size, "net.size": net.size, "data.channels": data.channels}, 1)
    wrong += _at_least({"net.classes": net.classes, "data.workers": data.workers}, 0)
    if data.size != net.size:
        wrong.append(f"net.size {net.size} should be data.size {data.size}: the network is for these pictures")
    if net.in_channels != data.channels:
        wrong.append(f"net.in_channels {net.in_channels} should be data.channels {data.channels}")
    outputs = data.channels * (2 if config.process.learned_variance else 1)
    if net.out_channels != outputs:
        reason = "twice the picture's, for the variance is learned" if outputs != data.channels else "the picture's"
        wrong.append(f"net.out_channels {net.out_channels} should be {outputs}, {reason}")
    if net.classes and not net.null_class and (config.process.label_dropout or config.process.drop_each):
        wrong.append("process.label_dropout needs net.null_class, the row that is told; or set it to 0")
    if isinstance(config, TrainConfig):
        if config.encoder is not None and net.text is not None:
            wrong.append("net.text and encoder both read captions: set one of them to none")
        if (net.text or config.encoder) and net.classes and not net.null_class:
            wrong.append("net.null_class should be true: beside words, pictures are drawn without a class too")
        if net.context and net.text is None and config.encoder is None:
            wrong.append("net.context hears words that nobody reads: set net.text, or encoder.path")
        wrong += _wrong_told(config)
    controls = len(net.controls) if isinstance(net, UNetConfig) else 0
    if bool(controls) != bool(data.control):
        wrong.append("net.controls and data.control belong together: networks for drawings, and the drawings")
    if controls > 1:
        wrong.append(f"net.controls has {controls} networks; they are trained one at a time")
    if controls and net.dropout:
        wrong.append("net.dropout should be 0 beside controls: the base stays as it is")
    if wrong:
        raise UserError("this training cannot start:\n  " + "\n  ".join(wrong))


def check_base(config: TrainConfig) -> None:
    """Raises UserError for controls without a model to be beside."""
    if isinstance(config.net, UNetConfig) and config.net.controls and not config.base:
        raise UserError("controls are trained beside a model that stays as it is: name it, --set base=runs/...")


def joined_channels(process: Process, channels: int) -> int:
    """How many channels are joined to x_t, beside pictures of `channels`: see joined.py."""
    return {"": 0, "small": channels, "masked": channels + 1}[process.joined]


def _wrong_told(config: TrainConfig) -> Iterator[str]:
    """Numbers and joined pictures: the network has to be one that takes them."""
    net, process, names = config.net, config.process, config.data.values
    joined = joined_channels(process, config.data.channels)
    if not isinstance(net, UNetConfig):
        if names or joined:
            yield f"data.values and process.joined are told to a U-Net, not to a {net.kind}: set net.kind=unet"
        return
    if net.values != len(names):
        listed = f" ({', '.join(names)})" if names else ", which names none"
        yield f"net.values {net.values} should be {len(names)}, the number of data.values{listed}"
    if names and not net.null_value and (process.label_dropout or process.drop_each):
        yield "process.label_dropout needs net.null_value, what is said where a number is not told; or set it to 0"
    if net.joined != joined:
        why = f"the channels of process.joined {process.joined!r}" if joined else "process.joined says nothing"
        yield f"net.joined {net.joined} should be {joined}: {why}"
    if process.joined == "small" and (process.joined_factor < 2 or config.data.size % process.joined_factor):
        size = config.data.size
        yield f"process.joined_factor {process.joined_factor} should be 2 or more, and divide data.size {size}"


def _wrong_fit(fit: Fit) -> Iterator[str]:
    yield from _at_least({"fit.images": fit.images, "fit.batch": fit.batch, "fit.accumulate": fit.accumulate}, 1)
    yield from _at_least({"fit.warmup": fit.warmup, "fit.max_skips": fit.max_skips, "fit.seed": fit.seed}, 0)
    yield from _at_least({"fit.weight_decay": fit.weight_decay}, 0)
    if fit.fsdp and fit.optimizer == "muon":
        yield "fit.fsdp holds matrices in parts, and fit.optimizer muon needs them whole: set it to adamw"
    if fit.batch % max(1, fit.accumulate):
        yield f"fit.batch {fit.batch} should be a multiple of fit.accumulate {fit.accumulate}"
    above = {"fit.lr": fit.lr, "fit.eps": fit.eps, "fit.clip": fit.clip, "fit.ema_rampup": fit.ema_rampup}
    for name, value in above.items():
        if value is not None and value <= 0:
            yield f"{name} {value} should be above 0"
    if not all(0 <= b < 1 for b in fit.betas):
        yield f"fit.betas {fit.betas} should be in [0, 1)"
    if any(h < 1 for h in fit.ema) or len(set(fit.ema)) != len(fit.ema):
        yield f"fit.ema {fit.ema} should be different half-lives, in pictures"
    if not fit.ema:
        yield "fit.ema is empty: name at least one half-life, in pictures; a model is drawn from its average"


def _wrong_watch(watch: Watch) -> Iterator[str]:
    yield from _at_least({"watch.log_every": watch.log_every, "watch.keep": watch.keep}, 1)
    yield from _at_least({"watch.grid_every": watch.grid_every}, 0)
    yield from _at_least({"watch.grid_labels": watch.grid_labels, "watch.grid_rows": watch.grid_rows}, 1)
    yield from _at_least({"watch.grid_steps": watch.grid_steps}, 1)
    if watch.checkpoint_every <= 0:
        yield f"watch.checkpoint_every {watch.checkpoint_every} should be above 0 seconds"
    if watch.checkpoint_steps is not None and watch.checkpoint_steps < 1:
        yield f"watch.checkpoint_steps {watch.checkpoint_steps} should be 1 or more, or none"


def _wrong_process(process: Process) -> Iterator[str]:
    for name in ("label_dropout", "drop_each"):
        if not 0 <= getattr(process, name) <= 1:
            yield f"process.{name} {getattr(process, name)} should be a share, in [0, 1]"


def _at_least(values: Mapping[str, float], least: int) -> list[str]:
    return [f"{name} {value} should be {least} or more" for name, value in values.items() if value < least]
