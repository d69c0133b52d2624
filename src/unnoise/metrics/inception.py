"""Inception-v3's pooled features, in which the Frechet distance is called FID.

The network is torch-fidelity's port of the one that the first FID was measured with (TensorFlow, 2015-12-05), its
bilinear resizing included; torchmetrics builds it. Other ports, weights and resize filters change FID by more
than papers differ, so that they have another name. Nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from unnoise.errors import UserError
from unnoise.io.hashing import sha256

FILE = "weights-inception-2015-12-05-6726825d.pth"
HASH = "6726825d"  # the first digits of the SHA-256 of the original weights, also in the name of the file
WIDTH = 2048


class Network(Protocol):
    """Bytes (B, 3, H, W) of any size -> (B, 2048) float32."""

    def __call__(self, x: Tensor) -> Tensor: ...


def find_weights() -> Path | None:
    """The file that torch-fidelity downloads the weights to; None if it does not exist."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / FILE
    return path if path.is_file() else None


def load_inception(path: Path | None, device: str = "cpu") -> tuple[Network, str]:
    """The network, on a device, and the sha256 of its weight file. `path` None: the file that `find_weights` finds.

    Raises UserError if the weights or the packages are missing, or the file is not these weights.
    """
    file = path or find_weights()
    if file is None:
        raise UserError(
            f"no Inception-v3 weights on this disk ({FILE}); download them from "
            "https://github.com/toshas/torch-fidelity/releases/tag/v0.2.0 and give the path, or choose other features"
        )
    if not file.is_file():
        raise UserError(f"{file}: the file does not exist; give the path of {FILE}")
    if importlib.util.find_spec("torch_fidelity") is None or importlib.util.find_spec("torchmetrics") is None:
        raise UserError("Inception-v3 needs torchmetrics and torch-fidelity: pip install 'torchmetrics[image]'")
    _check(file)
    from torchmetrics.image.fid import NoTrainInceptionV3

    digest = sha256(file)
    net: Any = NoTrainInceptionV3("inception-v3-compat", [str(WIDTH)], str(file), antialias=False)
    return net.to(device).requires_grad_(False), digest


def _check(file: Path) -> None:
    """Checks that the file contains tensors only: torch-fidelity itself would execute any code in a pickle."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds, none of them documented
        raise UserError(
            f"{file}: this is not a file of weights ({str(error).splitlines()[0]}); give the path of {FILE}"
        ) from error
    if not isinstance(state, dict) or "Mixed_7c.branch_pool.conv.weight" not in state:
        raise UserError(f"{file}: not torch-fidelity's Inception-v3; give the path of {FILE}")
