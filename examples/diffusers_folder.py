"""A model as a diffusers folder, and back: `python examples/diffusers_folder.py runs/00001-toy exported`."""

import sys
from pathlib import Path

import torch

import unnoise
from unnoise.config.networks import UNetConfig
from unnoise.formats import diffusers

model, folder = unnoise.load(sys.argv[1]), Path(sys.argv[2])
card = model.card
assert isinstance(card.net, UNetConfig)  # the only kind of network in these folders
diffusers.write(folder, card.net, model.diffusion.net.state_dict(), card.process, card.classes)
print(*sorted(str(file.relative_to(folder)) for file in folder.rglob("*.*")), sep="\n")
# in diffusers: DiffusionPipeline.from_pretrained("exported"); this program does not need diffusers

again = unnoise.load(folder)
a, b = (m.sample(seeds=[1, 2], steps=10, precision="float32") for m in (model, again))
assert torch.equal(a.pixels, b.pixels)
print("the same pictures, bit for bit")
