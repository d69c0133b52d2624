"""Compressed pictures: bytes against the accounted bits and against JPEG, WebP, AVIF and JPEG 2000 at the same bytes.

The pictures are 32 held-out ones of the set fashion; the model is a run of that preset: UNNOISE_MODEL or the first one
in runs/. The headers of the other formats are larger than such a picture, so they are measured in two ways: one file
for each picture, at the lowest quality of the format; and all 32 pictures on one sheet, where headers count little and
neighbouring pictures help, against the sum of our files, each with its own header.
"""

from __future__ import annotations

import io
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, features
from torch import Tensor

import unnoise
from unnoise import data
from unnoise.codec import from_bytes, to_bytes
from unnoise.compression.compress import compress
from unnoise.conditions import Cond
from unnoise.config.data import DataConfig
from unnoise.guidance import clip_denoised
from unnoise.likelihood.bound import chain, noise_of, whole_bound
from unnoise.likelihood.bound import last as bound_of
from unnoise.likelihood.rate_distortion import curve
from unnoise.metrics.features import find_features
from unnoise.metrics.frechet import frechet, moments
from unnoise.samplers.timesteps import even_log_snr

ROOT = Path(__file__).parent.parent
RATES = (0.1, 0.2, 0.5, math.inf)
COLUMNS = 8

Save = Callable[[Image.Image, int], bytes]


def _save(kind: str, **fixed: Any) -> Save:
    def save(picture: Image.Image, quality: int) -> bytes:
        out = io.BytesIO()
        options = {"quality_mode": "rates", "quality_layers": [quality]} if kind == "JPEG2000" else {"quality": quality}
        picture.save(out, kind, **options, **fixed)
        return out.getvalue()

    return save


def codecs() -> dict[str, tuple[Save, range]]:
    """The formats that this Pillow can write, with the range of their quality settings."""
    found: dict[str, tuple[Save, range]] = {"JPEG": (_save("JPEG", optimize=True), range(1, 96))}
    if features.check("webp"):
        found["WebP"] = (_save("WEBP", method=6), range(0, 101, 2))
    if features.check("avif"):
        found["AVIF"] = (_save("AVIF", speed=4, subsampling="4:0:0"), range(0, 100, 4))
    if features.check("jpg_2000"):
        found["JPEG 2000"] = (_save("JPEG2000", irreversible=True, no_jp2=True), range(3, 130, 2))
    return found


