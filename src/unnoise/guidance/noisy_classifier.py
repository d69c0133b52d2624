"""A classifier that knows noise: p(y | x_t), for the noise of one schedule. On disk, a directory:

    model.safetensors    the network's weights
    classifier.json      the card: the network, the process whose noise it knows, the names of its classes
    manifest.json        the sha256 and size of each file

It is shown x_t, and told the time, as a network of that process is. Nothing in these files can run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from unnoise import artifacts
from unnoise.config.cards import ModelCard, NoisyClassifierCard
from unnoise.config.convert import from_dict
from unnoise.config.diffusion import DiffusionConfig
from unnoise.denoiser import discrete, make_prediction, schedule_of
from unnoise.errors import UserError
from unnoise.guidance.classifier import LogProb
from unnoise.io import checkpoint
from unnoise.nn.noisy_classifier import EncoderClassifier
from unnoise.schedules import over

CARD, FORMAT = "classifier.json", "unnoise-noisy-classifier-1"
RESULT = "classifier"  # where a training leaves it, inside the run


class NoisyClassifier(nn.Module):
    """A network (x, time) -> logits, and the noise that it knows. It works in the dtype of its own parameters."""

    def __init__(self, net: nn.Module, card: NoisyClassifierCard) -> None:
        super().__init__()
        self.net, self.card = net, card
        self.schedule = schedule_of(card.process)
        shows = make_prediction(card.process, self.schedule)
        self._scale, self._clock = shows.c_in, shows.c_noise or discrete(card.process.steps)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Logits (B, classes), float32, of x_t (B, C, H, W) at times t, () or (B,)."""
        level = self.schedule(t)
        dtype = next(self.net.parameters(), x_t).dtype
        shown = (over(self._scale(level), x_t) * x_t).to(dtype)
        told = self._clock(t.double(), level).expand(len(x_t)).to(device=x_t.device, dtype=torch.float32)
        logits: Tensor = self.net(shown, told)
        return logits.float()

    def log_prob(self, label: Tensor) -> LogProb:
        """log p(label | x_t), label (B,) int64: a class for each row."""

        def each(x_t: Tensor, t: Tensor) -> Tensor:
            rows = self(x_t, t).log_softmax(1)
            found: Tensor = rows.gather(1, label.to(rows.device)[:, None])[:, 0]
            return found

        return each


def check(mine: NoisyClassifierCard, model: ModelCard) -> None:
    """Raises UserError where a classifier does not know the noise, the pictures or the classes of a model."""
    wrong = ""
    if schedule_of(mine.process) != schedule_of(model.process) or mine.process.steps != model.process.steps:
        wrong = f"knows the noise of {_noise(mine.process)}, the model that of {_noise(model.process)}"
    elif (mine.net.in_channels, mine.net.size, mine.net.size) != (model.channels, *model.size):
        wrong = (
            f"takes pictures of {mine.net.size}x{mine.net.size} with {mine.net.in_channels} channels, the model draws "
            f"{model.size[1]}x{model.size[0]} with {model.channels}"
        )
    elif model.classes and model.classes != mine.classes:
        wrong = f"knows the classes {', '.join(mine.classes)}, the model {', '.join(model.classes)}"
    if wrong:
        raise UserError(
            f"this classifier {wrong}: train one with the model's process and pictures, see `unnoise presets "
            "fashion-noisy-classifier`"
        )


def _noise(process: DiffusionConfig) -> str:
    said = [process.schedule, *(f"{name} {value}" for name, value in process.schedule_options.items())]
    said += ["zero terminal SNR"] if process.zero_snr else []
    return f"{', '.join(said)} in {process.steps} steps"


def write(folder: Path, state: Mapping[str, Tensor], card: NoisyClassifierCard) -> None:
    """model.safetensors and classifier.json into an existing folder."""
    checkpoint.save(state, folder / artifacts.WEIGHTS)
    artifacts.write_card(folder / CARD, card, FORMAT)


def load(path: str | Path) -> NoisyClassifier:
    """The classifier in a directory, a checkpoint of its training, or a run: on the CPU, float32, without gradients.

    Raises UserError that says what is wrong with which file.
    """
    folder = find(Path(path))
    card = read_card(folder)
    return NoisyClassifier(artifacts.load_net(lambda: EncoderClassifier(card.net), folder, CARD), card).eval()


def find(path: Path) -> Path:
    """The directory with the classifier that `path` means."""
    return artifacts.find(
        path,
        CARD,
        RESULT,
        missing="give a noisy classifier, as `unnoise train` leaves one in a run",
        empty=f"no classifier: it has no {CARD}, and no finished checkpoint",
    )


def read_card(folder: Path) -> NoisyClassifierCard:
    """The card of a classifier's directory. Raises UserError for a classifier of clean pictures, which cannot guide."""
    file = folder / CARD
    card, said = artifacts.read_card(file, again="train the classifier again")
    if said != FORMAT:
        clean = str(said).startswith("unnoise-classifier")
        why = "a classifier of clean pictures, which knows no noise" if clean else f"of the format {said!r}"
        raise UserError(f"{file}: {why}; guide by one that `unnoise train fashion-noisy-classifier` leaves")
    return from_dict(NoisyClassifierCard, card, str(file))
