"""`unnoise invert`: pictures to the noise that they are sampled from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from unnoise.cli.console import UsageError, asking, emit, say, show, table
from unnoise.cli.loading import load
from unnoise.cli.options import OVERWRITE, flag, option, with_settings
from unnoise.cli.paths import existing, existing_model, new_file
from unnoise.cli.requests import rows_for, values_of
from unnoise.cli.sampling_options import FROM_ONE, LABEL, MODEL, VALUE
from unnoise.config.request import Request, RequestOptions
from unnoise.generate.describe import known_card

if TYPE_CHECKING:
    from torch import Tensor

    from unnoise.generate.inversion import Inversion
    from unnoise.generate.job import Job
    from unnoise.model import Model


@with_settings(RequestOptions, **FROM_ONE | {"clip": None})
def invert(
    model: MODEL,
    /,
    *pictures: Annotated[Path, option("picture files")],
    label: LABEL = None,
    value: VALUE = (),
    convention: Annotated[
        str,
        Parameter(
            choices=("own", "target", "exact"),
            help="time at which the noise is evaluated: of the current step, of the next one, or solved exactly",
        ),
    ] = "exact",
    noise: Annotated[Path | None, option("a .safetensors file for the noise", "--out", "-o")] = None,
    sheet: Annotated[
        Path | None,
        option("a PNG with the pictures, their noise, the reconstructions, and eight times the error", "--grid"),
    ] = None,
    overwrite: OVERWRITE = False,
    json: Annotated[bool, flag("one JSON document on stdout")] = False,
    **settings: Any,
) -> None:
    """Find the noise from which DDIM samples a picture, and sample it again.

    'exact' solves each step, so that DDIM leads back to the picture; 'own' and 'target' are quicker approximations.
    """
    check_inputs(model, pictures)
    for file, what, suffix in ((noise, "the noise", ".safetensors"), (sheet, "the sheet", ".png")):
        if file is not None:
            new_file(file, what, overwrite, suffix=suffix)
    with asking():
        rows_for([(0, label)], (), known_card(model))
        values = values_of(value)
    say(f"loading {model} ...")
    from unnoise.cli.sampling import finished, with_bar
    from unnoise.generate.inversion import from_noise
    from unnoise.generate.inversion import invert as find_noise
    from unnoise.generate.output import save_tensor

    if settings.get("precision", "auto") == "auto":
        settings["precision"] = "float32"  # rounding cannot be undone
    with asking():
        x, job = inversion_of(model, pictures, label, settings | {"values": values})
    say("inverting ...")
    found = find_noise(job, x, convention=convention)
    back = finished(with_bar(job.starting(from_noise(job, found.noise)), "sampling again"))
    if noise is not None:
        about = {"model": str(model), "label": label, "values": values, "convention": convention, **settings}
        save_tensor(noise, "noise", found.noise, about)
    if sheet is not None:
        write_sheet(sheet, job.model, x, found, back)
    errors = ((back - x) / 2).square().flatten(1).mean(1).tolist()
    if json:
        emit({"model": model, "convention": convention, "pictures": [str(p) for p in pictures], "squared_error": errors,
              "residual": found.residual.tolist(), "noise": noise, "sheet": sheet})  # fmt: skip
    else:
        print_errors(pictures, errors, found)


def check_inputs(model: Path, pictures: Sequence[Path]) -> None:
    """Raises UsageError for a file that is missing."""
    existing_model(model)
    for path in pictures:
        existing(path, "picture")
    if not pictures:
        raise UsageError("no picture to invert. Write: unnoise invert MODEL picture.png")


def inversion_of(
    path: Path, pictures: Sequence[Path], label: str | None, settings: dict[str, Any]
) -> tuple[Tensor, Job]:
    """The pictures (B, C, H, W), and the job of inverting them with a model. Raises UserError."""
    import torch

    from unnoise.generate.conditions import input_picture
    from unnoise.generate.inversion import prepare_inversion

    loaded = load(path).require_pictures()
    x = torch.cat([input_picture(file, loaded) for file in pictures])
    labels = (label or "none",) * len(x) if loaded.classes or settings.get("classifier") else ()
    request = Request.of(seeds=tuple(range(len(x))), labels=labels, **settings)
    return x, prepare_inversion(loaded, request)


def write_sheet(path: Path, model: Model, x: Tensor, found: Inversion, back: Tensor) -> None:
    """A PNG: the pictures, their noise, the reconstructions, and the error."""
    from unnoise.codec import to_bytes
    from unnoise.io.images import sheet
    from unnoise.io.png import write_png

    error = (8 * (back - x)).clamp(-1, 1)
    noise = model.codec.decode(found.noise / 2)
    lines = {"picture": x, "noise / 2": noise, "sampled again": back, "error x 8": error}
    blocks = {(name, ""): to_bytes(part) for name, part in lines.items()}
    write_png(path, sheet(blocks, across=len(x)), None)


def print_errors(pictures: Sequence[Path], errors: Sequence[float], found: Inversion) -> None:
    """A table with a line per picture."""
    rows = [
        (path.name, f"{error:.2g}", f"{residual:.2g}", f"{noise.std().item():.3f}")
        for path, error, residual, noise in zip(pictures, errors, found.residual.tolist(), found.noise, strict=True)
    ]
    show(table(rows, head=("picture", "squared error", "residual", "std of the noise"), ragged=True))
    if max(found.residual.tolist()) > 1e-2:
        say("some step has no exact inverse for this picture: more --steps make the steps smaller")
