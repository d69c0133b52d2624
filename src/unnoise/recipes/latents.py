"""Diffusion in the latents of an autoencoder: what a training needs beside one in pixels (Rombach et al. 2022).

    x = codec.encode(picture, noise of (seed, epoch, index))

The network, the loss, conditions and sampling are those of pixels. Pictures are encoded once, into files
(data/latents.py), unless they differ from epoch to epoch. A run has a copy of its autoencoder in every checkpoint, and
continues with that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from unnoise import artifacts
from unnoise.acceleration.placement import Placement, prepare
from unnoise.config.convert import to_dict
from unnoise.config.training import TrainConfig
from unnoise.data import Dataset
from unnoise.data.latents import Encoder, LatentRows, LatentStore
from unnoise.data.loading import Rows
from unnoise.errors import UserError
from unnoise.formats import autoencoders
from unnoise.formats.autoencoders import AutoencoderModel
from unnoise.formats.directory import AUTOENCODER
from unnoise.io import checkpoint
from unnoise.io.whatis import is_model, not_a
from unnoise.model import Model
from unnoise.nn.autoencoder import AutoencoderKL, Posterior
from unnoise.recipes import latent_settings
from unnoise.tiling import tiled
from unnoise.training.distributed import Processes

MEASURED = 64  # pictures
FARTHEST = 2.5  # of the standard deviation of x from 1, as a factor


def rows(
    config: TrainConfig,
    pictures: Dataset,
    autoencoder: AutoencoderModel | None,
    placement: Placement,
    processes: Processes,
) -> Rows:
    """What a training's batches are made of: pictures, or their latents, which are encoded now where files lack them.

    Every process encodes its part. Raises UserError where the files cannot be written.
    """
    if autoencoder is None:
        return pictures
    encoder = encoder_of(config, autoencoder, placement)
    found = LatentRows(pictures, encoder, with_picture=bool(config.process.concat))
    if latent_settings.is_cached(config):
        store = LatentStore(Path(config.latent_cache or ""), pictures, encoder)
        with processes.together():
            for _ in store.fill(processes.rank, processes.world):
                pass
        with processes.together():
            found = store.open()
    check_scale(config, found)
    return found


def store_of(config: TrainConfig, run: Path, pictures: Dataset, placement: Placement) -> LatentStore | None:
    """The files of the latents of a training; None where it reads none."""
    autoencoder = open_autoencoder(config, run)
    if autoencoder is None or not latent_settings.is_cached(config):
        return None
    return LatentStore(Path(config.latent_cache or ""), pictures, encoder_of(config, autoencoder, placement))


def check(config: TrainConfig, run: Path, pictures: Dataset) -> None:
    """Raises UserError where the latents of a training are not scaled, or the disk has no room for them."""
    autoencoder = open_autoencoder(config, run)
    if autoencoder is None:
        return
    encoder = encoder_of(config, autoencoder, Placement())
    check_scale(config, LatentRows(pictures, encoder))
    if latent_settings.is_cached(config):
        store = LatentStore(Path(config.latent_cache or ""), pictures, encoder)
        store.check_room(shard for shard in store.shards if not store.file(shard).exists())


def check_scale(config: TrainConfig, found: LatentRows) -> None:
    """Raises UserError where the standard deviation of x is far from 1, so that schedules mean another noise.

    That is so where the scale of an autoencoder is missing from its files: Stable Diffusion's is 0.18215.
    """
    count = min(MEASURED, len(found))
    std = float(found.batch([i * len(found) // count for i in range(count)]).x.std())
    if not 1 / FARTHEST <= std <= FARTHEST:
        raise UserError(
            f"x, the scaled latents of {config.autoencoder}, has a standard deviation of {std:.3g} where it should be "
            f"near 1: multiply the scale in its files (scaling_factor, or latents.scale) by {1 / std:.3g}"
        )


def encoder_of(config: TrainConfig, autoencoder: AutoencoderModel, placement: Placement) -> Encoder:
    """The autoencoder as latents of a data set need it: on the device of the training, in float32.

    The moments of an encoder with a distribution are its mean and log variance; of another one, its latents.
    """
    net, codec = autoencoder.net, autoencoder.codec
    shape = (codec.channels, *(2 * (config.data.size // codec.factor,)))
    encoded: Callable[[Tensor], Tensor] = net.encode  # type: ignore[assignment]  # a module's attribute
    prepare(net, placement)

    def each(picture: Tensor) -> Tensor:
        return torch.cat(net.posterior(picture), 1) if isinstance(net, AutoencoderKL) else encoded(picture)

    def moments(picture: Tensor) -> Tensor:
        return tiled(each, (picture,), shape[1:], codec.factor, codec.tiles).float().cpu().contiguous()

    def sample(found: Tensor, eps: Tensor) -> Tensor:
        if isinstance(net, AutoencoderKL):
            mean, logvar = found.chunk(2, 1)
            found = Posterior(mean, logvar).sample(eps)
        return codec.to_x(found)

    parameters = 2 if isinstance(net, AutoencoderKL) else 1
    return Encoder(moments, sample, (parameters * shape[0], *shape[1:]), shape, fingerprint(autoencoder))


def fingerprint(autoencoder: AutoencoderModel) -> str:
    """SHA-256 of the settings and weights of the network: autoencoders with equal ones have the same latents."""
    digest = hashlib.sha256(json.dumps(to_dict(autoencoder.card.net), sort_keys=True).encode())
    digest.update(artifacts.fingerprint(autoencoder.net).encode())
    return digest.hexdigest()


def check_base(config: TrainConfig, base: Model, autoencoder: AutoencoderModel | None) -> None:
    """Raises UserError where a base diffuses in another space than this training."""
    own = base.autoencoder
    if base.card.codec.kind == "pixels" and autoencoder is not None:
        raise UserError(
            f"the base {config.base} diffuses in pixels, and this training in latents: leave out autoencoder"
        )
    if base.card.codec.kind == "latents" and autoencoder is None:
        raise UserError(f"the base {config.base} diffuses in latents: set autoencoder={config.base}, which has them")
    if own is None or autoencoder is None:
        return
    if own.card.latents != autoencoder.card.latents or fingerprint(own) != fingerprint(autoencoder):
        raise UserError(
            f"the base {config.base} was trained in the latents of another autoencoder than {config.autoencoder}: set "
            f"autoencoder={config.base}"
        )


def open_autoencoder(config: TrainConfig, run: Path) -> AutoencoderModel | None:
    """The autoencoder of a training: the run's own copy, once it has a checkpoint; None for a training in pixels."""
    if not config.autoencoder:
        return None
    checkpoints = run / "checkpoints"
    newest = checkpoint.sound(checkpoints) if checkpoints.is_dir() else None
    own = newest is not None and (newest / AUTOENCODER).is_dir()
    folder = newest / AUTOENCODER if newest is not None and own else find(config.autoencoder)
    return autoencoders.load(folder).with_preview()  # now, and not again for every checkpoint


def find(path: str) -> Path:
    """The folder of the autoencoder that a run, a model or a folder has. Raises UserError where there is none."""
    folder = Path(path)
    if not folder.exists():
        raise UserError(f"there is no autoencoder {path}: {latent_settings.TRAIN_ONE}")
    for inside in (folder, folder / AUTOENCODER, folder / "vae", folder / "vqvae"):
        if autoencoders.is_autoencoder(inside):
            return inside
    newest = checkpoint.sound(folder / "checkpoints") if (folder / "checkpoints").is_dir() else None
    if newest is not None and autoencoders.is_autoencoder(newest):
        raise UserError(
            f"{path} has no scale of its latents, which its end measures: finish it, `unnoise train {path}`"
        )
    if newest is not None and autoencoders.is_autoencoder(newest / AUTOENCODER):  # a model in latents
        return newest / AUTOENCODER
    if is_model(folder):
        raise UserError(f"{path} has no autoencoder, as it diffuses in pixels: {latent_settings.TRAIN_ONE}")
    raise not_a("an autoencoder", folder)
