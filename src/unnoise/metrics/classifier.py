"""A classifier for evaluation: a network, the names of its classes and its accuracy on real pictures, as a directory.

    model.safetensors    the weights, float16 if that is lossless
    classifier.json      shape, classes, data, accuracy on held-out pictures, how it was trained

Saving and loading is the identity, bit for bit (tests/metrics/test_classifier.py). The directory contains no code: JSON
and safetensors only.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from unnoise import artifacts
from unnoise.config.class_names import unreserved
from unnoise.config.convert import from_dict
from unnoise.errors import UserError, unknown
from unnoise.io import checkpoint
from unnoise.io.atomic import publish_directory
from unnoise.io.json_files import read_object
from unnoise.nn.classifier import Classifier, Shape

FORMAT = "unnoise-classifier-1"
CARD = "classifier.json"
RESULT = "classifier"  # the folder of the classifier inside the run that trained it
WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Accuracy:
    """The accuracy of a classifier on n pictures, and on those of each class by name. `data` names the pictures."""

    value: float
    n: int
    data: str = ""
    each: dict[str, float] = field(default_factory=dict)

    @property
    def at_least(self) -> float:
        """The lower end of a 95 % interval: small for a low accuracy, and for one that was measured on few pictures.

        Wilson 1927.
        """
        p, n, z = self.value, max(self.n, 1), 1.96
        return (p + z * z / (2 * n) - z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))) / (1 + z * z / n)


@dataclass(frozen=True, eq=False)
class ClassifierEvaluator:
    """A trained classifier with its accuracy on held-out real pictures, and the settings of its training."""

    net: Classifier
    classes: tuple[str, ...]
    name: str
    accuracy: Accuracy
    trained: dict[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights: classifiers with equal fingerprints compute equal features."""
        return artifacts.fingerprint(self.net)

    def to(self, device: str) -> ClassifierEvaluator:
        """This evaluator, its network moved to a device. Pictures and results stay on the CPU."""
        self.net.to(device)
        return self

    @torch.no_grad()
    def __call__(self, x: Tensor, *, batch: int = 256) -> tuple[Tensor, Tensor]:
        """Pictures (B, C, H, W) in [-1, 1] -> class (B,) int64, pooled features (B, D) float32."""
        check_pictures(x, self.net.shape, self.name)
        device = artifacts.device_of(self.net)
        found = [self.net.features(part.to(device)) for part in torch.split(x, batch)]
        pooled = torch.cat(found) if found else torch.zeros(0, self.net.shape.features, device=device)
        logits: Tensor = self.net.head(pooled)
        return logits.argmax(1).cpu(), pooled.cpu()


def check_pictures(x: Tensor, shape: Shape, name: str) -> None:
    """Raises UserError if pictures (B, C, H, W) do not have the shape of this classifier's."""
    given, needed = tuple(x.shape[1:]), (shape.channels, shape.size, shape.size)
    if given != needed:
        raise UserError(
            f"the classifier {name!r} needs pictures of {needed[1]}x{needed[2]} pixels with {needed[0]} channels, not "
            f"{given[1]}x{given[2]} with {given[0]}; train one on such pictures: {train_command('PICTURES', given)}"
        )


def train_command(path: str, shape: Sequence[int], preset: str = "classifier") -> str:
    """The command that trains an evaluator on the pictures at `path`, in the shape (C, H, W)."""
    channels, size, _ = shape
    return f"unnoise train {preset} --data {shlex.quote(path)} --set data.size={size} --set data.channels={channels}"


def accuracy(predicted: Tensor, labels: Tensor, classes: tuple[str, ...], *, data: str = "") -> Accuracy:
    """The fraction of predicted classes (n,) that equal the labels (n,), over all and in each class."""
    if len(labels) == 0:
        raise ValueError("accuracy needs at least one picture")
    right = (predicted == labels).double()
    each = {name: float(right[labels == k].mean()) for k, name in enumerate(classes) if bool((labels == k).any())}
    return Accuracy(float(right.mean()), len(labels), data, each)


