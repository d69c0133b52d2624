"""diffusers' folders, read and written without diffusers: UNet2DModel, and the parts of Stable Diffusion.

    model_index.json                              which class each part is
    unet/                                         the network: part.py
    controlnet/                                   networks that read drawings beside it: controlnet.py
    scheduler/scheduler_config.json               betas, prediction, how to draw
    text_encoder/, tokenizer/, ..._2/             what reads captions, for a UNet2DConditionModel: clip_words.py
    vae/                                          not read: what is drawn with such a network is latents
    unnoise.json                                  ours: names of the classes, whether the last row means "no class",
                                                  whether the pictures are latents

Older folders (google/ddpm-cifar10-32) have all files at the top; a network alone has its two. Laws
(tests/formats/test_diffusers.py, tests/formats/test_stable_diffusion.py, tests/formats/test_pipelines.py): a network
reads and writes as diffusers computes it, to 1e-5; what is written draws in diffusers what it draws here; a setting
that is not understood is an error that names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

from torch import Tensor

from unnoise.config.cards import CodecConfig, LatentsConfig, PixelsConfig, ValueRange
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import UNetConfig
from unnoise.errors import UserError
from unnoise.formats import controlnet, names, part, schedulers, text_encoders, unet2d, unet2d_condition
from unnoise.formats.files import read_json
from unnoise.formats.text_encoders import INDEX, ClipEncoder, DualClipEncoder, is_part
from unnoise.nn.blocks import context_width

SCHEDULER, NOTES = "scheduler_config.json", "unnoise.json"


class Hints(TypedDict):
    """What a folder says beside the network and the process: the rest of a model's card."""

    channels: int
    classes: tuple[str, ...]
    values: tuple[ValueRange, ...]
    sampler: str
    spacing: str
    clip: bool
    codec: CodecConfig
    info: dict[str, Any]


REFINES, REFINER_IDS = "requires_aesthetics_score", 5  # what XL's refiner's index says, and how many numbers it is told
SCALE = 1000.0  # of numbers that are told as they are: model.SCALE


def is_folder(folder: Path) -> bool:
    """Whether this looks like one."""
    return (folder / part.CONFIG).is_file() or (folder / INDEX).is_file()


# --- reading ---


def read(folder: Path, *, pickles: bool = False) -> tuple[UNetConfig, dict[str, Tensor], DiffusionConfig, Hints]:
    """The network's settings, its weights in our names (float32), the process, and the rest of the card.

    A network without a scheduler is taken for DDPM's: linear betas, 1,000 steps, eps. Classes without names are called
    by their numbers, and none of them means "no class". With `pickles` a .bin file is opened too, tensors only.
    Raises UserError that names the file and the setting or tensors that are not understood.
    """
    index = read_json(folder / INDEX) if (folder / INDEX).is_file() else {}
    parts = _parts(folder, index)
    unet = parts["unet"]
    config = _config(unet / part.CONFIG, REFINER_IDS if index.get(REFINES) is True else unet2d_condition.TIME_IDS)
    file = parts["scheduler"] / SCHEDULER
    said = read_json(file) if file.is_file() or is_part(index.get("scheduler")) else {}
    process, sampler, spacing, clip = schedulers.from_config(said, str(file))
    outputs = config.in_channels * (2 if process.learned_variance else 1)
    if config.out_channels != outputs:
        raise UserError(
            f"{unet / part.CONFIG}: out_channels is {config.out_channels} beside in_channels {config.in_channels}; "
            f"{'with' if process.learned_variance else 'without'} variance_type learned_range it is {outputs}"
        )

    state = part.read_weights(unet, names.pieces_of(config), pickles=pickles)
    if "controlnet" in parts:
        found = controlnet.folders(folder, index["controlnet"][1])
        each = [controlnet.read(one, config, pickles=pickles) for one in found]
        config, state = controlnet.beside(config, state, each)
    config, classes = _classes(config, folder)  # after the weights, which say that the rows are there
    drawn = {key: value for key, value in said.items() if not key.startswith("_") and key != "trained_betas"}
    info = {"format": "diffusers", "scheduler": drawn}
    latents = "vae" in parts or config.in_channels not in (1, 3) or _notes(folder)["latents"]
    if latents:
        info["latents"] = "no autoencoder is read: what is drawn are its latents, not pictures"
    hints = Hints(
        channels=config.in_channels,
        classes=classes,
        values=_values(config),
        sampler=sampler,
        spacing=spacing,
        clip=clip and not latents,
        codec=LatentsConfig() if latents else PixelsConfig(),
        info=info,
    )
    return config, state, process, hints


