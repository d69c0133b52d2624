"""The output of a table: stdout, and a folder with pictures.png, plot.png (with matplotlib), table.md, table.json."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unnoise.cli.console import UsageError, as_json, emit, say, show, table
from unnoise.cli.tables.options import TableOptions

if TYPE_CHECKING:
    from unnoise.evaluation.tables import Table


def finish(result: Table, out: Path, options: TableOptions, **about: Any) -> None:
    """Writes the folder `out` and prints the table; `about` are further keys of the JSON document."""
    from unnoise.io.atomic import publish
    from unnoise.io.images import sheet
    from unnoise.io.png import write_png

    out.mkdir(parents=True, exist_ok=True)
    document = {**about, **result.document}
    write_png(out / "pictures.png", sheet(result.pictures, across=result.across, below=result.below), None)
    publish(out / "table.md", lambda file: file.write_text(result.markdown(), "utf-8"))
    publish(out / "table.json", lambda file: file.write_text(as_json(document) + "\n", "utf-8"))
    write_plot(result, out / "plot.png")
    if options.json:
        emit({**document, "out": str(out)})
    elif options.markdown:
        show(result.main.markdown())
    else:
        show(as_text(result))
    say(f"wrote pictures and tables to {out}")


def as_text(result: Table) -> str:
    """The tables and notes for a terminal."""
    grids = [result.main, *([result.second] if result.second else [])]
    tables = [table(grid.rows, head=grid.head, ragged=True) for grid in grids]
    return "\n\n".join([*tables, *(note for note in result.notes if note)])


def write_plot(result: Table, file: Path) -> None:
    """Plots the table's panels, or reports why it cannot."""
    from unnoise.cli.plot import plot, plottable

    if not result.panels:
        return
    try:
        plottable(file, overwrite=True)  # what exists was refused before the work
    except UsageError as error:
        say(f"no plot: {error}")
        return
    plot(file, result.panels)
