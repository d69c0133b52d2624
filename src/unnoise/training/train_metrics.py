"""The numbers that a training logs: losses and rates, averaged over the steps since the last line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unnoise.training.loop import Tick
from unnoise.training.turn import Update


@dataclass
class TrainMetrics:
    """Sums since the last line, and the duration of the training so far, over all its interruptions.

    A line names the first player's numbers `loss`, `lr`, `grad_norm`, and its losses by name `loss/NAME`; another
    player's have its name in front: `discriminator/loss`, `discriminator/loss/fake`.
    """

    seconds: float = 0.0
    loss: float = 0.0
    count: int = 0
    waited: float = 0.0
    took: float = 0.0
    named: dict[str, float] = field(default_factory=dict)  # sums of losses other than `loss`
    counts: dict[str, int] = field(default_factory=dict)  # and of how many steps

    def add(self, tick: Tick) -> None:
        """Adds a step. A player's losses count where its update was made."""
        self.seconds += tick.seconds
        self.took += tick.seconds
        self.waited += tick.waiting * tick.seconds
        for i, (player, update) in enumerate(tick.players.items()):
            if update.event:
                continue
            if i == 0:
                self.loss += update.loss
                self.count += 1
            for name, loss in _named(update, f"{player}/" if i else ""):
                self.named[name] = self.named.get(name, 0.0) + loss
                self.counts[name] = self.counts.get(name, 0) + 1

    def line(self, tick: Tick, batch: int) -> dict[str, float]:
        """Returns the numbers of a line, and begins the next one."""
        ticks = max(1, self.count)
        line = {
            "images": tick.images,
            "loss": self.loss / ticks,
            "lr": tick.lr,
            "grad_norm": tick.grad_norm,
            "images_per_second": batch * ticks / max(self.took, 1e-9),
            "waiting": self.waited / max(self.took, 1e-9),
            "seconds": self.seconds,
        }
        line |= {name: total / self.counts[name] for name, total in self.named.items()}
        for player, update in list(tick.players.items())[1:]:
            line |= {f"{player}/lr": update.lr, f"{player}/grad_norm": update.grad_norm}
        self.loss, self.count, self.waited, self.took = 0.0, 0, 0.0, 0.0
        self.named, self.counts = {}, {}
        return line

    def as_dict(self) -> Mapping[str, Any]:
        """Returns what state.json contains."""
        return {name: value for name, value in vars(self).items() if value != {}}


def _named(update: Update, prefix: str) -> list[tuple[str, float]]:
    """The losses that have a name of their own in a line: all but the first player's `loss`."""
    total = [(f"{prefix}loss", update.loss)] if prefix else []
    return total + [(f"{prefix}loss/{name}", loss) for name, loss in update.losses.items()]
