"""Earlier names of settings, which files, recipes and commands may still use.

The files of an earlier version are not changed: their names are translated when they are read. New files contain the
new names only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

LOG = {"watch": "log"}
SAMPLERS: dict[str | bool, Any] = {"unipc-2": "unipc"}
SPACINGS: dict[str | bool, Any] = {"even-log-snr": "log-snr"}
REMOVED_SAMPLERS = {  # earlier names whose methods are functions alone now: the closest name
    "heun-midpoint": "heun",
    "heun-ralston": "heun",
    "dpm++2m-taylor": "dpm++2m",
    "dpm++3m-released": "dpm++3m",
    "dpm++3s": "dpm++2s",
    "dpm-solver-2": "dpm++2s",
    "dpm-solver-3": "dpm++2s",
    "ncsn": "langevin",
    "ncsn-v2": "langevin",
    "reverse-diffusion": "pc",
    "euler-maruyama": "pc",
    "probability-flow": "ddim",
}

FIELDS: dict[str, dict[str, str]] = {  # dataclass: {earlier name: name}
    "DiffusionConfig": {
        "joined": "concat",
        "joined_factor": "concat_factor",
        "draw": "time_sampler",
        "draw_options": "time_sampler_options",
        "label_dropout": "cond_dropout",
        "drop_each": "cond_dropout_each",
    },
    "UNetConfig": {"joined": "concat_channels"},
    "TrainConfig": LOG,
    "ClassifierConfig": LOG,
    "NoisyClassifierConfig": LOG,
    "ContrastiveConfig": LOG,
    "ModelCard": {"grid": "spacing", "latents": "codec"},
    "ValueRange": {"untold": "null"},
    "EvaluateConfig": {"judge": "evaluator"},
    "Request": {"grid": "spacing", "threshold": "dynamic_threshold"},
}
VALUES: dict[tuple[str, str], dict[str | bool, Any]] = {  # (dataclass, field): {earlier value: value}
    ("DiffusionConfig", "concat"): {"small": "low_res"},
    ("ModelCard", "sampler"): SAMPLERS,
    ("ModelCard", "spacing"): SPACINGS,
    ("Request", "sampler"): SAMPLERS,
    ("ModelCard", "codec"): {False: {"kind": "pixels"}, True: {"kind": "latents"}},
    ("Request", "spacing"): SPACINGS,
}


def written(kind: str, data: Mapping[str, Any]) -> dict[str, str]:
    """The keys of `data`, which belongs to the dataclass called `kind`, by today's names: {"concat": "joined"}.

    A key that is given under both names keeps both.
    """
    names = FIELDS.get(kind, {})
    return {names[name] if name in names and names[name] not in data else name: name for name in data}


def upgrade(kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """`data`, which belongs to the dataclass called `kind`, with today's names and values."""
    found = {name: data[old] for name, old in written(kind, data).items()}
    for name, value in found.items():
        values = VALUES.get((kind, name), {})
        found[name] = values.get(value, value) if isinstance(value, str | bool) else value
    return found


def candidates(key: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The dotted names that `key` may stand for if parts of it are earlier names, without `key` itself."""
    options = [[part, *dict.fromkeys(names[part] for names in FIELDS.values() if part in names)] for part in key]
    for found in product(*options):
        if found != key:
            yield found
