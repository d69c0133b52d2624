"""Animations of sampling, as GIF or MP4."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from unnoise.errors import UserError
from unnoise.io.atomic import publish
from unnoise.io.images import PAPER


def animation_writer(path: Path) -> Callable[[Path, Sequence[Image.Image], float], None]:
    """The function that writes the format of `path`. Raises UserError at once if that format cannot be written."""
    ending = path.suffix.lower()
    if ending == ".gif":
        return write_gif
    if ending == ".mp4":
        import importlib.util

        if importlib.util.find_spec("imageio_ffmpeg") is None:
            raise UserError(
                f"--animation {path.name}: MP4 needs the package imageio-ffmpeg, which is not installed. "
                "Run: pip install 'unnoise[video]', or write a .gif"
            )
        return write_mp4
    raise UserError(f"--animation {path.name}: the file name of an animation ends in .gif or .mp4")


def write_gif(path: Path, frames: Sequence[Image.Image], seconds: float) -> None:
    """Writes a GIF of `seconds`, which shows its last frame for another 1.5 seconds and repeats."""
    each = max(20, round(1000 * seconds / len(frames)))  # viewers show frames below 20 ms for 100 ms
    durations = [each] * (len(frames) - 1) + [1500]
    first, *rest = [frame.quantize(128, dither=Image.Dither.NONE) for frame in frames]
    publish(
        path,
        lambda beside: first.save(
            beside, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0, optimize=False
        ),
    )


def write_mp4(path: Path, frames: Sequence[Image.Image], seconds: float) -> None:
    """Writes an MP4 (H.264) of `seconds`, which shows its last frame for another 1.5 seconds."""
    import imageio_ffmpeg

    width, height = (side + side % 2 for side in frames[0].size)  # H.264 needs even sides
    rate = max(1.0, min(60.0, len(frames) / seconds))

    def write(beside: Path) -> None:
        writer = imageio_ffmpeg.write_frames(str(beside), (width, height), fps=rate, macro_block_size=2, quality=8)
        writer.send(None)
        for frame in [*frames, *[frames[-1]] * round(1.5 * rate)]:
            padded = Image.new("RGB", (width, height), PAPER)
            padded.paste(frame)
            writer.send(np.asarray(padded).tobytes())
        writer.close()

    publish(path, write)
