"""Settings in the config.json of another library: names and values are checked before a network is built from them.

Every error begins with `where`, the file, and names the setting.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from unnoise.errors import UserError, unknown

LEVELS, LAYERS, WIDTH = 16, 64, 2**17  # larger numbers are mistakes, which are found before memory is allocated
AVERAGING = {  # of diffusers' EMAModel, which writes its settings into the config.json of the network that it averages
    *("decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step", "use_ema_warmup"),
}
INVISIBLE = {  # settings that change the output of a network and no tensor's shape, and that every published file has
    *("act_fn", "attention_head_dim", "center_input_sample", "controlnet_conditioning_channel_order"),
    *("downsample_padding", "flip_sin_to_cos", "freq_shift", "mid_block_scale_factor", "norm_eps", "norm_num_groups"),
    "scaling_factor",
}


def of_class(given: Mapping[str, Any], known: Collection[str], kind: str, where: str) -> dict[str, Any]:
    """The settings of the class `kind`, without private ones and those of averaging, which change no network.

    Raises UserError for the first setting that the class does not have.
    """
    settings = {key: value for key, value in given.items() if not key.startswith("_") and key not in AVERAGING}
    for key in settings:
        if key not in known:
            raise UserError(f"{where}: {unknown(f'setting of {kind}', key, known)}")
    return settings


def assumed(given: Mapping[str, Any], defaults: Mapping[str, Any], kind: str, where: str) -> list[str]:
    """A note with the settings in INVISIBLE that a file lacks, and their defaults; empty if it has all."""
    lacking = [f"{key} {defaults[key]!r}" for key in sorted(INVISIBLE & defaults.keys() - given.keys())]
    return [f"{where} lacks settings; those of {kind} by default are assumed: {', '.join(lacking)}"] if lacking else []


def check_values(data: Mapping[str, Any], supported: Mapping[str, tuple[Any, ...]], where: str) -> None:
    """Raises UserError for the first setting whose value is not among those supported. True is not 1."""
    for key, values in supported.items():
        if key in data and not any(
            data[key] == v and isinstance(data[key], bool) == isinstance(v, bool) for v in values
        ):
            raise unsupported(where, key, data[key], " or ".join(map(repr, values)))


def size(data: Mapping[str, Any], where: str) -> int | tuple[int, int]:
    """The sample_size: a whole number, or a list of height and width, which is one number where both are equal."""
    size = data["sample_size"]
    if size is None:
        raise UserError(f"{where}: sample_size is missing, so the size of a sample is unknown: add it, in pixels")
    if not isinstance(size, list | tuple):
        return whole(data, "sample_size", where, most=WIDTH)
    if len(size) != 2:
        raise unsupported(where, "sample_size", size, "a whole number, or height and width,")
    height, width = list_of_whole(data, "sample_size", where, most=WIDTH, length=2)
    return height if height == width else (height, width)


def whole(data: Mapping[str, Any], key: str, where: str, most: int) -> int:
    """A whole number from 1 to `most`."""
    value = data[key]
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise unsupported(where, key, value, f"a whole number from 1 to {most:,}")
    return value


def list_of_whole(data: Mapping[str, Any], key: str, where: str, *, most: int, length: int) -> list[int]:
    """A list of at most `length` whole numbers from 1 to `most`."""
    values = data[key]
    if not isinstance(values, list | tuple) or not 1 <= len(values) <= length:
        raise unsupported(where, key, values, f"a list of 1 to {length} whole numbers")
    return [whole({key: value}, key, where, most) for value in values]


def one_or_each(data: Mapping[str, Any], key: str, levels: int, where: str) -> int | tuple[int, ...]:
    """A whole number, or one for each level."""
    if not isinstance(data[key], list | tuple):
        return whole(data, key, where, most=WIDTH)
    numbers = list_of_whole(data, key, where, most=WIDTH, length=LEVELS)
    if len(numbers) != levels:
        raise unsupported(where, key, data[key], f"a number, or one for each of the {levels} block_out_channels,")
    return tuple(numbers)


def one_for_all(data: Mapping[str, Any], key: str, levels: int, where: str, *, most: int) -> int:
    """A whole number from 1 to `most` that is the same for all levels."""
    number = one_or_each(data, key, levels, where)
    if isinstance(number, tuple):
        if len(set(number)) > 1:
            raise unsupported(where, key, data[key], "one number for all levels")
        number = number[0]
    if number > most:
        raise unsupported(where, key, number, f"a whole number from 1 to {most:,}")
    return number


def real(data: Mapping[str, Any], key: str, where: str) -> float:
    """A number."""
    value = data[key]
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise unsupported(where, key, value, "a number")
    return float(value)


def numbers(data: Mapping[str, Any], key: str, where: str, *, length: int) -> tuple[float, ...]:
    """A list of `length` numbers; empty for null."""
    values = data[key]
    if values is None:
        return ()
    if not isinstance(values, list | tuple) or len(values) != length:
        raise unsupported(where, key, values, f"a list of {length} numbers")
    return tuple(real({key: value}, key, where) for value in values)


def unsupported(where: str, key: str, value: object, supported: str) -> UserError:
    """The error for a value that is not among those supported."""
    return UserError(f"{where}: {key} is {repr(value)[:80]}: only {supported} is supported")


def missing(where: str, key: str) -> UserError:
    """The error for a setting that is missing and that no shape of a tensor determines."""
    return UserError(
        f"{where}: {key} is missing, and no tensor's shape determines it: copy the file that belongs to the weights"
    )


def block_attention(
    data: Mapping[str, Any], key: str, kinds: Mapping[str, bool], levels: int, where: str
) -> tuple[bool, ...]:
    """Whether each block has attention. Raises UserError for a block type that is not supported."""
    names = data[key]
    if not isinstance(names, list | tuple) or len(names) != levels:
        raise unsupported(where, key, names, f"a block type for each of the {levels} block_out_channels")
    for name in names:
        if name not in kinds:
            raise unsupported(where, key, name, " or ".join(kinds))
    return tuple(kinds[name] for name in names)
