"""`unnoise sample`: generate pictures with a model, each with its recipe inside the file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unnoise.cli.console import UsageError, asking, say
from unnoise.cli.options import with_settings
from unnoise.cli.outputs import Output, check_inputs
from unnoise.cli.parse import MOST_PICTURES, parse_names, parse_seeds
from unnoise.cli.paths import existing_model
from unnoise.cli.requests import one_label, prompted, prompts_of, rows_for, values_of
from unnoise.cli.sampling_options import (
    ALL,
    ANIMATION,
    COLUMNS,
    CONTROL,
    CONTROL_MODEL,
    GRID,
    IMAGE,
    JSON,
    LABELS,
    LATENTS,
    MASK,
    METADATA,
    MODEL,
    OUT,
    OVERWRITE,
    PROMPT,
    PROMPTS_FILE,
    SCALE,
    SEEDS,
    STRIP,
    VALUE,
)
from unnoise.config.request import RequestOptions
from unnoise.generate.describe import known_card

if TYPE_CHECKING:
    from unnoise.generate.rows import Row


@with_settings(RequestOptions, seeds=None, labels=None, prompts=None, controls=None, **ALL)
def sample(
    model: MODEL,
    /,
    *,
    seeds: SEEDS = "0",
    labels: LABELS = "",
    prompt: PROMPT = (),
    prompts: PROMPTS_FILE = None,
    value: VALUE = (),
    image: IMAGE = None,
    mask: MASK = None,
    control: CONTROL = (),
    control_model: CONTROL_MODEL = (),
    out: OUT = None,
    grid_file: GRID = None,
    strip: STRIP = None,
    animation: ANIMATION = None,
    latents: LATENTS = None,
    columns: COLUMNS = None,
    scale: SCALE = None,
    metadata: METADATA = True,
    overwrite: OVERWRITE = False,
    json: JSON = False,
    **settings: Any,
) -> None:
    """Generate pictures, one per seed and class or prompt, each with its recipe inside the file.

    A picture depends on its seed, its condition and the settings alone, not on how many are generated beside it.
    """
    existing_model(model)
    files = (out, grid_file, strip, animation)
    if latents is not None and (any(files) or settings.get("previews")):
        raise UsageError("--latents writes no pictures: remove the other outputs")
    if latents is None and not any(files):
        out = Path("samples")
    output = Output(out, grid_file, strip, animation, latents, columns, scale, metadata, json, overwrite)
    with asking():
        output.check()
        check_inputs({"control image": control, "model": control_model, "picture": (image,), "mask": (mask,)})
        settings |= {"controls": tuple(map(str, control)), "values": values_of(value)}
        settings |= {"image": str(image or ""), "mask": str(mask or "")}
        texts = prompts_of(prompt, prompts)
        if texts:
            settings["labels"] = one_label(labels)
            rows = prompted(parse_seeds(seeds), texts)
        else:
            card = known_card(model)
            if settings.get("classifier", "") and card is not None and not card.classes:
                card = None  # its classes may be the classifier's, which is read later
            rows = rows_for(parse_seeds(seeds), parse_names(labels), card)
        if len(rows) > MOST_PICTURES:
            raise UsageError(f"{len(rows):,} pictures in one call; the limit is {MOST_PICTURES:,}: use several calls")
    run(model, control_model, rows, texts, settings, output)


def run(
    path: Path,
    control_models: tuple[Path, ...],
    rows: list[Row],
    texts: Sequence[str],
    settings: dict[str, Any],
    output: Output,
) -> None:
    """Load the model, prepare the job, and write what `output` names."""
    say(f"loading {path} ...")
    from unnoise import model as models
    from unnoise.cli.sampling import notes, write_latents, write_pictures
    from unnoise.formats.directory import find
    from unnoise.generate.job import prepare
    from unnoise.generate.recipe import build_recipe
    from unnoise.generate.rows import request_for

    folder = find(path)
    loaded = models.load(folder)
    with asking():
        if output.latents is None:
            loaded.require_pictures()
        elif loaded.card.codec.kind == "pixels":
            raise UsageError("this model generates pictures, not latents: remove --latents")
        else:
            loaded = replace(loaded, autoencoder=None)  # x is not decoded
        added = [find(path) for path in control_models]  # the checkpoints of now, whatever comes later
        loaded = loaded.with_controlnets(*added)
        job = prepare(loaded, request_for(rows, settings, prompted=bool(texts)))
    if not texts:
        rows = [(seed, label) for (seed, _), label in zip(rows, job.labels() or [None] * len(rows), strict=True)]
    output.check_pictures(rows, texts)
    for note in notes(job, texts):
        say(f"note: {note}")
    recipe = build_recipe(folder, loaded, job.request)
    recipe |= {"control_models": list(map(str, added))} if added else {}
    began = time.perf_counter()
    (write_pictures if output.latents is None else write_latents)(job, rows, texts, recipe, output, began)
