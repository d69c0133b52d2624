"""Networks that hear everything there is to hear, and a condition that says all of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tests.helpers.random_weights import randomised
from unnoise.conditions import Cond
from unnoise.config.networks import ControlConfig, DiTConfig, TextConfig, UNetConfig
from unnoise.nn import build
from unnoise.noise import normal

TEXT = TextConfig(vocabulary=20, length=8, width=12, depth=1, heads=2)
PLAIN = UNetConfig(size=8, channels=(8, 16), blocks=1, attention=(False, True), groups=4)
CONTROLS = (ControlConfig(hint=(4, 6), scale=2), ControlConfig(channels=1, hint=(4,), scale=1, pooled=True))
ALL = replace(
    PLAIN,
    classes=3,
    values=2,
    vector=5,
    concat_channels=1,
    text=TEXT,
    transformers=(1, 2),
    heads=(1, 4),
    controls=CONTROLS,
)
NETWORKS: dict[str, UNetConfig | DiTConfig] = {
    "everything": ALL,
    "words": replace(PLAIN, context=12),
    "numbers and a vector through one network": replace(PLAIN, values=2, vector=5, value_width=6, context=12),
    "drawings alone": replace(PLAIN, controls=CONTROLS),
    "dit, text": DiTConfig(size=8, width=16, depth=2, heads=2, classes=3, text=TEXT),
    "dit, words": DiTConfig(size=8, width=16, depth=2, heads=2, context=12),
}
ROWS = 4
TIMES = torch.tensor([0.0, 999.0, 137.0, 500.0])


def alive(config: UNetConfig | DiTConfig) -> Any:
    """A network with random weights everywhere, those that are zero at birth too."""
    return randomised(build(config))


def pictures() -> Tensor:
    return normal((ROWS, 3, 8, 8), "pictures")


def said(config: UNetConfig | DiTConfig, what: str = "one") -> Cond:
    """All that this network can be told, other numbers for another `what`."""
    draw = torch.Generator().manual_seed(len(what))
    tokens = torch.randint(1, 20, (ROWS, 8), generator=draw)
    tokens = torch.where(torch.arange(8) < torch.tensor([[8], [3], [1], [5]]), tokens, 0)
    words, mask = normal((ROWS, 5, 12), what, "words"), torch.arange(5) < torch.tensor([[5], [2], [4], [1]])
    cond = Cond(label=torch.tensor([2, 0, 3, 1]) if config.classes else None)
    if config.text is not None:
        cond = replace(cond, tokens=tokens)
    elif config.context:
        cond = replace(cond, text=words, mask=mask)
    if not isinstance(config, UNetConfig):
        return cond
    if config.values:
        cond = replace(cond, value=100 * normal((ROWS, config.values), what, "value").abs())
    if config.vector:
        cond = replace(cond, pooled=normal((ROWS, config.vector), what, "vector"))
    if config.concat_channels:
        cond = replace(cond, concat=normal((ROWS, config.concat_channels, 8, 8), what, "image"))
    if config.controls:
        hints = [normal((ROWS, how.channels, 8 * how.scale, 8 * how.scale), what, "hint") for how in config.controls]
        strength = torch.tensor([[1.0, 0.5], [0.0, 2.0], [0.7, 0.0], [1.0, 1.0]])
        cond = replace(cond, control=tuple(hints), control_scale=strength)
    return cond
