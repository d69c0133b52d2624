"""The draw.py beside an exported model: a script that samples from it with diffusers alone.

diffusers' own pipelines for unconditional pictures pass no label on, and those for text need an autoencoder or to be
told that there is none. From the same starting noise, DDIM's picture is that of unnoise (tests/cli/test_export.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unnoise.config.cards import ModelCard
from unnoise.formats.condition_settings import TIME_IDS

FILE = "draw.py"

_HEAD = '''"""Samples a picture from the model in this folder with diffusers: python draw.py --help"""

import argparse
from pathlib import Path

import torch
{imports}

FOLDER = Path(__file__).resolve().parent
{constants}
parser = argparse.ArgumentParser(description=__doc__)
{options}parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=50)
parser.add_argument("--out", default="{out}", help="the file to write")
args = parser.parse_args()
generator = torch.Generator().manual_seed(args.seed)
'''
_LABEL = """parser.add_argument("--label", default=CLASSES[0], choices=CLASSES, help="a class")
"""
_PROMPT = """parser.add_argument("--prompt", default="", help="what the picture shows")
parser.add_argument("--guidance", type=float, default=1.0, help="1: none")
"""
_VAE = """parser.add_argument("--vae", required=True, help="the folder of the model's autoencoder")
"""
_NET = """
unet = UNet2DModel.from_pretrained(FOLDER / "unet", low_cpu_mem_usage=False).eval()
scheduler = {scheduler}.from_pretrained(FOLDER / "scheduler")
labels = {labels}
x = torch.randn((1, *SHAPE), generator=generator)
scheduler.set_timesteps(args.steps)
for t in scheduler.timesteps:
    with torch.no_grad():
        out = {call}
    x = scheduler.step(out, t, x, generator=generator{clipped}).prev_sample
"""
_PIPELINE = """
pipeline = DiffusionPipeline.from_pretrained(FOLDER{vae})
x = torch.randn((1, *SHAPE), generator=generator)
height, width = (side * pipeline.vae_scale_factor for side in SHAPE[1:])
how = {{"num_inference_steps": args.steps, "guidance_scale": args.guidance, "height": height, "width": width}}
"""
_PIXELS = """
picture = ((x[0] / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
Image.fromarray(picture.squeeze(-1) if picture.shape[2] == 1 else picture).save(args.out)
print(args.out)
"""


def script(card: ModelCard, scheduler: str, *, text: bool, autoencoder: bool = False) -> str | None:
    """The script for the model of a card, which is exported with this scheduler class, `text`: and its text encoders,
    `autoencoder`: and its autoencoder.

    None for a model that needs more than a label or a prompt: numbers, pictures, or a text encoder that is elsewhere.
    """
    net: Any = card.net
    latents = card.codec.kind == "latents"
    own = net.value_width and net.values == TIME_IDS  # the pipeline of XL passes them on
    if (net.values and not own) or net.concat_channels or net.controls or (net.context and not text):
        return None
    shape = f"SHAPE = {(card.channels, *card.size)!r}  # channels, height, width"
    if net.context:
        return _of_text(card, shape, latents=latents, autoencoder=autoencoder)
    imports = [f"from diffusers import {scheduler}, UNet2DModel"]
    imports.append("from safetensors.torch import save_file" if latents else "from PIL import Image")
    classes = f"CLASSES = {list(card.classes)!r}\n" if card.classes else ""
    clipped = ", use_clipped_model_output=True" if scheduler == "DDIMScheduler" else ""
    call = "unet(x, t, class_labels=labels).sample"
    if net.patch > 1:
        call = f"pixel_shuffle(unet(pixel_unshuffle(x, {net.patch}), t, class_labels=labels).sample, {net.patch})"
        imports.append("from torch.nn.functional import pixel_shuffle, pixel_unshuffle")
    labels = "torch.tensor([CLASSES.index(args.label)])" if card.classes else "None"
    return (
        _HEAD.format(
            imports="\n".join(imports),
            constants=f"{shape}\n{classes}",
            options=_LABEL if card.classes else "",
            out="latents.safetensors" if latents else "picture.png",
        )
        + _NET.format(scheduler=scheduler, labels=labels, clipped=clipped, call=call)
        + ('save_file({"latents": x}, args.out)\nprint(args.out)\n' if latents else _PIXELS)
    )


def _of_text(card: ModelCard, shape: str, *, latents: bool, autoencoder: bool) -> str:
    """The script of a model that is conditioned on text, with its text encoders."""
    needs_vae = latents and not autoencoder
    kinds = "AutoencoderKL, DiffusionPipeline" if needs_vae else "DiffusionPipeline"
    head = _HEAD.format(
        imports=f"from diffusers import {kinds}" + ("" if latents else "\nfrom PIL import Image"),
        constants=f"{shape}\n",
        options=_PROMPT + (_VAE if needs_vae else ""),
        out="picture.png",
    )
    vae = ", vae=None" if not latents else ", vae=AutoencoderKL.from_pretrained(args.vae)" if needs_vae else ""
    body = _PIPELINE.format(vae=vae)
    if latents:
        return head + body + "pipeline(args.prompt, latents=x, **how).images[0].save(args.out)\nprint(args.out)\n"
    return head + body + 'x = pipeline(args.prompt, latents=x, output_type="latent", **how).images\n' + _PIXELS


def write(folder: Path, text: str) -> None:
    """Write draw.py into an exported folder."""
    (folder / FILE).write_text(text, encoding="utf-8")
