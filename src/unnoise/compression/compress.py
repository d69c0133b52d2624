"""Pictures to bytes and back, with a model that both sides have.

    data = unnoise.compress(model, picture, bits=0.2)
    for state in unnoise.compression.compress.receive(model, data): ...  # estimates, coarse to fine
    unnoise.decompress(model, data).save("out.png")

Lossy, at any rate up to the bound's lossy part. The method is compression/coder.py, the file compression/format.py.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unnoise.acceleration.placement import best, place
from unnoise.codec import Pixels, from_bytes, to_bytes
from unnoise.compression import coder, format
from unnoise.compression.channel import PICKS
from unnoise.compression.format import Header
from unnoise.compression.symbols import Plan, coding
from unnoise.conditions import Cond
from unnoise.config.convert import to_dict
from unnoise.config.data import DataConfig
from unnoise.config.request import check_seed
from unnoise.data.decode import decode
from unnoise.data.source import Unreadable
from unnoise.denoiser import Denoiser
from unnoise.errors import UserError, unknown
from unnoise.guidance import clip_denoised
from unnoise.io.pictures import Pictures
from unnoise.likelihood.endpoints import last_time
from unnoise.model import Model

LEAST_BITS, MOST_BITS = 10, 24  # of a search: 2^24 candidates take seconds a piece


@dataclass(frozen=True)
class Sent:
    """A compressed picture, with the sender's statistics."""

    data: bytes
    way: tuple[coder.Received, ...]  # the receiver's state after each step
    shape: tuple[int, int, int]

    @property
    def accounted(self) -> float:
        """Bits per number: the divergences of the steps that were sent, the cost of an ideal code."""
        return self.way[-1].nats / math.log(2) / math.prod(self.shape)

    @property
    def picture(self) -> Tensor:
        """The picture that the receiver decodes, bit for bit: (C, H, W) uint8."""
        return to_bytes(self.way[-1].mean)[0].cpu()


def compress(model: Model, picture: Tensor | Image.Image | bytes, **how: object) -> bytes:
    """Compresses one picture to the bytes of a file, with the options and errors of `send`."""
    return send(model, picture, **how).data  # type: ignore[arg-type]


def send(
    model: Model,
    picture: Tensor | Image.Image | bytes,
    *,
    bits: float = 0.2,
    seed: int = 0,
    label: str | int = "none",
    search: int = 16,
    pick: str = "nearest",
    device: str = "auto",
) -> Sent:
    """Compresses one picture, (C, H, W) uint8, an image, or the bytes of its file, to `bits` per number without header.

    `bits` inf codes all of the lossy part. `search`: each piece is one of 2^search candidates. `pick`: nearest, or draw
    (compression/channel.py). Raises UserError for a picture that is not of the model's size, and for an unknown label.
    """
    x = pixels(model, picture)
    if not bits > 0:
        raise UserError(f"bits must be above 0, not {bits:g}: use for example 0.2")
    if not LEAST_BITS <= search <= MOST_BITS:
        raise UserError(f"search is from {LEAST_BITS} to {MOST_BITS} bits, not {search}")
    check_seed(seed)
    if pick not in PICKS:
        raise unknown("pick", pick, PICKS)
    coding()
    cond = _condition(model, str(label))
    index = None if cond.label is None else int(cond.label[0])
    plan = Plan(seed, search, pick, _last(model))
    denoiser, placed = _denoiser(model, cond, device)
    sent = coder.send(denoiser, from_bytes(x)[None].to(placed), plan, bits * x.numel())
    header = Header(fingerprint(model), seed, search, pick == "draw", index, model.x_shape, sent.pieces)
    return Sent(format.write(header, sent.payload), sent.way, model.x_shape)


def receive(
    model: Model, data: bytes, *, device: str = "auto", where: str = "the compressed picture"
) -> Iterator[coder.Received]:
    """Yields the receiver's state after each step; of a file that is cut off, as far as it goes.

    Raises UserError, at once, for a file that is damaged, no compressed picture, or written with another model.
    """
    file = format.read(data, where)
    header, mine = file.header, fingerprint(model)
    if header.model != mine:
        raise UserError(
            f"{where}: written with the model {header.model.hex()}, and this model is {mine.hex()}: "
            "give the model, and the checkpoint, that it was compressed with"
        )
    if header.shape != model.x_shape:
        raise UserError(f"{where}: a picture of {_size(header.shape)}, and this model's are {_size(model.x_shape)}")
    if header.label is not None and header.label > (model.conditioner.null_class or len(model.classes) - 1):
        raise UserError(f"{where}: its class is {header.label}, which this model does not have: the file is damaged")
    coding()
    cond = _condition(model, "none" if header.label is None else model.conditioner.name(header.label))
    plan = Plan(header.seed, header.bits, "draw" if header.draws else "nearest", _last(model))
    denoiser, placed = _denoiser(model, cond, device)
    return coder.receive(denoiser, model.x_shape, plan, file.payload, header.pieces, whole=file.whole, device=placed)


