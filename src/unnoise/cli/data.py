"""`unnoise data`: describes a set of pictures, with statistics, broken files and a contact sheet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from unnoise.cli.console import asking, emit, say, show, table
from unnoise.cli.options import OVERWRITE, flag, option, with_settings, within
from unnoise.cli.paths import new_file
from unnoise.cli.requests import present
from unnoise.config.data import DataConfig
from unnoise.io.printable import printable

if TYPE_CHECKING:
    from unnoise.data import Dataset
    from unnoise.data.source import Source

# the fields of DataConfig that are options of this command itself, or none
OWN = ("path", "size", "channels", "flip", "background", "max_broken", "cache_bytes", "workers")
LARGEST = 64  # pixels of the pictures that are described, where they are files
SHOWN = 12  # lines of a list of classes or broken files
CLASSES = 20  # classes on a contact sheet
CAPTIONED = 24  # pictures on a contact sheet with captions


@with_settings(DataConfig, **(dict.fromkeys(OWN)))
def data(
    path: Annotated[str, option("a folder, a file, or a set that comes with the package: fashion, emoji, shapes, toy")],
    /,
    *,
    sheet: Annotated[Path | None, option("write a contact sheet: one PNG with pictures of every class")] = None,
    size: Annotated[
        int | None,
        option("pixels to resize and crop to; default: as stored, at most 64", validator=within(1, 4096, "pixels")),
    ] = None,
    channels: Annotated[Literal[1, 3] | None, option("1 grey, 3 colour; default: as stored, or 3")] = None,
    overwrite: OVERWRITE = False,
    json: Annotated[bool, flag("one JSON document on stdout")] = False,
    **settings: Any,
) -> None:
    """Describe a set of pictures: counts, sizes, classes, captions, broken files, values, a contact sheet."""
    if sheet is not None:
        new_file(sheet, "the contact sheet", overwrite, suffix=".png")
    with asking():
        present(path)
    say(f"reading {path} ...")
    from unnoise.data import Dataset
    from unnoise.data.registry import find, find_controls
    from unnoise.data.summary import describe

    with asking():
        source = find(path, size or LARGEST)  # rendered sets have that size
        side, depth = stored(source)
        # broken files are listed here, not refused
        config = DataConfig(path=path, size=size or side, channels=channels or depth, max_broken=1.0, **settings)
        found = Dataset(source, config, find_controls(config.control))
    about = describe(found) | {"path": path}
    if sheet is not None:
        write_sheet(found, sheet)
        about["sheet"] = str(sheet)
    emit(about) if json else show(as_text(about))


def stored(source: Source) -> tuple[int, int]:
    """Size and channels of a set that is one array; 3 and the median shorter side, at most LARGEST, of files."""
    if source.array is not None:
        array = source.array
        return int(min(array.shape[1:3])), 1 if array.ndim == 3 or array.shape[-1] == 1 else 3
    from unnoise.data.summary import stored_size

    return min(stored_size(source) or LARGEST, LARGEST), 3


def write_sheet(found: Dataset, path: Path) -> None:
    """Writes a sheet: ten pictures of each class, pictures with captions and control images, or just a hundred."""
    from unnoise.data import contact_sheet
    from unnoise.data.summary import captioned_samples
    from unnoise.io.fonts import boxes
    from unnoise.io.images import captioned, enlarged, with_labels
    from unnoise.io.png import write_png

    names = found.classes[:CLASSES] if found.labels() is not None else ()
    if found.config.control or (found.captions and not names):
        cells = [(pictures, printable(text)) for pictures, text in captioned_samples(found, CAPTIONED)]
        note, sheet = boxes(text for _, text in cells), captioned(cells, columns=4)
    else:
        sheet = enlarged(contact_sheet(found, len(names) or 10, 10), found.config.size)
        note, sheet = boxes(names), with_labels(sheet, names) if names else sheet
    if note:
        say(f"note: {note}")
    write_png(path, sheet, None)


def as_text(about: Mapping[str, Any]) -> str:
    """The description of a data set as text."""
    channels, size, _ = about["shape"]
    rows = [("pictures", f"{about['count']:,} in {about['where']}")]
    if about["sizes"]:
        width, height = about["sizes"]["width"], about["sizes"]["height"]
        rows.append(("width", f"{width['min']} to {width['max']} pixels, the median {width['median']:g}"))
        rows.append(("height", f"{height['min']} to {height['max']} pixels, the median {height['median']:g}"))
    rows.append(("stored as", ", ".join(f"{mode} ({n:,})" for mode, n in about["modes"].items()) or "unknown"))
    rows.append(
        ("read as", f"{size}x{size}, {'grey' if channels == 1 else 'colour'}; a training reads at its data.size")
    )
    captions = about["captions"]
    rows.append(("captions", f"{captions['count']:,}" if captions["count"] else "none"))
    rows += [("", repr(printable(text)[:80])) for text in captions["examples"]]
    for name, found in about["numbers"].items():
        rows.append((printable(name), f"{found['count']:,} pictures, from {found['min']:g} to {found['max']:g}"))
    values = about["values"]
    for name, mean, std in zip(("red", "green", "blue") if channels == 3 else ("grey",), values["mean"], values["std"]):
        rows.append((f"{name} values", f"mean {mean:+.3f}, standard deviation {std:.3f}"))
    rows.append(("all values", f"from {values['min']:+.3f} to {values['max']:+.3f}; -1 is black, 1 is white"))
    rows.append(("fingerprint", about["fingerprint"]))
    rows += [("note", printable(note)) for note in about["notes"]]
    return "\n\n".join([table(rows, ragged=True), classes_text(about["classes"]), *broken_text(about)])


def classes_text(classes: Mapping[str, int]) -> str:
    """The classes with their counts, as a table."""
    lines = [(printable(name), f"{n:,}") for name, n in list(classes.items())[:SHOWN]]
    more = f"\n  and {len(classes) - SHOWN} more; --json lists all" if len(classes) > SHOWN else ""
    return f"{len(classes)} classes\n" + table(lines, indent="  ") + more if classes else "no classes"


def broken_text(about: Mapping[str, Any]) -> list[str]:
    """Paragraphs about broken files, and whether a training would start with them."""
    broken, listed = about["broken"]["count"], about["broken"]["listed"]
    paragraphs = []
    if broken:
        fraction, allowed = broken / max(1, about["checked"]), DataConfig().max_broken
        lines = [(printable(b["path"]), b["why"]) for b in listed[:SHOWN]]
        more = f"\n  and {broken - SHOWN} more" if broken > SHOWN else ""
        head = f"{broken} broken of {about['checked']:,} opened ({100 * fraction:.1f} %)\n"
        paragraphs.append(head + table(lines, indent="  ", ragged=True) + more)
        if fraction > allowed:
            paragraphs.append(f"More than {100 * allowed:g} %: a training would not start (data.max_broken).")
    if about["checked"] < about["count"]:
        paragraphs.append(
            f"Only {about['checked']:,} were opened, because not all fit into memory; the others are read in training."
        )
    return paragraphs
