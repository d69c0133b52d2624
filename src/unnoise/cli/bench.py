"""`unnoise bench`: the speed, memory and error of a model on this machine; the fastest precision is stored."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from unnoise.cli.console import asking, emit, say, show, table
from unnoise.cli.options import flag, option, within
from unnoise.cli.paths import existing_model
from unnoise.cli.progress import Progress
from unnoise.cli.sampling_options import MODEL
from unnoise.config.request import Sampling
from unnoise.io.units import human

if TYPE_CHECKING:
    from unnoise.acceleration.choices import Choice
    from unnoise.acceleration.measure import Measured
    from unnoise.model import Model

HEAD = ("variant", "batch", "ms a call", "pictures/s", "peak memory", "error")


def bench(
    model: MODEL,
    /,
    *,
    seconds: Annotated[
        float, option("time for all measurements; what does not fit is left out", validator=within(0, 86_400, "a day"))
    ] = 40.0,
    device: Annotated[str, option("auto, cpu, cuda, cuda:1, mps")] = "auto",
    json: Annotated[bool, flag("print one JSON document")] = False,
) -> None:
    """Measure a model on this machine by precision and batch, and store the precision that "auto" then uses.

    Peak memory is that of the process, on a GPU that of its tensors. The error is the rms difference of the network's
    output to that of the network as it was loaded (plain, float32), divided by its rms. Pictures are without guidance.
    """
    existing_model(model)
    say(f"loading {model} ...")
    from unnoise import model as models
    from unnoise.acceleration import choices
    from unnoise.acceleration.placement import find
    from unnoise.samplers import find as find_sampler

    with asking():
        place = find(device)
    loaded = models.load(model)
    found = measured(loaded, place, seconds)
    steps, sampler = Sampling().steps, find_sampler(loaded.card.sampler)
    calls = sampler.calls * (steps - 1) + sampler.last_calls
    choice = chosen(found, loaded, model, place)
    try:
        stored = choices.save(choice)
    except OSError as error:
        stored = None
        say(f"note: the result is not stored: {error.strerror or error}")
    report = {
        "model": model,
        "device": place,
        "sampler": {"name": loaded.card.sampler, "steps": steps, "calls": calls},
        "measured": [row(each, calls) for each in found if not each.left_out],
        "left_out": [
            {"variant": each.variant, "batch": each.batch, "why": each.left_out} for each in found if each.left_out
        ],
        "best": {"precision": choice.precision, "batch": choice.batch, "stored": stored},
    }
    if json:
        emit(report)
    else:
        show(as_text(report))


def measured(model: Model, device: str, seconds: float) -> list[Measured]:
    """All results, with a progress bar."""
    from unnoise.acceleration.measure import BATCHES, measure, variants
    from unnoise.generate.conditions import placeholder

    found = []
    cases = [(variant, batch) for variant in variants(device) for batch in BATCHES]
    steps = measure(model.diffusion, lambda count: placeholder(model, count), model.x_shape, device, seconds=seconds)
    with Progress(len(cases), "measuring", unit="case") as bar:
        for done, each in enumerate(steps, start=1):
            found.append(each)
            bar.step(done, f"{each.variant}, batch {each.batch}")
    return found


def chosen(found: Sequence[Measured], model: Model, path: Path, device: str) -> Choice:
    """What is stored: the fastest precision, and its batch with the most pictures a second."""
    from unnoise.acceleration import choices
    from unnoise.acceleration.measure import fastest_precision

    precision = fastest_precision(found)
    rows = [each for each in found if each.variant == precision and not each.left_out]
    best = max(rows, key=lambda each: each.batch / each.seconds)
    return choices.Choice(
        precision=precision,
        batch=best.batch,
        seconds=best.seconds,
        model=str(path.resolve()),
        device=device,
        date=time.strftime("%Y-%m-%d"),
        machine=choices.machine(device),
        architecture=choices.architecture(model.diffusion.net),
    )


def row(each: Measured, calls: int) -> dict[str, Any]:
    return {
        "variant": each.variant,
        "batch": each.batch,
        "ms": 1e3 * each.seconds,
        "pictures_per_second": each.batch / (calls * each.seconds),
        "peak_memory": each.memory,
        "error": each.error,
    }


def as_text(report: dict[str, Any]) -> str:
    """The table, what was left out, and the best setting."""
    rows = [
        (
            each["variant"],
            str(each["batch"]),
            f"{each['ms']:.3g}",
            f"{each['pictures_per_second']:.3g}",
            "" if each["peak_memory"] is None else f"{human(each['peak_memory'])}B",
            "" if each["error"] is None else f"{each['error']:.1e}",
        )
        for each in report["measured"]
    ]
    sampler, best = report["sampler"], report["best"]
    first = {each["variant"]: each for each in reversed(report["left_out"])}  # the larger ones for the same reason
    lines = [f"not measured: {name}, batch {each['batch']} and more: {each['why']}" for name, each in first.items()]
    about = f"pictures/s: {sampler['steps']} steps of {sampler['name']}, {sampler['calls']} network calls each"
    stored = "; stored: --precision auto uses it here" if best["stored"] else ""
    end = f"best on {report['device']}: {best['precision']}, for the most pictures --batch {best['batch']}{stored}"
    return "\n\n".join(["\n".join([about, table(rows, head=HEAD)]), *(["\n".join(lines)] if lines else []), end])
