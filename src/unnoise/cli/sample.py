"""`unnoise sample`: draw pictures from a model, each with its recipe inside the file."""

from __future__ import annotations

import dataclasses
import json as json_format
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from unnoise.cli.console import UsageError, asking, emit, existing, say, show, writable
from unnoise.cli.data import present
from unnoise.cli.nearest import among, beside
from unnoise.cli.options import (
    MOST_PICTURES,
    flag,
    keys_of,
    option,
    pairs,
    parse_names,
    parse_seeds,
    with_settings,
    within,
)
from unnoise.cli.progress import Progress
from unnoise.config.cards import ModelCard
from unnoise.config.request import Request
from unnoise.config.usage import supported_inputs_of
from unnoise.errors import unknown
from unnoise.generate.describe import known_card
from unnoise.generate.recipe import build_recipe, seeds_text
from unnoise.io.units import duration

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor

    from unnoise.io.images import Pixels
    from unnoise.model import Model
    from unnoise.text.conditioner import Conditioner

Row = tuple[int, str | None]  # a picture asked for: its seed, and its class by name or its prompt; None: neither

WHICH = Group("Which pictures", sort_key=1)
WHERE = Group("What is written", sort_key=2)
HOW = Group("How they are drawn", sort_key=3)

DRAWING: dict[str, Parameter | None] = {  # what the fields of a Request are called by people
    "sampler": Parameter(
        group=HOW,
        help="how to go from noise to picture; auto: the model's own default",
        choices=("auto", *keys_of("samplers/__init__.py", "SAMPLERS")),
    ),
    "steps": Parameter(
        group=HOW,
        help="steps from noise to picture: more are finer, and slower",
        alias="--num-inference-steps",
        validator=within(1, 100_000, "a step is one call of the network"),
    ),
    "spacing": Parameter(
        group=HOW,
        name="--timestep-spacing",
        alias="--grid-spacing",
        help="how the steps lie in time; auto: what the sampler likes",
        choices=("auto", *keys_of("samplers/timesteps.py", "SPACINGS")),
    ),
    "eta": Parameter(group=HOW, validator=within(0, 1, "0 is deterministic, 1 draws fresh noise at every step")),
    "guidance": Parameter(
        group=HOW, alias=("--guidance-scale", "--cfg-scale"), validator=within(-100, 1000, "1 is no guidance")
    ),
    "guidance_rescale": Parameter(group=HOW, validator=within(0, 1, "it is a share")),
    "classifier_scale": Parameter(group=HOW, validator=within(-1000, 1000, "0 is none")),
    "control_scale": Parameter(group=WHICH, validator=within(-1000, 1000, "1 is as it was trained, 0 is none")),
    "dynamic_threshold": Parameter(group=HOW, alias="--threshold", validator=within(0, 1, "it is a quantile")),
    "batch": Parameter(group=HOW, alias="--batch-size", validator=within(1, 1_000_000, "pictures drawn at once")),
    "precision": Parameter(group=HOW, help="of the network; auto: bfloat16 where this machine is fast at it"),
    "device": Parameter(group=HOW, help="auto, cpu, cuda, cuda:1, mps"),
    "previews": Parameter(
        group=WHERE,
        help="pictures of the estimate on the way, beside each one in --out",
        validator=within(0, 1000, "pictures of the estimate on the way"),
    ),
    **dict.fromkeys(("values", "image", "mask")),  # said by `sample` alone, in its own way
}
ALL: dict[str, Parameter | None] = {  # and those that go by their own names
    **DRAWING,
    **{name: Parameter(group=WHICH) for name in ("negative_prompt", "guess")},
    **{name: Parameter(group=HOW) for name in ("guidance_interval", "classifier", "clip")},
}
TOLD = {  # what all pictures are told, in commands that draw many
    "prompts": Parameter(
        alias="--prompt", help="one prompt for all pictures; otherwise the captions of real ones", group=WHICH
    ),
    "controls": Parameter(
        alias="--control", help="drawings that all pictures follow, one a control network of the model", group=WHICH
    ),
}
VALUE = Annotated[
    tuple[str, ...],
    option("name=number, as age=30, for a model that is told numbers; again for its next", group=WHICH),
]


@dataclass(frozen=True)
class Drawn:
    """One finished picture, and those of its batch: the same batch gives the same bits."""

    place: int  # among all that were asked for
    row: Row
    together: Sequence[Row]
    pixels: Pixels  # (H, W, C) bytes
    previews: Sequence[tuple[int, Pixels]]  # (step, the estimate at that step), the first one being noise at step 0


