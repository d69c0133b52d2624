"""Checks of a training's settings: one error that lists every setting that is out of range or does not fit another.

No check needs torch or the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import UNetConfig
from unnoise.config.request import SEEDS
from unnoise.config.training import Fit, LogConfig, NoisyClassifierConfig, TrainConfig
from unnoise.errors import UserError


def check(config: TrainConfig | NoisyClassifierConfig) -> None:
    """Raises one UserError that lists every setting that is wrong."""
    wrong = [*_wrong_fit(config.fit), *_wrong_log(config.log), *_wrong_process(config.process), *_wrong_net(config)]
    if isinstance(config, TrainConfig):
        wrong += [*_wrong_text(config), *_wrong_conditions(config)]
    wrong += _wrong_controls(config)
    if wrong:
        raise UserError("this training cannot start:\n  " + "\n  ".join(wrong))


def check_base(config: TrainConfig) -> None:
    """Raises UserError for control networks without a base model."""
    if isinstance(config.net, UNetConfig) and config.net.controls and not config.base:
        raise UserError("control networks are trained beside a frozen base model: name it with --set base=runs/...")


def concat_channels(process: DiffusionConfig, channels: int) -> int:
    """Returns how many channels are concatenated to x_t of `channels`: see data/degrade.py."""
    return {"": 0, "low_res": channels, "masked": channels + 1}[process.concat]


def x_channels(config: TrainConfig | NoisyClassifierConfig) -> int:
    """Returns the channels of x: of a picture, or of the latents of `autoencoder`, which net.in_channels follows."""
    latent = isinstance(config, TrainConfig) and config.autoencoder
    return config.net.in_channels if latent else config.data.channels


def out_channels(process: DiffusionConfig, channels: int) -> int:
    """Returns how many channels the network's output has: twice those of x where the variance is learned."""
    return channels * (2 if process.learned_variance else 1)


def _wrong_net(config: TrainConfig | NoisyClassifierConfig) -> Iterator[str]:
    net, data = config.net, config.data
    yield from _at_least({"data.size": data.size, "data.channels": data.channels}, 1)
    yield from _at_least({"net.classes": net.classes, "data.workers": data.workers}, 0)
    latent, channels = isinstance(config, TrainConfig) and bool(config.autoencoder), x_channels(config)
    if not latent and data.size != net.size:  # the factor of an autoencoder is checked where its card is read
        yield f"net.size {net.size} should be data.size {data.size}"
    if net.in_channels != channels:
        yield f"net.in_channels {net.in_channels} should be data.channels {channels}"
    outputs = out_channels(config.process, channels)
    if net.out_channels != outputs:
        what = "latents'" if latent else "picture's"
        reason = f"twice the {what}, because the variance is learned" if outputs != channels else f"the {what}"
        yield f"net.out_channels {net.out_channels} should be {outputs}, {reason}"
    if net.classes and not net.null_class and (config.process.cond_dropout or config.process.cond_dropout_each):
        yield "process.cond_dropout needs net.null_class, the embedding of a dropped class: set it, or set it to 0"


def _wrong_text(config: TrainConfig) -> Iterator[str]:
    net = config.net
    if config.encoder is not None and net.text is not None:
        yield "net.text and encoder both encode captions: set one of them to none"
    if (net.text or config.encoder) and net.classes and not net.null_class:
        yield "net.null_class should be true: with text, pictures are sampled without a class too"
    if net.context and net.text is None and config.encoder is None:
        yield "net.context needs an encoder of captions: set net.text, or encoder.path"


