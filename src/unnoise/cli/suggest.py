"""What to type instead of a command or an option that does not exist, but that has a name in other programs."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from typing import Any

from unnoise.cli.console import UsageError
from unnoise.config import convert
from unnoise.config.presets import ALL
from unnoise.config.synonyms import ARGUMENTS, COMMANDS, OPTIONS, SETTINGS, SIZE, meaning
from unnoise.errors import unknown

SEEDS = ("--seeds", "--seed")


def no_command(word: str, commands: Collection[str]) -> UsageError:
    """The error for a command that does not exist."""
    if word in ALL:
        return UsageError(f"no command {word!r}; it is a preset: unnoise train {word}")
    meant = meaning(word, COMMANDS)
    return UsageError(str(unknown("command", word, commands, meant=f"`{meant}`" if meant else "")))


def option_instead(command: str, words: list[str], keyword: str, options: Collection[str]) -> str:
    """What to write instead of the unknown option `keyword` in the `words` of a command; "" if nothing is known.

    `options` are those of the command.
    """
    option = keyword.partition("=")[0]
    name, value = option.lstrip("-"), value_of(option, words)
    if command == "train" and (text := setting_instead(name, value, words[0])):
        return f"no option {option}; it is a setting: write {text}"
    for meant in meaning(name, OPTIONS) or ():
        if meant in options:
            return (
                f"no option {option}; {written(meant, value, counted=option not in ('--random-seed', '--manual-seed'))}"
            )
    if meaning(name, SIZE) is not None and "--size" in options:
        return f"no option {option}; {written('--size', value, counted=False)}"
    if meaning(name, SIZE) is not None and "--sampler" in options:
        return f"no option {option}: pictures have the size that the model was trained with; remove it"
    if argument := meaning(name, ARGUMENTS):
        return f"no option {option}: {argument} has no option name, write it right after `unnoise {command}`"
    return ""


def value_of(option: str, words: list[str]) -> str:
    """The value of an option in the words of a command, as `--n 4` or `--n=4`; "" for none."""
    for word, following in zip(words, [*words[1:], "-"], strict=True):
        if word.startswith(f"{option}="):
            return word.removeprefix(f"{option}=")
        if word == option:
            return "" if following.startswith("-") else following
    return ""


def written(option: str, value: str, *, counted: bool) -> str:
    """`did you mean --sampler ddim?`; for a number of pictures its seeds."""
    if option == "--resume":
        return "the same command resumes its newest run; --resume runs/00001-name resumes another"
    if option in SEEDS and counted:
        last = int(value) - 1 if value.isdecimal() and 1 < int(value) < 1_000_000 else 3
        return f"each seed gives one picture: for {last + 1} pictures write {option} 0-{last}"
    return f"did you mean {option}{' ' + shlex.quote(value) if value else ''}?"


def setting_instead(name: str, value: str, preset: str) -> str:
    """`--set fit.lr=1e-4`, for the name of a setting here or in other programs; "" for any other."""
    flat: Mapping[str, Any] = convert.flat(ALL.get(preset, ALL["fashion"])())
    wanted = name.replace("-", "_").rsplit(".", 1)[-1]
    key, why = meaning(name, SETTINGS) or (
        next((key for key in flat if key == name or key.rsplit(".", 1)[-1] == wanted), ""),
        "",
    )
    if not key:
        return ""
    example = shlex.quote(value) if value and not why else "..."
    if key == "data.path":
        return ""  # which has an option
    return f"--set {key}={example}" + (f", {why}" if why else "")
