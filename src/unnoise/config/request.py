"""What a person asks of a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Request:
    """What a person asks of a model: which pictures, and how to draw them."""

    seeds: tuple[int, ...] = (0,)  # one picture a seed (and label)
    labels: tuple[
        str, ...
    ] = ()  # names or numbers; one for all, or one a picture; "none": no class; empty: by the seed
    prompts: tuple[str, ...] = ()  # words; one prompt for all, or one a picture; empty: no words
    negative_prompt: str = ""  # words that guidance leads away from, in place of none
    values: dict[str, tuple[float, ...]] = field(default_factory=dict)  # numbers by name; one for all, or one a picture
    image: str = ""  # a file: the small picture that is made larger, or the one that a mask's hole is filled of
    mask: str = ""  # a file of the size of that picture; what is white is drawn anew
    controls: tuple[str, ...] = ()  # files of drawings to follow, one a control network of the model
    control_scale: tuple[float, ...] = (1.0,)  # how strongly drawings are followed, one for all or one each; 0: not
    guess: bool = False  # follow the drawings where no words help: guidance of 3 or so then leads towards them
    sampler: str = "auto"  # a name in samplers.SAMPLERS; auto: the model's own default
    steps: int = 50
    spacing: str = "auto"  # spacing of the times: a name in samplers.times.GRIDS
    eta: float = 0.0  # DDIM: 0 is deterministic, 1 is ancestral
    guidance: float = 1.0  # how strongly what is told is followed; 1 is plainly, 1.5 to 4 is usual, 0 tells nothing
    guidance_rescale: float = 0.0  # share of the unguided contrast that is kept, 0.7 against burnt colours; 0: none
    guidance_interval: tuple[float, float] | None = (
        None  # guide only where the noise, sigma / alpha, lies between the two
    )
    classifier: str = ""  # a run of a noisy classifier, to guide by too; with guidance 0, by it alone
    classifier_scale: float = 1.0  # how strongly that classifier guides; 1 is Bayes' rule
    clip: bool = True  # keep each estimate on the way in [-1, 1], where the model allows it
    dynamic_threshold: float | None = None  # a quantile, 0.995 say: estimates are divided by it instead of clipped
    batch: int = 64  # pictures drawn at once; fewer take less memory
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    previews: int = 0  # pictures of the estimate on the way; 0: none
