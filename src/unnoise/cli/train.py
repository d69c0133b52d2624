"""`unnoise train`: starts a training; the same command resumes it."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

from unnoise.cli.console import DONE, asking, emit, say, show
from unnoise.cli.options import flag, option
from unnoise.cli.paths import existing, writable
from unnoise.cli.train_progress import (
    announce,
    check_room,
    encode_with_progress,
    removed_if_empty,
    train_with_progress,
)
from unnoise.cli.train_report import dry_run_text, next_steps, outcome
from unnoise.cli.train_settings import check_pictures, preset_help, settings_from_options
from unnoise.config.training import AnyConfig
from unnoise.recipes.registry import recipe_of
from unnoise.recipes.settings import Settings, dry_run_facts, with_classes


def train(
    what: Annotated[str, option(preset_help())],
    /,
    *,
    data: Annotated[str | None, option("the pictures: a folder, a file, or a set that comes with the package")] = None,
    set: Annotated[
        tuple[str, ...],
        option("key=value: replaces a setting, for example fit.lr=1e-4, or lr=1e-4, as no other setting ends in lr"),
    ] = (),
    out: Annotated[Path, option("the folder of runs", "--outdir")] = Path("runs"),
    name: Annotated[str | None, option("the run's name, instead of the preset's")] = None,
    resume: Annotated[
        str,
        option("auto: resume the newest run with these settings; never; or a run: its path, its name or its number"),
    ] = "auto",
    device: Annotated[str | None, option("auto, cpu, cuda, cuda:1, mps")] = None,
    dry_run: Annotated[
        bool, flag("show the settings, their origins, the cost and the data; start nothing", "-n")
    ] = False,
    json: Annotated[bool, flag("one JSON document on stdout at the end")] = False,
) -> int:
    """Train a diffusion model, or a classifier, on your pictures. The same command resumes where it stopped.

    Ctrl-C or SIGTERM finishes the step, writes a checkpoint and exits with 130 or 143; a second one exits at once.
    Under torchrun the batch is split over the processes.
    """
    what, resume = (named_run(text, out) for text in (what, resume))
    settings = settings_from_options(what, data=data, sets=set, device=device, name=name)
    with asking():
        check_pictures(what, settings, data)
        if resume not in ("auto", "never"):
            existing(Path(resume) / "config.yaml", "run's configuration")
    writable(out, "runs", folder=True)
    if Path(settings.config.data.path).exists() and os.environ.get("RANK", "0") == "0":
        say(f"reading {settings.config.data.path} ...")  # a million files take minutes
    settings = ready(settings)
    config = settings.config
    if dry_run:
        with asking():
            run = Path(what) if (Path(what) / "config.yaml").is_file() else out / "new"
            document = dry_run_facts(settings, run)
            check_room(document, run, config.log.keep)
        emit(document) if json else show(dry_run_text(document))
        return DONE
    path, code = run_training(config, out, resume, Path(what), device)
    if path is not None:
        report = outcome(path, config) | {"exit_code": code}
        emit(report) if json else show(str(path))
        say(next_steps(path, config) if code == DONE else "saved; the same command resumes")
    return code


def named_run(text: str, out: Path) -> str:
    """Returns the path of the run in `out` with this name or number; the text itself for anything else."""
    from unnoise.config.presets import ALL
    from unnoise.training.run import find

    if text in ALL or text in ("auto", "never") or Path(text).exists():
        return text
    return str(find(out, text) or text)


def ready(settings: Settings) -> Settings:
    """Returns the settings with the data's classes. Raises UsageError for what is wrong or missing."""
    from unnoise.data.registry import find

    recipe = recipe_of(settings.config)
    with asking():
        recipe.check_names(settings.config)
        recipe.check_start(settings.config)
        return with_classes(settings, len(find(settings.config.data.path).classes))


def run_training(
    config: AnyConfig, out: Path, resume: str, source: Path, device: str | None
) -> tuple[Path | None, int]:
    """Trains; returns the run's directory, in the first process alone, and the exit code."""
    from unnoise import data
    from unnoise.acceleration.placement import best
    from unnoise.training.distributed import processes

    with asking():
        where = best(device or config.device).device
    with ExitStack() as stack:
        with asking():
            together = stack.enter_context(processes(os.environ, where))
        with asking(), together.together():
            pictures = data.open(config.data)
            path = run_directory(out, config, resume, source) if together.first else out
            if together.first:
                with removed_if_empty(path):
                    recipe_of(config).check_data(config, pictures, path)
                    announce(config, path, together.world)
        path = Path(together.broadcast(str(path)))
        with asking(), removed_if_empty(path):
            encode_with_progress(config, path, together, pictures)
        code = train_with_progress(config, path, together, pictures=pictures)
    return path if together.first else None, code


def run_directory(out: Path, config: AnyConfig, resume: str, source: Path) -> Path:
    """Returns the directory of the run: a given one, the newest with these settings, or a new one."""
    from unnoise.training import run

    if resume not in ("auto", "never"):
        return Path(resume)
    if resume == "auto" and (source / "config.yaml").is_file():
        return source
    return run.choose(out, config, resume=resume == "auto")