def read_text_encoder(folder: Path, config: UNetConfig) -> ClipEncoder | DualClipEncoder | None:
    """What reads captions for the network of a pipeline; None where the folder has no such part. Raises UserError where
    the network reads others."""
    words = text_encoders.read(folder) if (folder / INDEX).is_file() else None
    if words is not None and words.width != context_width(config):
        raise UserError(
            f"{folder}: what its text encoders make of a word has {words.width} numbers, and its unet reads "
            f"{context_width(config)}: the folder was put together from two models"
        )
    return words


def _config(file: Path, time_ids: int) -> UNetConfig:
    """The network's settings, by the class that the file names; `time_ids`: how many numbers XL is told."""
    given = read_json(file)
    kind = given.get("_class_name", "UNet2DConditionModel" if "cross_attention_dim" in given else "UNet2DModel")
    if kind == controlnet.KIND:
        raise UserError(
            f"{file} is the configuration of a {kind}, which steers another network: load that one, and put this "
            "beside it, --control-model or model.controlled_by"
        )
    if kind not in ("UNet2DModel", "UNet2DConditionModel"):
        raise UserError(f"{file} is the configuration of a {kind}; UNet2DModel and UNet2DConditionModel are understood")
    if kind == "UNet2DModel":
        return unet2d.from_config(given, str(file))
    return unet2d_condition.from_config(given, str(file), time_ids=time_ids)


def _values(config: UNetConfig) -> tuple[ValueRange, ...]:
    """The numbers that XL is told, as they are, and what it is told where nobody says them: a picture that was neither
    made smaller nor cut, and, of its refiner, one that was found beautiful (6), away from one that was not (2.5)."""
    if not config.value_width:
        return ()
    side = 8.0 * config.size  # pixels of XL's autoencoder a latent
    usual = {"original_height": side, "original_width": side, "crop_top": 0.0, "crop_left": 0.0}
    usual |= {"target_height": side, "target_width": side} if config.values != REFINER_IDS else {"aesthetic_score": 6.0}
    untold = {"aesthetic_score": 2.5}
    return tuple(ValueRange(name, 0, SCALE, number, untold.get(name)) for name, number in usual.items())


READ = ("unet", "scheduler", *text_encoders.PARTS, "controlnet")
PASSED = ("vae", "safety_checker", "feature_extractor", "image_encoder")  # parts that the network does not need


def _parts(folder: Path, index: Mapping[str, Any]) -> dict[str, Path]:
    """The folder of each part. Raises UserError for a pipeline with a part that we cannot do without."""
    if not (folder / INDEX).is_file():
        return {"unet": folder, "scheduler": folder}
    parts = {name: said for name, said in index.items() if not name.startswith("_") and is_part(said)}
    for name, (_, kind) in parts.items():
        if name not in (*READ, *PASSED):
            raise UserError(
                f"{folder / INDEX}: a {index.get('_class_name', 'pipeline')} with a part {name!r} ({kind}); pipelines "
                f"of {', '.join(READ)} are understood, with or without {', '.join(PASSED)}"
            )
    if "unet" not in parts:
        raise UserError(f"{folder / INDEX} names no unet: there is no network to draw with")
    found = {name: folder / name for name in parts if name not in ("unet", "scheduler")}
    return found | {name: folder / name if (folder / name).is_dir() else folder for name in ("unet", "scheduler")}


