"""`unnoise presets`: list the trainings that come with the package, or show the settings of one."""

from __future__ import annotations

from typing import Annotated

from unnoise.cli.console import UsageError, emit, say, show, table
from unnoise.cli.options import flag, option
from unnoise.config import convert, files
from unnoise.config.presets import ALL
from unnoise.errors import unknown


def presets(
    name: Annotated[str | None, option("show all settings of this preset, as a configuration file")] = None,
    *,
    json: Annotated[bool, flag("one JSON document on stdout")] = False,
) -> None:
    """List the trainings that come with the package, or show all settings of one.

    unnoise presets fashion > my.yaml gives a file to change and train from.
    """
    if name is None:
        about = {key: " ".join((make.__doc__ or "").split("\n\n")[0].split()) for key, make in ALL.items()}
        if json:
            emit(about)
        else:
            show(table(list(about.items()), ragged=True))
            say("\nShow one: unnoise presets NAME. Train: unnoise train NAME [--data PATH] [--set key=value]")
        return
    if name not in ALL:
        raise UsageError(str(unknown("preset", name, ALL)))
    config = ALL[name]()
    if json:
        emit(convert.to_dict(config))
    else:
        show(files.dumps(config).rstrip())
