"""Trainings of small pictures that come with the package: clothes, and simple shapes without captions."""

from __future__ import annotations

from dataclasses import replace

from unnoise.config.data import DataConfig
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import UNetConfig
from unnoise.config.training import (
    Fit,
    LogConfig,
    TrainConfig,
)


def fashion() -> TrainConfig:
    """Ten kinds of clothes in 28x28, in minutes on a laptop: the pictures come with the package."""
    return TrainConfig(
        name="fashion",
        about="ours: a small U-Net with the cosine schedule of Nichol & Dhariwal 2021, sized for two CPU cores",
        data=DataConfig(path="fashion", size=28, channels=1),
        net=UNetConfig(
            size=28,
            in_channels=1,
            out_channels=1,
            patch=2,
            channels=(32, 64),
            blocks=1,
            attention=(False, True),  # at 7x7
            groups=8,
            scale_shift=True,
            classes=10,
        ),
        # v with its unweighted error learns class and outline first; eps learns them last, and there is little time
        process=DiffusionConfig(schedule="cosine", predicts="v", weight="snr-plus-one", cond_dropout=0.1),
        # small batches: in some minutes of training, the number of steps is the limit. After 69,000 pictures the class
        # accuracy is 91 % with Muon and 80 % with Adam, whose step takes a tenth less time
        fit=Fit(
            images=200_000,
            batch=32,
            optimizer="muon",
            lr=1e-3,
            warmup=100,
            decay="cosine",
            ema=(7_000,),
            ema_rampup=0.1,
        ),
        log=LogConfig(log_every=20, checkpoint_every=60.0, grid_every=600, grid_rows=4, grid_steps=20),
    )


def fashion_ddpm() -> TrainConfig:
    """The clothes as in DDPM: eps with its unweighted error, betas from 1e-4 to 0.02 in 1,000 steps."""
    base = fashion()
    return replace(
        base,
        name="fashion-ddpm",
        about="ours, in size; process of Ho, Jain, Abbeel 2020",
        process=replace(base.process, schedule="linear", predicts="eps", weight="simple"),
    )


def fashion_edm() -> TrainConfig:
    """The clothes as in EDM: a preconditioned network, log-normal sigma, weights that make every level's loss one."""
    base = fashion()
    return replace(
        base,
        name="fashion-edm",
        about="ours, in size; process of Karras et al. 2022, table 1",
        process=replace(
            base.process,
            schedule="edm",
            schedule_options={"sigma_max": 80.0},
            predicts="edm",
            weight="edm",
            time_sampler="edm",
        ),
        fit=replace(base.fit, clip=None),
    )


def fashion_flow() -> TrainConfig:
    """The clothes by flow matching: the straight line from picture to noise, times from a logit-normal."""
    base = fashion()
    return replace(
        base,
        name="fashion-flow",
        about="ours, in size; process of Lipman et al. 2022, times of Esser et al. 2024",
        process=replace(base.process, schedule="flow", predicts="flow", weight="flow", time_sampler="logit-normal"),
    )


def fashion_ve() -> TrainConfig:
    """The clothes as a score model: denoising score matching at levels in geometric progression, for Langevin dynamics.

    The weight is sigma^2, as in NCSN: the unweighted error of eps. The largest level is about the largest distance of
    two pictures (NCSNv2's first rule), the smallest is not visible.
    """
    base = fashion()
    return replace(
        base,
        name="fashion-ve",
        about="ours, in size; process of Song & Ermon 2019 and 2020 (NCSN, NCSNv2), Song et al. 2021 (VE)",
        process=replace(
            base.process,
            schedule="variance-exploding",
            schedule_options={"sigma_min": 0.01, "sigma_max": 30.0},
            predicts="score",
            weight="simple",
        ),
    )


def toy() -> TrainConfig:
    """Discs, squares, crosses and rings in 16x16, in a minute or two: to check that everything works."""
    return TrainConfig(
        name="toy",
        about="ours: as small as a picture that one recognises can be",
        data=DataConfig(path="toy", size=16, channels=1),
        net=UNetConfig(
            size=16,
            in_channels=1,
            out_channels=1,
            channels=(16, 32),
            blocks=1,
            attention=(False, True),  # at 8x8
            groups=4,
            scale_shift=True,
            classes=4,
        ),
        process=DiffusionConfig(schedule="cosine", cond_dropout=0.1),
        fit=Fit(images=60_000, batch=64, lr=3e-3, warmup=20, decay="cosine", ema=(2_000,), ema_rampup=0.1),
        log=LogConfig(log_every=10, checkpoint_every=10.0, grid_every=100, grid_rows=4, grid_steps=10),
    )


def my_pictures() -> TrainConfig:
    """Pictures of your own in 32x32, sub-folders as classes: samples to look at after ten minutes on a laptop."""
    base = fashion()
    return replace(
        base,
        name="my-pictures",
        about="ours: the network of fashion, in 2x2 patches, for colour and larger pictures",
        data=DataConfig(path="pictures", size=32, channels=3),
        net=UNetConfig(
            size=32,
            patch=2,
            channels=(48, 64, 96),
            blocks=1,
            attention=(False, True, True),  # at 8x8 and 4x4
            head_width=32,
            groups=8,
            scale_shift=True,
        ),
        # a constant rate: the samples of the averaged weights are good whenever it is stopped
        fit=replace(base.fit, images=500_000, decay="constant", ema=(20_000,)),
        log=replace(base.log, grid_every=500, grid_guidance=2.0),
    )
