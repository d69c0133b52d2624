"""A classifier that knows noise: p(y | x_t), for the noise of one schedule. On disk, a directory:

    model.safetensors    the network's weights
    classifier.json      the card: the network, the process whose noise it knows, the names of its classes
    manifest.json        the sha256 and size of each file

It is shown x_t, and told the time, as a network of that process is. Nothing in these files can run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from unnoise import checkpoint
from unnoise.configuration import from_dict, to_dict
from unnoise.denoiser import discrete, make_prediction
from unnoise.errors import UserError
from unnoise.guidance.classifier import LogProb
from unnoise.nn.noisy_classifier import EncoderClassifier
from unnoise.schedules import Schedule, make_schedule, over
from unnoise.settings import ModelCard, NoisyClassifierCard, Process

WEIGHTS, CARD, FORMAT = "model.safetensors", "classifier.json", "unnoise-noisy-classifier-1"
RESULT = "classifier"  # where a training leaves it, inside the run


class NoisyClassifier(nn.Module):
    """A network (x, time) -> logits, and the noise that it knows. It works in the dtype of its own parameters."""

    def __init__(self, net: nn.Module, card: NoisyClassifierCard) -> None:
        super().__init__()
        self.net, self.card = net, card
        self.schedule = _schedule(card.process)
        shows = make_prediction(card.process, self.schedule)
        self._scale, self._clock = shows.scale, shows.clock or discrete(card.process.steps)

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
    if _schedule(mine.process) != _schedule(model.process) or mine.process.steps != model.process.steps:
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


def _schedule(process: Process) -> Schedule:
    return make_schedule(process.schedule, process.schedule_options, steps=process.steps, zero_snr=process.zero_snr)


def _noise(process: Process) -> str:
    said = [process.schedule, *(f"{name} {value}" for name, value in process.schedule_options.items())]
    said += ["zero terminal SNR"] if process.zero_snr else []
    return f"{', '.join(said)} in {process.steps} steps"


def write(folder: Path, state: Mapping[str, Tensor], card: NoisyClassifierCard) -> None:
    """model.safetensors and classifier.json into an existing folder."""
    checkpoint.save(state, folder / WEIGHTS)
    text = json.dumps({"format": FORMAT, "card": to_dict(card)}, indent=2, sort_keys=True)
    (folder / CARD).write_text(text + "\n", encoding="utf-8")


def load(path: str | Path) -> NoisyClassifier:
    """The classifier in a directory, a checkpoint of its training, or a run: on the CPU, float32, without gradients.

    Raises UserError that says what is wrong with which file.
    """
    folder = find(Path(path))
    if (folder / checkpoint.MANIFEST).is_file():
        checkpoint.verify(folder)
    card = read_card(folder)
    state = checkpoint.read(folder / WEIGHTS)
    with torch.device("meta"):
        net = EncoderClassifier(card.net)
    wanted = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    there = {name: tuple(value.shape) for name, value in state.items()}
    wrong = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
    if wrong:
        raise UserError(f"{folder / WEIGHTS}: not the weights that {CARD} describes: {', '.join(wrong[:5])}")
    net.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    return NoisyClassifier(net.requires_grad_(False), card).eval()


def find(path: Path) -> Path:
    """The directory with the classifier that `path` means."""
    if not path.is_dir():
        raise UserError(
            f"there is no directory {path}: give a noisy classifier, as `unnoise train` leaves one in a run"
        )
    if (path / RESULT / CARD).is_file():
        return path / RESULT
    if (path / CARD).is_file():
        return path
    found = checkpoint.sound(path / "checkpoints") if (path / "checkpoints").is_dir() else None
    if found is None:
        raise UserError(f"{path} holds no classifier: it has no {CARD}, and no finished checkpoint")
    return found


def read_card(folder: Path) -> NoisyClassifierCard:
    """The card of a classifier's directory. Raises UserError for a classifier of clean pictures, which cannot guide."""
    file = folder / CARD
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}): train the classifier again") from None
    said = data.get("format") if isinstance(data, dict) else None
    if said != FORMAT:
        clean = str(said).startswith("unnoise-classifier")
        why = "a classifier of clean pictures, which knows no noise" if clean else f"of the format {said!r}"
        raise UserError(f"{file}: {why}; guide by one that `unnoise train fashion-noisy-classifier` leaves")
    return from_dict(NoisyClassifierCard, data.get("card", {}), str(file))