@with_settings(Request, seeds=None, labels=None, prompts=None, controls=None, **ALL)
def sample(
    model: Annotated[
        Path,
        option(
            "a run, a model directory, a checkpoint, or a diffusers folder; `unnoise info` says what it can be told"
        ),
    ],
    /,
    *,
    seeds: Annotated[
        str,
        option("numbers, a picture each: 0-63,70; after a colon its own class, 5:sneaker", "--seed", group=WHICH),
    ] = "0",
    labels: Annotated[
        str,
        option(
            "classes by name or number, with commas between, each drawn with every seed; 'all'; 'none': no class; "
            "otherwise each seed has a class of its own",
            "--label",
            group=WHICH,
        ),
    ] = "",
    prompt: Annotated[
        tuple[str, ...],
        option(
            "what to draw, in words, for a model that hears them; again for another; each is drawn with every seed",
            group=WHICH,
        ),
    ] = (),
    prompts: Annotated[Path | None, option("a text file with a prompt a line", "--prompts-file", group=WHICH)] = None,
    value: VALUE = (),
    image: Annotated[
        Path | None,
        option(
            "for a model that makes pictures larger, the small one; with --mask, the one to draw a part of anew",
            group=WHICH,
        ),
    ] = None,
    mask: Annotated[
        Path | None, option("which part of --image is drawn anew: white; the rest is black", group=WHICH)
    ] = None,
    control: Annotated[
        tuple[Path, ...],
        option("a drawing to follow, for a model that takes one; again for its next", group=WHICH),
    ] = (),
    control_model: Annotated[
        tuple[Path, ...],
        option(
            "a run trained beside this model, or a ControlNetModel's folder: its control is added; again for more",
            group=WHICH,
        ),
    ] = (),
    out: Annotated[
        Path | None,
        option(
            "a folder for one PNG a picture; samples, where no other file is asked for", "--output-dir", group=WHERE
        ),
    ] = None,
    grid_file: Annotated[
        Path | None, Parameter(name="--grid", help="one PNG with all pictures, a line a class or prompt", group=WHERE)
    ] = None,
    strip: Annotated[
        Path | None,
        option("one PNG with what the model thinks on its way from noise, a line a picture", group=WHERE),
    ] = None,
    animation: Annotated[
        Path | None, option("from noise to pictures, step by step: a .gif or an .mp4", group=WHERE)
    ] = None,
    latents: Annotated[
        Path | None,
        option("a .safetensors file: what a model of latents draws, a row a seed and prompt, as it is", group=WHERE),
    ] = None,
    nearest: Annotated[
        str | None,
        option("a set, or a path to pictures: one PNG with those nearest to each drawn one, beside it", group=WHERE),
    ] = None,
    nearest_count: Annotated[
        int, option("how many of them each", validator=within(1, 100, "nearest pictures"), group=WHERE)
    ] = 3,
    nearest_judge: Annotated[
        Path | None, option("a contrastive run: nearest as it sees them, instead of by pixels", group=WHERE)
    ] = None,
    nearest_grid: Annotated[Path, option("the PNG with them", group=WHERE)] = Path("nearest.png"),
    columns: Annotated[
        int | None, option("pictures in a line of the grid", validator=within(1, 10_000, "columns"), group=WHERE)
    ] = None,
    scale: Annotated[
        int | None,
        option("enlarge grid, strip and animation by whole pixels", validator=within(1, 64, "times"), group=WHERE),
    ] = None,
    metadata: Annotated[
        bool, option("write into each picture how it was made, for `unnoise info`", show_default=False, group=WHERE)
    ] = True,
    json: Annotated[bool, flag("one JSON document on stdout", group=WHERE)] = False,
    **asked: Any,
) -> None:
    """Draw pictures from a model, one a seed and class or prompt, each with its recipe inside the file.

    A picture depends on its seed, what is said of it and the settings alone, not on how many are drawn beside it.
    """
    from unnoise.io import animation as animations
    from unnoise.io import images, png
    from unnoise.io.fonts import boxes

    existing(model, "model")
    shown = [each for each in (out, grid_file, animation, strip, nearest) if each is not None]
    if latents is not None and (shown or asked.get("previews")):
        raise UsageError("--latents writes no pictures: leave the other outputs out")
    if latents is not None and latents.suffix != ".safetensors":
        raise UsageError(f"--latents {latents}: numbers are written, not a picture: name a .safetensors file")
    if latents is None and not shown:
        out = Path("samples")
    for path, what in (
        (out, "pictures"), (grid_file, "the grid"), (animation, "the animation"), (strip, "the strip"),
        (latents, "the latents"),
    ):  # fmt: skip
        if path is not None:
            writable(path, what, folder=path is out)
    if nearest is not None:
        writable(nearest_grid, "the nearest pictures")
    if nearest_judge is not None:
        existing(nearest_judge, "contrastive judge")
    with asking():
        if nearest is not None:
            present(nearest)
        animate = animations.animation_writer(animation) if animation else None
        said = prompts_of(prompt, prompts)
        for path in control:
            existing(path, "drawing")
        for path in control_model:
            existing(path, "model")
        asked["controls"] = tuple(map(str, control))
        asked["values"] = numbers_of(value)
        for name, path, what in (("image", image, "picture"), ("mask", mask, "mask")):
            if path is not None:
                existing(path, what)
            asked[name] = "" if path is None else str(path)
        if said:
            asked["labels"] = one_label(labels)
            rows = worded(parse_seeds(seeds), said)
        else:
            card = known_card(model)
            if asked.get("classifier", "") and card is not None and not card.classes:
                card = None  # its classes may be the classifier's, which is read below
            rows = rows_for(parse_seeds(seeds), parse_names(labels), card)
        if len(rows) > MOST_PICTURES:
            raise UsageError(f"{len(rows):,} pictures in one call, more than {MOST_PICTURES:,}. Draw them in parts")

    say(f"loading {model} ...")
    from unnoise import model as models
    from unnoise.generate.frames import begins_in_a_picture, check, steered

    folder = models.find(model)
    loaded = models.load(folder)
    if latents is None:
        with asking():
            loaded.require_pictures()
    elif not loaded.card.latents:
        raise UsageError("this model draws pictures and no latents: leave --latents out")
    with asking():
        loaded = steered(loaded, asked.get("classifier", ""))
        beside_it = [models.find(path) for path in control_model]  # the checkpoint meant now, whatever comes later
        loaded = loaded.with_controlnets(*beside_it)
    request = request_for(loaded, rows, asked, worded=bool(said))
    with asking():
        check(loaded, request)
        those = None if nearest is None else among(loaded, nearest, nearest_count, nearest_judge)
    if not said:
        rows = [(seed, label) for seed, label in zip(request.seeds, named(loaded, request), strict=True)]
    for text in dict.fromkeys((*said, request.negative_prompt)):
        if loaded.text is not None and (surplus := loaded.text.truncated(text)):
            say(f"note: the model hears only the beginning of {text!r}: not {surplus!r}")

    for note in (*loaded.conditioner.out_of_range(request.values), begins_in_a_picture(loaded, request)):
        if note:
            say(f"note: {note}")

    recipe = build_recipe(folder, loaded, request)
    if control_model:
        recipe |= {"control_models": list(map(str, beside_it))}
    if latents is not None:
        recipe |= {"together": seeds_text(rows, said), "prompts": list(said)}
        start = time.perf_counter()
        save_tensor(latents, "latents", draw_latents(loaded, request), recipe if metadata else {})
        report([], {"latents": latents}, time.perf_counter() - start, len(rows), recipe, as_json=json)
        return
    names_of_files = file_names(said)
    written: list[dict[str, Any]] = []
    kept: list[Drawn] = []
    start = time.perf_counter()
    for drawn in draw(loaded, request, rows, walk=animation is not None or strip is not None):
        if out is not None:
            written += write(out, drawn, recipe, names_of_files, metadata=metadata, previews=request.previews)
        if grid_file is not None or animation is not None or strip is not None or nearest is not None:
            kept.append(drawn)
    seconds = time.perf_counter() - start

    columns = columns or columns_for(rows)
    labelled = grid_file is not None or animation is not None or strip is not None
    if labelled and (note := boxes(label for _, label in rows if label)):
        say(f"note: {note}")
    if grid_file is not None:
        if said:
            sheet = prompted(kept, columns, scale)
        else:
            names = names_of_lines(rows, columns)
            sheet = images.grid([d.pixels for d in kept], columns=columns, rows=names, scale=scale)
        about = recipe | {"together": seeds_text(rows, said), "columns": columns, "size": list(loaded.card.size[::-1])}
        about |= {"prompts": list(said)} if said else {}
        png.write_png(grid_file, sheet, about if metadata else None)
    if strip is not None:
        lines = [thoughts(d) for d in kept]
        names = [f"{seed}" if label is None else f"{seed} {label}" for seed, label in rows]
        flat = [pixels for line in lines for pixels in line]
        png.write_png(strip, images.grid(flat, columns=len(lines[0]), rows=names, scale=scale), None)
    if animation is not None and animate is not None:
        animate(animation, frames(kept, columns, names_of_lines(rows, columns), scale), 4.0)
    if nearest is not None and those is not None:
        near = beside(kept, those, nearest, judge=nearest_judge, scale=scale)
        png.write_png(nearest_grid, near.sheet, None)
        recipe |= {"nearest": near.about | {"path": str(nearest_grid)}}
        say(near.said)
    files = {"grid": grid_file, "animation": animation, "strip": strip}
    files |= {"nearest_grid": nearest_grid} if nearest is not None else {}
    report(written, files, seconds, len(rows), recipe, as_json=json)


