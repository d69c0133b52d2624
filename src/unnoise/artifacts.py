"""Directories of trained classifiers, which evaluate or guide a model: weights and a card.

    model.safetensors    the network's weights
    <card>.json          {"format": ..., "card": ...}
    manifest.json        the SHA-256 and size of each file

None of these files contains code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from unnoise.config.convert import to_dict
from unnoise.errors import UserError
from unnoise.io import checkpoint
from unnoise.io.json_files import read_object

Net = TypeVar("Net", bound=nn.Module)
WEIGHTS = "model.safetensors"


def fingerprint(net: nn.Module) -> str:
    """SHA-256 of the names, shapes and values of the weights: networks with equal ones compute the same."""
    digest = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} ".encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def device_of(net: nn.Module) -> torch.device:
    """The device of a network's weights."""
    return next(net.parameters()).device


def find(path: Path, card: str, result: str, *, missing: str, empty: str) -> Path:
    """The directory with the card: `path` / `result`, `path` itself, or the newest checkpoint of the run `path`.

    Raises UserError that ends with `missing` if `path` does not exist, and with `empty` if it has no card.
    """
    if not path.is_dir():
        raise UserError(f"the directory {path} does not exist: {missing}")
    if (path / result / card).is_file():
        return path / result
    if (path / card).is_file():
        return path
    found = checkpoint.sound(path / "checkpoints") if (path / "checkpoints").is_dir() else None
    if found is None or not (found / card).is_file():
        raise UserError(f"{path} contains {empty}")
    return found


def write_card(file: Path, card: Any, kind: str) -> None:
    """Write a card, a dataclass of settings, with the name of its format."""
    text = json.dumps({"format": kind, "card": to_dict(card)}, indent=2, sort_keys=True)
    file.write_text(text + "\n", encoding="utf-8")


def read_card(file: Path, *, again: str) -> tuple[dict[str, Any], Any]:
    """The contents of a card, and the name of its format. Raises UserError, with the fix `again`, if it is not JSON."""
    try:
        data = read_object(file)
    except UserError as error:
        raise UserError(f"{error}; {again}") from None
    return data.get("card", {}), data.get("format")


def load_net(make: Callable[[], Net], folder: Path) -> Net:
    """The network that `make` returns, with the weights in a directory: on the CPU, float32, without gradients.

    Raises UserError if the weights are damaged, or do not belong to the network; names and shapes are compared first.
    """
    if (folder / checkpoint.MANIFEST).is_file():
        checkpoint.verify(folder)
    with torch.device("meta"):
        net = make()
    state = checkpoint.read(folder / WEIGHTS, net.state_dict())
    net.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    return net.requires_grad_(False).eval()
