"""The files of a training in a checkpoint, beside the model that the recipe writes.

    weights.safetensors   ema-<half-life>.safetensors   optimizer.safetensors   memory.safetensors   state.json

They are the first player's; `memory` is there where its loss has one, and its first average is model.safetensors
itself. The files of another player have its name in front, and hold all of its averages:
discriminator-weights.safetensors, discriminator-ema-<half-life>.safetensors, ...
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from unnoise.io import checkpoint
from unnoise.training.player import Player
from unnoise.training.train_state import TrainState

MODEL = "model.safetensors"
Tensors = Mapping[str, Tensor]


def collect(players: Mapping[str, Player], states: Mapping[str, TrainState]) -> dict[str, Tensors]:
    """Returns the tensors of every file; those of MODEL are for the recipe to write. Every process must call it."""
    files: dict[str, Tensors] = {}
    for name, player in players.items():
        prefix, state = _prefix(name, players), states[name]
        files[f"{prefix}weights.safetensors"] = state.state()
        files[f"{prefix}optimizer.safetensors"] = state.moments()
        for half_life, file in _averages(name, players).items():
            files[file] = state.average(half_life)
        if player.memory is not None:
            files[f"{prefix}memory.safetensors"] = player.memory.state()
    return files


def facts(players: Mapping[str, Player], states: Mapping[str, TrainState], seconds: float) -> dict[str, Any]:
    """Returns what state.json contains of the players: their step, and how many updates in a row were skipped."""
    (first, player), *others = players.items()
    step = states[first].step
    found: dict[str, Any] = {"step": step, "images": step * player.fit.batch, "seconds": seconds}
    found["skips"] = states[first].skips
    return found | ({"players": {name: {"skips": states[name].skips} for name, _ in others}} if others else {})


def load(directory: Path, players: Mapping[str, Player], states: Mapping[str, TrainState]) -> dict[str, Any]:
    """Restores the players from a checkpoint; returns its state.json.

    Raises Damaged with the file and the tensor where a name or a shape is not that of the network or of its optimizer.
    """
    found = checkpoint.read_state(directory)
    for name, player in players.items():
        prefix, state = _prefix(name, players), states[name]
        weights, moments = state.expected()
        state.load(
            found["step"],
            checkpoint.read(directory / f"{prefix}weights.safetensors", weights),
            {h: checkpoint.read(directory / file, weights) for h, file in _averages(name, players).items()},
            checkpoint.read(directory / f"{prefix}optimizer.safetensors", moments, partial=True),
            found["players"][name]["skips"] if prefix else found["skips"],
        )
        memory = directory / f"{prefix}memory.safetensors"
        if player.memory is not None and memory.is_file():
            player.memory.load(checkpoint.read(memory, player.memory.state()))
    return found


def _prefix(name: str, players: Mapping[str, Player]) -> str:
    return "" if name == next(iter(players)) else f"{name}-"


def _averages(name: str, players: Mapping[str, Player]) -> dict[int, str]:
    """The file of each average of a player, by half-life."""
    prefix, ema = _prefix(name, players), players[name].fit.ema
    files = {half_life: f"{prefix}ema-{half_life}.safetensors" for half_life in ema}
    return files if prefix else files | {ema[0]: MODEL}
