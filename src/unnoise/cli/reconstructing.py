"""`unnoise evaluate` of an autoencoder: pictures beside what it makes of them, as measures and as a sheet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unnoise.cli.console import UsageError, asking, emit, say, show, started, table
from unnoise.cli.measuring import follow
from unnoise.config.data import DataConfig
from unnoise.config.evaluation import EvaluateConfig
from unnoise.io.units import duration

if TYPE_CHECKING:
    from collections.abc import Mapping

HEAD = ("measure", "value", "real", "pictures", "better", "features")


def evaluate(
    path: Path, folder: Path, config: EvaluateConfig, data: str | None, device: str, plot: Path | None, *, json: bool
) -> None:
    """Measures the autoencoder in `folder`, of the run or folder `path`, and prints the report."""
    from unnoise import data as pictures
    from unnoise.acceleration.placement import best
    from unnoise.evaluation import autoencoder
    from unnoise.formats import autoencoders
    from unnoise.generate.sheets import compared
    from unnoise.io.png import write_png

    with asking():
        place = best(device, "float32").device
        model = autoencoders.load(folder)
        trained = model.card.info.get("data")
        if not (where := data or trained):
            raise UsageError("this autoencoder does not record its training data: add pictures with --data PATH")
        size = getattr(model.card.net, "size", 256)
        real = pictures.open(DataConfig(path=str(where), size=size, channels=model.card.net.in_channels))
    report = follow(started(autoencoder.evaluate_autoencoder(model, config, real, device=place)))
    if str(where) == trained:
        report["warnings"].append(f"pictures of {where}, which it was trained on; use held-out pictures (--data)")
    report = {"model": str(path), "latents": model.card.info.get("latents"), **report}
    if plot is not None:
        write_png(plot, compared(*autoencoder.sheet_of(model, real)), None)
        say(f"wrote {plot}")
    emit(report) if json else show(as_text(report))


def as_text(report: Mapping[str, Any]) -> str:
    """The measures as a table, and the sentences that belong to them."""
    rows = []
    for entry in report["metrics"]:
        value = f"{entry['value']:.4g}" + (f" ± {entry['error']:.2g}" if "error" in entry else "")
        value += f" of {entry['codes']:,}; {entry['used']:,} in use" if "codes" in entry else ""
        real = f"{entry['real']:.4g} (n = {entry['n_floor']:,})" if "real" in entry else ""
        better = {"down": "lower", "up": "higher"}.get(entry["better"], entry["better"])
        rows.append((entry["name"], value, real, f"{entry['n']:,}", better, entry.get("features", "")))
    note = f"{report['n']:,} pictures of {report['data']['path']}, in {duration(report['seconds'])}."
    floor = " 'Real' is one half of the pictures against the other." if any(row[2] for row in rows) else ""
    parts = [table(rows, head=HEAD, ragged=True), note + floor]
    return "\n\n".join([*parts, *(f"Warning: {warning}." for warning in report["warnings"])])


def autoencoder_text(found: Mapping[str, Any]) -> str:
    """A description of an autoencoder as text."""
    card = found["card"]
    net, latents, about = card["net"], card.get("latents", {}), card.get("info", {})
    measured = f", of {about['latents']['n']:,} pictures" if about.get("latents") else ", not measured"
    factor = latents.get("factor")
    rows = [
        ("autoencoder", found["path"]),
        ("net", ", ".join(f"{name} {value}" for name, value in net.items())),
        ("latents", f"{net.get('latent_channels')} channels, {factor} pixels to a latent along a side"),
        ("scale", f"{latents.get('scale', 1):.5g}{measured}"),
        ("perceptual distance", str(about.get("perceptual", "unknown"))),
    ]
    return table(rows, ragged=True)


def autoencoder_at(path: Path) -> Path | None:
    """The folder of the autoencoder that `path` is, or that the run `path` trained; None for anything else."""
    from unnoise.io import checkpoint

    card = "autoencoder.json"
    if (path / card).is_file():
        return path
    if not (path / "config.yaml").is_file():
        return None
    if (path / "autoencoder" / card).is_file():
        return path / "autoencoder"
    newest = next(iter(checkpoint.steps(path / "checkpoints").values()), None)
    return newest if newest is not None and (newest / card).is_file() else None
