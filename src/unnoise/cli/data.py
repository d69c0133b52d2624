"""`unnoise data`: describes a set of pictures, with statistics, broken files and a contact sheet."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from unnoise.cli.console import UsageError, asking, emit, existing, plain, say, show, table, writable
from unnoise.cli.options import flag, keys_of, option, with_settings, within
from unnoise.config.data import DataConfig

if TYPE_CHECKING:
    from unnoise.data import Dataset

# the fields of DataConfig that are options of this command itself, or none
OWN = ("path", "size", "channels", "flip", "background", "max_broken", "cache_bytes", "workers")
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
        option("pixels to resize and crop to; default: as stored, or 64", validator=within(1, 4096, "pixels")),
    ] = None,
    channels: Annotated[Literal[1, 3] | None, option("1 grey, 3 colour; default: as stored, or 3")] = None,
    json: Annotated[bool, flag("one JSON document on stdout")] = False,
    **settings: Any,
) -> None:
    """Describe a set of pictures: counts, sizes, classes, captions, broken files, values, a contact sheet."""
    if sheet is not None:
        writable(sheet, "the contact sheet")
    with asking():
        present(path)
    say(f"reading {path} ...")
    from unnoise import data as pictures
    from unnoise.data.summary import describe

    own_size, own_channels = stored(path)
    own = {"size": size or own_size, "channels": channels or own_channels}
    found = pictures.open(DataConfig(path=path, max_broken=1.0, **own | settings))  # broken files are only listed
    about = describe(found) | {"path": path}
    if sheet is not None:
        write_sheet(found, sheet)
        about["sheet"] = str(sheet)
    emit(about) if json else show(as_text(about))


def present(path: str) -> None:
    """Raises UsageError for a path that does not exist, before torch is imported."""
    name, _, _ = path.partition(":")
    sets = keys_of("data/registry.py", "SETS")
    if name in sets or Path(path).exists() or Path(name).exists():
        return
    near = difflib.get_close_matches(name, sets, n=1)
    if near:
        raise UsageError(f"no pictures at {path}; did you mean {near[0]!r}, which comes with the package?")
    existing(Path(path), "pictures")


def stored(path: str) -> tuple[int, int]:
    """Size and channels of a set that is one array; 64 and 3 for files."""
    from unnoise.data.registry import find

    array = find(path).array
    if array is None:
        return 64, 3
    return int(min(array.shape[1:3])), 1 if array.ndim == 3 or array.shape[-1] == 1 else 3


def write_sheet(found: Dataset, path: Path) -> None:
    """Writes a contact sheet: ten pictures of each class with its name, or pictures with captions and control images,
    or a hundred pictures of a set without either."""
    from unnoise.data import contact_sheet
    from unnoise.data.summary import captioned_samples
    from unnoise.io.fonts import boxes
    from unnoise.io.images import captioned, enlarged, with_labels
    from unnoise.io.png import write_png

    names = found.classes[:CLASSES] if found.labels() is not None else ()
    if found.config.control or (found.captions and not names):
        cells = [(pictures, plain(text)) for pictures, text in captioned_samples(found, CAPTIONED)]
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
    rows.append(("read as", f"{size}x{size}, {'grey' if channels == 1 else 'colour'}"))
    captions = about["captions"]
    rows.append(("captions", f"{captions['count']:,}" if captions["count"] else "none"))
    rows += [("", repr(plain(text)[:80])) for text in captions["examples"]]
    for name, found in about["numbers"].items():
        rows.append((plain(name), f"{found['count']:,} pictures, from {found['min']:g} to {found['max']:g}"))
    values = about["values"]
    for name, mean, std in zip(("red", "green", "blue") if channels == 3 else ("grey",), values["mean"], values["std"]):
        rows.append((f"{name} values", f"mean {mean:+.3f}, standard deviation {std:.3f}"))
    rows.append(("all values", f"from {values['min']:+.3f} to {values['max']:+.3f}; -1 is black, 1 is white"))
    rows.append(("fingerprint", about["fingerprint"]))
    rows += [("note", plain(note)) for note in about["notes"]]
    return "\n\n".join([table(rows, ragged=True), classes_text(about["classes"]), *broken_text(about)])


def classes_text(classes: Mapping[str, int]) -> str:
    """The classes with their counts, as a table."""
    lines = [(plain(name), f"{n:,}") for name, n in list(classes.items())[:SHOWN]]
    more = f"\n  and {len(classes) - SHOWN} more; --json lists all" if len(classes) > SHOWN else ""
    return f"{len(classes)} classes\n" + table(lines, indent="  ") + more if classes else "no classes"


def broken_text(about: Mapping[str, Any]) -> list[str]:
    """Paragraphs about broken files, and whether a training would start with them."""
    broken, listed = about["broken"]["count"], about["broken"]["listed"]
    paragraphs = []
    if broken:
        fraction, allowed = broken / max(1, about["checked"]), DataConfig().max_broken
        lines = [(plain(b["path"]), b["why"]) for b in listed[:SHOWN]]
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
