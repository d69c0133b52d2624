"""`unnoise export`: a model as a folder that diffusers loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from unnoise.cli.console import UsageError, asking, emit, existing, say, show, writable
from unnoise.cli.options import flag, option
from unnoise.config.cards import ModelCard
from unnoise.config.networks import UNetConfig


def export(
    model: Annotated[Path, option("a run, a model directory, a checkpoint, or a diffusers folder")],
    folder: Annotated[Path, option("a new folder")],
    /,
    *,
    sampler: Annotated[
        str | None, option("what the pipeline draws with: ddim, ddpm ...; otherwise the model's own, or ddim")
    ] = None,
    json: Annotated[bool, flag("one JSON document on stdout")] = False,
) -> None:
    """Write a model as a diffusers folder (unet/, scheduler/, what reads captions), which diffusers draws from."""
    existing(model, "model")
    writable(folder, "the diffusers folder", folder=True)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already and not empty: name a new folder")
    say(f"loading {model} ...")
    from unnoise import model as models
    from unnoise.formats import diffusers, schedulers
    from unnoise.formats.text_encoders import ClipEncoder, DualClipEncoder
    from unnoise.text.pretrained import Encoder

    loaded = models.load(model)
    card = loaded.card
    if not isinstance(card.net, UNetConfig):
        raise UsageError(f"{model} is a {card.net.kind}; diffusers folders are written of U-Nets only, so far")
    chosen = sampler or (card.sampler if card.sampler in schedulers.VARIANCES else "ddim")
    words = loaded.text if isinstance(loaded.text, ClipEncoder | DualClipEncoder) else None
    if loaded.text is not None and words is None and not isinstance(loaded.text, Encoder):
        raise UsageError(f"what reads this model's captions, a {type(loaded.text).__name__}, diffusers does not know")
    with asking():  # all that cannot be said there is refused before anything is written
        diffusers.write(
            folder, card.net, loaded.diffusion.net.state_dict(), card.process, card.classes, sampler=chosen,
            clip=card.clip, latents=card.codec.kind == "latents", words=words,
        )  # fmt: skip
    if json:
        emit({"model": model, "folder": folder, "sampler": chosen, "classes": list(card.classes)})
        return
    show(str(folder))
    for line in hints(folder, card, words is not None):
        say(line)


def hints(folder: Path, card: ModelCard, words: bool) -> list[str]:
    """How diffusers loads the folder, and what it has to be handed."""
    if not card.net.context:
        return [f'from diffusers import DiffusionPipeline; DiffusionPipeline.from_pretrained("{folder}")']
    if not words:
        said = f"; its encoder, {card.encoder.path}, is not copied" if card.encoder is not None else ""
        load = f'UNet2DConditionModel.from_pretrained("{folder}/unet")'
        return [
            f"note: nothing that reads captions is in the folder{said}",
            f"from diffusers import UNet2DConditionModel; {load}",
        ]
    load = f'DiffusionPipeline.from_pretrained("{folder}", vae=vae)'
    note = "note: no autoencoder is in the folder: hand diffusers the model's own"
    if card.codec.kind == "pixels":
        note = 'note: this model draws in pixels: vae = None, and output_type="latent" when you draw'
    return [note, f"from diffusers import DiffusionPipeline; {load}"]
