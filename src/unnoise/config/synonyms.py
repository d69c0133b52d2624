"""Words of other programs, and what they are called here.

Error messages look here before they look for a similar spelling; no word of these tables is accepted in place of the
name. Words are compared without case, spaces, "-" and "_".
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from unnoise.config import renamed
from unnoise.errors import UserError, unknown

T = TypeVar("T")

COMMANDS = {  # a command of another name: what to type
    **dict.fromkeys(("generate", "draw", "txt2img", "text2image", "inference", "infer", "predict"), "unnoise sample"),
    **dict.fromkeys(("resume", "continue"), "unnoise train RUN"),
    **dict.fromkeys(("fit", "finetune", "start", "launch"), "unnoise train"),
    **dict.fromkeys(("eval", "test", "measure", "score", "fid", "metrics"), "unnoise evaluate"),
    **dict.fromkeys(("benchmark", "speed", "profile", "timing"), "unnoise bench"),
    **dict.fromkeys(("report", "status", "show", "describe", "inspect"), "unnoise info RUN"),
    **dict.fromkeys(("ls", "list"), "unnoise runs"),
    **dict.fromkeys(("convert", "save"), "unnoise export"),
    **dict.fromkeys(("dataset", "stats"), "unnoise data"),
    **dict.fromkeys(("config", "configs", "models"), "unnoise presets"),
    **dict.fromkeys(("encode", "zip"), "unnoise compress"),
    **dict.fromkeys(("decode", "unzip"), "unnoise decompress"),
    **dict.fromkeys(("morph", "lerp", "slerp"), "unnoise interpolate"),
    **dict.fromkeys(("variations", "variation"), "unnoise vary"),
    **dict.fromkeys(("check", "env"), "unnoise doctor"),
    **{word: f"unnoise --{word}" for word in ("help", "version")},
}

OPTIONS = {  # an option of another name: options here, of which the first that the command has is meant
    **dict.fromkeys(("scheduler", "solver", "method"), ("--sampler", "--samplers")),
    **dict.fromkeys(("schedule-type", "spacing", "timesteps-spacing"), ("--timestep-spacing",)),
    **dict.fromkeys(
        ("n", "num", "number", "num-images", "num-samples", "num-images-per-prompt", "samples", "images"),
        ("--count", "--seeds"),
    ),
    **dict.fromkeys(("count", "amount", "batch-count"), ("--seeds",)),
    **dict.fromkeys(("o", "out", "output", "outdir", "output-path", "output-dir", "save-to"), ("--out", "--noise")),
    **dict.fromkeys(("save-grid", "sheet"), ("--grid",)),
    **dict.fromkeys(("gif", "video", "mp4"), ("--animation",)),
    **dict.fromkeys(("num-steps", "sampling-steps", "ddim-steps", "nfe", "s"), ("--steps",)),
    **dict.fromkeys(("cfg", "g", "guidance-weight", "guidance-strength"), ("--guidance",)),
    **dict.fromkeys(("class", "classes", "class-label", "class-labels", "category"), ("--label", "--labels")),
    **dict.fromkeys(("text", "caption", "p"), ("--prompt",)),
    **dict.fromkeys(("negative", "neg-prompt"), ("--negative-prompt",)),
    **dict.fromkeys(("random-seed", "manual-seed"), ("--seeds", "--seed")),
    **dict.fromkeys(("bs", "b"), ("--batch",)),
    **dict.fromkeys(("gpu", "cuda"), ("--device",)),
    **dict.fromkeys(("fp16", "bf16", "half", "dtype", "mixed-precision"), ("--precision",)),
    **dict.fromkeys(("dataset", "data-dir", "train-data-dir", "data-path", "real", "reference"), ("--data",)),
    **dict.fromkeys(("controlnet", "controlnet-model"), ("--control-model",)),
    **dict.fromkeys(("resume-from-checkpoint", "checkpoint", "ckpt"), ("--resume",)),
    **dict.fromkeys(("run-name", "experiment", "exp-name", "tag"), ("--name",)),
    **dict.fromkeys(("force", "f", "y"), ("--overwrite",)),
}
ARGUMENTS = {  # options that are arguments here, without a name
    **dict.fromkeys(("model", "m", "checkpoint", "ckpt", "run", "model-path"), "the model"),
    **dict.fromkeys(("preset", "config", "c"), "the preset, file or run"),
    **dict.fromkeys(("picture", "pictures", "input", "i"), "the picture"),
}
SIZE = dict.fromkeys(("size", "width", "height", "resolution", "image-size", "shape"), "")  # which the model decides

SETTINGS = {  # a setting of another name: its name here, and why it differs where the number does too
    **dict.fromkeys(
        ("epochs", "num-epochs", "num-train-epochs", "max-train-steps", "max-steps", "iterations", "steps"),
        ("fit.images", "which counts pictures: passes over the data times its pictures, or steps times the batch"),
    ),
    **dict.fromkeys(("lr", "learning-rate"), ("fit.lr", "")),
    **dict.fromkeys(("batch-size", "train-batch-size", "bs", "per-device-train-batch-size"), ("fit.batch", "")),
    **dict.fromkeys(("resolution", "image-size", "size", "img-size", "width", "height"), ("data.size", "")),
    **dict.fromkeys(("gradient-accumulation-steps", "accumulation-steps", "grad-accum"), ("fit.accumulate", "")),
    **dict.fromkeys(("mixed-precision", "dtype", "fp16", "bf16", "amp"), ("fit.precision", "")),
    **dict.fromkeys(("lr-scheduler", "scheduler"), ("fit.decay", "")),
    **dict.fromkeys(("lr-warmup-steps", "warmup-steps"), ("fit.warmup", "")),
    **dict.fromkeys(("max-grad-norm", "grad-clip", "gradient-clip"), ("fit.clip", "")),
    **dict.fromkeys(("ema-decay", "ema-rate", "use-ema"), ("fit.ema", "")),
    **dict.fromkeys(("random-flip", "hflip", "horizontal-flip"), ("data.flip", "")),
    **dict.fromkeys(("center-crop", "random-crop"), ("data.crop", "")),
    **dict.fromkeys(("num-workers", "dataloader-num-workers"), ("data.workers", "")),
    **dict.fromkeys(("checkpointing-steps", "save-every", "save-interval"), ("log.checkpoint_steps", "")),
    **dict.fromkeys(("checkpoints-total-limit", "save-total-limit"), ("log.keep", "")),
    **dict.fromkeys(("log-interval", "logging-steps"), ("log.log_every", "")),
    **dict.fromkeys(("sample-every", "save-images-epochs", "validation-steps"), ("log.grid_every", "")),
    **dict.fromkeys(("prediction-type", "parameterization"), ("process.predicts", "")),
    **dict.fromkeys(("beta-schedule", "noise-schedule"), ("process.schedule", "")),
    **dict.fromkeys(("timesteps", "num-train-timesteps", "diffusion-steps"), ("process.steps", "")),
    **dict.fromkeys(("conditioning-dropout", "cfg-dropout", "class-dropout-prob"), ("process.cond_dropout", "")),
    **dict.fromkeys(("dim", "base-channels", "model-channels", "dim-mults"), ("net.channels", "")),
    **dict.fromkeys(("num-classes", "class-cond"), ("net.classes", "")),
    **dict.fromkeys(("num-res-blocks", "layers-per-block"), ("net.blocks", "")),
    **dict.fromkeys(("optimiser", "use-8bit-adam"), ("fit.optimizer", "")),
    **dict.fromkeys(("pretrained-model-name-or-path", "pretrained", "init-from"), ("base", "")),
    **dict.fromkeys(("data-dir", "train-data-dir", "dataset", "dataset-name"), ("data.path", "")),
    "seed": ("fit.seed", ""),
}

SAMPLERS = {  # names in k-diffusion, web interfaces and diffusers; the closest method where there is no equal one
    **dict.fromkeys(("euler a", "euler ancestral", "euler ancestral discrete", "ancestral"), "euler-ancestral"),
    **dict.fromkeys(("euler discrete", "flow match euler", "flow match euler discrete", "edm euler"), "euler"),
    **dict.fromkeys(("heun discrete", "edm", "dpm2", "kdpm2 discrete", "dpm2 discrete", "heun2", "edm heun"), "heun"),
    **dict.fromkeys(("dpm2 a", "kdpm2 ancestral discrete"), "euler-ancestral"),
    **dict.fromkeys(
        ("dpm++", "dpm solver", "dpm solver++", "dpm solver multistep", "edm dpm solver multistep"), "dpm++2m"
    ),
    **dict.fromkeys(("deis", "deis multistep", "dpm++ 2", "dpm solver++ 2m", "dpm++ 2m v2"), "dpm++2m"),
    **dict.fromkeys(
        ("dpm solver singlestep", "dpm++ 2s a", "dpm++ 2s ancestral", "dpm fast", "dpm adaptive"), "dpm++2s"
    ),
    **dict.fromkeys(("dpm++ sde", "dpm solver sde", "dpm++ 2m sde heun", "sde dpm solver++"), "dpm++2m-sde"),
    **dict.fromkeys(("dpm++ 3m sde", "dpm++ 3", "dpm solver++ 3m"), "dpm++3m"),
    **dict.fromkeys(("unipc multistep", "uni pc", "uni pc bh2", "unipc bh2"), "unipc"),
    **dict.fromkeys(("lms", "lms discrete", "pndm", "ipndm", "ipndm v"), "plms"),
    **dict.fromkeys(("ddim uniform", "ddim parallel"), "ddim"),
    **dict.fromkeys(("ddpm parallel", "ancestral ddpm"), "ddpm"),
    **dict.fromkeys(("predictor corrector", "score sde ve", "sde ve"), "pc"),
}
SPACINGS = {  # names of noise schedules in web interfaces, and of diffusers' options
    **dict.fromkeys(("use karras sigmas", "karras sigmas"), "karras"),
    **dict.fromkeys(("exponential", "use exponential sigmas", "logsnr", "lambda", "use lu lambdas"), "log-snr"),
    **dict.fromkeys(("sgm uniform", "sgm"), "trailing"),
    **dict.fromkeys(("uniform", "simple", "linear"), "even"),
    **dict.fromkeys(("normal", "discrete"), "linspace"),
    **dict.fromkeys(("quadratic", "quad"), "ddim-quadratic"),
}

KEYWORDS = {  # of `Model.sample` in Python: the argument that is meant
    **dict.fromkeys(("n", "num", "count", "num_images", "num_samples", "batch_size"), "seeds"),
    **dict.fromkeys(("seed", "generator"), "seeds"),
    **dict.fromkeys(("label", "class_labels", "classes", "y"), "labels"),
    **dict.fromkeys(("prompt", "text", "caption", "captions"), "prompts"),
    **dict.fromkeys(("value", "numbers"), "values"),
    **dict.fromkeys(("num_inference_steps", "num_steps", "n_steps"), "steps"),
    **dict.fromkeys(("guidance_scale", "cfg", "cfg_scale", "scale", "w"), "guidance"),
    **dict.fromkeys(("scheduler", "solver", "method"), "sampler"),
    **dict.fromkeys(("timestep_spacing", "grid"), "spacing"),
    **dict.fromkeys(("control", "control_image"), "controls"),
    **dict.fromkeys(("controlnet_conditioning_scale",), "control_scale"),
    **dict.fromkeys(("negative", "negative_prompts"), "negative_prompt"),
    **dict.fromkeys(("dtype",), "precision"),
    **dict.fromkeys(("mask_image",), "mask"),
}


def plain(word: str) -> str:
    """A word for comparison: without case, spaces, "-" and "_"."""
    return "".join(word.lower().replace("-", "").replace("_", "").split())


def meaning(word: str, table: Mapping[str, T]) -> T | None:
    """The entry of a table for a word, or None."""
    return {plain(key): value for key, value in table.items()}.get(plain(word))


def instead(name: str, value: object, keywords: Iterable[str]) -> str:
    """`: did you mean labels='cat'?`, for a keyword in Python that does not exist; "" if it resembles none."""
    meant = KEYWORDS.get(name) or next(iter(difflib.get_close_matches(name, list(keywords), n=1)), None)
    if meant is None:
        return ""
    if meant == "seeds" and name not in ("seed", "generator"):
        return f": each seed gives one picture, so write seeds=range({value if isinstance(value, int) else 4})"
    return f": did you mean {meant}={value!r}?" if isinstance(value, str | int | float) else f": did you mean {meant}?"


def spelled(sampler: str) -> str:
    """A sampler's name as it is written here: UniPC and euler_ancestral are unipc and euler-ancestral."""
    return sampler.lower().replace("_", "-") if " " not in sampler else sampler


