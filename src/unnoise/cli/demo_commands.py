"""The commands that the demo's report ends with."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from unnoise.config.training import TrainConfig


def next_commands(run: Path, config: TrainConfig, classes: Sequence[str], *, own: bool) -> list[tuple[str, str]]:
    """Returns commands to continue with, and what each is for; `own`: the pictures are a user's."""
    program = "unnoise" if Path(sys.argv[0]).name != "unnoise" else sys.argv[0]
    again = [program, "train", config.name]
    if own:
        again += ["--data", config.data.path]
    longer = shlex.join([*again, "--set", f"fit.images={10 * config.fit.images}"])
    try_own = f"{program} demo --data ./pictures --out my-demo"
    commands = [
        ("Sample sixty-four pictures:", f"{program} sample {run} --seeds 0-63 --grid grid.png"),
        ("Show how a picture was made:", f"{program} info {run.parent / 'grid.png'}"),
        ("Train ten times as long:", longer),
    ]
    if classes:
        line = f"{program} sample {run} --seeds 0-7 --labels all --guidance 2 --animation walk.gif"
        commands.insert(1, ("Stronger classes, with guidance, and the sampling steps as an animation:", line))
    if not own:
        commands.append(("Inspect pictures of your own, and train on them:", f"{program} data ./pictures\n{try_own}"))
        commands.append(("Measure with more pictures:", f"{program} evaluate {run} --count 10000"))
    return commands
