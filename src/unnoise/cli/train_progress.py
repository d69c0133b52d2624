"""What `unnoise train` prints while it trains: what it will cost, and a progress bar."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unnoise.cli.console import DONE, say, started
from unnoise.cli.progress import Progress
from unnoise.config.training import AnyConfig
from unnoise.errors import UserError
from unnoise.io.units import duration, human
from unnoise.recipes.registry import recipe_of

if TYPE_CHECKING:
    from unnoise.data import Dataset
    from unnoise.training.distributed import Processes


@contextmanager
def removed_if_empty(path: Path) -> Iterator[None]:
    """Removes the new directory of a run that is refused or interrupted before anything is written to it."""
    try:
        yield
    except (UserError, KeyboardInterrupt):
        with suppress(OSError):  # the directory is not empty
            path.rmdir()
        raise


def train_with_progress(
    config: AnyConfig, path: Path, processes: Processes, *, silent: bool = False, pictures: Dataset | None = None
) -> int:
    """Trains in `path` to the end, or to a signal, with a progress bar; returns the exit code.

    `pictures` is the data set where it is open already. Raises UsageError where the training cannot start, and then
    leaves no empty directory.
    """
    from unnoise.io import checkpoint
    from unnoise.training.loop import steps
    from unnoise.training.signals import Stopped

    total, start = steps(config.fit), next(iter(checkpoint.steps(path / "checkpoints")), 0)  # verified when loaded
    bar = Progress(total, "training", start=start, every=config.log.log_every, silent=silent or not processes.first)
    loss = rate = 0.0
    ticks = recipe_of(config).train(config, path, processes, sys.argv, pictures)
    with bar, removed_if_empty(path):
        try:
            for count, tick in enumerate(started(ticks), start=1):
                keep = min(0.98, 1 - 1 / count)  # a mean over the first steps, then over about the last 50
                loss, rate = keep * loss + (1 - keep) * tick.loss, keep * rate + (1 - keep) * tick.rate
                bar.step(tick.step, f"{human(tick.images)} pictures, loss {loss:.4f}, {rate:.0f} pictures/s")
                if any(what in tick.event for what in ("not saved", "skipped", "cannot be written")):
                    bar.say(f"step {tick.step}: {tick.event}")
        except Stopped as stopped:
            bar.say(f"{signal.Signals(stopped.number).name}: stopped after a checkpoint")
            return 128 + stopped.number
    return DONE


def announce(config: AnyConfig, path: Path, world: int) -> None:
    """Prints where the training writes, how far it is and, before its first step, what it will cost."""
    from unnoise.training import run as runs
    from unnoise.training.loop import steps

    at = runs.status(path) if (path / "config.yaml").is_file() else {"step": 0, "images": 0}
    total = steps(config.fit)
    if at["step"] >= total:
        say(f"{path} is finished already: {at['images']:,} pictures. Train longer with --set fit.images=...")
    elif at["step"]:
        say(f"{path} resumes at step {at['step']:,} of {total:,}")
    else:
        expected = recipe_of(config).expected(config, world)
        check_room(expected, path, config.log.keep)
        base = expected.get("base")
        say(f"{path} begins with {base}" if base else f"{path} begins")
        if "cost" in expected:
            say(cost_text(expected["cost"], world))
        if "latents" in expected:
            say(f"latents: {latents_text(expected['latents'], expected['cost'])}")


def encode_with_progress(config: AnyConfig, path: Path, processes: Processes, pictures: Dataset) -> None:
    """Encodes the pictures of a training in latents into files, unless that is done, with a progress bar.

    Prints before it how many pictures, and how many bytes. Raises UserError where the files cannot be written.
    """
    store = recipe_of(config).latents(config, path, processes, pictures)
    if store is None:
        return
    with processes.together():
        filling = store.fill(processes.rank, processes.world)
        _, total = next(filling)
        if total and processes.first:
            needed = store.bytes // len(pictures) * total
            say(f"encodes {total:,} pictures once, into {store.folder}: {human(needed)}B")
        with Progress(total, "encoding", unit="picture", silent=not (total and processes.first)) as bar:
            for done, _ in filling:
                bar.step(done)


def latents_text(found: Mapping[str, Any], cost: Mapping[str, Any]) -> str:
    """Returns the size of x in latents, and what the same network would cost in pixels, in a sentence."""
    pixels = found["in_pixels"]
    times = pixels["flops"] / cost["flops"]
    stored = "at every step" if found["stored"] is None else f"once, {human(found['stored'])}B a picture on disk"
    return (
        f"{_sides(found['shape'])} of {found['autoencoder']}, {found['compression']:.3g} times fewer numbers than a "
        f"{_sides(found['picture'])} picture; the same network in pixels would cost {times:.3g} times the operations "
        f"({human(pixels['flops'])}FLOP a picture) and {human(pixels['memory'])}B of memory; pictures are encoded "
        f"{stored}"
    )


def _sides(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[2]}x{shape[0]}"


def check_room(expected: Mapping[str, Any], folder: Path, keep: int) -> None:
    """Raises UserError where a disk has no room for the checkpoints of a training with the expected cost."""
    if "cost" not in expected:
        return
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free, needed = shutil.disk_usage(existing).free, (keep + 1) * expected["cost"]["checkpoint"]
    if free < needed:
        raise UserError(
            f"{folder}: {keep} checkpoints and the next one need {human(needed)}B, and {human(free)}B are free there: "
            "free some, keep fewer with --set log.keep=1, or choose another disk with --out"
        )


def cost_text(cost: Mapping[str, Any], processes: int = 1) -> str:
    """Returns the cost of a training in a sentence."""
    rate, seconds = processes * cost["images_per_second"], cost["seconds"] / processes
    return (
        f"{human(cost['parameters'])} parameters, {human(cost['flops'])}FLOP a picture (three times that to train), "
        f"{human(cost['memory'])}B of memory, {human(cost['checkpoint'])}B a checkpoint, "
        f"{human(cost['images'])} pictures in {cost['steps']:,} steps; "
        f"about {rate:.3g} pictures a second on {cost['device']} in {cost['precision']}: {duration(seconds)}"
    )
