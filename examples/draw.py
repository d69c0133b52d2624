"""Load a model and sample: `python examples/draw.py runs/00001-toy` writes grid.png and a picture of each class."""

import sys

import unnoise
from unnoise.generate.frames import generate

model = unnoise.load(sys.argv[1])  # a run, a model directory, or a diffusers folder
names = model.card.classes

# one line for each class, with the same seeds, so that the pictures of a column have the same noise
pictures = model.sample(labels=[name for name in names for _ in range(4)], seeds=[0, 1, 2, 3] * len(names), steps=20)
pictures.save("grid.png", columns=4)

# one guided picture of each class
for name, picture in zip(names, model.sample(labels=names, seeds=range(len(names)), steps=20, guidance=2.0)):
    picture.save(f"{name.replace('/', '-')}.png")

# step by step, as a program with a progress bar does; to cancel, stop iterating
request = unnoise.Request.of(seeds=(7,), steps=10, sampler="ddpm", previews=2)
for frame in generate(model, request):
    if frame.pictures is not None:
        print(f"step {frame.step} of {frame.steps}: the brightest value is {frame.pictures.max():.2f}")
