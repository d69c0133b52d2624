"""`unnoise compress`: a picture as a file of a few bytes, coded with a diffusion model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from unnoise.cli.coding import DeviceOption, ModelOption, require_coder
from unnoise.cli.console import UsageError, asking, emit, say, show, table
from unnoise.cli.loading import load
from unnoise.cli.options import OVERWRITE, flag, option, within
from unnoise.cli.paths import existing, existing_model, new_file
from unnoise.config.request import check_seed
from unnoise.errors import UserError
from unnoise.io.units import duration

if TYPE_CHECKING:
    from unnoise.compression.compress import Sent

ROWS = 8  # of the table of errors, at most


def compress(
    picture: Annotated[Path, option("A picture of the model's size: PNG, JPEG, WebP and other formats.")],
    /,
    *,
    model: ModelOption,
    out: Annotated[Path, option("The file to write, for example picture.un.", "-o", "--output")],
    bits: Annotated[
        float,
        option(
            "Approximate rate in bits per dimension (channel value); inf: all lossy bits. The header adds 20 bytes.",
            validator=within(1e-6, float("inf"), "0.05 is coarse, 0.5 is fine"),
        ),
    ] = 0.2,
    seed: Annotated[int, option("Seed of the random candidates. It is stored in the file.")] = 0,
    label: Annotated[
        str, option("The class of the picture, by name or number: a class-conditional model needs fewer bits with it.")
    ] = "none",
    search: Annotated[
        int,
        option(
            "Base-2 logarithm of the number of candidates for each block. More candidates need more time, also to "
            "decompress, and save few bits.",
            validator=within(10, 24, "2^24 candidates take seconds a block"),
        ),
    ] = 16,
    pick: Annotated[
        Literal["nearest", "draw"],
        option("nearest: code the best candidate. draw: code a sample of the posterior, with a third more bits."),
    ] = "nearest",
    device: DeviceOption = "auto",
    overwrite: OVERWRITE = False,
    json: Annotated[bool, flag("Print one JSON document to stdout.")] = False,
) -> None:
    """Compress a picture to a few bytes by reverse channel coding with a diffusion model, coarse to fine.

    Compression is lossy: more bits give a smaller error. A table of rates and errors is printed.
    """
    existing(picture, "picture")
    existing_model(model)
    new_file(out, "the compressed picture", overwrite)
    with asking():
        check_seed(seed, "--seed")
        require_coder()
        data = _picture_bytes(picture)
    say(f"loading {model} ...")
    from unnoise.compression import compress
    from unnoise.io.atomic import publish

    loaded = load(model)
    start = time.perf_counter()
    with asking():
        pixels = compress.pixels(loaded, data)
        sent = compress.send(loaded, pixels, bits=bits, seed=seed, label=label, search=search, pick=pick, device=device)
    seconds = time.perf_counter() - start
    publish(out, lambda beside: beside.write_bytes(sent.data))
    steps = [(received.bits / pixels.numel(), compress.rmse(pixels, received.mean)) for received in sent.way]
    if json:
        about = {"seed": seed, "label": label, "model": compress.fingerprint(loaded).hex()}
        emit({"file": out} | _rates(sent, steps, pixels.numel()) | about | {"seconds": round(seconds, 3)})
        return
    show(str(out))
    say(error_table(steps))
    say(f"{len(sent.data):,} bytes for {pixels.numel():,} dimensions, in {duration(seconds)}")


def _rates(sent: Sent, steps: Sequence[tuple[float, float]], dimensions: int) -> dict[str, Any]:
    """Size and error as JSON. `steps`: rate in bits per dimension and RMSE after each step of the coder."""
    size = len(sent.data)
    return {
        "bytes": size,
        "bits": 8 * size / dimensions,
        "accounted": sent.accounted,
        "rmse": steps[-1][1],
        "way": [{"bits": rate, "rmse": error} for rate, error in steps],
    }


def error_table(steps: Sequence[tuple[float, float]]) -> str:
    """A table of rates and errors after at most eight of the steps, evenly spaced."""
    count = min(len(steps), ROWS)
    chosen = [steps[round(i * (len(steps) - 1) / max(count - 1, 1))] for i in range(count)]
    rows = [(f"{rate:.3f}", f"{error:.1f}") for rate, error in chosen]
    return table(rows, head=("bits per dimension", "RMSE (0 to 255)"))


def _picture_bytes(path: Path) -> bytes:
    """The bytes of a file, which is opened once to check that it is a picture."""
    from unnoise.io.picture_files import FILE_BYTES, open_picture
    from unnoise.io.reading import read_bytes

    try:
        data = read_bytes(path, FILE_BYTES)
        open_picture(data)
        return data
    except (OSError, UserError) as error:
        raise UsageError(f"{path} is not a picture that can be read: {error}") from None
