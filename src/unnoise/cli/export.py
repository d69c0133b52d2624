"""`unnoise export`: a model as a folder that diffusers loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from unnoise.cli.console import UsageError, emit, existing, say, show, writable
from unnoise.cli.options import flag, option


def export(
    model: Annotated[Path, option("a run, a model directory, a checkpoint, or a diffusers folder")],
    folder: Annotated[Path, option("a new folder")],
    /,
    *,
    sampler: Annotated[
        str | None, option("what the pipeline draws with: ddim, ddpm ...; otherwise the model's own")
    ] = None,
    json: Annotated[bool, flag("one JSON document on stdout")] = False,
) -> None:
    """Write a model as a diffusers folder (unet/, scheduler/, model_index.json), which diffusers draws from."""
    existing(model, "model")
    writable(folder, "the diffusers folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already and not empty: name a new folder")
    say(f"loading {model} ...")
    from unnoise import model as models
    from unnoise.errors import UserError
    from unnoise.formats import diffusers
    from unnoise.settings import UNetConfig

    loaded = models.load(model)
    card = loaded.card
    if not isinstance(card.net, UNetConfig):
        raise UserError(f"{model} is a {card.net.kind}; diffusers folders are written of U-Nets only, so far")
    chosen = sampler or card.sampler
    diffusers.write(
        folder,
        card.net,
        loaded.diffusion.net.state_dict(),
        card.process,
        card.classes,
        sampler=chosen,
        clip=card.clip,
        latents=card.latents,
    )
    if json:
        emit({"model": model, "folder": folder, "sampler": chosen, "classes": list(card.classes)})
    else:
        show(str(folder))
        say(f'from diffusers import DiffusionPipeline; DiffusionPipeline.from_pretrained("{folder}")')
