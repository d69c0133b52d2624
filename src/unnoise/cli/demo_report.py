"""The numbers of the demo: an evaluation, and report.json."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unnoise.cli import demo_pictures
from unnoise.cli.demo_commands import next_commands
from unnoise.config import convert
from unnoise.config.data import DataConfig
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request
from unnoise.config.training import TrainConfig
from unnoise.io.cache import home
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
        "sampler": demo_pictures.SAMPLER,
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
    request = Request.of(
        sampler=demo_pictures.SAMPLER, steps=demo_pictures.STEPS, guidance=demo_pictures.GUIDANCE, batch=250
    )
    real = data.open(DataConfig(path=config.data.path, size=config.data.size, channels=config.data.channels))
    report = measuring.run(model, settings, request, real, home() / "features")
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
    """Returns report.json: the contents of the page, as a JSON document; `found` is {} where nothing was measured."""
    from unnoise.training import run as runs

    state = runs.status(run)
    lines = runs.metrics(run)
    parameters = sum(p.numel() for p in model.diffusion.net.parameters())
    spent, scale = found.get("seconds", {}), request.guidance.scale
    own = not demo_pictures.packaged(config)
    columns = "Each column starts from the same noise." if demo_pictures.named_rows(model) else ""
    return {
        **measured(found, scale),
        "kind": "demo",
        "title": "Your pictures, from noise" if own else "Clothes, from noise",
        "summary": summary(config, model, parameters),
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "real_title": "real, from the training" if own else "real, held out",
        "warnings": found.get("warnings", []),
        "seconds": {"train": state["seconds"], "sample": seconds, "evaluate": sum(spent.values()), **prefixed(spent)},
        "images": state["images"],
        "steps": request.sampling.steps,
        "guidance": scale,
        "pictures_per_second": {
            "train": state["images"] / max(state["seconds"], 1e-9),
            "sample": found.get("pictures_per_second", drawn / max(seconds, 1e-9)),
        },
        "parameters": parameters,
        "drawn_note": f"{request.sampling.sampler}, {request.sampling.steps} steps, guidance {scale:g}. {columns}",
        "curve": [(line["images"], line["loss"]) for line in lines if "loss" in line],
        "curve_note": (
            "Mean squared error of the velocity over training pictures (thin: as logged; thick: running mean). Most of "
            "it is irreducible: the noise in a nearly clean picture cannot be known. So the curve is soon flat while "
            "the pictures still improve."
        ),
        "commands": next_commands(run, config, model.card.classes, own=own),
        "details": details(config, {"training": state["seconds"], **spent}),
    }


def measured(found: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """Returns what the page shows of an evaluation: metrics, class accuracy and a note on them."""
    if not found:
        return {}
    note = f"{found['quality_note']} Sampled with guidance {scale:g}: clearer, less varied."
    accuracy = {name: value for name, value in found.items() if name.startswith("class_accuracy")}
    return {**accuracy, "metrics": found["metrics"], "quality_note": note}


def summary(config: TrainConfig, model: Model, parameters: int) -> str:
    """Returns what was trained, on what, in two sentences."""
    classes = model.card.classes
    kinds = f"It samples {len(classes)} classes." if classes else ""
    if not classes and not model.card.captions:
        kinds = "It has no classes: sub-folders of the pictures would be classes."
    kind = "class-conditional diffusion model" if classes else "diffusion model"
    return (
        f"A {kind} with {human(parameters)} parameters, trained on this "
        f"machine on {model.card.info.get('pictures', 0):,} real pictures ({config.data.path}, {config.data.size}x"
        f"{config.data.size} pixels). {kinds}"
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