def _wrong_conditions(config: TrainConfig) -> Iterator[str]:
    """Values and concatenated pictures: the network has to have inputs for them."""
    net, process, names = config.net, config.process, config.data.values
    channels = concat_channels(process, x_channels(config))
    if not isinstance(net, UNetConfig):
        if names or channels:
            yield f"data.values and process.concat need a U-Net, and this is a {net.kind}: set net.kind=unet"
        return
    if net.values != len(names):
        listed = f" ({', '.join(names)})" if names else ", which is empty"
        yield f"net.values {net.values} should be {len(names)}, the number of data.values{listed}"
    if names and not net.null_value and (process.cond_dropout or process.cond_dropout_each):
        yield "process.cond_dropout needs net.null_value, the embedding of a dropped value: set it, or set it to 0"
    if net.concat_channels != channels:
        why = f"the channels of process.concat {process.concat!r}" if channels else "process.concat is empty"
        yield f"net.concat_channels {net.concat_channels} should be {channels}: {why}"
    if process.concat == "low_res" and (process.concat_factor < 2 or config.data.size % process.concat_factor):
        size = config.data.size
        yield f"process.concat_factor {process.concat_factor} should be 2 or more, and divide data.size {size}"


def _wrong_controls(config: TrainConfig | NoisyClassifierConfig) -> Iterator[str]:
    net = config.net
    controls = len(net.controls) if isinstance(net, UNetConfig) else 0
    if bool(controls) != bool(config.data.control):
        yield "net.controls and data.control need each other: control networks, and control images for them"
    if controls > 1:
        yield f"net.controls has {controls} networks: train them one at a time"
    if controls and net.dropout:
        yield "net.dropout should be 0 with control networks, because the base is frozen"


def _wrong_fit(fit: Fit) -> Iterator[str]:
    yield from _at_least({"fit.images": fit.images, "fit.batch": fit.batch, "fit.accumulate": fit.accumulate}, 1)
    yield from _at_least({"fit.warmup": fit.warmup, "fit.max_skips": fit.max_skips, "fit.seed": fit.seed}, 0)
    if fit.seed >= SEEDS:
        yield "fit.seed should be below 2^63"
    yield from _at_least({"fit.weight_decay": fit.weight_decay}, 0)
    if fit.fsdp and fit.optimizer == "muon":
        yield "fit.fsdp shards matrices, and fit.optimizer muon needs them unsharded: set it to adamw"
    if fit.batch % max(1, fit.accumulate):
        yield f"fit.batch {fit.batch} should be a multiple of fit.accumulate {fit.accumulate}"
    above = {"fit.lr": fit.lr, "fit.eps": fit.eps, "fit.clip": fit.clip, "fit.ema_rampup": fit.ema_rampup}
    for name, value in above.items():
        if value is not None and value <= 0:
            yield f"{name} {value} should be above 0"
    if not all(0 <= b < 1 for b in fit.betas):
        yield f"fit.betas {fit.betas} should be in [0, 1)"
    if any(h < 1 for h in fit.ema) or len(set(fit.ema)) != len(fit.ema):
        yield f"fit.ema {fit.ema} should be different half-lives, in pictures"
    if not fit.ema:
        yield "fit.ema is empty: give at least one half-life, in pictures; a model is sampled with averaged weights"


def _wrong_log(log: LogConfig) -> Iterator[str]:
    yield from _at_least({"log.log_every": log.log_every, "log.keep": log.keep}, 1)
    yield from _at_least({"log.grid_every": log.grid_every}, 0)
    yield from _at_least({"log.grid_labels": log.grid_labels, "log.grid_rows": log.grid_rows}, 1)
    yield from _at_least({"log.grid_steps": log.grid_steps}, 1)
    if log.checkpoint_every <= 0:
        yield f"log.checkpoint_every {log.checkpoint_every} should be above 0 seconds"
    if log.checkpoint_steps is not None and log.checkpoint_steps < 1:
        yield f"log.checkpoint_steps {log.checkpoint_steps} should be 1 or more, or none"


def _wrong_process(process: DiffusionConfig) -> Iterator[str]:
    for name in ("cond_dropout", "cond_dropout_each"):
        if not 0 <= getattr(process, name) <= 1:
            yield f"process.{name} {getattr(process, name)} should be a probability, in [0, 1]"


def _at_least(values: Mapping[str, float], least: int) -> Iterable[str]:
    return [f"{name} {value} should be {least} or more" for name, value in values.items() if value < least]
