"""The settings of a training and where each comes from: a preset or a file, then what the data implies, then overrides.

settings = resolve("fashion", {"--set": {"lr": "1e-4"}})
settings.config.fit.lr, settings.origins["fit.lr"]          # 0.0001, "--set"
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unnoise.config import convert, files
from unnoise.config.presets import ALL
from unnoise.config.training import AnyConfig
from unnoise.errors import UserError, unknown
from unnoise.io.whatis import not_a
from unnoise.recipes.registry import RECIPES, recipe_of


@dataclass(frozen=True)
class Settings:
    """The configuration of a training, and the origin of every value."""

    config: AnyConfig
    origins: Mapping[str, str]  # dotted name: "default", "preset fashion", "my.yaml:12", "--set", ...

    def explicit(self, name: str) -> bool:
        """Whether a user set this value, in a file or by an option, rather than a preset or a default."""
        origin = self.origins.get(name, "")
        return origin.startswith("--") or ":" in origin

    def override(self, values: Mapping[str, Any], origin: str) -> Settings:
        """Returns the settings with some values replaced, which come from `origin`."""
        new = convert.override(self.config, values, origin)
        changed = convert.differences(self.config, new)
        remaining = {name: where for name, where in self.origins.items() if name in convert.flat(new)}
        return Settings(new, remaining | dict.fromkeys(changed.keys() & convert.flat(new).keys(), origin))


def resolve(source: str, overrides: Mapping[str, Mapping[str, Any]]) -> Settings:
    """Returns the settings of a preset, a file or a run, with overrides by their origin, and what the data implies.

    Raises UserError for a source that does not exist, and for settings that are wrong.
    """
    settings = load(source)
    for origin, values in overrides.items():
        settings = settings.override(values, origin)
    settings = with_implied(settings)
    recipe_of(settings.config).check(settings.config)
    return settings


def load(source: str) -> Settings:
    """Returns the settings of a preset's name, of a configuration file, or of a run."""
    if source in ALL:
        preset = ALL[source]()
        return Settings(preset, origins(preset, f"preset {source}"))
    path = Path(source)
    if path.is_dir():
        if not (path / "config.yaml").is_file():
            raise not_a("a preset or a run", path)
        path = path / "config.yaml"
    if path.is_file():
        return from_file(path)
    raise UserError(f"{unknown('preset', source, ALL)}; a configuration file ends in .yaml")


def from_file(path: Path) -> Settings:
    """Returns the settings of a file. Its keys decide which kind of training it is."""
    data, lines = files.read(path)
    kind = _kind(data.keys())
    config = convert.from_dict(kind, data, str(path), lines=lines)
    found = dict.fromkeys(convert.flat(config), "default")
    found |= {name: f"{path}:{line}" for key, line in lines.items() if (name := ".".join(key)) in found}
    return Settings(config, found)


def _kind(keys: Set[str]) -> type[AnyConfig]:
    """The kind of training with most of these keys; among equals, the one that has no others, or the first."""

    def fit(kind: type[AnyConfig]) -> tuple[int, bool]:
        fields = {field.name for field in dataclasses.fields(kind)}
        return len(keys & fields), fields <= keys

    return max((recipe.config for recipe in RECIPES.values()), key=fit)


def origins(config: AnyConfig, origin: str) -> dict[str, str]:
    """Returns `origin` for every value that differs from the dataclass's own default."""
    plain = convert.flat(type(config)())
    return {
        name: "default" if name in plain and plain[name] == value else origin
        for name, value in convert.flat(config).items()
    }


def with_implied(settings: Settings) -> Settings:
    """Returns the settings with the network's inputs and outputs as the data's, where a user did not set them."""
    flat = convert.flat(settings.config)
    for name, (source, value) in recipe_of(settings.config).implied(settings.config).items():
        if not settings.explicit(name) and flat[name] != value:
            settings = settings.override({name: value}, f"as {source}")
    return settings


def with_classes(settings: Settings, classes: int) -> Settings:
    """Returns the settings with the data's number of classes, where a user did not set it and no text replaces them."""
    recipe = recipe_of(settings.config)
    if not recipe.has_classes(settings.config) or settings.explicit("net.classes"):
        return settings
    if convert.flat(settings.config)["net.classes"] == classes:
        return settings
    return settings.override({"net.classes": classes}, f"the data ({classes} classes)")


def dry_run_facts(settings: Settings, run: Path) -> dict[str, Any]:
    """Returns settings, origins, a description of the data and the cost, as a JSON document; nothing is written.

    Raises UserError for all that the training in `run`, which may not exist yet, would refuse.
    """
    from unnoise import data
    from unnoise.data.summary import describe

    recipe = recipe_of(settings.config)
    pictures = data.open(settings.config.data)
    recipe.check_data(settings.config, pictures, run)
    document: dict[str, Any] = {
        "settings": convert.to_dict(settings.config),
        "origins": dict(settings.origins),
        "data": describe(pictures),
    }
    expected = recipe.expected(settings.config, 1)
    return document | {name: expected[name] for name in ("cost", "latents") if name in expected}