# ------------------------------------------------------------------------------------------------- what is asked


def rows_for(seeds: list[Row], labels: tuple[str, ...], card: ModelCard | None) -> list[Row]:
    """The pictures asked for, labels checked where the model's card is known, and "all" meaning each class."""
    if card is None:
        return pairs(seeds, labels)
    classes = card.classes
    said = [label for _, label in seeds if label is not None] + [label for label in labels if label != "all"]
    if "all" in labels and not classes:
        raise UsageError(f"this model was trained without classes: leave --labels out; {supported_inputs_of(card)}")
    labels = tuple(name for label in labels for name in (classes if label == "all" else (label,)))
    for label in said:
        if label not in classes and label != "none" and not (label.isdigit() and int(label) < len(classes)):
            if not classes:
                raise UsageError(
                    f"this model was trained without classes and takes no label {label!r}: leave it out; "
                    f"{supported_inputs_of(card)}"
                )
            raise unknown("class", label, [*classes, "none"])
    return pairs(seeds, labels)


def prompts_of(given: Sequence[str], file: Path | None) -> tuple[str, ...]:
    """The prompts that were typed, and those of a file, a line each."""
    if file is None:
        return tuple(given)
    existing(file, "file of prompts")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--prompts {file}: this is no text file in UTF-8 ({error})") from None
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise UsageError(f"--prompts {file}: there is no prompt in it. Write one a line")
    return (*given, *found)


