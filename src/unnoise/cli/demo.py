"""`unnoise demo`: the main job from end to end. Train, draw, measure, and write a report that says how to go on.

    demo/run/        the training          demo/grid.png      ten classes, eight seeds each
    demo/report.html the page              demo/report.json   its numbers

Every part that is done is found again: the training by its checkpoint, the measuring by its weights.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from unnoise.cli.console import DONE, emit, say, show, writable
from unnoise.cli.options import flag, option, within
from unnoise.config import convert, files
from unnoise.config.data import DataConfig
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.presets import PRESETS
from unnoise.config.request import Request
from unnoise.config.training import TrainConfig
from unnoise.io.units import human

if TYPE_CHECKING:
    from PIL import Image

    from unnoise.evaluation.page import Gallery
    from unnoise.generate.sheets import Sample
    from unnoise.model import Model

PRESET = "fashion"
SEEDS = 8  # pictures of each class
STEPS = 50
GUIDANCE = 3.0  # what is drawn and measured: a short training leaves classes a little vague, and this sharpens them
SHOWN = (0, 10, 20, 30, 40)  # steps of the walk that are shown, before the pictures themselves
REAL = 10_000  # real pictures to measure against
HELD_OUT = 4  # real pictures of each class beside the drawn ones
SLACK = 0.95  # of the time asked for is planned: what a sheet of samples and a checkpoint take is in the rest


def demo(
    *,
    out: Annotated[Path, option("the folder that everything is written to")] = Path("demo"),
    minutes: Annotated[
        float,
        option("the longest training, if the preset's own length takes longer here", validator=within(0.01, 1e4, "")),
    ] = 6.0,
    count: Annotated[
        int, option("pictures drawn to measure with", validator=within(20, 50_000, "fewer say nothing"))
    ] = 1000,
    preset: Annotated[str, option("what to train")] = PRESET,
    json: Annotated[bool, flag("print report.json on stdout")] = False,
) -> int:
    """Train, draw and measure on pictures that come with the package; write a report. Interrupted, it goes on."""
    writable(out / "report.html", "the report")
    run = out / "run"
    config = plan(run, preset, minutes)
    from unnoise.cli.train import follow
    from unnoise.training.distributed import ALONE

    code = follow(config, run, ALONE)
    if code != DONE:
        say("the same command goes on")
        return code
    report = finish(out, run, config, count)
    if json:
        emit(report)
    else:
        show(f"class accuracy {share(report.get('class_accuracy'))}, real {share(report.get('class_accuracy_real'))}")
        show(str(out / "report.html"))
    return DONE


def share(value: float | None) -> str:
    return "not measured" if value is None else f"{100 * value:.1f} %"


def plan(run: Path, preset: str, minutes: float) -> TrainConfig:
    """The preset, shortened to what fits into the time on this machine; a run that has begun keeps its length."""
    from unnoise.cli.train import cost_text
    from unnoise.recipes.cost import cost

    if (run / "config.yaml").is_file():
        say(f"goes on in {run}")
        return files.load(run / "config.yaml", TrainConfig)
    config = PRESETS[preset]()
    say("looking at how fast this machine is ...")
    expected = cost(config, timed=6).as_dict()
    fit = config.fit
    affordable = int(SLACK * 60 * minutes * expected["images_per_second"])
    if affordable < fit.images:
        whole = max(1, affordable // fit.batch) * fit.batch
        say(f"{fit.images:,} pictures would take too long here: shortened to {whole:,}")
        warmup = min(fit.warmup, max(1, whole // fit.batch // 10))
        fit = dataclasses.replace(fit, images=whole, warmup=warmup)
        expected |= {"images": whole, "steps": whole // fit.batch, "seconds": whole / expected["images_per_second"]}
    say(cost_text(expected))
    return dataclasses.replace(config, fit=fit)


def finish(out: Path, run: Path, config: TrainConfig, count: int) -> dict[str, Any]:
    """Draw, measure, and write the report."""
    import json

    from unnoise import model as models
    from unnoise.evaluation.page import page
    from unnoise.io.atomic import publish

    folder = models.find(run)
    model = models.load(folder)
    started = time.perf_counter()
    drawn, request = draw(model)
    seconds = time.perf_counter() - started
    keep_grid(out / "grid.png", drawn, folder, model, request)
    found = measured(out / "evaluation.json", model, folder, config, count)
    report = numbers(run, config, model, found, request, seconds, len(drawn))
    publish(out / "report.json", lambda path: path.write_text(json.dumps(report, indent=2), encoding="utf-8"))
    html = page(report, gallery(run, config, model, drawn))
    publish(out / "report.html", lambda path: path.write_text(html, encoding="utf-8"))
    return report


def draw(model: Model) -> tuple[list[Sample], Request]:
    """Eight pictures of each class, the same seeds for all, with their walks."""
    from unnoise.cli.sampling import sampled
    from unnoise.generate.job import prepare
    from unnoise.generate.rows import pairs

    rows = pairs([(seed, None) for seed in range(SEEDS)], model.card.classes)
    request = Request(
        seeds=tuple(seed for seed, _ in rows),
        labels=tuple(label for _, label in rows if label is not None),
        sampler="ddim",
        steps=STEPS,
        guidance=GUIDANCE,
        batch=len(rows),
    )
    return list(sampled(prepare(model, request), rows, walk=True)), request


def keep_grid(path: Path, drawn: Sequence[Sample], folder: Path, model: Model, request: Request) -> None:
    from unnoise.generate.recipe import recipe_of
    from unnoise.generate.rows import seeds_text
    from unnoise.generate.sheets import columns_for, sheet
    from unnoise.io.png import write_png

    rows = [d.row for d in drawn]
    columns = columns_for(rows)
    recipe = recipe_of(folder, model, request)
    recipe |= {"together": seeds_text(rows), "columns": columns, "size": list(model.card.size[::-1])}
    write_png(path, sheet(drawn, columns, None, prompted=False), recipe)


def measured(path: Path, model: Model, folder: Path, config: TrainConfig, count: int) -> dict[str, Any]:
    """The evaluation of these weights: measured, or what was measured before."""
    import json

    from unnoise import data
    from unnoise.cli import measuring
    from unnoise.io.atomic import publish
    from unnoise.io.hashing import sha256

    key = {
        "sha256": sha256(folder / "model.safetensors"),
        "count": count,
        "real": REAL,
        "steps": STEPS,
        "guidance": GUIDANCE,
    }
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["of"] == key:
            return dict(kept["report"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    ask = EvaluateConfig(count=count, seed=10_000, real=REAL)
    how = Request(sampler="ddim", steps=STEPS, guidance=GUIDANCE, batch=250)
    real = data.open(DataConfig(path=config.data.path, size=config.data.size, channels=config.data.channels))
    report = measuring.run(model, ask, how, real, measuring.home() / "features")
    publish(path, lambda beside: beside.write_text(json.dumps({"of": key, "report": report}), encoding="utf-8"))
    return report


def numbers(
    run: Path,
    config: TrainConfig,
    model: Model,
    found: Mapping[str, Any],
    request: Request,
    seconds: float,
    drawn: int,
) -> dict[str, Any]:
    """report.json: what the page says, as a JSON document."""
    from unnoise.training import machine as machines
    from unnoise.training import run as runs

    state = runs.status(run)
    lines = runs.metrics(run)
    machine = machines.machine()
    parameters = sum(p.numel() for p in model.diffusion.net.parameters())
    spent = found["seconds"]
    return {
        "kind": "demo",
        "title": "Clothes, from noise",
        "summary": (
            f"A class-conditional diffusion model with {human(parameters)} parameters, trained on this machine on "
            f"{model.card.info.get('pictures', 0):,} real pictures ({config.data.path}, {config.data.size}x"
            f"{config.data.size} pixels). It draws {len(model.card.classes)} kinds of clothes."
        ),
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "class_accuracy": found.get("class_accuracy"),
        "class_accuracy_real": found.get("class_accuracy_real"),
        "class_accuracy_each": found.get("class_accuracy_each", {}),
        "class_accuracy_real_each": found.get("class_accuracy_real_each", {}),
        "metrics": found["metrics"],
        "quality_note": f"{found['quality_note']} Drawn with guidance {request.guidance:g}: clearer, less varied.",
        "warnings": found.get("warnings", []),
        "seconds": {"train": state["seconds"], "sample": seconds, "evaluate": sum(spent.values()), **prefixed(spent)},
        "images": state["images"],
        "steps": request.steps,
        "guidance": request.guidance,
        "pictures_per_second": {
            "train": state["images"] / max(state["seconds"], 1e-9),
            "sample": found["pictures_per_second"],
        },
        "parameters": parameters,
        "drawn_note": (
            f"DDIM, {request.steps} steps, guidance {request.guidance:g}. Each column starts from the same noise; "
            "only the class differs."
        ),
        "curve": [(line["images"], line["loss"]) for line in lines if "loss" in line],
        "curve_note": (
            "Mean squared error of the velocity over pictures seen (thin: as logged; thick: running mean). Most of it "
            "cannot be learned: the noise in a nearly clean picture is a guess. So the curve is soon flat while the "
            "pictures still improve."
        ),
        "commands": go_on(run),
        "details": {
            "Training": {name: value for name, value in convert.flat(config).items() if value not in ("", None)},
            "Machine": {
                "processor": machine["processor"],
                "cores": machine["cores"],
                "system": machine["system"],
                "python": machine["python"],
                **machine["versions"],
            },
            "Seconds": {"training": round(state["seconds"], 1), **{k: round(v, 1) for k, v in spent.items()}},
        },
    }


def prefixed(spent: Mapping[str, float]) -> dict[str, float]:
    return {f"evaluate_{name}": value for name, value in spent.items()}


def go_on(run: Path) -> list[tuple[str, str]]:
    """The exact commands to go on with."""
    program = "unnoise" if Path(sys.argv[0]).name != "unnoise" else sys.argv[0]
    return [
        ("Draw sixty-four sneakers:", f"{program} sample {run} --seeds 0-63 --labels sneaker --grid sneakers.png"),
        ("Stronger classes, with guidance, and the walk as an animation:",
         f"{program} sample {run} --seeds 0-7 --labels all --guidance 2 --animation walk.gif"),
        ("Ask a picture how it was made:", f"{program} info {run.parent / 'grid.png'}"),
        ("Train ten times as long:", f"{program} train {PRESET} --set fit.images=1500000"),
        ("Look at pictures of your own, and train on them:",
         f"{program} data ./pictures --sheet sheet.png\n{program} train folder64 --data ./pictures"),
        ("Measure with more pictures:", f"{program} evaluate {run} --count 10000"),
        ("Use it from diffusers:", f"{program} export {run} {run.parent / 'diffusers'}"),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------- pictures


def gallery(run: Path, config: TrainConfig, model: Model, drawn: Sequence[Sample]) -> Gallery:
    from unnoise.evaluation.page import Gallery, row
    from unnoise.io.images import image

    classes = model.card.classes
    made = {name: [image(d.pixels) for d in drawn if d.row[1] == name] for name in classes}
    first = [next(d for d in drawn if d.row[1] == name) for name in classes]
    walk = []
    for at in SHOWN:
        stages = [min(d.previews, key=lambda preview: abs(preview[0] - at)) for d in first]
        walk.append(("noise" if at == 0 else f"step {stages[0][0]}", row([image(pixels) for _, pixels in stages])))
    walk.append((f"step {STEPS}", row([image(d.pixels) for d in first])))
    return Gallery(made, held_out(config, classes), over_time(run, config), walk)


def held_out(config: TrainConfig, classes: Sequence[str]) -> dict[str, list[Image.Image]]:
    """Real pictures of each class that were not trained on, where the set keeps some aside."""
    import numpy as np

    from unnoise import data
    from unnoise.generate.sheets import as_bytes
    from unnoise.io.images import image

    real = data.open(DataConfig(path=f"{config.data.path}:test", size=config.data.size, channels=config.data.channels))
    labels = real.labels()
    if labels is None:
        return {}
    places = {name: np.flatnonzero(labels == k)[:HELD_OUT].tolist() for k, name in enumerate(classes)}
    return {name: [image(pixels) for pixels in as_bytes(real.batch(rows).x)] for name, rows in places.items()}


def over_time(run: Path, config: TrainConfig, most: int = 5) -> list[tuple[str, Image.Image]]:
    """Some of the sheets that the training drew on its way, the first and the last among them."""
    from PIL import Image

    files = sorted((run / "samples").glob("step-*.png"))
    if len(files) > most:
        files = [files[round(i * (len(files) - 1) / (most - 1))] for i in range(most)]
    sheets = []
    for file in files:
        with Image.open(file) as sheet:
            seen = int(file.stem.removeprefix("step-")) * config.fit.batch
            sheets.append((f"after {human(seen)} pictures", sheet.convert("RGB")))
    return sheets