def check_sampler(name: str, samplers: Iterable[str], spacings: Iterable[str]) -> str:
    """Today's name of a sampler. Raises UserError that names the sampler, and the spacing, that another name means."""
    name, valid = renamed.SAMPLERS.get(name, name), list(samplers)
    if spelled(name) in valid:
        return spelled(name)
    if name in renamed.REMOVED_SAMPLERS:
        closest = renamed.REMOVED_SAMPLERS[name]
        raise UserError(f"the sampler {name!r} is no longer offered by name: use {closest!r}, the closest one")
    meant = _sampler(name, valid, list(spacings))
    raise unknown("sampler", name, valid, meant=meant)


def check_spacing(name: str, spacings: Iterable[str]) -> str:
    """Today's name of a timestep spacing. Raises UserError that names the one that another name means."""
    name, valid = renamed.SPACINGS.get(name, name), list(spacings)
    if name in valid:
        return name
    meant = _find(plain(name), valid, SPACINGS)
    raise unknown("timestep spacing", name, valid, meant=repr(meant) if meant else "")


def _sampler(name: str, samplers: list[str], spacings: list[str]) -> str:
    """`'dpm++2m' with the timestep spacing 'karras'` for "DPM++ 2M Karras"; "" for a name that means nothing here."""
    word = plain(name).replace("dpmpp", "dpm++").removeprefix("sample").removesuffix("scheduler")
    for start in (word, word.removeprefix("k")):  # k_euler
        for cut in range(len(start), 1, -1):
            method = _find(start[:cut], samplers, SAMPLERS)
            spacing = _find(start[cut:], spacings, SPACINGS) if start[cut:] else ""
            if method and spacing is not None:
                return repr(method) + (f" with the timestep spacing {spacing!r}" if spacing else "")
    return ""


def _find(word: str, names: Iterable[str], table: Mapping[str, str]) -> str | None:
    """The name that a plain word is, or means."""
    return ({plain(key): value for key, value in table.items()} | {plain(name): name for name in names}).get(word)
