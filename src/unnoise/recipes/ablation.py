"""An ablation of prediction and objective: the trainings of table 2 of Ho et al. 2020, on data of one's own.

                              posterior mean    eps
    L, learned variance
    L, fixed variance
    unweighted squared error                    (L_simple)

The six have the same network, pictures, seeds, steps and learning rate.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.training import TrainConfig

OBJECTIVES = {
    "L, learned variance": DiffusionConfig(objective="bound", learned_variance=True),
    "L, fixed variance": DiffusionConfig(objective="bound"),
    "unweighted squared error": DiffusionConfig(objective="simple", weight="output"),
}
PREDICTED = {"posterior mean": "posterior-mean", "eps": "eps"}


class Cell(NamedTuple):
    """One training of the table, and the sampler with the variance of its reverse steps."""

    row: str
    column: str
    config: TrainConfig
    sampler: str


def cells(base: TrainConfig) -> list[Cell]:
    """Returns the six trainings, with the network, the data and the length of `base`."""
    found = []
    for row, objective in OBJECTIVES.items():
        for column, predicts in PREDICTED.items():
            process = replace(
                objective, predicts=predicts, steps=base.process.steps, cond_dropout=base.process.cond_dropout
            )
            outputs = base.data.channels * (2 if process.learned_variance else 1)
            found.append(
                Cell(
                    row,
                    column,
                    replace(
                        base,
                        name=f"{base.name}-{row}-{column}".replace(",", "").replace(" ", "-").lower(),
                        about="an objective and a prediction of table 2 of Ho et al. 2020",
                        process=process,
                        net=replace(base.net, out_channels=outputs),
                    ),
                    "ddpm-learned" if process.learned_variance else "ddpm-large",
                )
            )
    return found
