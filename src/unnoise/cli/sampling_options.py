"""The options of the commands that sample: how the fields of a Request, and what is written, are called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from unnoise.cli.options import checked, flag, keys_of, listed, option, within
from unnoise.config.synonyms import check_sampler, check_spacing

WHICH = Group("Which pictures", sort_key=1)
WHERE = Group("Output", sort_key=2)
HOW = Group("Sampling", sort_key=3)

SAMPLERS = ("auto", *keys_of("samplers/__init__.py", "SAMPLERS"))
SPACINGS = ("auto", *keys_of("samplers/timesteps.py", "SPACINGS"))

SAMPLING: dict[str, Parameter | None] = {  # options of the fields of a Request that all these commands have
    "sampler": Parameter(
        group=HOW,
        help="sampling method; auto: the model's default" + listed(SAMPLERS),
        validator=checked(lambda name: check_sampler(name, SAMPLERS, SPACINGS)),
    ),
    "steps": Parameter(
        group=HOW,
        help="number of sampling steps",
        alias="--num-inference-steps",
        validator=within(1, 100_000, "each step is a call of the network"),
    ),
    "spacing": Parameter(
        group=HOW,
        name="--timestep-spacing",
        help="how the steps are spaced in time; auto: the sampler's default" + listed(SPACINGS),
        validator=checked(lambda name: check_spacing(name, SPACINGS)),
    ),
    "eta": Parameter(group=HOW, validator=within(0, 1, "0 is deterministic, 1 is ancestral sampling")),
    "guidance": Parameter(
        group=HOW, alias=("--guidance-scale", "--cfg-scale"), validator=within(-100, 1000, "1 is no guidance")
    ),
    "guidance_rescale": Parameter(group=HOW, validator=within(0, 1, "it is a fraction")),
    "classifier_scale": Parameter(group=HOW, validator=within(-1000, 1000, "0 is no guidance")),
    "control_scale": Parameter(group=WHICH, validator=within(-1000, 1000, "1 is as trained, 0 is off")),
    "dynamic_threshold": Parameter(group=HOW, validator=within(0, 1, "it is a quantile")),
    "batch": Parameter(group=HOW, alias="--batch-size", validator=within(1, 1_000_000, "pictures per batch")),
    "precision": Parameter(
        group=HOW, help="of the network: float32, exact (no fast convolutions), tf32, bfloat16; auto: what is fast here"
    ),
    "device": Parameter(group=HOW, help="auto, cpu, cuda, cuda:1, mps"),
    "previews": Parameter(
        group=WHERE,
        help="number of estimates during sampling to write beside each picture in --out",
        validator=within(0, 1000, "estimates during sampling"),
    ),
    **dict.fromkeys(("values", "image", "mask")),  # `sample` has options of its own for these
}
ALL: dict[str, Parameter | None] = {
    **SAMPLING,
    **{name: Parameter(group=WHICH) for name in ("negative_prompt", "guess")},
    **{name: Parameter(group=HOW) for name in ("guidance_interval", "classifier", "clip")},
}
FOR_ALL = {  # conditions of all pictures, in commands that sample many
    "prompts": Parameter(
        alias="--prompt", help="one text prompt for all pictures; default: the captions of real ones", group=WHICH
    ),
    "controls": Parameter(alias="--control", help="control image for all pictures, one per ControlNet", group=WHICH),
}
MODEL = Annotated[Path, option("a run, a model directory, a checkpoint, or a diffusers folder")]
VALUE = Annotated[
    tuple[str, ...],
    option("NAME=NUMBER, for example age=30: a conditioning value; repeat for several", group=WHICH),
]
LABEL = Annotated[str | None, option("the class of all pictures; 'none': unconditional")]
SEVERAL = {  # options of commands that sample from other states than noise
    **ALL,
    **FOR_ALL,
    "prompts": Parameter(alias="--prompt", help="text prompt, for all pictures or for each", group=WHICH),
    **{name: Parameter(group=WHICH) for name in ("image", "mask")},
    **dict.fromkeys(("seeds", "labels", "previews")),
}
FROM_ONE = {**SEVERAL, **dict.fromkeys(("eta", "sampler", "dynamic_threshold"))}  # with the sampler fixed

SEEDS = Annotated[
    str, option("a picture per seed: 0-63,70; with a class of its own after a colon: 5:sneaker", "--seed", group=WHICH)
]
LABELS = Annotated[
    str,
    option(
        "classes by name or number, comma-separated, each with every seed; 'all'; 'none': unconditional; default: a "
        "class by the seed",
        "--label",
        group=WHICH,
    ),
]
PROMPT = Annotated[tuple[str, ...], option("text prompt; repeat for several, each with every seed", group=WHICH)]
PROMPTS_FILE = Annotated[Path | None, option("text file with one prompt per line", "--prompts-file", group=WHICH)]
IMAGE = Annotated[
    Path | None, option("input image: the low-resolution one, or with --mask the one to inpaint", group=WHICH)
]
MASK = Annotated[Path | None, option("inpainting mask for --image: white is generated", group=WHICH)]
CONTROL = Annotated[tuple[Path, ...], option("control image, one per ControlNet; repeat for the next", group=WHICH)]
CONTROL_MODEL = Annotated[
    tuple[Path, ...],
    option("ControlNet to add: a run trained on this model, or a ControlNetModel folder; repeat", group=WHICH),
]
OUT = Annotated[
    Path | None, option("folder for one PNG per picture; default: samples", "--output-dir", "-o", group=WHERE)
]
GRID = Annotated[
    Path | None, Parameter(name="--grid", help="one PNG with all pictures, a line per class or prompt", group=WHERE)
]
ONE_GRID = Parameter(name=("--grid", "--out", "-o"), help="the PNG to write")
STRIP = Annotated[
    Path | None, option("one PNG with the estimates from noise to picture, a line per picture", group=WHERE)
]
ANIMATION = Annotated[Path | None, option("the sampling steps from noise to pictures, as a .gif or .mp4", group=WHERE)]
LATENTS = Annotated[
    Path | None, option("a .safetensors file for the latents of a latent model, a row per picture", group=WHERE)
]
COLUMNS = Annotated[
    int | None, option("pictures per line of the grid", validator=within(1, 10_000, "columns"), group=WHERE)
]
SCALE = Annotated[
    int | None,
    option("enlarge grid, strip and animation by this factor", validator=within(1, 64, "times"), group=WHERE),
]
METADATA = Annotated[
    bool, option("write into each picture how it was made, for `unnoise info`", show_default=False, group=WHERE)
]
OVERWRITE = Annotated[bool, flag("replace files that exist", group=WHERE)]
JSON = Annotated[bool, flag("one JSON document on stdout", group=WHERE)]
