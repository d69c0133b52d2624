"""Trainings with a name: every number in sight, and where it comes from.

A preset is a function that returns a TrainConfig; files and flags override its fields. A set that does not come with
the package is a path of your own: `--data PATH`. Half-lives of averages are in pictures: a decay of d at every step of
B pictures has the half-life B log(1/2) / log(d).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from unnoise.config.data import DataConfig
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import ContrastiveNet, ControlConfig, TextConfig, UNetConfig
from unnoise.config.training import (
    ClassifierConfig,
    ContrastiveConfig,
    Fit,
    LogConfig,
    NoisyClassifierConfig,
    TrainConfig,
)


def half_life(decay: float, batch: int) -> int:
    """Pictures after which an average with this decay a step has forgotten half."""
    return round(batch * math.log(0.5) / math.log(decay))


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
            channels=(32, 64, 64),
            blocks=1,
            attention=(False, False, True),  # at 7x7
            groups=8,
            scale_shift=True,
            classes=10,
        ),
        # v and its plain error teach the class and the outline first; eps does so last, and there is little time
        process=DiffusionConfig(schedule="cosine", predicts="v", weight="snr-plus-one", cond_dropout=0.1),
        # small batches: with some minutes to learn in, the number of steps is what is short
        fit=Fit(images=100_000, batch=32, lr=1e-3, warmup=100, decay="cosine", ema=(7_000,), ema_rampup=0.1),
        log=LogConfig(log_every=20, checkpoint_every=60.0, grid_every=600, grid_rows=4, grid_steps=20),
    )


def fashion_ddpm() -> TrainConfig:
    """The clothes as in DDPM: eps with its plain error, betas from 1e-4 to 0.02 in 1,000 steps."""
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

    The weight is sigma^2, as in NCSN: the plain error of eps. The largest level is about the largest distance between
    two pictures (NCSNv2's first rule), the smallest is one that nobody sees.
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
    """Discs, squares, crosses and rings in 16x16, in a minute or two: to see that everything works."""
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


def shapes_text() -> TrainConfig:
    """Coloured shapes in 16x16, drawn as a sentence says: where, which, how large, on what. The pictures are made.
    Best grown around its core: --set base=runs/00001-shapes-text-core; alone it mixes two shapes up for long."""
    return TrainConfig(
        name="shapes-text",
        about="ours: a small U-Net with cross-attention (Rombach et al. 2022) and a text encoder of its own",
        data=DataConfig(path="shapes", size=16, channels=3),
        net=UNetConfig(
            size=16,
            channels=(64, 64, 64),  # wide where the outlines are
            blocks=1,
            attention=(False, False, True),  # at 4x4
            head_width=32,
            groups=8,
            scale_shift=True,
            text=TextConfig(vocabulary=512, length=32, width=96, depth=2, heads=4),
        ),
        process=DiffusionConfig(
            schedule="cosine",
            predicts="v",
            weight="snr-plus-one",
            # around sigma / alpha = 2: plain colours are seen through less noise, outlines through no more
            time_sampler="edm",
            time_sampler_options={"mean": 0.7, "std": 1.2},
            cond_dropout=0.1,
        ),
        # few pictures a step: with minutes to learn in, steps are what is short
        fit=Fit(
            images=300_000,
            batch=32,
            optimizer="muon",
            lr=3e-3,
            warmup=100,
            decay="cosine",
            ema=(7_000,),
            ema_rampup=0.1,
        ),
        log=LogConfig(
            log_every=20, checkpoint_every=120.0, grid_every=1_000, grid_rows=4, grid_steps=20, grid_guidance=3.0
        ),
    )


def shapes_text_core() -> TrainConfig:
    """The inner part of shapes-text, at 4x4, where it is settled what goes where: shapes-text --set base=RUN grows
    around it."""
    text = shapes_text()
    assert isinstance(text.net, UNetConfig)
    return replace(
        text,
        name="shapes-text-core",
        about="ours: the network of shapes-text without its two outer levels (Vasconcelos et al. 2024)",
        data=replace(text.data, path="shapes-two", size=4),  # one shape says nothing of what belongs to what
        net=replace(text.net, size=4, channels=text.net.channels[2:], attention=text.net.attention[2:]),
        # a pixel of 4x4 is the mean of 16 of 16x16: a quarter of the noise
        process=replace(text.process, schedule_options={"shift": 0.25}, time_sampler_options={"mean": 0.7, "std": 1.0}),
        fit=replace(text.fit, images=150_000, batch=64),
        log=replace(text.log, grid_every=0),
    )


def shapes_control() -> TrainConfig:
    """Coloured shapes along a drawing of their outlines: a control network beside a shapes-text model that stays as it
    is. Needs that model: --set base=runs/00001-shapes-text."""
    text = shapes_text()
    assert isinstance(text.net, UNetConfig)
    return replace(
        text,
        name="shapes-control",
        about="ours, in size; Zhang et al. 2023, with half of the captions dropped",
        data=replace(text.data, control="edges"),
        net=replace(text.net, controls=(ControlConfig(hint=(16, 32, 64), scale=1),)),
        process=replace(text.process, cond_dropout=0.5),
        fit=replace(text.fit, images=50_000, batch=16),
    )


def emoji() -> TrainConfig:
    """Emoji in 32x32 by their names, flat or 3d: "a 3d emoji of cow face". The pictures come with the package."""
    base = shapes_text()
    return replace(
        base,
        name="emoji",
        about="ours: the network of shapes-text, for larger pictures and more words",
        data=DataConfig(path="emoji", size=32, channels=3),
        net=UNetConfig(
            size=32,
            channels=(32, 64, 64, 64),
            blocks=1,
            attention=(False, False, False, True),  # at 4x4
            head_width=32,
            groups=8,
            scale_shift=True,
            text=TextConfig(vocabulary=2048, length=24, width=128, depth=2, heads=4),
        ),
        process=replace(
            base.process, time_sampler_options={"mean": 0.3, "std": 1.3}
        ),  # colours are less plain, more is fine
        fit=replace(base.fit, images=100_000),
    )


def my_captions() -> TrainConfig:
    """Pictures of your own with a caption each, in 32x32: text files beside them, or a metadata.jsonl."""
    base = emoji()
    return replace(base, name="my-captions", data=replace(base.data, path="my-captions"))


def cifar10_ddpm() -> TrainConfig:
    """DDPM on CIFAR-10, as published: 800,000 steps, 35.7M parameters, FID 3.17."""
    return TrainConfig(
        name="cifar10-ddpm",
        about="Ho, Jain, Abbeel 2020, App. B; warm-up and clipping from the authors' code",
        data=DataConfig(path="cifar10", size=32, channels=3, flip=True),
        net=UNetConfig(dropout=0.1),  # 128 x (1, 2, 2, 2), attention at 16x16: the defaults are this network
        process=DiffusionConfig(schedule="linear", cond_dropout=0.0, stratified=False),
        fit=Fit(images=800_000 * 128, ema=(half_life(0.9999, 128),), ema_rampup=None, precision="float32"),
    )


def cifar10_improved() -> TrainConfig:
    """Improved DDPM on CIFAR-10: cosine schedule in 4,000 steps, learned variance, hybrid loss; NLL 3.17, FID 3.19."""
    return TrainConfig(
        name="cifar10-improved",
        about="Nichol & Dhariwal 2021, sec. 3 and App. A, with the flags of the authors' code",
        data=DataConfig(path="cifar10", size=32, channels=3, flip=True),
        net=UNetConfig(
            out_channels=6,
            channels=(128, 256, 256, 256),
            blocks=3,
            attention=(False, True, True, False),  # at 16x16 and 8x8
            heads=4,
            dropout=0.3,
            norm_eps=1e-5,
            scale_shift=True,
            asymmetric_padding=False,
            cosine_first=True,
            frequency_shift=0.0,
        ),
        process=DiffusionConfig(
            schedule="cosine",
            steps=4000,
            learned_variance=True,
            cond_dropout=0.0,
            stratified=False,
        ),
        fit=Fit(
            images=500_000 * 128,
            lr=1e-4,
            warmup=0,
            clip=None,
            ema=(half_life(0.9999, 128),),
            ema_rampup=None,
            precision="float32",
        ),
    )


def celeba64() -> TrainConfig:
    """Faces in 64x64, with the network of the DDIM paper: 78.7M parameters. The length is ours: the paper has none."""
    return TrainConfig(
        name="celeba64",
        about="Song, Meng, Ermon 2021, App. D, with the settings of the authors' code",
        data=DataConfig(path="celeba64", size=64, channels=3, flip=True),
        net=UNetConfig(
            size=64,
            channels=(128, 256, 256, 256, 512),
            attention=(False, False, True, False, False),  # at 16x16
            dropout=0.1,
        ),
        process=DiffusionConfig(schedule="linear", cond_dropout=0.0, stratified=False),
        fit=Fit(images=500_000 * 128, ema=(half_life(0.9999, 128),), ema_rampup=None, precision="float32"),
    )


def lsun256() -> TrainConfig:
    """Churches (or any 256x256 folder) with the paper's network: 113.7M parameters, 1.2 million steps."""
    return TrainConfig(
        name="lsun256",
        about="Ho, Jain, Abbeel 2020, App. B: LSUN Church 256x256, FID 7.89",
        data=DataConfig(path="lsun256", size=256, channels=3, flip=True),
        net=UNetConfig(
            size=256,
            channels=(128, 128, 256, 256, 512, 512),
            attention=(False, False, False, False, True, False),  # at 16x16
        ),
        process=DiffusionConfig(schedule="linear", cond_dropout=0.0, stratified=False),
        fit=Fit(images=1_200_000 * 64, batch=64, lr=2e-5, ema=(half_life(0.9999, 64),), ema_rampup=None),
    )


