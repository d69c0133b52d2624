"""Ranges: one error that lists every number of a configuration that is out of its range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import UNetConfig
from unnoise.config.training import Fit, LogConfig, NoisyClassifierConfig, TrainConfig
from unnoise.errors import UserError

# -------------------------------------------------------------------------------------------------- ranges


def check(config: TrainConfig | NoisyClassifierConfig) -> None:
    """Raise one UserError that lists every number out of its range; nothing here needs torch or the data."""
    wrong = [*_wrong_fit(config.fit), *_wrong_log(config.log), *_wrong_process(config.process)]
    net, data = config.net, config.data
    wrong += _at_least({"data.size": data.size, "net.size": net.size, "data.channels": data.channels}, 1)
    wrong += _at_least({"net.classes": net.classes, "data.workers": data.workers}, 0)
    if data.size != net.size:
        wrong.append(f"net.size {net.size} should be data.size {data.size}: the network is for these pictures")
    if net.in_channels != data.channels:
        wrong.append(f"net.in_channels {net.in_channels} should be data.channels {data.channels}")
    outputs = data.channels * (2 if config.process.learned_variance else 1)
    if net.out_channels != outputs:
        reason = "twice the picture's, for the variance is learned" if outputs != data.channels else "the picture's"
        wrong.append(f"net.out_channels {net.out_channels} should be {outputs}, {reason}")
    if net.classes and not net.null_class and (config.process.cond_dropout or config.process.cond_dropout_each):
        wrong.append("process.cond_dropout needs net.null_class, the row that is told; or set it to 0")
    if isinstance(config, TrainConfig):
        if config.encoder is not None and net.text is not None:
            wrong.append("net.text and encoder both read captions: set one of them to none")
        if (net.text or config.encoder) and net.classes and not net.null_class:
            wrong.append("net.null_class should be true: beside words, pictures are drawn without a class too")
        if net.context and net.text is None and config.encoder is None:
            wrong.append("net.context hears words that nobody reads: set net.text, or encoder.path")
        wrong += _wrong_conditions(config)
    controls = len(net.controls) if isinstance(net, UNetConfig) else 0
    if bool(controls) != bool(data.control):
        wrong.append("net.controls and data.control belong together: networks for drawings, and the drawings")
    if controls > 1:
        wrong.append(f"net.controls has {controls} networks; they are trained one at a time")
    if controls and net.dropout:
        wrong.append("net.dropout should be 0 beside controls: the base stays as it is")
    if wrong:
        raise UserError("this training cannot start:\n  " + "\n  ".join(wrong))


def check_base(config: TrainConfig) -> None:
    """Raises UserError for controls without a model to be beside."""
    if isinstance(config.net, UNetConfig) and config.net.controls and not config.base:
        raise UserError("controls are trained beside a model that stays as it is: name it, --set base=runs/...")


def concat_channels(process: DiffusionConfig, channels: int) -> int:
    """How many channels are joined to x_t, beside pictures of `channels`: see data/degrade.py."""
    return {"": 0, "low_res": channels, "masked": channels + 1}[process.concat]


def _wrong_conditions(config: TrainConfig) -> Iterator[str]:
    """Numbers and joined pictures: the network has to be one that takes them."""
    net, process, names = config.net, config.process, config.data.values
    joined = concat_channels(process, config.data.channels)
    if not isinstance(net, UNetConfig):
        if names or joined:
            yield f"data.values and process.concat are told to a U-Net, not to a {net.kind}: set net.kind=unet"
        return
    if net.values != len(names):
        listed = f" ({', '.join(names)})" if names else ", which names none"
        yield f"net.values {net.values} should be {len(names)}, the number of data.values{listed}"
    if names and not net.null_value and (process.cond_dropout or process.cond_dropout_each):
        yield "process.cond_dropout needs net.null_value, what is said where a number is not told; or set it to 0"
    if net.concat_channels != joined:
        why = f"the channels of process.concat {process.concat!r}" if joined else "process.concat says nothing"
        yield f"net.concat_channels {net.concat_channels} should be {joined}: {why}"
    if process.concat == "low_res" and (process.concat_factor < 2 or config.data.size % process.concat_factor):
        size = config.data.size
        yield f"process.concat_factor {process.concat_factor} should be 2 or more, and divide data.size {size}"


def _wrong_fit(fit: Fit) -> Iterator[str]:
    yield from _at_least({"fit.images": fit.images, "fit.batch": fit.batch, "fit.accumulate": fit.accumulate}, 1)
    yield from _at_least({"fit.warmup": fit.warmup, "fit.max_skips": fit.max_skips, "fit.seed": fit.seed}, 0)
    yield from _at_least({"fit.weight_decay": fit.weight_decay}, 0)
    if fit.fsdp and fit.optimizer == "muon":
        yield "fit.fsdp holds matrices in parts, and fit.optimizer muon needs them whole: set it to adamw"
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
        yield "fit.ema is empty: name at least one half-life, in pictures; a model is drawn from its average"


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
            yield f"process.{name} {getattr(process, name)} should be a share, in [0, 1]"


def _at_least(values: Mapping[str, float], least: int) -> list[str]:
    return [f"{name} {value} should be {least} or more" for name, value in values.items() if value < least]
