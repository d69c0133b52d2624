"""`unnoise compress`, `unnoise decompress`: a picture as a few bytes, with a model that both sides have."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from unnoise.cli.console import UsageError, asking, emit, existing, say, show, table, writable
from unnoise.cli.options import flag, option, within
from unnoise.io.units import duration

if TYPE_CHECKING:
    from unnoise.io.images import Pixels

ModelOption = Annotated[
    Path, option("a run, a model directory, a checkpoint, or a diffusers folder; the same one on both sides", "-m")
]
DeviceOption = Annotated[str, option("auto, cpu, cuda, cuda:1, mps; the same on both sides, for the same last digit")]
FILE_BYTES = 2**30  # more is no compressed picture


def compress(
    picture: Annotated[Path, option("a picture of the model's size: PNG, JPEG, WebP ...")],
    /,
    *,
    model: ModelOption,
    out: Annotated[Path, option("the file to write, for example picture.un", "-o", "--output")],
    bits: Annotated[
        float,
        option(
            "bits for each number of the picture, about; 'inf': all that is lossy. A file has 20 bytes more",
            validator=within(1e-6, float("inf"), "0.05 is coarse, 0.5 is fine"),
        ),
    ] = 0.2,
    seed: Annotated[int, option("of the random numbers that both sides draw; the file holds it")] = 0,
    label: Annotated[
        str, option("the class, by name or number: a model that is told it needs fewer bits; none: no class")
    ] = "none",
    search: Annotated[
        int,
        option(
            "each piece is found among 2^search candidates: more cost time on both sides, and save few bits",
            validator=within(10, 24, "2^24 candidates take seconds a piece"),
        ),
    ] = 16,
    pick: Annotated[
        Literal["nearest", "draw"],
        option("nearest: the best candidate; draw: a true draw of the model's step, in a third more bits"),
    ] = "nearest",
    device: DeviceOption = "auto",
    overwrite: Annotated[bool, flag("write over a file that is there")] = False,
    json: Annotated[bool, flag("one JSON document on stdout")] = False,
) -> None:
    """Write a picture as a file of a few bytes: coarse to fine, by reverse channel coding with a diffusion model.

    The picture comes back as the model sees it, not bit for bit. More bits, a closer picture: the table says how close.
    """
    existing(picture, "picture")
    existing(model, "model")
    _new(out, "the compressed picture", overwrite)
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed {seed}: seeds are whole numbers from 0 to 2^63 - 1")
    with asking():
        _needs_coder()
        found = _open(picture)
    say(f"loading {model} ...")
    from unnoise import model as models
    from unnoise.compression import compress
    from unnoise.io.atomic import publish

    loaded = models.load(model)
    start = time.perf_counter()
    with asking():
        pixels = compress.pixels(loaded, found)
        sent = compress.send(loaded, pixels, bits=bits, seed=seed, label=label, search=search, pick=pick, device=device)
    seconds = time.perf_counter() - start
    publish(out, lambda beside: beside.write_bytes(sent.data))
    numbers = pixels.numel()
    way = [(seen.bits / numbers, compress.rmse(pixels, seen.mean)) for seen in sent.way]
    if json:
        emit(
            {
                "file": out,
                "bytes": len(sent.data),
                "bits": 8 * len(sent.data) / numbers,
                "accounted": sent.accounted,
                "rmse": way[-1][1],
                "way": [{"bits": rate, "rmse": error} for rate, error in way],
                "seed": seed,
                "label": label,
                "model": compress.fingerprint(loaded).hex(),
                "seconds": round(seconds, 3),
            }
        )
        return
    show(str(out))
    shown = way if len(way) <= 8 else [way[round(i * (len(way) - 1) / 7)] for i in range(8)]
    rows = [(f"{rate:.3f}", f"{error:.1f}") for rate, error in shown]
    say(table(rows, head=("bits a number", "RMSE of 255")))
    say(f"{len(sent.data):,} bytes for {numbers:,} numbers, in {duration(seconds)}")


def decompress(
    file: Annotated[Path, option("what `unnoise compress` wrote, or the beginning of it")],
    /,
    *,
    model: ModelOption,
    out: Annotated[Path, option("the picture to write: a .png", "-o", "--output")],
    bits: Annotated[
        float,
        option(
            "stop after so many bits a number: a coarser picture, sooner; 'inf': all of the file",
            validator=within(0, float("inf"), "0 is what the model thinks before any bit"),
        ),
    ] = float("inf"),
    strip: Annotated[
        Path | None, option("a PNG with the estimates side by side, as bits arrive: at most twelve")
    ] = None,
    device: DeviceOption = "auto",
    overwrite: Annotated[bool, flag("write over files that are there")] = False,
    json: Annotated[bool, flag("one JSON document on stdout")] = False,
) -> None:
    """Read a compressed picture: a file that is cut off gives a coarser one, a damaged one an error."""
    existing(file, "compressed picture")
    existing(model, "model")
    for path, what in ((out, "the picture"), (strip, "the strip")):
        if path is not None:
            if path.suffix.lower() != ".png":
                raise UsageError(f"{path.name}: {what} is written as a .png")
            _new(path, what, overwrite)
    with asking():
        _needs_coder()
        if not file.is_file() or file.stat().st_size > FILE_BYTES:
            raise UsageError(f"{file} is not a picture compressed by unnoise")
        data = file.read_bytes()
        from unnoise.compression import format

        read = format.read(data, str(file))
    if not read.whole:
        say(f"{file} is cut off: {len(read.payload):,} of {read.size:,} bytes of the picture are there")
    say(f"loading {model} ...")
    from unnoise import model as models
    from unnoise.codec import to_bytes
    from unnoise.compression import compress
    from unnoise.io.images import grid, image
    from unnoise.io.png import write_png

    loaded = models.load(model)
    start = time.perf_counter()
    seen: list[tuple[float, Pixels]] = []
    with asking():
        for received in compress.receive(loaded, data, device=device, where=str(file)):
            if seen and received.bits > bits * received.mean.numel():
                break
            seen.append((received.bits, to_bytes(received.mean)[0].permute(1, 2, 0).cpu().numpy()))
    seconds = time.perf_counter() - start
    write_png(out, image(seen[-1][1]), None)
    if strip is not None:
        places = sorted({round(i * (len(seen) - 1) / 11) for i in range(12)})
        shown = [seen[i][1] for i in places]
        write_png(strip, grid(shown, columns=len(shown)), None)
    numbers = loaded.x_shape[0] * loaded.x_shape[1] * loaded.x_shape[2]
    if json:
        header = read.header
        emit(
            {
                "picture": out,
                "strip": strip,
                "bytes": len(data),
                "whole": read.whole,
                "bits": seen[-1][0] / numbers,
                "steps": len(seen) - 1,
                "seed": header.seed,
                "label": None if header.label is None else loaded.conditioner.name(header.label),
                "model": header.model.hex(),
                "seconds": round(seconds, 3),
            }
        )
        return
    show(str(out))
    if strip is not None:
        show(str(strip))
    say(f"{seen[-1][0] / numbers:.3f} bits a number in {len(seen) - 1} steps, {duration(seconds)}")


def _new(path: Path, what: str, overwrite: bool) -> None:
    writable(path, what)
    if path.exists() and not overwrite:
        raise UsageError(f"{path} is there already: name a new file, or say --overwrite")


def _needs_coder() -> None:
    import importlib.util

    if importlib.util.find_spec("constriction") is None:
        raise UsageError(
            "coding a picture needs the package constriction, which is not installed. Run: pip install 'unnoise[coder]'"
        )


def _open(path: Path) -> bytes:
    """The bytes of a picture, opened once to see that it is one."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture.verify()
        return path.read_bytes()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path} is not a picture that can be read: {error}") from None
