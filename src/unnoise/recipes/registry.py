"""The kinds of training by name: what the command line, Python and a server need to know of each.

No torch is imported before a function that trains or measures is called.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unnoise.config import validate
from unnoise.config.networks import UNetConfig
from unnoise.config.training import (
    AnyConfig,
    AutoencoderTrainConfig,
    ClassifierConfig,
    ContrastiveConfig,
    NoisyClassifierConfig,
    TrainConfig,
)
from unnoise.errors import UserError
from unnoise.io.json_files import read_object
from unnoise.recipes import latent_settings

if TYPE_CHECKING:
    from unnoise.data import Dataset
    from unnoise.data.latents import LatentStore
    from unnoise.training.distributed import Processes
    from unnoise.training.loop import Tick

Implied = dict[str, tuple[str, Any]]
"""{setting: (the setting that it follows from, value)}"""


def _nothing(config: AnyConfig) -> None:
    """There is nothing to check before the data is read."""


def _no_settings(config: AnyConfig) -> Implied:
    return {}


def _never(config: AnyConfig) -> bool:
    return False


def _no_latents(config: AnyConfig, run: Path, processes: Processes, pictures: Dataset) -> LatentStore | None:
    return None


def _no_facts(config: AnyConfig, processes: int) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Recipe:
    """A kind of training. All functions are given a configuration of the type `config`."""

    config: type[AnyConfig]
    # (config, run, processes, command, pictures), where pictures is the opened data set, or None to open it
    train: Callable[[Any, Path, Processes, list[str], Dataset | None], Iterator[Tick]]
    result: Callable[[Path], dict[str, Any]]  # the results that a finished run contains
    check_data: Callable[[Any, Dataset, Path], None]  # raises UserError where the run cannot use the data
    implied: Callable[[Any], Implied] = _no_settings  # settings of the network that follow from those of the data
    check: Callable[[Any], None] = _nothing  # raises UserError for settings that are wrong
    check_names: Callable[[Any], None] = _nothing  # raises UserError for unknown names of losses and schedules
    check_start: Callable[[Any], None] = _nothing  # raises UserError where the training needs more settings to start
    has_classes: Callable[[Any], bool] = _never  # whether net.classes follows from the data
    has_captions: Callable[[Any], bool] = _never  # whether a caption is needed for each picture
    # (config, run, processes, pictures): the files of latents that a training fills before its first step
    latents: Callable[[Any, Path, Processes, Dataset], LatentStore | None] = _no_latents
    # (config, number of processes): base and cost. Raises UserError where there is too little memory
    expected: Callable[[Any, int], dict[str, Any]] = _no_facts


def recipe_of(config: AnyConfig) -> Recipe:
    """Returns the recipe of a training with this configuration."""
    return next(recipe for recipe in RECIPES.values() if recipe.config is type(config))


# --- diffusion models ---


def _train_diffusion(
    config: TrainConfig, run: Path, processes: Processes, command: list[str], pictures: Dataset | None
) -> Iterator[Tick]:
    from unnoise.recipes import diffusion

    return diffusion.train(config, run, processes=processes, command=command, pictures=pictures)


def _diffusion_result(run: Path) -> dict[str, Any]:
    from unnoise.training import run as runs

    return runs.status(run)


def _diffusion_implied(config: TrainConfig) -> Implied:
    implied = latent_settings.implied(config) if config.autoencoder else _network_implied(config)
    source, channels = implied["net.in_channels"]
    if isinstance(config.net, UNetConfig):
        implied["net.values"] = ("many as data.values", len(config.data.values))
        implied["net.concat_channels"] = ("process.concat", validate.concat_channels(config.process, channels))
    return implied | {"net.out_channels": (source, validate.out_channels(config.process, channels))}


def _check_diffusion(config: TrainConfig) -> None:
    validate.check(config)
    latent_settings.check(config)


def _diffusion_latents(config: TrainConfig, run: Path, processes: Processes, pictures: Dataset) -> LatentStore | None:
    if not config.autoencoder:
        return None
    from unnoise.recipes import latents
    from unnoise.recipes.placing import place

    return latents.store_of(config, run, pictures, place(config, processes))


def _check_losses(config: TrainConfig) -> None:
    from unnoise import losses

    losses.check(config.process)


def _diffusion_expected(config: TrainConfig, processes: int) -> dict[str, Any]:
    from unnoise.recipes.cost import cost
    from unnoise.recipes.latent_cost import latent_cost

    found = {"base": config.base, "cost": cost(config, processes=processes).as_dict()}
    return found | ({"latents": latent_cost(config)} if config.autoencoder else {})


# --- classifiers and contrastive models ---


def _noisy_implied(config: NoisyClassifierConfig) -> Implied:
    outputs = validate.out_channels(config.process, config.data.channels)
    return _network_implied(config) | {"net.out_channels": ("data.channels", outputs)}


def _network_implied(
    config: TrainConfig | NoisyClassifierConfig | ContrastiveConfig | AutoencoderTrainConfig,
) -> Implied:
    return {
        "net.size": ("data.size", config.data.size),
        "net.in_channels": ("data.channels", config.data.channels),
    }


def _in_run(name: str) -> Callable[[AnyConfig, Path, Processes, list[str], Dataset | None], Iterator[Tick]]:
    """The `train` of the recipe module of this name, which is given an open run."""

    def train(
        config: AnyConfig, path: Path, processes: Processes, command: list[str], pictures: Dataset | None
    ) -> Iterator[Tick]:
        from unnoise.training.run import open_run

        recipe = importlib.import_module(f"unnoise.recipes.{name}")
        with ExitStack() as stack:
            with processes.together():
                run = stack.enter_context(open_run(path, config, command=command)) if processes.first else None
            yield from recipe.train(config, run, processes=processes, pictures=pictures)

    return train


def _data_check(name: str) -> Callable[[AnyConfig, Dataset, Path], None]:
    """The `check_data` of the recipe module of this name."""

    def check(config: AnyConfig, pictures: Dataset, run: Path) -> None:
        importlib.import_module(f"unnoise.recipes.{name}").check_data(config, pictures, run)

    return check


def _card_of(kind: str, find: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Callable[[Path], dict[str, Any]]:
    """What `find` reads from the card of a finished run, RUN/KIND/KIND.json."""

    def result(run: Path) -> dict[str, Any]:
        card = run / kind / f"{kind}.json"
        try:
            return find(read_object(card)) if card.is_file() else {}
        except (KeyError, TypeError) as error:
            raise UserError(f"{card} is damaged: it lacks {error}; train again, or copy the run again") from None

    return result


RECIPES: dict[str, Recipe] = {
    "diffusion": Recipe(
        config=TrainConfig,
        train=_train_diffusion,
        result=_diffusion_result,
        implied=_diffusion_implied,
        check=_check_diffusion,
        check_names=_check_losses,
        check_start=validate.check_base,
        has_classes=lambda config: config.net.text is None and config.encoder is None,
        has_captions=lambda config: config.net.text is not None or config.encoder is not None,
        check_data=_data_check("diffusion"),
        latents=_diffusion_latents,
        expected=_diffusion_expected,
    ),
    "classifier": Recipe(
        config=ClassifierConfig,
        train=_in_run("classifier"),
        check_data=_data_check("classifier"),
        result=_card_of("classifier", lambda card: {"accuracy": card.get("accuracy")}),
    ),
    "noisy-classifier": Recipe(
        config=NoisyClassifierConfig,
        train=_in_run("noisy_classifier"),
        check_data=_data_check("noisy_classifier"),
        result=_card_of("classifier", lambda card: {"accuracy": card["card"]["info"]["accuracy"]}),
        implied=_noisy_implied,
        check=validate.check,
        has_classes=lambda config: config.net.text is None,
    ),
    "contrastive": Recipe(
        config=ContrastiveConfig,
        train=_in_run("contrastive"),
        check_data=_data_check("contrastive"),
        result=_card_of("contrastive", lambda card: {"retrieval": card["card"]["info"]["retrieval"]}),
        implied=_network_implied,
    ),
    "autoencoder": Recipe(
        config=AutoencoderTrainConfig,
        train=_in_run("autoencoder"),
        check_data=_data_check("autoencoder"),
        result=_card_of("autoencoder", lambda card: {"latents": card["card"]["info"]["latents"]}),
        implied=_network_implied,
    ),
}
