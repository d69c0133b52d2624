"""Load a model and draw: `python examples/draw.py runs/00001-toy` writes grid.png and one picture a class."""

import sys

import unnoise
from unnoise.generate.frames import generate

model = unnoise.load(sys.argv[1])  # a run, a model directory, or a diffusers folder
names = model.card.classes

# a line a class: the same seed for each class, so that columns share their noise
pictures = model.sample(labels=[name for name in names for _ in range(4)], seeds=[0, 1, 2, 3] * len(names), steps=20)
pictures.save("grid.png", columns=4)

# one picture a class, guided towards it
for name, picture in zip(names, model.sample(labels=names, seeds=range(len(names)), steps=20, guidance=2.0)):
    picture.save(f"{name.replace('/', '-')}.png")

# step by step, as a program that shows progress would; stop reading to cancel
request = unnoise.Request(seeds=(7,), steps=10, sampler="ddpm", previews=2)
for frame in generate(model, request):
    if frame.pictures is not None:
        print(f"step {frame.step} of {frame.steps}: the brightest value is {frame.pictures.max():.2f}")
