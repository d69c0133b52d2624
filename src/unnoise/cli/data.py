"""`unnoise data`: look at a set of pictures before training on it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from unnoise.cli.console import UsageError, asking, emit, existing, say, show, table, writable
from unnoise.cli.options import flag, keys_of, option, with_settings, within
from unnoise.config.data import DataConfig
from unnoise.io.printable import printable

if TYPE_CHECKING:
    from unnoise.data import Dataset

OWN = (
    "path",
    "size",
    "channels",
    "flip",
    "background",
    "max_broken",
    "cache_bytes",
    "workers",
)  # not asked here, or so
SHOWN = 12  # lines of a list that may be long: classes, broken files
LINES = 20  # classes on a contact sheet
CAPTIONED = 24  # pictures on one with captions


@with_settings(DataConfig, **(dict.fromkeys(OWN)))
def data(
    path: Annotated[str, option("a folder, a file, or a set that comes with the package: fashion, emoji, shapes, toy")],
    /,
    *,
    sheet: Annotated[Path | None, option("a contact sheet: one PNG with pictures of every class")] = None,
    size: Annotated[
        int | None,
        option("pixels to resize and crop to; otherwise as stored, or 64", validator=within(1, 4096, "pixels")),
    ] = None,
    channels: Annotated[Literal[1, 3] | None, option("1 grey, 3 colour; otherwise as stored, or 3")] = None,
    json: Annotated[bool, flag("one JSON document on stdout")] = False,
    **asked: Any,
) -> None:
    """Look at a set of pictures: counts, sizes, classes, captions, broken files, values, a contact sheet."""
    if sheet is not None:
        writable(sheet, "the contact sheet")
    with asking():
        present(path)
    say(f"reading {path} ...")
    from unnoise import data as pictures
    from unnoise.data.summary import describe

    shape = stored(path)
    config = DataConfig(
        path=path,
        size=size or shape[0],
        channels=channels or shape[1],
        max_broken=1.0,  # here to look, not to train: broken files are the point
        **asked,
    )
    found = pictures.open(config)
    about = describe(found) | {"path": path}
    if sheet is not None:
        write_sheet(found, sheet)
        about["sheet"] = str(sheet)
    if json:
        emit(about)
    else:
        show(as_text(about))


def present(path: str) -> None:
    """A path that is nowhere is told before torch is loaded."""
    name, _, _ = path.partition(":")
    if name in keys_of("data/registry.py", "SETS") or Path(path).exists() or Path(name).exists():
        return
    near = difflib.get_close_matches(name, keys_of("data/registry.py", "SETS"), n=1)
    if near:
        raise UsageError(f"no pictures at {path}; did you mean {near[0]!r}, which comes with the package?")
    existing(Path(path), "pictures")


def stored(path: str) -> tuple[int, int]:
    """Size and channels of a set that is one array; 64 and colour for files."""
    from unnoise.data.registry import find

    array = find(path).array
    if array is None:
        return 64, 3
    return int(min(array.shape[1:3])), 1 if array.ndim == 3 or array.shape[-1] == 1 else 3


def write_sheet(found: Dataset, path: Path) -> None:
    """Ten pictures of each class, its name beside them; or some with captions and drawings; or a hundred of all."""
    from unnoise.data import contact_sheet
    from unnoise.data.summary import shown
    from unnoise.io.fonts import boxes
    from unnoise.io.images import captioned, enlarged, with_labels
    from unnoise.io.png import write_png

    names = found.classes[:LINES] if found.labels() is not None else ()
    if found.config.control or (found.captions and not names):
        cells = [(pictures, printable(text)) for pictures, text in shown(found, CAPTIONED)]
        note, sheet = boxes(text for _, text in cells), captioned(cells, columns=4)
    else:
        sheet = enlarged(contact_sheet(found, len(names) or 10, 10), found.config.size)
        note, sheet = boxes(names), with_labels(sheet, names) if names else sheet
    if note:
        say(f"note: {note}")
    write_png(path, sheet, None)


def as_text(about: Mapping[str, Any]) -> str:
    """A description to read."""
    channels, size, _ = about["shape"]
    rows = [("pictures", f"{about['count']:,} in {about['where']}")]
    if about["sizes"]:
        width, height = about["sizes"]["width"], about["sizes"]["height"]
        rows.append(("width", f"{width['min']} to {width['max']} pixels, the median {width['median']:g}"))
        rows.append(("height", f"{height['min']} to {height['max']} pixels, the median {height['median']:g}"))
    rows.append(("stored as", ", ".join(f"{mode} ({n:,})" for mode, n in about["modes"].items()) or "unknown"))
    rows.append(("taken as", f"{size}x{size}, {'grey' if channels == 1 else 'colour'}"))
    captions = about["captions"]
    rows.append(("captions", f"{captions['count']:,}" if captions["count"] else "none"))
    rows += [("", repr(printable(text)[:80])) for text in captions["examples"]]
    for name, found in about["numbers"].items():
        told = f"{found['count']:,} pictures, from {found['min']:g} to {found['max']:g}"
        rows.append((printable(name), told))
    values = about["values"]
    for name, mean, std in zip(("red", "green", "blue") if channels == 3 else ("grey",), values["mean"], values["std"]):
        rows.append((f"{name} values", f"mean {mean:+.3f}, standard deviation {std:.3f}"))
    rows.append(("all values", f"from {values['min']:+.3f} to {values['max']:+.3f}, where -1 is black and 1 white"))
    rows.append(("fingerprint", about["fingerprint"]))
    rows += [("note", printable(note)) for note in about["notes"]]
    return "\n\n".join([table(rows, ragged=True), classes_text(about["classes"]), *broken_text(about)])


def classes_text(classes: Mapping[str, int]) -> str:
    if not classes:
        return "no classes"
    lines = [(printable(name), f"{n:,}") for name, n in list(classes.items())[:SHOWN]]
    more = f"\n  and {len(classes) - SHOWN} more; --json lists all" if len(classes) > SHOWN else ""
    return f"{len(classes)} classes\n" + table(lines, indent="  ") + more


def broken_text(about: Mapping[str, Any]) -> list[str]:
    """The broken files, where there are any, and whether a training would bear them."""
    broken, listed = about["broken"]["count"], about["broken"]["listed"]
    said = []
    if broken:
        share, bearable = broken / max(1, about["checked"]), DataConfig().max_broken
        lines = [(printable(b["path"]), b["why"]) for b in listed[:SHOWN]]
        more = f"\n  and {broken - SHOWN} more" if broken > SHOWN else ""
        head = f"{broken} broken of {about['checked']:,} opened ({100 * share:.1f} %)\n"
        said.append(head + table(lines, indent="  ", ragged=True) + more)
        if share > bearable:
            said.append(f"More than {100 * bearable:g} %: a training stops before it starts (data.max_broken).")
    if about["checked"] < about["count"]:
        said.append(f"Only {about['checked']:,} were opened, for all do not fit into memory; the rest is read later.")
    return said
