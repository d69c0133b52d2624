"""unnoise: diffusion models, from training on your own pictures to drawing, measuring and serving.

The public names. They are imported when they are first used, so that `import unnoise` and the command line are instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from unnoise.compression.compress import compress as compress
    from unnoise.compression.compress import decompress as decompress
    from unnoise.config.request import Request as Request
    from unnoise.denoiser import Diffusion as Diffusion
    from unnoise.model import Model as Model
    from unnoise.model import load as load

_HOMES = {
    "Diffusion": "unnoise.denoiser",
    "Model": "unnoise.model",
    "Request": "unnoise.config.request",
    "compress": "unnoise.compression.compress",
    "decompress": "unnoise.compression.compress",
    "load": "unnoise.model",
}

__all__ = ["Diffusion", "Model", "Request", "compress", "decompress", "load"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unnoise' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
