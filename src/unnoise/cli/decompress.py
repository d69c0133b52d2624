"""`unnoise decompress`: the picture in a file that `unnoise compress` wrote, or in its first part."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from unnoise.cli.coding import DeviceOption, ModelOption, require_coder
from unnoise.cli.console import UsageError, asking, emit, say, show
from unnoise.cli.loading import load
from unnoise.cli.options import OVERWRITE, flag, option, within
from unnoise.cli.paths import existing, existing_model, new_file
from unnoise.errors import UserError
from unnoise.io.units import duration

if TYPE_CHECKING:
    from unnoise.compression.format import File
    from unnoise.io.images import Pixels
    from unnoise.model import Model

Estimates = list[tuple[float, "Pixels"]]  # bits received so far, and the estimate (H, W, C) from them

FILE_BYTES = 2**30  # a larger file is no compressed picture
STRIP = 12  # estimates in a strip, at most


def decompress(
    file: Annotated[Path, option("A file that `unnoise compress` wrote, or its first part.")],
    /,
    *,
    model: ModelOption,
    out: Annotated[Path, option("The PNG file to write.", "-o", "--output")],
    bits: Annotated[
        float,
        option(
            "Stop after this many bits per dimension, for a coarser picture in less time; inf: the whole file.",
            validator=within(0, float("inf"), "0 is the model's estimate before any bit"),
        ),
    ] = float("inf"),
    strip: Annotated[
        Path | None, option("Also write a PNG with up to twelve estimates side by side, coarse to fine.")
    ] = None,
    device: DeviceOption = "auto",
    overwrite: OVERWRITE = False,
    json: Annotated[bool, flag("Print one JSON document to stdout.")] = False,
) -> None:
    """Decompress a picture. A file that is cut off gives a coarser picture, a damaged file is an error."""
    existing(file, "compressed picture")
    existing_model(model)
    for path, what in ((out, "the picture"), (strip, "the strip")):
        if path is not None:
            new_file(path, what, overwrite, suffix=".png")
    with asking():
        require_coder()
        data, read = _read(file)
    if not read.whole:
        say(f"note: {file} is cut off: it contains {len(read.payload):,} of {read.size:,} bytes of the picture")
    say(f"loading {model} ...")
    loaded = load(model)
    start = time.perf_counter()
    with asking():
        estimates = _estimates(loaded, data, bits, device, str(file))
    seconds = time.perf_counter() - start
    _write(estimates, out, strip)
    rate = estimates[-1][0] / (loaded.x_shape[0] * loaded.x_shape[1] * loaded.x_shape[2])
    if json:
        about: dict[str, Any] = {"picture": out, "strip": strip, "bytes": len(data), "whole": read.whole, "bits": rate}
        about |= {"steps": len(estimates) - 1, "seed": read.header.seed, "label": _label(loaded, read)}
        emit(about | {"model": read.header.model.hex(), "seconds": round(seconds, 3)})
        return
    for path in (out, strip):
        if path is not None:
            show(str(path))
    say(f"{rate:.3f} bits per dimension in {len(estimates) - 1} steps, {duration(seconds)}")


def _read(path: Path) -> tuple[bytes, File]:
    """A compressed file: its bytes and their meaning. Raises UserError for any other file."""
    from unnoise.compression import format
    from unnoise.io.reading import read_bytes

    try:
        data = read_bytes(path, FILE_BYTES)
    except UserError as error:
        raise UsageError(f"{path} is not a picture compressed by unnoise: {error}") from None
    return data, format.read(data, str(path))


def _estimates(model: Model, data: bytes, bits: float, device: str, where: str) -> Estimates:
    """The estimate after each step of the coder, until `bits` per dimension are exceeded; always at least one."""
    from unnoise.codec import to_bytes
    from unnoise.compression import compress

    found: Estimates = []
    for received in compress.receive(model, data, device=device, where=where):
        if found and received.bits > bits * received.mean.numel():
            break
        found.append((received.bits, to_bytes(received.mean)[0].permute(1, 2, 0).cpu().numpy()))
    return found


def _label(model: Model, file: File) -> str | None:
    """The name of the class that the picture was compressed with, if any."""
    return None if file.header.label is None else model.conditioner.name(file.header.label)


def _write(estimates: Estimates, out: Path, strip: Path | None) -> None:
    """The last estimate as the picture, and some of all, evenly spaced, as the strip."""
    from unnoise.io.images import grid, image
    from unnoise.io.png import write_png

    write_png(out, image(estimates[-1][1]), None)
    if strip is not None:
        places = sorted({round(i * (len(estimates) - 1) / (STRIP - 1)) for i in range(STRIP)})
        write_png(strip, grid([estimates[i][1] for i in places], columns=len(places)), None)
