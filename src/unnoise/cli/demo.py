"""`unnoise demo`: trains, samples and measures, and writes a report with the next commands.

With `--data` the pictures are a user's own, and what is measured is left to `unnoise evaluate`.

    demo/run/        the training          demo/grid.png      ten classes, eight seeds each
    demo/report.html the page              demo/report.json   its numbers

What is done already is not repeated: the training resumes from its checkpoint, and an evaluation is of fixed weights.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from unnoise.cli.console import DONE, UsageError, asking, emit, say, show
from unnoise.cli.demo_pictures import gallery, packaged, sample_classes, save_grid
from unnoise.cli.demo_report import evaluation, numbers
from unnoise.cli.options import flag, option, within
from unnoise.cli.paths import writable
from unnoise.cli.train import ready
from unnoise.cli.train_settings import check_pictures, settings_from_options
from unnoise.config import files
from unnoise.config.training import TrainConfig
from unnoise.recipes.registry import recipe_of

if TYPE_CHECKING:
    from unnoise.data import Dataset

PRESET, OWN = "fashion", "my-pictures"  # the preset without and with pictures of one's own
EARLY = 20_000  # pictures seen: clothes are recognised after so many, and noise before
SLACK = 0.95  # fraction of the given time that is planned for steps: the rest is for sample sheets and checkpoints


def demo(
    *,
    data: Annotated[
        str | None, option(f"pictures of your own: a folder, an archive or a table; trains the preset {OWN}")
    ] = None,
    out: Annotated[Path, option("the folder for all output")] = Path("demo"),
    minutes: Annotated[
        float,
        option(
            "the longest training, where the preset's own length takes longer on this machine",
            validator=within(0.01, 1e4, "less trains nothing"),
        ),
    ] = 6.0,
    count: Annotated[
        int, option("samples for the measurement", validator=within(20, 50_000, "fewer give no result"))
    ] = 1000,
    preset: Annotated[str | None, option(f"what to train  [default: {PRESET}, or {OWN} with --data]")] = None,
    json: Annotated[bool, flag("print report.json on stdout")] = False,
) -> int:
    """Train on pictures of clothes, or on yours; sample, measure and write a report. The same command resumes."""
    name = preset or (OWN if data else PRESET)
    settings = settings_from_options(name, data=data)
    with asking():
        check_pictures(name, settings, data)
    config = ready(settings).config
    if not isinstance(config, TrainConfig):
        raise UsageError(f"{name} does not train a diffusion model: choose another --preset")
    writable(out / "report.html", "the report")
    run = out / "run"
    from unnoise import data as sets
    from unnoise.cli.train_progress import train_with_progress
    from unnoise.training.distributed import ALONE

    with asking():
        pictures = sets.open(config.data)
        recipe_of(config).check_data(config, pictures, run)
        config = shortened(run, config, minutes)
    code = train_with_progress(config, run, ALONE, pictures=pictures)
    if code != DONE:
        say("the same command resumes")
        return code
    report = finish(out, run, config, count, pictures)
    if json:
        emit(report)
        return DONE
    if "class_accuracy" in report:
        from unnoise.evaluation.page import percent

        show(f"class accuracy {percent(report['class_accuracy'])}, real {percent(report['class_accuracy_real'])}")
    show(str(out / "report.html"))
    return DONE


def early(images: int) -> str:
    """Returns what to expect of a training that has seen few pictures."""
    return f"{images:,} pictures are few: the samples will be noise or blurred, until about {EARLY:,} pictures are seen"


def shortened(run: Path, config: TrainConfig, minutes: float) -> TrainConfig:
    """Returns the training, shortened to the time on this machine; a run that has begun keeps its length.

    Raises UsageError for a run that has begun on other pictures or with another preset.
    """
    from unnoise.cli.train_progress import cost_text
    from unnoise.recipes.cost import cost

    if (run / "config.yaml").is_file():
        begun = files.load(run / "config.yaml", TrainConfig)
        if (begun.name, begun.data) != (config.name, config.data):
            raise UsageError(
                f"{run} is a training of {begun.name} on {begun.data.path}, and this one would be of {config.name} on "
                f"{config.data.path}: choose another folder with --out"
            )
        say(f"resumes in {run}")
        return begun
    say("measuring the speed of this machine ...")
    expected = cost(config, timed=6).as_dict()
    fit = config.fit
    affordable = int(SLACK * 60 * minutes * expected["images_per_second"])
    if affordable < fit.images:
        whole = max(1, affordable // fit.batch) * fit.batch
        say(f"{fit.images:,} pictures would take too long on this machine: shortened to {whole:,}")
        warmup = min(fit.warmup, max(1, whole // fit.batch // 10))
        fit = dataclasses.replace(fit, images=whole, warmup=warmup)
        expected |= {"images": whole, "steps": whole // fit.batch, "seconds": whole / expected["images_per_second"]}
    if fit.images < EARLY:
        needed = minutes * EARLY / fit.images
        say(f"{early(fit.images)}; for more, remove {run} later and use --minutes {needed:.0f}")
    say(cost_text(expected))
    return dataclasses.replace(config, fit=fit)


def finish(out: Path, run: Path, config: TrainConfig, count: int, pictures: Dataset) -> dict[str, Any]:
    """Samples, measures, and writes the report."""
    import json

    from unnoise.evaluation.page import page
    from unnoise.formats.directory import find
    from unnoise.io.atomic import publish
    from unnoise.model import load

    model = load(folder := find(run))
    started = time.perf_counter()
    drawn, request = sample_classes(model)
    seconds = time.perf_counter() - started
    save_grid(out / "grid.png", drawn, folder, model, request)
    found = evaluation(out / "evaluation.json", model, folder, config, count) if packaged(config) else {}
    report = numbers(run, config, model, found, request, seconds, len(drawn))
    if report["images"] < EARLY:
        report["drawn_note"] += f" {early(report['images'])}."
    publish(out / "report.json", lambda path: path.write_text(json.dumps(report, indent=2), encoding="utf-8"))
    html = page(report, gallery(run, config, model, drawn, pictures))
    publish(out / "report.html", lambda path: path.write_text(html, encoding="utf-8"))
    return report
