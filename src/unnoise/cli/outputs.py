"""The files that `sample` writes, checked before the work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unnoise.cli.console import UsageError
from unnoise.cli.paths import existing, new_file, writable
from unnoise.generate.rows import Row


@dataclass(frozen=True)
class Output:
    """Which files `sample` writes."""

    out: Path | None  # a folder for one PNG per picture
    grid: Path | None
    strip: Path | None
    animation: Path | None
    latents: Path | None
    columns: int | None
    scale: int | None
    metadata: bool
    json: bool
    overwrite: bool

    @property
    def walk(self) -> bool:
        """Whether the estimates of all steps are needed."""
        return self.strip is not None or self.animation is not None

    def check(self) -> None:
        """Raises UserError for an output that cannot be written, or that exists already."""
        if self.out is not None:
            writable(self.out, "pictures", folder=True)
        files = {"the grid": self.grid, "the strip": self.strip, "the animation": self.animation}
        named = [file for file in (*files.values(), self.latents) if file is not None]
        if len(set(named)) < len(named):
            raise UsageError(f"{max(named, key=named.count)} is named for two outputs: give each a name of its own")
        for what, path in files.items():
            if path is not None:
                new_file(path, what, self.overwrite, suffix="" if path is self.animation else ".png")
        if self.latents is not None:
            new_file(self.latents, "the file of latents", self.overwrite, suffix=".safetensors")
        if self.animation is not None:
            from unnoise.io.animation import animation_writer

            animation_writer(self.animation)  # raises for an ending that cannot be written here

    def check_pictures(self, rows: Iterable[Row], texts: Sequence[str]) -> None:
        """Raises UsageError if a picture of these rows exists already in the folder."""
        if self.out is None or self.overwrite or not self.out.is_dir():
            return
        from unnoise.generate.output import file_names, picture_name

        names, there = file_names(texts), {path.name for path in self.out.iterdir()}
        for row in rows:
            if (name := picture_name(row, names)) in there:
                raise UsageError(f"{self.out / name} exists already: give another --out, or add --overwrite")


def check_inputs(inputs: dict[str, Iterable[Path | None]]) -> None:
    """Raises UsageError for an input file that is missing."""
    for what, paths in inputs.items():
        for path in paths:
            if path is not None:
                existing(path, what)