def numbers_of(given: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """`age=30` as {"age": (30.0,)}."""
    found: dict[str, tuple[float, ...]] = {}
    for text in given:
        name, equals, number = (part.strip() for part in text.rpartition("="))
        try:
            value = float(number) if name and equals and name not in found else math.nan
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UsageError(f"--value {text}: write each once, as name=number, for example --value age=30")
        found[name] = (value,)
    return found


def one_label(labels: str) -> tuple[str, ...]:
    """The class that goes with every prompt, or none."""
    names = parse_names(labels)
    if len(names) > 1 or "all" in names:
        raise UsageError("with prompts give at most one label, which goes with all of them")
    return names


def worded(seeds: list[Row], prompts: Sequence[str]) -> list[Row]:
    """Every seed with every prompt; a seed with a number after its colon, as in 5:0, with that prompt alone."""
    rows: list[Row] = []
    for seed, number in pairs(seeds, tuple(map(str, range(len(prompts))))):
        if number is None or not number.isdigit() or int(number) >= len(prompts):
            raise UsageError(f"--seeds {seed}:{number}: with prompts, say which by number: 0 to {len(prompts) - 1}")
        rows.append((seed, prompts[int(number)]))
    return rows


def request_for(model: Model, rows: Sequence[Row], asked: dict[str, Any], *, worded: bool = False) -> Request:
    """The request for these rows; where only some rows say a class, the others get the one that belongs to the seed."""
    seeds = tuple(seed for seed, _ in rows)
    if worded:
        return Request(seeds=seeds, prompts=tuple(prompt or "" for _, prompt in rows), **asked)
    labels: tuple[str, ...] = ()
    if any(label is not None for _, label in rows):
        reader = model.conditioner
        labels = tuple(by_seed(reader, seed) if label is None else label for seed, label in rows)
    return Request(seeds=seeds, labels=labels, **asked)


def by_seed(reader: Conditioner, seed: int) -> str:
    label = reader.random_class([seed]).label
    return "none" if label is None else reader.name(int(label[0]))


def named(model: Model, request: Request) -> list[str | None]:
    """Each picture's class by name; None where the model knows no classes."""
    from unnoise.generate.conditions import conditions

    label = conditions(model.conditioner, request).label
    if label is None:
        return [None] * len(request.seeds)
    return [model.conditioner.name(int(index)) for index in label]


# ---------------------------------------------------------------------------------------------------- drawing


def draw(model: Model, request: Request, rows: Sequence[Row], *, walk: bool, silent: bool = False) -> Iterator[Drawn]:
    """Draw, with a bar, and yield the pictures batch by batch. `walk` keeps the estimates of up to a hundred steps."""
    from unnoise.generate.frames import generate

    if walk:
        request = dataclasses.replace(request, previews=max(request.previews, min(request.steps - 1, 100)))
    batches = -(-len(rows) // request.batch)
    previews: list[tuple[int, Any]] = []
    finished = 0
    with Progress(request.steps * batches, "drawing", silent=silent) as progress:
        for frame in generate(model, request):
            number = frame.rows.start // request.batch
            if number == 0 and frame.step == 1:
                progress.total = frame.steps * batches
            if frame.step == 1:
                previews = [(0, as_bytes(noise_of(model, request, frame.rows)))] if walk else []
            if frame.pictures is not None and not frame.done:
                previews.append((frame.step, as_bytes(frame.pictures)))
            finished += (frame.rows.stop - frame.rows.start) * frame.done
            progress.step(number * frame.steps + frame.step, f"{finished} of {len(rows)} pictures")
            if frame.done and frame.pictures is not None:
                together, pixels = rows[frame.rows], as_bytes(frame.pictures)
                for i, row in enumerate(together):
                    yield Drawn(
                        frame.rows.start + i, row, together, pixels[i], [(step, batch[i]) for step, batch in previews]
                    )


def draw_latents(model: Model, request: Request) -> Tensor:
    """Draw, with a bar: all that is drawn, (B, C, H, W) float32."""
    import torch

    from unnoise.generate.frames import generate

    batches, parts = -(-len(request.seeds) // request.batch), []
    with Progress(request.steps * batches, "drawing") as progress:
        for frame in generate(model, request):
            progress.total = frame.steps * batches
            progress.step(frame.rows.start // request.batch * frame.steps + frame.step)
            if frame.done and frame.pictures is not None:
                parts.append(frame.pictures)
    return torch.cat(parts)


def thoughts(drawn: Drawn, most: int = 9) -> list[Pixels]:
    """The noise, estimates evenly between, and the picture: `most` of them, or as many as there are."""
    way = [pixels for _, pixels in drawn.previews] + [drawn.pixels]
    count = min(most, len(way))
    return [way[round(i * (len(way) - 1) / max(count - 1, 1))] for i in range(count)]


def as_bytes(pictures: Tensor) -> NDArray[np.uint8]:
    """(B, C, H, W) in [-1, 1] as (B, H, W, C) bytes: the nearest of 256 values."""
    from unnoise.codec import to_bytes

    return to_bytes(pictures).permute(0, 2, 3, 1).contiguous().numpy()


def noise_of(model: Model, request: Request, rows: slice) -> Tensor:
    """The noise that these pictures begin as, (B, C, H, W), at half its strength so that its grain is visible."""
    from unnoise.noise import Seeds

    return model.codec.decode(Seeds(request.seeds[rows], model.shape).start() / 2)


# ---------------------------------------------------------------------------------------------------- keeping


def write(
    out: Path, drawn: Drawn, recipe: dict[str, Any], prompts: Mapping[str, str], *, metadata: bool, previews: int
) -> list[dict[str, Any]]:
    """One picture into its file, and its previews beside it; what was written. `prompts`: what each is in a name."""
    from unnoise.io.images import image
    from unnoise.io.png import write_png

    seed, label = drawn.row
    name = f"seed-{seed:06d}"
    if label is not None:
        name += f"-{prompts.get(label) or file_name(label)}"
    height, width = drawn.pixels.shape[:2]
    told = {"seed": seed, "prompt" if prompts else "label": label}
    beside = list(dict.fromkeys(str(text) for _, text in drawn.together)) if prompts else []
    about = recipe | told | {"size": [width, height], "together": seeds_text(drawn.together, beside)}
    about |= {"prompts": beside} if prompts else {}
    path = out / f"{name}.png"
    write_png(path, image(drawn.pixels), about if metadata else None)
    shown = [(step, pixels) for step, pixels in drawn.previews if step > 0]
    for i in range(min(previews, len(shown))):
        step, pixels = shown[(i + 1) * len(shown) // (previews + 1) if len(shown) > previews else i]
        write_png(out / f"{name}-step-{step:04d}.png", image(pixels), None)
    return [told | {"path": str(path)}]


def save_tensor(path: Path, name: str, tensor: Tensor, about: dict[str, Any]) -> None:
    """A tensor as safetensors, with what it was found or drawn with in its header."""
    from safetensors.torch import save_file

    from unnoise.io.atomic import publish

    said = {"unnoise": json_format.dumps(about, default=str)}
    publish(path, lambda beside: save_file({name: tensor.contiguous()}, beside, metadata=said))


def file_names(prompts: Sequence[str]) -> dict[str, str]:
    """Each prompt as part of a file's name; those of the same first words with their number."""
    plain = {text: file_name(text, empty="prompt" if text.strip() else "no-prompt") for text in prompts}
    often = Counter(plain.values())
    return {text: f"{name}-{prompts.index(text)}" if often[name] > 1 else name for text, name in plain.items()}


def file_name(label: str, most: int = 60, *, empty: str = "class") -> str:
    """A class's name or a prompt as part of a file's: letters, digits and dashes, as many whole words as fit; `empty`
    where there is none."""
    words = "".join(c if c.isalnum() else " " for c in label.lower()).split()
    name = "-".join(words) or empty
    return name if len(name) <= most else name[:most].rsplit("-", 1)[0]


def columns_for(rows: Sequence[Row]) -> int:
    """One line a class where each class has as many pictures; otherwise nearly square."""
    each = {label: sum(other == label for _, other in rows) for label in {label for _, label in rows}}
    runs = [rows[i][1] for i in range(len(rows)) if i == 0 or rows[i][1] != rows[i - 1][1]]
    if len(each) > 1 and len(runs) == len(each) and len(set(each.values())) == 1:
        return next(iter(each.values()))
    return math.ceil(math.sqrt(len(rows)))


def names_of_lines(rows: Sequence[Row], columns: int) -> list[str]:
    """What stands left of each line of a grid: its class, or where it mixes classes, its first seed."""
    lines = [rows[i : i + columns] for i in range(0, len(rows), columns)]
    names = []
    for line in lines:
        labels = {label for _, label in line}
        seeds = f"{line[0][0]}" if line[0][0] == line[-1][0] else f"{line[0][0]}-{line[-1][0]}"
        names.append(labels.pop() or seeds if len(labels) == 1 else seeds)
    return [str(name) for name in names]


def prompted(drawn: Sequence[Drawn], columns: int, scale: int | None) -> Image.Image:
    """A grid with its prompts below: below each line where a line is of one prompt, else below each picture."""
    from unnoise.io.images import captioned

    lines = [drawn[i : i + columns] for i in range(0, len(drawn), columns)]
    least = 96 if scale is None else scale * min(drawn[0].pixels.shape[:2])
    if all(len({d.row[1] for d in line}) == 1 for line in lines):
        cells = [([d.pixels for d in line], line[0].row[1] or "") for line in lines]
        return captioned(cells, columns=1, at_least=least)
    return captioned([([d.pixels], d.row[1] or "") for d in drawn], columns=columns, at_least=least)


def frames(drawn: Sequence[Drawn], columns: int, names: Sequence[str], scale: int | None) -> list[Image.Image]:
    """The walk of all pictures as one grid a step, from noise to the pictures."""
    from unnoise.io.images import grid

    walks = [[pixels for _, pixels in d.previews] + [d.pixels] for d in drawn]
    return [
        grid([walk[min(step, len(walk) - 1)] for walk in walks], columns=columns, rows=names, scale=scale)
        for step in range(max(map(len, walks)))
    ]


def report(
    written: Sequence[dict[str, Any]],
    files: Mapping[str, Path | None],
    seconds: float,
    count: int,
    recipe: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """What was drawn, and where it is."""
    if as_json:
        emit(recipe | {"pictures": list(written), **files, "seconds": round(seconds, 3)})
        return
    if written:
        folder = Path(written[0]["path"]).parent
        show(
            str(folder / Path(written[0]["path"]).name) if len(written) == 1 else f"{len(written)} pictures in {folder}"
        )
    for path in files.values():
        if path is not None:
            show(str(path))
    many = "1 picture" if count == 1 else f"{count} pictures"
    say(f"{many} in {duration(seconds)}, {count / seconds:.3g} a second")
