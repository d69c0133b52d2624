"""A walk as GIF or MP4."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from unnoise.errors import UserError
from unnoise.io.atomic import publish
from unnoise.io.images import PAPER


def animation_writer(path: Path) -> Callable[[Path, Sequence[Image.Image], float], None]:
    """The function that writes `path`, by its ending; a UserError at once where nothing here can write it."""
    ending = path.suffix.lower()
    if ending == ".gif":
        return write_gif
    if ending == ".mp4":
        import importlib.util

        if importlib.util.find_spec("imageio_ffmpeg") is None:
            raise UserError(
                f"--animation {path.name}: MP4 needs the package imageio-ffmpeg, which is not installed. "
                "Run: pip install 'unnoise[video]', or ask for a .gif"
            )
        return write_mp4
    raise UserError(f"--animation {path.name}: an animation is a .gif or an .mp4")


def write_gif(path: Path, frames: Sequence[Image.Image], seconds: float) -> None:
    """A GIF that lasts `seconds`, stands still for a second and a half at its end, and starts again."""
    each = max(20, round(1000 * seconds / len(frames)))  # below 20 ms viewers slow down to 100
    durations = [each] * (len(frames) - 1) + [1500]
    first, *rest = [frame.quantize(128, dither=Image.Dither.NONE) for frame in frames]
    publish(
        path,
        lambda beside: first.save(
            beside, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0, optimize=False
        ),
    )


def write_mp4(path: Path, frames: Sequence[Image.Image], seconds: float) -> None:
    """An MP4 (H.264) of `seconds`, its last frame held for a second and a half."""
    import imageio_ffmpeg

    width, height = (side + side % 2 for side in frames[0].size)  # H.264 wants even sides
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