def folder64() -> TrainConfig:
    """A folder of your own in 64x64: a network that one graphics card trains in a day, and a CPU can begin."""
    return TrainConfig(
        name="folder64",
        about="ours: the U-Net of Dhariwal & Nichol 2021 made small; half-life and ramp-up of Karras et al. 2022",
        data=DataConfig(path="pictures", size=64, channels=3, flip=True),
        net=UNetConfig(
            size=64,
            channels=(64, 128, 192, 256),
            attention=(False, False, True, True),  # at 16x16 and 8x8
            head_width=64,
            dropout=0.1,
            scale_shift=True,
        ),
        process=DiffusionConfig(schedule="cosine", cond_dropout=0.1),
        fit=Fit(images=5_000_000, batch=64, lr=2e-4, warmup=1_000, ema=(500_000, 100_000), ema_rampup=0.05),
        log=LogConfig(grid_every=1_000),
    )


PRESETS: dict[str, Callable[[], TrainConfig]] = {
    "fashion": fashion,
    "fashion-ddpm": fashion_ddpm,
    "fashion-edm": fashion_edm,
    "fashion-flow": fashion_flow,
    "fashion-ve": fashion_ve,
    "toy": toy,
    "shapes-text": shapes_text,
    "shapes-text-core": shapes_text_core,
    "shapes-control": shapes_control,
    "emoji": emoji,
    "my-captions": my_captions,
    "cifar10-ddpm": cifar10_ddpm,
    "cifar10-improved": cifar10_improved,
    "celeba64": celeba64,
    "lsun256": lsun256,
    "folder64": folder64,
}


