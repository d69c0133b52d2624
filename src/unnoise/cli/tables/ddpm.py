"""`unnoise table ddpm`: the six trainings of table 2 of Ho et al. 2020."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from unnoise.cli.console import UsageError, asking, say
from unnoise.cli.measuring import run as evaluate
from unnoise.cli.options import option, with_settings, within
from unnoise.cli.paths import writable
from unnoise.cli.tables.comparison import METRICS
from unnoise.cli.tables.options import COMMON, OUT, TableOptions
from unnoise.cli.tables.output import finish
from unnoise.cli.train_settings import preset_help
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request
from unnoise.config.training import TrainConfig
from unnoise.io.cache import home

if TYPE_CHECKING:
    from torch import Tensor

    from unnoise.data import Dataset
    from unnoise.recipes.ablation import Cell


@dataclass(frozen=True)
class Measurement:
    """How each training is measured: distances to `real`, bits of `held_out`."""

    config: EvaluateConfig
    request: Request
    real: Dataset
    held_out: Dataset
    shown: int


@with_settings(TableOptions, **COMMON | {"overwrite": None})
def ddpm(
    preset: Annotated[str, option(preset_help())],
    /,
    *,
    set: Annotated[
        tuple[str, ...],
        option("key=value: replaces a setting, for example fit.lr=1e-4, or lr=1e-4, as no other setting ends in lr"),
    ] = (),
    runs: Annotated[Path, option("the folder of the six trainings; the same command resumes them")] = Path("runs"),
    steps: Annotated[int, option("sampling steps", validator=within(1, 100_000, "steps"))] = 100,
    bits: Annotated[int, option("pictures whose bits are computed", validator=within(1, 1_000_000, "pictures"))] = 32,
    bits_steps: Annotated[int, option("steps of the bound; 0: all", validator=within(0, 100_000, "steps"))] = 0,
    held: Annotated[
        str | None, option("the pictures whose bits are computed; by default the training pictures")
    ] = None,
    features: Annotated[str, option("inception, a weight file of it, a shipped classifier, or a directory")] = "auto",
    device: Annotated[str | None, option("auto, cpu, cuda, cuda:1, mps")] = None,
    out: OUT = Path("table-ddpm"),
    **values: Any,
) -> int:
    """Train the six combinations of prediction and loss of table 2 of Ho et al. 2020, on your data, and measure them.

    All six have the same network, pictures and length. Measured are the Frechet and kernel distances of sampled
    pictures, and the bits per dimension of real ones. --data is the training set.
    """
    from unnoise.cli.requests import present
    from unnoise.cli.train_settings import settings_from_options
    from unnoise.recipes.settings import with_classes

    options = TableOptions(**values)
    parsed = settings_from_options(preset, data=options.data, sets=set, device=device, name=None)
    with asking():
        if not isinstance(parsed.config, TrainConfig):
            raise UsageError(f"the preset {preset} trains no diffusion model: use one that does, for example fashion")
        present(parsed.config.data.path)
        if held is not None:
            present(held)
    for path, kind in ((runs, "runs"), (out, "the table")):
        writable(path, kind, folder=True)
    from unnoise import data as pictures
    from unnoise.data.registry import find

    training = with_classes(parsed, len(find(parsed.config.data.path).classes)).config
    assert isinstance(training, TrainConfig)
    real = pictures.open(training.data)
    measurement = Measurement(
        EvaluateConfig(count=options.count, features=features, bits_count=bits, bits_steps=bits_steps),
        Request.of(steps=steps, device=device or "auto"),
        real,
        real if held is None else pictures.open(replace(training.data, path=held)),
        options.shown,
    )
    return train_and_measure(training, runs, measurement, out, options)


def train_and_measure(
    training: TrainConfig, runs: Path, measurement: Measurement, out: Path, options: TableOptions
) -> int:
    """Trains and measures each cell and writes the table; the exit code of the first training that does not end."""
    from unnoise.cli.train_progress import train_with_progress
    from unnoise.evaluation.tables import ablation_table
    from unnoise.recipes.ablation import cells
    from unnoise.training.distributed import ALONE
    from unnoise.training.run import choose

    found: dict[tuple[str, str], dict[str, Any]] = {}
    sheet: dict[tuple[str, str], Tensor] = {}
    made = cells(training)
    for at, cell in enumerate(made, start=1):
        say(f"{at} of {len(made)}: {cell.column}, {cell.row}")
        path = choose(runs, cell.config, resume=True)
        code = train_with_progress(cell.config, path, ALONE)
        if code:
            return code
        found[cell.row, cell.column], sheet[cell.row, cell.column] = measure(path, cell, measurement)
    how = measurement.config
    note = (
        f"{training.fit.images:,} training pictures each; {how.count:,} sampled in "
        f"{measurement.request.sampling.steps} steps "
        f"of ancestral sampling; bits per dimension of {how.bits_count} pictures."
    )
    finish(ablation_table(found, sheet, note), out, options)
    return 0


def measure(path: Path, cell: Cell, measurement: Measurement) -> tuple[dict[str, Any], Tensor]:
    """The metrics of the run at `path`, and some pictures."""
    from unnoise import model as models
    from unnoise.generate.frames import sample

    loaded = models.load(path).require_pictures()
    request = measurement.request.but(sampler=cell.sampler)
    entries = [
        entry
        for names, real in ((METRICS, measurement.real), (("bpd",), measurement.held_out))
        for entry in evaluate(loaded, replace(measurement.config, metrics=names), request, real, home() / "features")[
            "metrics"
        ]
    ]
    pixels = sample(loaded, replace(request, seeds=tuple(range(measurement.shown)))).pixels
    return {entry["id"]: entry["value"] for entry in entries} | {"run": str(path)}, pixels