def _classes(config: UNetConfig, folder: Path) -> tuple[UNetConfig, tuple[str, ...]]:
    """The names of the classes, and the network's settings that know which rows are classes."""
    rows, file = config.classes, folder / NOTES
    notes = _notes(folder)
    names, null = notes["classes"], notes["null_class"]
    if names is None:
        return config, tuple(map(str, range(rows)))
    if len(names) + (null and bool(names)) != rows:
        raise UserError(
            f"{file}: {len(names)} classes{' and a null class' if null else ''} are not the {rows} rows "
            "(num_class_embeds) of the network: the folder was put together from two models"
        )
    return replace(config, classes=len(names), null_class=null), tuple(names)


def _notes(folder: Path) -> dict[str, Any]:
    """What we noted beside diffusers' files, if anything: names of the classes, and the rest."""
    file = folder / NOTES
    notes: dict[str, Any] = {"classes": None, "null_class": False, "latents": False}
    if not file.is_file():
        return notes
    notes |= {"classes": []} | read_json(file)
    names = notes["classes"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{file}: classes is a list of names")
    for name in ("null_class", "latents"):
        if not isinstance(notes[name], bool):
            raise UserError(f"{file}: {name} is true or false")
    return notes


# --- writing ---


def write(
    folder: Path,
    config: UNetConfig,
    state: Mapping[str, Tensor],
    process: DiffusionConfig,
    classes: Sequence[str] = (),
    *,
    sampler: str = "ddim",
    clip: bool = True,
    latents: bool = False,
    words: ClipEncoder | DualClipEncoder | None = None,
) -> None:
    """A pipeline folder that `DDIMPipeline` (sampler ddim) or `DDPMPipeline` (ddpm, ddpm-large, ddpm-learned) loads.

    Of a network that reads words, with what reads its captions and the controls beside it: StableDiffusionPipeline, or
    StableDiffusionControlNetPipeline, loads it when it is handed an autoencoder, or None for one (vae=None, and
    output_type="latent" when it is called). They set the scheduler's steps_offset to 1, whatever the file says.

    `state` is in our names. With `clip`, DDIM's pictures are those of here when the pipeline is called with
    use_clipped_model_output=True: alone it clips the picture and keeps the noise that no longer belongs to it. Neither
    pipeline hands labels on: a class-conditional network is drawn there by UNet2DModel and the scheduler.
    Raises UserError for what diffusers cannot say and for a folder that is not empty, before anything is written.
    """
    part.check_empty(folder)
    if len(classes) != config.classes:
        raise UserError(f"{len(classes)} names for the {config.classes} classes of the network")
    kind = "UNet2DConditionModel" if context_width(config) else "UNet2DModel"
    said = unet2d_condition.to_config(config) if context_width(config) else unet2d.to_config(config)
    controlnet.check(config)
    if words is not None:
        text_encoders.check(words)
    scheduler = {"_diffusers_version": part.VERSION} | schedulers.to_config(process, sampler, clip=clip)
    alone, controls = controlnet.apart(config, state)
    table = names.pieces_of(replace(config, controls=()))
    part.check_ours(alone, table)

    part.write(folder / "unet", kind, said, table, alone)
    (folder / "scheduler").mkdir()
    part.write_json(folder / "scheduler" / SCHEDULER, scheduler)
    index: dict[str, Any] = {
        "_class_name": _pipeline(config, sampler),
        "_diffusers_version": part.VERSION,
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "unet": ["diffusers", kind],
    }
    index |= {REFINES: True} if config.values == REFINER_IDS else {}
    index |= controlnet.write_all(folder, config, controls)
    text_encoders.write_index(folder, index | (text_encoders.write(folder, words) if words is not None else {}))
    if classes or latents:
        noted = {"classes": list(classes), "null_class": config.null_class and bool(classes), "latents": latents}
        part.write_json(folder / NOTES, noted)


def _pipeline(config: UNetConfig, sampler: str) -> str:
    """The class of diffusers that draws with such a network."""
    if not context_width(config):
        return "DDIMPipeline" if sampler == "ddim" else "DDPMPipeline"
    xl, refines = "XL" if config.value_width else "", "Img2Img" if config.values == REFINER_IDS else ""
    return f"StableDiffusion{xl}{'ControlNet' if config.controls else ''}{refines}Pipeline"
