"""Networks with every kind of condition, and a condition with all of them."""

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
    "text": replace(PLAIN, context=12),
    "values and a pooled vector through one network": replace(PLAIN, values=2, vector=5, value_width=6, context=12),
    "control images only": replace(PLAIN, controls=CONTROLS),
    "dit, tokens": DiTConfig(size=8, width=16, depth=2, heads=2, classes=3, text=TEXT),
    "dit, text": DiTConfig(size=8, width=16, depth=2, heads=2, context=12),
}
ROWS = 4
TIMES = torch.tensor([0.0, 999.0, 137.0, 500.0])


def random_network(config: UNetConfig | DiTConfig) -> Any:
    """A network with random weights everywhere, also where initial weights are zero."""
    return randomised(build(config))


def pictures() -> Tensor:
    return normal((ROWS, 3, 8, 8), "pictures")


def full_condition(config: UNetConfig | DiTConfig, name: str = "one") -> Cond:
    """A condition with every field that this network supports; other values for another `name`."""
    generator = torch.Generator().manual_seed(len(name))
    tokens = torch.randint(1, 20, (ROWS, 8), generator=generator)
    tokens = torch.where(torch.arange(8) < torch.tensor([[8], [3], [1], [5]]), tokens, 0)
    text, mask = normal((ROWS, 5, 12), name, "words"), torch.arange(5) < torch.tensor([[5], [2], [4], [1]])
    cond = Cond(label=torch.tensor([2, 0, 3, 1]) if config.classes else None)
    if config.text is not None:
        cond = replace(cond, tokens=tokens)
    elif config.context:
        cond = replace(cond, text=text, mask=mask)
    if not isinstance(config, UNetConfig):
        return cond
    if config.values:
        cond = replace(cond, value=100 * normal((ROWS, config.values), name, "value").abs())
    if config.vector:
        cond = replace(cond, pooled=normal((ROWS, config.vector), name, "vector"))
    if config.concat_channels:
        cond = replace(cond, concat=normal((ROWS, config.concat_channels, 8, 8), name, "image"))
    if config.controls:
        images = [
            normal((ROWS, control.channels, 8 * control.scale, 8 * control.scale), name, "hint")
            for control in config.controls
        ]
        scale = torch.tensor([[1.0, 0.5], [0.0, 2.0], [0.7, 0.0], [1.0, 1.0]])
        cond = replace(cond, control=tuple(images), control_scale=scale)
    return cond
