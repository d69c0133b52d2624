"""Train from a program: `python examples/train_toy.py [PICTURES]`. If it is stopped, the same command resumes."""

import sys
from dataclasses import replace
from pathlib import Path

import unnoise
from unnoise.config.presets import toy
from unnoise.recipes.diffusion import train
from unnoise.training.run import choose

config = toy()
if len(sys.argv) > 1:
    config = replace(config, fit=replace(config.fit, images=int(sys.argv[1])))

path = choose(Path("runs"), config)  # the run with these settings, or a new one
for tick in train(config, path):
    if tick.step % 20 == 0 or tick.event:
        print(f"step {tick.step}: loss {tick.loss:.3f}, {tick.rate:.0f} pictures a second {tick.event}")

model = unnoise.load(path)
names = model.card.classes
model.sample(labels=names * 4, seeds=range(4 * len(names)), steps=20).save("toy.png", columns=len(names))
print(f"drew toy.png from {path}")
