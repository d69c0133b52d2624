"""`unnoise export`: a model as a folder that diffusers loads, or as one file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from unnoise.cli.console import UsageError, asking, emit, say, show
from unnoise.cli.loading import load
from unnoise.cli.options import flag, option
from unnoise.cli.paths import existing_model, new_file, writable
from unnoise.config.cards import ModelCard
from unnoise.config.networks import UNetConfig

if TYPE_CHECKING:
    from unnoise.formats.text_encoders import ClipEncoder, DualClipEncoder
    from unnoise.model import Model


def export(
    model: Annotated[Path, option("A run, a model directory, a checkpoint, a diffusers folder or a checkpoint file.")],
    folder: Annotated[Path | None, option("The folder to write. It must be new or empty.")] = None,
    /,
    *,
    single_file: Annotated[
        Path | None, option("Write one .safetensors file, which ComfyUI and AUTOMATIC1111 load, instead of a folder.")
    ] = None,
    sampler: Annotated[
        str | None,
        option("The scheduler of the pipeline, for example ddim or ddpm. By default the model's own sampler, or ddim."),
    ] = None,
    tokenizer: Annotated[Path | None, option("The folder of CLIP's tokenizer, which a checkpoint file lacks.")] = None,
    ema: Annotated[bool, flag("Read the moving average of a checkpoint file instead of its weights.")] = False,
    allow_pickle: Annotated[bool, flag("Open a .ckpt file, tensors only. It is not opened otherwise.")] = False,
    predicts: Annotated[str, option("What a Stable Diffusion 2 checkpoint file predicts: v or eps.")] = "",
    vae: Annotated[Path | None, option("An autoencoder, file or folder, instead of a checkpoint file's own.")] = None,
    json: Annotated[bool, flag("Print one JSON document to stdout.")] = False,
) -> None:
    """Export a model as a diffusers folder: unet/, scheduler/, CLIP text encoders, and the autoencoder of latents.

    Where a label or a prompt is all that the model needs, draw.py in that folder samples from it with diffusers. With
    --single-file the model is one file instead.
    """
    existing_model(model, allow_pickle=allow_pickle)
    target = _target(folder, single_file)
    say(f"loading {model} ...")
    with asking():
        loaded = load(model, tokenizer=tokenizer, ema=ema, allow_pickle=allow_pickle, predicts=predicts, vae=vae)
    found: dict[str, Any] = {"model": model, "file" if folder is None else "folder": target}
    if folder is None:
        lines = _write_file(loaded, target)
    else:
        chosen, lines = _write_folder(loaded, model, folder, sampler)
        found |= {"sampler": chosen, "classes": list(loaded.card.classes)}
    if json:
        emit(found)
        return
    show(str(target))
    for line in lines:
        say(line)


def _target(folder: Path | None, single_file: Path | None) -> Path:
    """The path to write. Raises UsageError unless one is given, and nothing is there."""
    if single_file is not None and folder is None:
        return new_file(single_file, "the checkpoint", False, suffix=".safetensors")
    if folder is None or single_file is not None:
        raise UsageError("give either a folder to write, or --single-file FILE.safetensors")
    writable(folder, "the diffusers folder", folder=True)
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty: name a new folder")
    return folder


def _write_file(model: Model, file: Path) -> list[str]:
    """Write a checkpoint file, and return notes on it."""
    from unnoise.formats.single_file import write

    with asking():  # a model of another form is refused before anything is written
        write.write(file, model.card, model.diffusion.net.state_dict(), _clip_text(model), model.autoencoder)
    return ["note: the file contains no tokenizer, which its readers have"] if model.text is not None else []


def _write_folder(loaded: Model, model: Path, folder: Path, sampler: str | None) -> tuple[str, list[str]]:
    """Write a diffusers folder; returns the sampler of its pipeline, and notes on it."""
    from unnoise.formats import diffusers, draw, schedulers

    card = loaded.card
    if not isinstance(card.net, UNetConfig):
        raise UsageError(f"{model} is a {card.net.kind}: only U-Nets can be exported as diffusers folders")
    text, chosen = _clip_text(loaded), sampler or (card.sampler if card.sampler in schedulers.VARIANCES else "ddim")
    with asking():  # a model that diffusers cannot represent is refused before anything is written
        diffusers.write(
            folder, card.net, loaded.diffusion.net.state_dict(), card.process, card.classes, sampler=chosen,
            spacing=card.spacing, offset=int(card.spacing_options.get("offset", 0)), clip=card.clip,
            latents=card.codec.kind == "latents", text=text, autoencoder=loaded.autoencoder,
        )  # fmt: skip
    scheduler = "DDIMScheduler" if chosen == "ddim" else "DDPMScheduler"
    decodes = loaded.autoencoder is not None
    script = draw.script(card, scheduler, text=text is not None, autoencoder=decodes)
    if script is not None:
        draw.write(folder, script)
    return chosen, hints(folder, card, text is not None, script=script is not None, autoencoder=decodes)


def _clip_text(model: Model) -> ClipEncoder | DualClipEncoder | None:
    """The CLIP text encoders that are written into the folder; None for a model without text or with other encoders.

    Raises UsageError for an encoder that diffusers does not have.
    """
    from unnoise.formats.text_encoders import ClipEncoder, DualClipEncoder
    from unnoise.text.pretrained import Encoder

    if isinstance(model.text, ClipEncoder | DualClipEncoder):
        return model.text
    if model.text is None or isinstance(model.text, Encoder):
        return None
    raise UsageError(f"this model's text encoder, a {type(model.text).__name__}, has no counterpart in diffusers")


def hints(folder: Path, card: ModelCard, text: bool, *, script: bool = False, autoencoder: bool = False) -> list[str]:
    """The lines that show how diffusers loads the folder and what has to be passed to it.

    `text`: the folder contains the text encoders. `script`: it contains draw.py. `autoencoder`: and the autoencoder.
    """
    run = [f"sample from it with diffusers: python {shlex.quote(str(folder / 'draw.py'))} --help"] if script else []
    return run + _loading(folder, card, text, autoencoder)


def _loading(folder: Path, card: ModelCard, text: bool, autoencoder: bool) -> list[str]:
    if not card.net.context and (card.classes or (isinstance(card.net, UNetConfig) and card.net.values)):
        load = f'UNet2DModel.from_pretrained("{folder}/unet")'
        return ["note: diffusers' pipelines pass no labels on", f"from diffusers import UNet2DModel; {load}"]
    if not card.net.context:
        return [f'from diffusers import DiffusionPipeline; DiffusionPipeline.from_pretrained("{folder}")']
    if not text:
        where = f"; {card.encoder.path}, which encodes its prompts, is not copied" if card.encoder is not None else ""
        load = f'UNet2DConditionModel.from_pretrained("{folder}/unet")'
        return [
            f"note: the folder contains no text encoder{where}",
            f"from diffusers import UNet2DConditionModel; {load}",
        ]
    if autoencoder:
        return [f'from diffusers import DiffusionPipeline; DiffusionPipeline.from_pretrained("{folder}")']
    load = f'DiffusionPipeline.from_pretrained("{folder}", vae=vae)'
    note = "note: the folder contains no autoencoder: pass the model's own as vae"
    if card.codec.kind == "pixels":
        note = 'note: this model generates pixels: pass vae=None, and output_type="latent" when you call the pipeline'
    return [note, f"from diffusers import DiffusionPipeline; {load}"]