# --- classifiers: of clean pictures, to judge; of noisy ones, to guide; of captions, to judge words ---


def classifier() -> ClassifierConfig:
    """A picture classifier: judge of class accuracy, features for the Frechet distance."""
    return ClassifierConfig()


def fashion_noisy_classifier() -> NoisyClassifierConfig:
    """The clothes at every noise level of the preset fashion: the guide of its classifier guidance."""
    base = fashion()
    assert isinstance(base.net, UNetConfig)
    return NoisyClassifierConfig(
        name="fashion-noisy-classifier",
        about="ours, in size; the way down of the U-Net with attention pooling of Dhariwal & Nichol 2021",
        data=base.data,
        net=replace(base.net, channels=(16, 32, 64)),  # to tell apart takes less than to draw
        process=base.process,
        fit=Fit(
            images=150_000,
            batch=64,
            optimizer="adamw",
            lr=1e-3,
            weight_decay=0.05,
            warmup=100,
            decay="cosine",
            ema=(7_000,),
            ema_rampup=0.1,
        ),
        log=LogConfig(log_every=20, checkpoint_every=60.0, grid_every=0),
    )


def emoji_contrastive() -> ContrastiveConfig:
    """Emoji and their names on one sphere: the judge of caption retrieval for the preset emoji."""
    return ContrastiveConfig(
        name="emoji-contrastive",
        about="ours, in size; Radford et al. 2021",
        data=emoji().data,
        net=ContrastiveNet(
            size=32,
            width=32,
            features=256,
            embedding=128,
            text=TextConfig(vocabulary=2048, length=24, width=128, depth=2, heads=4),
        ),
        shift=2,
        fit=Fit(
            images=70_000,  # 23 epochs
            batch=128,
            optimizer="adamw",
            lr=2e-3,
            weight_decay=0.05,
            warmup=100,
            decay="cosine",
            ema=(10_000,),
            ema_rampup=0.1,
        ),
        log=LogConfig(log_every=20, checkpoint_every=120.0, grid_every=0),
    )


CLASSIFIERS: dict[str, Callable[[], ClassifierConfig | NoisyClassifierConfig | ContrastiveConfig]] = {
    "classifier": classifier,
    "fashion-noisy-classifier": fashion_noisy_classifier,
    "emoji-contrastive": emoji_contrastive,
}
