"""Latents of a data set: pictures are encoded once, and read back from memory-mapped files at every later step.

    x = sample(moments(picture), noise of (seed, epoch, index))

The files hold the moments, the parameters of the encoder's distribution, so that every epoch has new samples of it. A
flipped picture is encoded too, because the latents of a flipped picture are not the flipped latents. Laws
(tests/data/test_latents.py): x is the codec's encoding of the same pictures, bit for bit; it does not depend on the
batch, on the files, or on a restart in between.

    FOLDER/KEY/latents.json    what was encoded, and with which autoencoder
               00000.npy       moments of the first pictures, (n, 1 or 2, M, h, w) float32: as they are, and flipped
               00000.json      the SHA-256 of 00000.npy, and the pictures in it that could not be read

KEY is a hash of the stored pictures, of the settings that change them (size, crop), and of the autoencoder. A shard is
renamed to its name when it is whole: after a kill, encoding continues with the shard that is missing.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unnoise import noise
from unnoise.data.dataset import Batch, Dataset, as_x, scaled
from unnoise.data.scan import crop
from unnoise.data.source import Unreadable, reason
from unnoise.errors import UserError
from unnoise.io.atomic import DISK_ERRORS, publish, write_text
from unnoise.io.hashing import sha256
from unnoise.io.json_files import read_json
from unnoise.io.units import human

FORMAT = {"format": "unnoise-latents", "version": 1}
SHARD_BYTES = 64 * 2**20  # what a kill may lose
ABOUT = "latents.json"
CONTENT = ("sizes", "contents", "settings of data", "times of modification")  # of the parts of a fingerprint
GROUP, GROUP_PIXELS = 8, 2**19  # pictures that are encoded at once: at most GROUP, and fewer above 256x256


@dataclass(frozen=True)
class Encoder:
    """An autoencoder's encoder, as latents of a data set need it."""

    moments: Callable[[Tensor], Tensor]  # pictures (B, C, H, W) in [-1, 1] -> (B, *shape) float32 on the CPU
    sample: Callable[[Tensor, Tensor], Tensor]  # moments, noise (B, *latents) -> x (B, *latents)
    shape: tuple[int, int, int]  # (M, h, w): the moments of a picture
    latents: tuple[int, int, int]  # (C, h, w): its x
    fingerprint: str  # of the autoencoder's weights and settings

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Moments (B, M, h, w), in groups of a fixed size, so that those of a picture do not depend on the batch."""
        group = min(GROUP, max(1, GROUP_PIXELS // math.prod(pictures.shape[2:])))
        parts = torch.split(pictures, group)
        padded = (torch.cat([part, part[-1:].expand(group - len(part), -1, -1, -1)]) for part in parts)
        found = [self.moments(each)[: len(part)] for part, each in zip(parts, padded)]
        return torch.cat(found) if found else torch.zeros(0, *self.shape)


@dataclass(frozen=True)
class LatentStore:
    """The files of the latents of a data set in `root`; `fill` writes those that are missing.

    The pictures have to be the same in every epoch: `data.crop` is center.
    """

    root: Path
    pictures: Dataset
    encoder: Encoder

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The contents of latents.json."""
        parts = self.pictures.fingerprint_parts
        return {
            **FORMAT,
            "data": {name: parts[name] for name in CONTENT if name in parts},
            "broken": [broken.path for broken in self.pictures.broken],
            "autoencoder": self.encoder.fingerprint,
            "shape": [len(self.pictures), *self.row],
        }

    @cached_property
    def folder(self) -> Path:
        """Where the files are: a folder in `root`, named by the hash of `facts`."""
        return self.root / hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def row(self) -> tuple[int, int, int, int]:
        """(views, M, h, w): what is stored for a picture."""
        return (2 if self.pictures.config.flip else 1, *self.encoder.shape)

    @property
    def bytes(self) -> int:
        """The bytes of all moments."""
        return 4 * len(self.pictures) * math.prod(self.row)

    @property
    def each(self) -> int:
        """The pictures of a shard."""
        return max(1, SHARD_BYTES // (4 * math.prod(self.row)))

    @property
    def shards(self) -> range:
        """The numbers of all shards."""
        return range(-(-len(self.pictures) // self.each))

    def rows(self, shard: int) -> range:
        """The pictures of a shard."""
        return range(shard * self.each, min((shard + 1) * self.each, len(self.pictures)))

    def file(self, shard: int, suffix: str = ".npy") -> Path:
        """The file of a shard."""
        return self.folder / f"{shard:05d}{suffix}"

    def whole(self, shard: int) -> bool:
        """Whether a shard was written and is unchanged: every byte is read."""
        file = self.file(shard)
        try:
            return bool(read_json(self.file(shard, ".json"))["sha256"] == sha256(file))
        except (UserError, OSError, KeyError, TypeError):
            return False

    def check_room(self, shards: Iterable[int]) -> None:
        """Raises UserError where the disk has no room for these shards."""
        needed = 4 * math.prod(self.row) * sum(len(self.rows(shard)) for shard in shards)
        existing = next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(existing).free
        if free < needed:
            raise UserError(
                f"{self.folder}: the latents of these pictures need {human(needed)}B, and {human(free)}B are free "
                "there: set latent_cache to a folder on another disk, or to none, which encodes the pictures at every "
                "step"
            )

    def fill(self, rank: int = 0, world: int = 1) -> Iterator[tuple[int, int]]:
        """Encodes the pictures of every `world`-th shard that is missing or damaged; yields how many are done, and of
        how many.

        First, after the check that the disk has room, none are done. Raises UserError where it has not, and where the
        files cannot be written.
        """
        missing = [shard for shard in self.shards if shard % world == rank and not self.whole(shard)]
        self.check_room(missing)
        done, total = 0, sum(len(self.rows(shard)) for shard in missing)
        yield done, total
        try:
            if missing:
                write_text(self.folder / ABOUT, json.dumps(self.facts, indent=1))
            for shard in missing:
                for count in self._write(shard):
                    yield done + count, total
                done += len(self.rows(shard))
        except OSError as error:
            raise _cannot_write(self.folder, error) from error

    def _write(self, shard: int) -> Iterator[int]:
        """Encodes the pictures of a shard and publishes its two files; yields how many of them are done."""
        found = np.zeros((len(self.rows(shard)), *self.row), np.float32)
        absent: dict[int, str] = {}
        for first in range(0, len(found), GROUP):
            rows = self.rows(shard)[first : first + GROUP]
            pictures = {row: picture for row in rows if (picture := self._picture(row, absent)) is not None}
            if pictures:
                x = torch.stack(list(pictures.values()))  # (n, views, C, H, W)
                moments = self.encoder.encode(x.flatten(0, 1)).view(len(x), *self.row)
                found[[row - self.rows(shard)[0] for row in pictures]] = moments.numpy()
            yield first + len(rows)
        publish(self.file(shard), lambda beside: np.save(beside, found))
        entry = {"sha256": sha256(self.file(shard)), "absent": absent}
        write_text(self.file(shard, ".json"), json.dumps(entry))

    def _picture(self, row: int, absent: dict[int, str]) -> Tensor | None:
        """A picture in [-1, 1] as it is, and flipped if the data set flips, (views, C, H, W); None if it is unreadable,
        with the reason in `absent`."""
        try:
            pixels = torch.from_numpy(crop(self.pictures.pixels(row), 0.5).copy())
        except (OSError, Unreadable) as error:
            absent[row] = reason(error)
            return None
        return as_x(torch.stack([pixels, pixels.flip(-1)][: self.row[0]]))

    def open(self) -> LatentRows:
        """The latents, once all shards are written. Raises UserError where one is missing or of another data set."""
        if read_json(self.folder / ABOUT) != self.facts:
            raise UserError(f"{self.folder} has the latents of other pictures or of another autoencoder: remove it")
        absent: dict[int, str] = {}
        maps = []
        for shard in self.shards:
            try:
                entry = read_json(self.file(shard, ".json"))
                absent |= {int(row): str(why) for row, why in entry["absent"].items()}
                maps.append(np.load(self.file(shard), mmap_mode="r", allow_pickle=False))
            except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise UserError(f"{self.file(shard)} cannot be read: {error}; remove it, and train again") from None
            if maps[-1].shape != (len(self.rows(shard)), *self.row) or maps[-1].dtype != np.float32:
                raise UserError(f"{self.file(shard)} has other latents than {ABOUT}: remove {self.folder}")
        for row, why in sorted(absent.items()):
            self.pictures.unreadable(row, why)
        return LatentRows(self.pictures, self.encoder, Shards(tuple(maps), self.each, frozenset(absent)))


@dataclass(frozen=True)
class Shards:
    """Memory-mapped moments."""

    maps: tuple[NDArray[np.float32], ...]  # (n, views, M, h, w)
    each: int  # pictures of a shard
    absent: frozenset[int]  # pictures that could not be read

    def moments(self, rows: NDArray[np.int64], flips: NDArray[np.bool_]) -> Tensor:
        """(B, M, h, w), of flipped pictures where `flips` is true."""
        places = zip(rows.tolist(), flips.tolist())
        found = [self.maps[row // self.each][row % self.each, int(flip)] for row, flip in places]
        return torch.from_numpy(np.stack(found)) if found else torch.zeros(0, *self.maps[0].shape[2:])


@dataclass(frozen=True)
class LatentRows:
    """The latents of a data set by row, as data.batches needs them: from files, or else encoded when they are used."""

    pictures: Dataset
    encoder: Encoder
    shards: Shards | None = None
    with_picture: bool = False  # whether batches have the pictures too, which are then decoded at every step

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(
        self, indices: Sequence[int], *, seed: int = 0, epoch: int | Sequence[int] = 0, as_bytes: bool = False
    ) -> Batch:
        """As Dataset.batch, where `x` are latents, and control images alone are bytes with `as_bytes`."""
        rows, epochs = self.pictures.rows(indices, epoch)
        if self.shards is None:
            batch = self.pictures.batch(indices, seed=seed, epoch=epoch)
            moments = self.encoder.encode(batch.x)
        else:
            rows = np.array([self._present(row, seed, self.shards.absent) for row in rows.tolist()], np.int64)
            moments = self.shards.moments(rows, self.pictures.flips(rows, epochs, seed))
            batch = self.pictures.batch_of(moments, rows, epochs, seed)
            batch = batch if as_bytes else scaled(batch)
        eps = latent_noise(self.encoder.latents, seed, epochs.tolist(), batch.index)
        picture = batch.x if self.with_picture else None
        return batch._replace(x=self.encoder.sample(moments, eps), picture=picture)

    def _present(self, row: int, seed: int, absent: frozenset[int]) -> int:
        """`row`, or the row that replaces it where it could not be read."""
        used = next((used for used in self.pictures.instead(row, seed) if used not in absent), None)
        if used is None:
            raise self.pictures.too_many()
        return used


def latent_noise(shape: Sequence[int], seed: int, epochs: Sequence[int], indices: Sequence[int]) -> Tensor:
    """The noise (B, *shape) that chooses a sample of each picture's latents: a function of (seed, epoch, index)."""
    each = [noise.normal(shape, seed, "latent", epoch, index) for epoch, index in zip(epochs, indices)]
    return torch.stack(each) if each else torch.zeros(0, *shape)


def _cannot_write(folder: Path, error: OSError) -> UserError:
    why = DISK_ERRORS.get(error.errno or 0, error.strerror or str(error))
    return UserError(f"{folder}: latents cannot be written: {why}; set latent_cache to another folder")
