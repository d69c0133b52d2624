"""The weights that a training starts from: random ones of its seed, or those of a base model.

A base with control networks beside it is frozen, and the controls start as copies of its encoder (Zhang et al. 2023); a
base that is the inner part of the network is grown around (Vasconcelos et al. 2024); any other base is trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from unnoise import nn as networks
from unnoise import noise
from unnoise.config import convert, validate
from unnoise.config.comparison import process_of, without_controls
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import NetConfig, UNetConfig
from unnoise.config.training import TrainConfig
from unnoise.errors import UserError
from unnoise.io import checkpoint
from unnoise.model import Model, load
from unnoise.nn.controlnet import copy_base
from unnoise.nn.grow import grow, levels_around
from unnoise.recipes.model_card import portable_encoder


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Weights that are initialized inside the block are a function of `seed`; the global generator is restored."""
    with torch.random.fork_rng([]):
        torch.manual_seed(noise.generator(seed, "weights").initial_seed())
        yield


def init_network(config: TrainConfig, base: Model | None = None) -> nn.Module:
    """Returns the network before training: a function of the seed, or the base, with controls that are copies of it.

    The base's weights are frozen where the network has controls. Raises UserError where the base cannot be grown.
    """
    with seeded_weights(config.fit.seed):
        net = networks.build(config.net)
    if base is not None:
        _copy(base, net)
    if config.fit.gradient_checkpointing:
        net.checkpointing = True  # type: ignore[assignment]
    return net


def _copy(base: Model, net: nn.Module) -> None:
    """Copies the base's weights into a network of its kind, grown around it or with controls."""
    theirs = base.diffusion.net.state_dict()
    core = base.card.net
    if isinstance(net, networks.UNet) and isinstance(core, UNetConfig) and levels_around(net.config, core):
        grow(net, core, theirs)
    else:
        net.load_state_dict(net.state_dict() | {name: value.clone() for name, value in theirs.items()})
    if isinstance(net, networks.UNet) and net.controls:
        if not base.controls:
            copy_base(net)
        net.requires_grad_(False)
        net.controls.requires_grad_(True)


def load_base(config: TrainConfig, run: Path) -> Model | None:
    """Loads the model that a training starts from, if it names one: from the run's checkpoint, once there is one.

    Raises UserError for a base that does not exist, or whose network or process is another.
    """
    validate.check_base(config)
    if not config.base:
        return None
    checkpoints = run / "checkpoints"
    base = load(run if checkpoints.is_dir() and checkpoint.sound(checkpoints) else config.base)
    plain = (without_controls(config.net), process_of(config))
    theirs = _once_grown((without_controls(base.card.net), process_of(base.card)), config.net)
    for mine, its, what in zip(plain, theirs, ("net", "process"), strict=True):
        for name, (wanted, found) in convert.differences(its, mine).items():
            raise UserError(f"{what}.{name} {found} should be {wanted}, that of the base {config.base}")
    wanted = base.card.encoder
    if (None if config.encoder is None else portable_encoder(config.encoder)) != wanted:
        raise UserError(f"encoder should be that of the base {config.base}: {wanted.path if wanted else 'none'}")
    return base


def _once_grown(base: tuple[NetConfig, DiffusionConfig], net: NetConfig) -> tuple[NetConfig, DiffusionConfig]:
    """A network and its process after it has become the inner part of `net`; unchanged where it does not.

    Its levels then process pictures at a 2^levels lower resolution, and so with less of their noise.
    """
    core, process = base
    levels = levels_around(net, core) if isinstance(net, UNetConfig) and isinstance(core, UNetConfig) else 0
    if not levels:
        return base
    shift = process.schedule_options.get("shift", 1.0)
    options = {key: value for key, value in process.schedule_options.items() if key != "shift"}
    if shift * 2**levels != 1:
        options["shift"] = shift * 2**levels
    return net, replace(process, schedule_options=options)
