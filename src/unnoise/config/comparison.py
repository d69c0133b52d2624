"""What of two configurations has to agree for the weights of one to mean the same in the other."""

from __future__ import annotations

from dataclasses import replace

from unnoise.config.cards import ModelCard
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import NetConfig, UNetConfig
from unnoise.config.training import TrainConfig
from unnoise.errors import UserError


def without_controls(net: NetConfig) -> NetConfig:
    """The settings of the network alone, without controls and without dropout."""
    return replace(net, dropout=0.0, controls=()) if isinstance(net, UNetConfig) else replace(net, dropout=0.0)


def process_of(config: TrainConfig | ModelCard) -> DiffusionConfig:
    """The settings that define what the network's output means, without those of its training."""
    p = config.process
    plain = DiffusionConfig(p.schedule, p.steps, p.schedule_options, p.zero_snr, p.predicts, p.learned_variance)
    return replace(plain, time_input=p.time_input, concat=p.concat, concat_factor=p.concat_factor)


def check_same_base(base: ModelCard, other: ModelCard) -> None:
    """Raises UserError if control networks of the model `other` do not fit the model `base`."""
    if not isinstance(other.net, UNetConfig):
        raise UserError(f"controls need a U-Net, and one of these models is a {other.net.kind}")
    if without_controls(other.net) != without_controls(base.net):
        raise UserError("these controls belong to another network: train them with this model as their base")
    if process_of(other) != process_of(base) or other.classes != base.classes:
        raise UserError("these controls were trained with another process or other classes than this model's")
