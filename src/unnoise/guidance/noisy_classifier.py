"""Classifiers of noisy pictures, p(y | x_t), for the noise of one process. On disk, a directory:

    model.safetensors    the network's weights
    classifier.json      the card: the network, the process it was trained with, the names of its classes
    manifest.json        the SHA-256 and size of each file

Its inputs are those of a network of that process: x_t, scaled, and the time. None of these files contains code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from unnoise import artifacts
from unnoise.config.cards import ModelCard, NoisyClassifierCard
from unnoise.config.convert import from_dict
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import height_width
from unnoise.denoiser import discrete, make_prediction, schedule_of
from unnoise.errors import UserError
from unnoise.guidance.classifier import LogProb
from unnoise.io import checkpoint
from unnoise.nn.noisy_classifier import EncoderClassifier
from unnoise.schedules import over, times
from unnoise.transfer import send

CARD, FORMAT = "classifier.json", "unnoise-noisy-classifier-1"
RESULT = "classifier"  # the directory in a run that the training writes


class NoisyClassifier(nn.Module):
    """A network (x, time) -> logits, with its process. It computes in the dtype of its parameters."""

    def __init__(self, net: nn.Module, card: NoisyClassifierCard) -> None:
        super().__init__()
        self.net, self.card = net, card
        self.schedule = schedule_of(card.process)
        predicts = make_prediction(card.process, self.schedule)
        self._c_in, self._clock = predicts.c_in, predicts.c_noise or discrete(card.process.steps)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Logits (B, classes), float32, of x_t (B, C, H, W) at times t, () or (B,)."""
        level = self.schedule(t)
        dtype = next(self.net.parameters(), x_t).dtype
        scaled = (over(self._c_in(level), x_t) * x_t).to(dtype)
        time = times(self._clock(t.double(), level), x_t)
        logits: Tensor = self.net(scaled, time)
        return logits.float()

    def log_prob(self, label: Tensor) -> LogProb:
        """log p(label | x_t), label (B,) int64: a class for each row."""

        def each(x_t: Tensor, t: Tensor) -> Tensor:
            rows = self(x_t, t).log_softmax(1)
            found: Tensor = rows.gather(1, send(label, rows.device)[:, None])[:, 0]
            return found

        return each


def check(card: NoisyClassifierCard, model: ModelCard) -> None:
    """Raises UserError if a classifier was trained with another process, other shapes or classes than the model."""
    wrong = ""
    if schedule_of(card.process) != schedule_of(model.process) or card.process.steps != model.process.steps:
        wrong = f"was trained with the schedule {_noise(card.process)}, the model with {_noise(model.process)}"
    elif (card.net.in_channels, *height_width(card.net.size)) != (model.channels, *model.size):
        height, width = height_width(card.net.size)
        wrong = (
            f"reads pictures of {width}x{height} with {card.net.in_channels} channels, the model has "
            f"{model.size[1]}x{model.size[0]} with {model.channels}"
        )
    elif model.classes and model.classes != card.classes:
        wrong = f"has the classes {', '.join(card.classes)}, the model {', '.join(model.classes)}"
    if wrong:
        raise UserError(
            f"this classifier {wrong}: train one with the process and pictures of the model, as in `unnoise presets "
            "fashion-noisy-classifier`"
        )


def _noise(process: DiffusionConfig) -> str:
    parts = [process.schedule, *(f"{name} {value}" for name, value in process.schedule_options.items())]
    parts += ["zero terminal SNR"] if process.zero_snr else []
    return f"{', '.join(parts)} in {process.steps} steps"


def write(folder: Path, state: Mapping[str, Tensor], card: NoisyClassifierCard) -> None:
    """Write model.safetensors and classifier.json into an existing folder."""
    checkpoint.save(state, folder / artifacts.WEIGHTS)
    artifacts.write_card(folder / CARD, card, FORMAT)


def load(path: str | Path) -> NoisyClassifier:
    """The classifier in a directory, a checkpoint of its training, or a run: on the CPU, float32, without gradients.

    Raises UserError that names the file and what is wrong with it.
    """
    folder = find(Path(path))
    card = read_card(folder)
    return NoisyClassifier(artifacts.load_net(lambda: EncoderClassifier(card.net), folder), card).eval()


def find(path: Path) -> Path:
    """The directory with the classifier: `path`, its newest checkpoint, or its result. Raises UserError for neither."""
    return artifacts.find(
        path,
        CARD,
        RESULT,
        missing="give a run or a directory of a noisy classifier that `unnoise train` wrote",
        empty=f"no noisy classifier: it has no {CARD}, and no finished checkpoint",
    )


def read_card(folder: Path) -> NoisyClassifierCard:
    """The card of a classifier's directory. Raises UserError for a classifier of clean pictures, which cannot guide."""
    file = folder / CARD
    card, found = artifacts.read_card(file, again="train the classifier again")
    if found != FORMAT:
        clean = str(found).startswith("unnoise-classifier")
        what = "is a classifier of clean pictures, which cannot guide" if clean else f"has the format {found!r}"
        raise UserError(f"{file} {what}: use a noisy classifier, as `unnoise train fashion-noisy-classifier` trains")
    read = from_dict(NoisyClassifierCard, card, str(file))
    if len(read.classes) != read.net.classes:
        raise UserError(
            f"{file}: classes has {len(read.classes)} names for the {read.net.classes} classes of the network "
            "(net.classes): train the classifier again"
        )
    return read
