"""What a table leaves in its folder, and what is said at the end.

pictures.png, plot.png (with matplotlib), table.md and table.json; on stdout the table, as text, Markdown or JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unnoise.cli.console import UsageError, as_json, emit, say, show, table
from unnoise.cli.tables.run import as_document, value

if TYPE_CHECKING:
    from unnoise.evaluation.sweep import Result


def keep(
    out: Path,
    results: Sequence[Result],
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    words: Sequence[str],
    also: tuple[Sequence[str], Sequence[Sequence[str]]] | None = None,
    blocks: Mapping[tuple[str, str], Any] | None = None,
    below: Sequence[str] = (),
) -> None:
    """pictures.png, table.md and table.json. `blocks` are the cells of the sheet, each in one line, where it is not to
    have the table's rows and columns; `below` what each picture of such a line was told."""
    from unnoise.io.images import sheet
    from unnoise.io.png import write_png

    out.mkdir(parents=True, exist_ok=True)
    cells = {(r.way.row, r.way.column): r.pictures for r in results}
    page = sheet(cells) if blocks is None else sheet(blocks, across=max(map(len, blocks.values())), below=below)
    write_png(out / "pictures.png", page, None)
    write_tables(out, as_document(results), head, rows, words, also)


def write_tables(
    out: Path,
    document: Mapping[str, Any],
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    words: Sequence[str],
    also: tuple[Sequence[str], Sequence[Sequence[str]]] | None = None,
) -> None:
    from unnoise.io.atomic import publish

    parts = [as_markdown(head, rows), *([as_markdown(*also)] if also else []), *words]
    publish(out / "table.md", lambda file: file.write_text("\n\n".join(part for part in parts if part) + "\n", "utf-8"))
    publish(out / "table.json", lambda file: file.write_text(as_json(document) + "\n", "utf-8"))


def as_markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def curves(out: Path, results: Sequence[Result], up: str) -> None:
    """plot.png, a curve a row, where matplotlib is there; otherwise the word that it is not."""
    from unnoise.cli.plot import Curves, plot

    if not drawable(out / "plot.png"):
        return
    lines: dict[str, list[tuple[float, float]]] = {}
    for r in results:
        lines.setdefault(r.way.row, []).append((float(r.calls), value(r)))
    plot(out / "plot.png", [Curves(lines, "network calls a picture", up, log_x=True, log_y=True)])


def drawable(file: Path) -> bool:
    """Whether a plot can be written there; otherwise why not is said."""
    from unnoise.cli.plot import plottable

    try:
        plottable(file)
    except UsageError as error:
        say(f"no plot: {error}")
        return False
    return True


def answer(
    document: Mapping[str, Any],
    out: Path,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    words: Sequence[str],
    *,
    markdown: bool,
    json: bool,
) -> None:
    if json:
        emit({**document, "out": str(out)})
    elif markdown:
        show(as_markdown(head, rows))
    else:
        show("\n\n".join([table(rows, head=head, ragged=True), *(word for word in words if word)]))
    say(f"pictures and tables are in {out}")