def decompress(model: Model, data: bytes, *, device: str = "auto") -> Pictures:
    """Decodes the picture in a file's bytes: the last estimate. Raises as `receive`."""
    for state in receive(model, data, device=device):
        mean = state.mean
    header = format.read(data, "the compressed picture").header
    labels = () if header.label is None else (model.conditioner.name(header.label),)
    return Pictures(to_bytes(mean).cpu(), (header.seed,), labels)


def rmse(picture: Tensor, mean: Tensor) -> float:
    """Returns the root mean square error of an estimate (1, C, H, W), rounded to bytes, in grey levels."""
    shown = to_bytes(mean)[0].cpu().double()
    return (shown - picture.double()).square().mean().sqrt().item()


def fingerprint(model: Model) -> bytes:
    """First 4 bytes of a SHA-256 over network, process, weights and the empty prompt: both sides must agree."""
    card = to_dict(model.card)
    digest = hashlib.sha256(json.dumps([card["net"], card["process"], card["clip"]], sort_keys=True).encode())
    for name, value in sorted(model.diffusion.net.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    empty = None if model.text is None else model.text.encode([""]).tokens
    if empty is not None:
        digest.update(empty.numpy().tobytes())
    return digest.digest()[:4]


def _denoiser(model: Model, cond: Cond, device: str) -> tuple[Denoiser, str]:
    """The denoiser in float32 on every machine: half precision would cost bits."""
    if not isinstance(model.codec, Pixels):
        raise UserError("this model works in the latents of an autoencoder: use a model in pixels to compress pictures")
    placement = best(model.device if device == "auto" else device, "float32")
    denoiser = place(model.diffusion, placement).given(cond.to(placement.device))
    return clip_denoised(denoiser) if model.card.clip else denoiser, placement.device


def _last(model: Model) -> float:
    """The time where the lossy part ends. Both sides compute it from the model; the fingerprint covers its process."""
    diffusion = model.diffusion
    return last_time(diffusion.schedule, diffusion.steps, model.card.process)


def _condition(model: Model, label: str) -> Cond:
    """The condition on both sides: the label, and neither prompt nor values."""
    if model.card.process.concat:
        raise UserError("this model needs a second picture as input (concat): use a model without one")
    if label == "none" and model.classes and model.conditioner.null_class is None:
        raise UserError(f"this model needs a class: give a label, one of {', '.join(model.classes)}")
    return model.conditioner.encode([label])


def pixels(model: Model, picture: Tensor | Image.Image | bytes) -> Tensor:
    """(C, H, W) uint8, as this model takes it, of bytes in that shape, an image, or an encoded picture.

    Raises UserError where the size is another, or colours would be lost, and for a model of latents.
    """
    shape = channels, height, width = model.require_pictures().picture_shape
    if not isinstance(picture, Tensor):
        config = DataConfig(size=min(height, width), channels=3)
        try:
            found = decode(picture if isinstance(picture, bytes) else np.asarray(picture), config)
        except Unreadable as error:
            raise UserError(f"a picture that cannot be read: {error}") from None
        if found.size != (width, height):
            raise UserError(
                f"a picture of {found.size[0]}x{found.size[1]}: this model's are {_size(shape)}: resize it first"
            )
        picture = torch.from_numpy(found.pixels.copy())
        if channels == 1:
            if bool((picture != picture[:1]).any()):
                raise UserError(f"a picture in colour: this model's are {_size(shape)}: convert it to grey first")
            picture = picture[:1]
    if picture.dtype != torch.uint8:
        raise UserError(f"a picture of {picture.dtype}: give bytes, (C, H, W) uint8")
    if tuple(picture.shape) != shape:
        raise UserError(
            f"a picture of {_size(tuple(picture.shape))}: this model's are {_size(shape)}: crop or resize it"
        )
    return picture


def _size(shape: tuple[int, ...]) -> str:
    """`28x28 grey`, width first."""
    if len(shape) != 3:
        return f"shape {shape}"
    kind = {1: "grey", 3: "colour"}.get(shape[0], f"{shape[0]} channels")
    return f"{shape[2]}x{shape[1]} {kind}"