def grey(data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"))


def sheet(pictures: Tensor) -> Image.Image:
    lines = pictures[:, 0].reshape(-1, COLUMNS, *pictures.shape[2:])
    return Image.fromarray(torch.cat([torch.cat(list(line), 1) for line in lines], 0).numpy())


def cut(page: np.ndarray[Any, np.dtype[np.uint8]], size: int) -> Tensor:
    lines = torch.from_numpy(page.copy()).split(size, 0)
    return torch.stack([part for line in lines for part in line.split(size, 1)])[:, None]


def rmse(a: Tensor, b: Tensor) -> float:
    return (a.double() - b.double()).square().mean().sqrt().item()


def ours(model: unnoise.Model, x: Tensor, bits: float) -> tuple[dict[str, Any], Tensor]:
    """Compresses and decompresses all pictures at one rate: the measurements, and the decoded pictures."""
    start = time.perf_counter()
    sent = [compress.send(model, picture, bits=bits) for picture in x]
    middle = time.perf_counter()
    ends = [list(compress.receive(model, each.data))[-1] for each in sent]
    end = time.perf_counter()
    decoded = torch.stack([to_bytes(each.mean)[0] for each in ends])
    numbers = x[0].numel()
    size = sum(len(each.data) for each in sent) / len(x)
    accounted = sum(each.accounted for each in sent) / len(x)
    row = {
        "pictures": len(x),
        "bits asked": bits,
        "accounted bits": accounted,
        "accounted bytes": accounted * numbers / 8,
        "file bytes": size,
        "file bits": 8 * size / numbers,
        "most over 1.1 accounted + 64": max(len(s.data) - 1.1 * s.accounted * numbers / 8 - 64 for s in sent),
        "RMSE": rmse(decoded, x),
        "bit for bit": all(torch.equal(s.way[-1].mean, e.mean) for s, e in zip(sent, ends)),
        "network calls": sum(len(each.way) for each in sent) / len(x),
        "seconds to compress": (middle - start) / len(x),
        "seconds to decompress": (end - middle) / len(x),
    }
    return row, decoded


def bound_curve(model: unnoise.Model, x: Tensor, steps: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Rate and RMSE by the terms of the bound, over `steps` steps even in log SNR."""
    schedule = model.diffusion.schedule
    high = schedule.at(1 / model.diffusion.steps).log_ratio.item()
    times = even_log_snr(-5.0, high)(schedule, steps)
    rows = lambda row: clip_denoised(model.diffusion.given(Cond(model.conditioner.null(len(row)).label)))  # noqa: E731
    found = curve(bound_of(whole_bound(rows, from_bytes(x), chain(schedule, times), noise_of(0, tuple(x.shape[1:])))))
    return found.rate.numpy(), found.rmse.numpy()


def run(*, quick: bool = False, clock: str = "wall") -> dict[str, Any]:
    runs = sorted((ROOT / "runs").glob("*-fashion"))
    where = os.environ.get("UNNOISE_MODEL") or (str(runs[0]) if runs else "")
    if not where:
        return {"title": "Compressed pictures", "rows": [], "notes": {"left out": "no runs/*-fashion; UNNOISE_MODEL"}}
    model = unnoise.load(where)
    count = 8 if quick else 32
    x = to_bytes(data.open(DataConfig("fashion:test", size=28, channels=1)).batch(list(range(count))).x)
    extract = find_features("fashion")

    def distance(decoded: Tensor, real: Tensor = x) -> float:
        return frechet(moments(extract(from_bytes(real))), moments(extract(from_bytes(decoded))))

    rows: list[dict[str, Any]] = []
    rate, error = bound_curve(model, x, 60)
    for bits in RATES:
        row, decoded = ours(model, x, bits)
        row |= {
            "Frechet": distance(decoded),
            "bound's RMSE at the accounted bits": float(np.interp(row["accounted bits"], rate, error)),
            "bound's bits at this RMSE": float(np.interp(-row["RMSE"], -error, rate)),
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
    alone, together = others(x, [row["file bytes"] for row in rows], distance)
    plot(rows, x[0].numel(), (rate, error), alone, together)
    return {
        "title": f"Compressed pictures: {count} of 28x28, a file each",
        "rows": [{key: value if math.isfinite(value) else "all" for key, value in row.items()} for row in rows],
        "one file for each picture": alone,
        "one sheet of all": together,
        "notes": {
            "the least a file takes, bytes (RMSE)": {
                name: f"{each['bytes']:.0f} ({each['RMSE']:.1f})" for name, each in alone.items()
            },
            "on one sheet, at our bytes: RMSE (Frechet)": "; ".join(
                f"{each['codec']} {each['bytes']:.0f} B {each['RMSE']:.1f} ({each['Frechet']:.1f})" for each in together
            ),
            "model": where,
        },
    }


def others(
    x: Tensor, sizes: list[float], distance: Callable[..., float]
) -> tuple[dict[str, dict[str, float]], list[dict[str, Any]]]:
    """For each codec the fewest bytes of a file for each picture, and the sheet nearest to each of our sizes."""
    alone: dict[str, dict[str, float]] = {}
    together: list[dict[str, Any]] = []
    page, size = sheet(x), x.shape[-1]
    for name, (save, qualities) in codecs().items():
        least = [
            min((save(Image.fromarray(p[0].numpy()), q) for q in (qualities[0], qualities[-1])), key=len) for p in x
        ]
        decoded = torch.stack([torch.from_numpy(grey(each).copy())[None] for each in least])
        alone[name] = {"bytes": sum(map(len, least)) / len(x), "RMSE": rmse(decoded, x), "Frechet": distance(decoded)}
        files = [save(page, quality) for quality in qualities]
        for wanted in sizes:
            best = min(files, key=lambda file, wanted=wanted: abs(len(file) / len(x) - wanted))
            decoded = cut(grey(best), size)
            found = {"codec": name, "at": wanted, "bytes": len(best) / len(x)}
            together.append(found | {"RMSE": rmse(decoded, x), "Frechet": distance(decoded)})
    return alone, together


def plot(
    rows: list[dict[str, Any]],
    numbers: int,
    bound: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]],
    alone: dict[str, dict[str, float]],
    together: list[dict[str, Any]],
) -> None:
    """Plots docs/figures/compression.png: RMSE and Frechet distance over bytes; nothing without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(10.4, 4.2), layout="constrained", dpi=110)
    left, right = figure.subplots(1, 2)
    colours = dict(zip(codecs(), ("#e07b28", "#2f9468", "#c83c54", "#7a5cb0")))
    kept = bound[0] > 1e-3
    left.plot(
        bound[0][kept] * numbers / 8, bound[1][kept], color="#8a8f98", linestyle="--", label="the bound's account"
    )
    for axes, what in ((left, "RMSE"), (right, "Frechet")):
        axes.plot(
            [r["file bytes"] for r in rows],
            [r[what] for r in rows],
            "o-",
            color="#2563a8",
            label="unnoise, files",
        )
        for name, colour in colours.items():
            points = sorted({(each["bytes"], each[what]) for each in together if each["codec"] == name})
            axes.plot(*zip(*points), "s-", color=colour, markersize=4, label=f"{name}, one sheet of all")
            axes.plot(alone[name]["bytes"], alone[name][what], "x", color=colour, label=f"{name}, least single file")
        axes.set(xlabel="bytes a picture of 28x28", xscale="log")
        axes.grid(alpha=0.25)
    right.set_xticks([30, 50, 100, 200, 300], ["30", "50", "100", "200", "300"])
    right.minorticks_off()
    left.set(ylabel="RMSE, grey levels", yscale="log")
    right.set(ylabel="Frechet distance, clothes features", yscale="log")
    left.legend(fontsize=7, frameon=False)
    figure.savefig(ROOT / "docs" / "figures" / "compression.png")