def save_classifier(path: Path, classifier: ClassifierEvaluator) -> None:
    """Writes the directory of a classifier atomically; an existing one is replaced."""
    state = {name: value.detach().float().cpu().contiguous() for name, value in classifier.net.state_dict().items()}
    halves = {name: value.half() for name, value in state.items()}
    lossless = all(torch.equal(halves[name].float(), state[name]) for name in state)
    card = {
        "format": FORMAT,
        "name": classifier.name,
        "shape": asdict(classifier.net.shape),
        "classes": list(classifier.classes),
        "accuracy": asdict(classifier.accuracy),
        "trained": classifier.trained,
    }

    def write(folder: Path) -> None:
        save_file(halves if lossless else state, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")

    publish_directory(path, write)


def load_classifier(path: Path | str) -> ClassifierEvaluator:
    """The classifier in a directory, in the run that trained it, or by a name in `shipped()`; on the CPU, in float32.

    Raises UserError if there is none, or if it is damaged or of another format.
    """
    folder = Path(path)
    if not folder.exists() and len(folder.parts) == 1:
        if folder.name not in shipped():
            raise unknown("classifier", folder.name, shipped())
        folder = WEIGHTS / f"{folder.name}-classifier"
    elif (folder / RESULT / CARD).is_file():
        folder = folder / RESULT
    card = _card(folder)
    shape = from_dict(Shape, card["shape"], str(folder / CARD))
    if shape.width % 8 or shape.features % 8:
        raise UserError(f"{folder / CARD}: width and features should be multiples of 8; train the classifier again")
    with torch.device("meta"):  # nothing is allocated before the weights fit
        net = Classifier(shape)
    net.load_state_dict(_weights(folder / "model.safetensors", net.state_dict()), assign=True)
    found = ClassifierEvaluator(
        net.eval().requires_grad_(False),
        unreserved(card["classes"]),
        card["name"],
        from_dict(Accuracy, card["accuracy"], str(folder / CARD)),
        card["trained"],
    )
    if len(found.classes) != net.shape.classes:
        raise UserError(
            f"{folder / CARD}: {len(found.classes)} names for {net.shape.classes} classes; train the classifier again"
        )
    return found


def shipped() -> tuple[str, ...]:
    """The names of the classifiers that come with the package."""
    return tuple(
        sorted(p.parent.name.removesuffix("-classifier") for p in WEIGHTS.glob("*-classifier/classifier.json"))
    )


def _card(folder: Path) -> dict[str, Any]:
    path = folder / CARD
    if not path.exists():
        why = "no classifier.json, so this is no classifier; `unnoise train classifier` makes one"
        raise UserError(f"{folder}: {why}")
    try:
        card = read_object(path)
    except UserError as error:
        raise UserError(f"{path}: cannot be read ({error}); train the classifier again") from None
    if card.get("format") != FORMAT:
        raise UserError(f"{path}: not of the format {FORMAT}; it was written by another version of unnoise")
    _same_names(path, card, {"format", "name", "shape", "classes", "accuracy", "trained"})
    _same_names(path, card["shape"], {f.name for f in fields(Shape)})
    _same_names(path, card["accuracy"], {f.name for f in fields(Accuracy)})
    texts = card["classes"] if isinstance(card["classes"], list) else [None]
    if not all(isinstance(text, str) for text in (*texts, card["name"])) or not isinstance(card["trained"], dict):
        raise UserError(
            f"{path}: its classes, its name or its training are of another type; train the classifier again"
        )
    return card


def _same_names(path: Path, found: Any, wanted: set[str]) -> None:
    names = set(found) if isinstance(found, dict) else set()
    if names != wanted:
        wrong = ", ".join(sorted(names ^ wanted))
        raise UserError(f"{path}: missing or unknown: {wrong}; train the classifier again")


def _weights(path: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    try:
        state = checkpoint.read(path, wanted)
    except checkpoint.Damaged as error:
        if not path.exists():
            why = "no model.safetensors, so the directory is incomplete; copy it again or train again"
            raise UserError(f"{path.parent}: {why}") from None
        raise UserError(f"{error}; it is damaged: copy it again or train again") from None
    return {name: value.float() for name, value in state.items()}
