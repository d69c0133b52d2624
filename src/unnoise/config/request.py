"""The configuration of sampling: which pictures are generated, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unnoise.config.field import setting


@dataclass(frozen=True)
class Request:
    """Which pictures a model generates, and how."""

    seeds: tuple[int, ...] = setting((0,), "one picture for each seed (and label)")
    labels: tuple[str, ...] = setting(
        (), 'class names or numbers; one for all, or one for each picture; "none": no class; empty: chosen by the seed'
    )
    prompts: tuple[str, ...] = setting((), "one prompt for all pictures, or one for each; empty: no prompt")
    negative_prompt: str = setting("", "prompt to guide away from, instead of the empty one")
    values: dict[str, tuple[float, ...]] = setting({}, "numbers by name; one for all pictures, or one for each")
    image: str = setting("", "an image file: the picture to upscale, or the one in which a mask is filled")
    mask: str = setting("", "an image file of that picture's size; white pixels are generated anew")
    controls: tuple[str, ...] = setting((), "files of control images, one for each control network of the model")
    control_scale: tuple[float, ...] = setting(
        (1.0,), "strength of the control images, one for all or one for each; 0: none"
    )
    guess: bool = setting(
        False, "apply the control images without a prompt: guidance of about 3 then guides towards them"
    )
    sampler: str = setting("auto", "a name in samplers.SAMPLERS; auto: the model's own default")
    steps: int = setting(50, "number of sampling steps")
    spacing: str = setting("auto", "spacing of the timesteps: a name in samplers.timesteps.SPACINGS")
    eta: float = setting(0.0, "DDIM: 0 is deterministic, 1 is ancestral")
    guidance: float = setting(1.0, "guidance scale; 1 is no guidance, 1.5 to 4 is usual, 0 is unconditional")
    guidance_rescale: float = setting(
        0.0, "fraction of the unguided contrast to restore; 0.7 against oversaturated colours; 0: none"
    )
    guidance_interval: tuple[float, float] | None = setting(
        None, "guide only where the noise, sigma / alpha, lies between these two"
    )
    classifier: str = setting(
        "", "a run of a noisy classifier, for classifier guidance; with guidance 0 it is the only guidance"
    )
    classifier_scale: float = setting(1.0, "scale of classifier guidance; 1 is Bayes' rule")
    clip: bool = setting(True, "clip each estimate of the picture to [-1, 1], if the model allows it")
    dynamic_threshold: float | None = setting(
        None, "a quantile, for example 0.995: estimates are divided by it instead of clipped"
    )
    batch: int = setting(64, "pictures per batch; fewer need less memory")
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    previews: int = setting(0, "number of pictures of the estimate during sampling; 0: none")
