"""Precisions that were chosen by measurement: a JSON file for each machine and architecture, in the user's cache.

`unnoise bench` saves them, and placement.py uses them where the precision is `auto`. A file applies to the processor
and the version of torch that it was measured with, and to every network of its architecture, whatever the weights:
their speeds are equal. One that cannot be read is ignored, with a note.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from unnoise.config.convert import from_dict, to_dict
from unnoise.errors import UserError
from unnoise.io.atomic import write_text
from unnoise.io.cache import home
from unnoise.io.json_files import read_object
from unnoise.nn.compiled import processor

Precision = Literal["float32", "tf32", "bfloat16"]


@dataclass(frozen=True)
class Choice:
    """The fastest precision of an architecture on a machine, and the batch in which it samples the most pictures."""

    precision: Precision = "float32"
    batch: int = 0
    seconds: float = 0.0  # of a network call of that batch
    model: str = ""  # the path of the model that was measured
    device: str = ""
    date: str = ""
    machine: str = ""  # fingerprints
    architecture: str = ""


def files() -> list[Path]:
    """The stored choices, of this machine and of others on the same disk."""
    return sorted(_folder().glob("*.json"))


def find(net: nn.Module, device: str) -> tuple[Choice | None, str]:
    """The choice for a network on a device of this machine, if there is one, and a note if it cannot be read."""
    path = _file(architecture(net), machine(device))
    try:
        found = read(path) if path.is_file() else None
    except (UserError, OSError) as error:
        return None, f"{error}: this measurement is ignored, and `unnoise bench` makes it again"
    if found is None or (found.architecture, found.machine) != (architecture(net), machine(device)):
        return None, ""
    return found, ""


def save(choice: Choice) -> Path:
    """Stores a choice in place of the one before, whole or not at all, and returns its file. Raises OSError."""
    path = _file(choice.architecture, choice.machine)
    write_text(path, json.dumps(to_dict(choice), indent=1) + "\n")
    return path


def read(path: Path) -> Choice:
    """The choice in a file. Raises UserError, which names the file and the entry, if it is damaged."""
    return from_dict(Choice, read_object(path), str(path))


def architecture(net: nn.Module) -> str:
    """A fingerprint of the settings of a network, without its weights."""
    return _fingerprint(type(net).__name__, repr(getattr(net, "config", net)))


def machine(device: str) -> str:
    """A fingerprint of what decides which precision is fast: the processor or the GPU, and the version of torch."""
    if device.startswith("cuda"):
        return _fingerprint(torch.cuda.get_device_name(device), torch.__version__)
    return _fingerprint(device, processor(), torch.__version__)


def _folder() -> Path:
    return home() / "bench"


def _file(network: str, computer: str) -> Path:
    return _folder() / f"{network}-{computer}.json"


def _fingerprint(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
