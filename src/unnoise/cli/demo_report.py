"""The numbers of the demo: an evaluation, and report.json."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unnoise.cli import demo_pictures
from unnoise.config import convert
from unnoise.config.data import DataConfig
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request
from unnoise.config.training import TrainConfig
from unnoise.io.units import human

if TYPE_CHECKING:
    from unnoise.model import Model

REAL = 10_000  # real pictures to measure against


def evaluation(path: Path, model: Model, folder: Path, config: TrainConfig, count: int) -> dict[str, Any]:
    """Returns the evaluation of these weights: a new one, or the one in the file if it is of the same weights."""
    import json

    from unnoise import data
    from unnoise.cli import measuring
    from unnoise.io.atomic import publish
    from unnoise.io.hashing import sha256

    key = {
        "sha256": sha256(folder / "model.safetensors"),
        "count": count,
        "real": REAL,
        "steps": demo_pictures.STEPS,
        "guidance": demo_pictures.GUIDANCE,
    }
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["of"] == key:
            return dict(saved["report"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    settings = EvaluateConfig(count=count, seed=10_000, real=REAL)
    request = Request.of(sampler="ddim", steps=demo_pictures.STEPS, guidance=demo_pictures.GUIDANCE, batch=250)
    real = data.open(DataConfig(path=config.data.path, size=config.data.size, channels=config.data.channels))
    report = measuring.run(model, settings, request, real, measuring.home() / "features")
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
    """Returns report.json: the contents of the page, as a JSON document."""
    from unnoise.training import run as runs

    state = runs.status(run)
    lines = runs.metrics(run)
    parameters = sum(p.numel() for p in model.diffusion.net.parameters())
    spent, scale = found["seconds"], request.guidance.scale
    return {
        "kind": "demo",
        "title": "Clothes, from noise",
        "summary": summary(config, model, parameters),
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "class_accuracy": found.get("class_accuracy"),
        "class_accuracy_real": found.get("class_accuracy_real"),
        "class_accuracy_each": found.get("class_accuracy_each", {}),
        "class_accuracy_real_each": found.get("class_accuracy_real_each", {}),
        "metrics": found["metrics"],
        "quality_note": f"{found['quality_note']} Sampled with guidance {scale:g}: clearer, less varied.",
        "warnings": found.get("warnings", []),
        "seconds": {"train": state["seconds"], "sample": seconds, "evaluate": sum(spent.values()), **prefixed(spent)},
        "images": state["images"],
        "steps": request.sampling.steps,
        "guidance": scale,
        "pictures_per_second": {
            "train": state["images"] / max(state["seconds"], 1e-9),
            "sample": found["pictures_per_second"],
        },
        "parameters": parameters,
        "drawn_note": (
            f"DDIM, {request.sampling.steps} steps, guidance {scale:g}. "
            "Each column starts from the same noise; only the class differs."
        ),
        "curve": [(line["images"], line["loss"]) for line in lines if "loss" in line],
        "curve_note": (
            "Mean squared error of the velocity over training pictures (thin: as logged; thick: running mean). Most of "
            "it is irreducible: the noise in a nearly clean picture cannot be known. So the curve is soon flat while "
            "the pictures still improve."
        ),
        "commands": next_commands(run, config),
        "details": details(config, {"training": state["seconds"], **spent}),
    }


def summary(config: TrainConfig, model: Model, parameters: int) -> str:
    """Returns what was trained, on what, in two sentences."""
    return (
        f"A class-conditional diffusion model with {human(parameters)} parameters, trained on this machine on "
        f"{model.card.info.get('pictures', 0):,} real pictures ({config.data.path}, {config.data.size}x"
        f"{config.data.size} pixels). It samples {len(model.card.classes)} kinds of clothes."
    )


def details(config: TrainConfig, seconds: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Returns the tables of the page: settings, machine and durations."""
    from unnoise.training.machine import machine

    here = machine()
    return {
        "Training": {name: value for name, value in convert.flat(config).items() if value not in ("", None)},
        "Machine": {key: here[key] for key in ("processor", "cores", "system", "python")} | here["versions"],
        "Seconds": {name: round(value, 1) for name, value in seconds.items()},
    }


def prefixed(spent: Mapping[str, float]) -> dict[str, float]:
    """Returns the durations of the evaluation under names of their own."""
    return {f"evaluate_{name}": value for name, value in spent.items()}


def next_commands(run: Path, config: TrainConfig) -> list[tuple[str, str]]:
    """Returns commands to continue with, and what each is for."""
    program = shlex.quote(sys.argv[0]) if Path(sys.argv[0]).name == "unnoise" else "unnoise"
    model, folder = shlex.quote(str(run)), run.parent
    return [
        ("Sample sixty-four sneakers:", f"{program} sample {model} --seeds 0-63 --labels sneaker --grid sneakers.png"),
        ("Stronger classes, with guidance, and the sampling steps as an animation:",
         f"{program} sample {model} --seeds 0-7 --labels all --guidance 2 --animation walk.gif"),
        ("Show how a picture was made:", f"{program} info {shlex.quote(str(folder / 'grid.png'))}"),
        ("Train ten times as long:", f"{program} train {config.name} --set fit.images={10 * config.fit.images}"),
        ("Inspect pictures of your own, and train on them:",
         f"{program} data ./pictures --sheet sheet.png\n{program} train folder64 --data ./pictures"),
        ("Measure with more pictures:", f"{program} evaluate {model} --count 10000"),
        ("Use it from diffusers:", f"{program} export {model} {shlex.quote(str(folder / 'diffusers'))}"),
    ]  # fmt: skip
