"""Write the training loop yourself, with any optimizer, and sample from the model."""

import torch

from unnoise import Model, data, nn
from unnoise.conditions import Cond
from unnoise.config.cards import ModelCard
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.presets import toy
from unnoise.denoiser import make_diffusion
from unnoise.losses import make_time_sampler, make_weight
from unnoise.noise import normal, uniform

shapes = data.open(toy().data)  # discs, squares, crosses, rings
net = nn.build(toy().net)
process = DiffusionConfig(schedule="cosine-continuous", predicts="v", weight="snr-plus-one", time_sampler="continuous")
diffusion = make_diffusion(net, process)
sample_times, weight = make_time_sampler(process), make_weight(process, diffusion.schedule)
optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
for step, batch in zip(range(40), data.batches(shapes, batch=64, seed=0)):
    t = sample_times(uniform((64,), "time", step), diffusion.schedule)
    loss = diffusion.loss(batch.x, t, Cond(batch.label), noise=normal(batch.x.shape, step), weight=weight).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"loss {loss:.3f}")
card = ModelCard(net=net.config, process=process, size=(16, 16), channels=1, classes=shapes.classes)
Model(diffusion.eval(), card).sample(labels=["ring"], seeds=range(16), steps=20).save("custom.png")
