"""A judge: a classifier with the names of its classes and how often it is right on real pictures, as a directory.

    model.safetensors    the weights, float16 where that loses nothing
    classifier.json      shape, classes, data, accuracy on held-out pictures, how it was trained

`load_classifier(save_classifier(judge))` is `judge` bit for bit (tests/metrics/test_classifier.py). Nothing in the
directory is run: JSON and safetensors only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unnoise import artifacts
from unnoise.errors import UserError, unknown
from unnoise.io.atomic import publish_directory
from unnoise.nn.classifier import Classifier, Shape

FORMAT = "unnoise-classifier-1"
CARD = "classifier.json"
RESULT = "classifier"  # where a training leaves its judge, inside the run
WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Accuracy:
    """How often a classifier is right on n pictures, and on those of each class by name. `data` says which they are."""

    value: float
    n: int
    data: str = ""
    each: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ClassifierEvaluator:
    """A trained classifier, how often it is right on real pictures it was not trained on, and how it was made."""

    net: Classifier
    classes: tuple[str, ...]
    name: str
    accuracy: Accuracy
    trained: dict[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Of the weights: equal where all features are."""
        return artifacts.fingerprint(self.net)

    @torch.no_grad()
    def __call__(self, x: Tensor, *, batch: int = 256) -> tuple[Tensor, Tensor]:
        """Pictures (B, C, H, W) in [-1, 1] -> class (B,) int64, pooled features (B, D) float32."""
        check_pictures(x, self.net.shape, self.name)
        found = [self.net.features(part) for part in torch.split(x, batch)]
        pooled = torch.cat(found) if found else x.new_zeros(0, self.net.shape.features)
        logits: Tensor = self.net.head(pooled)
        return logits.argmax(1), pooled


def check_pictures(x: Tensor, shape: Shape, name: str) -> None:
    """Raises UserError where pictures (B, C, H, W) are not what this classifier takes."""
    have, want = tuple(x.shape[1:]), (shape.channels, shape.size, shape.size)
    if have != want:
        raise UserError(
            f"the classifier {name!r} takes pictures of {want[1]}x{want[2]} pixels with {want[0]} channels, these have "
            f"{have[1]}x{have[2]} with {have[0]}; train one on pictures like these: unnoise train classifier --data ..."
        )


def accuracy(seen: Tensor, asked: Tensor, classes: tuple[str, ...], *, data: str = "") -> Accuracy:
    """The share of pictures seen (n,) as what was asked (n,), over all and in each class that was asked for."""
    if len(asked) == 0:
        raise ValueError("the accuracy of no pictures")
    right = (seen == asked).double()
    each = {name: float(right[asked == k].mean()) for k, name in enumerate(classes) if bool((asked == k).any())}
    return Accuracy(float(right.mean()), len(asked), data, each)


def save_classifier(path: Path, judge: ClassifierEvaluator) -> None:
    """Write a judge's directory, whole or not at all; one that is there is replaced."""
    state = {name: value.detach().float().cpu().contiguous() for name, value in judge.net.state_dict().items()}
    halves = {name: value.half() for name, value in state.items()}
    lossless = all(torch.equal(halves[name].float(), state[name]) for name in state)
    card = {
        "format": FORMAT,
        "name": judge.name,
        "shape": asdict(judge.net.shape),
        "classes": list(judge.classes),
        "accuracy": asdict(judge.accuracy),
        "trained": judge.trained,
    }

    def write(folder: Path) -> None:
        save_file(halves if lossless else state, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")

    publish_directory(path, write)


def load_classifier(path: Path | str) -> ClassifierEvaluator:
    """The judge in a directory, in the run that trained it, or (`shipped()`) by name. On the CPU, float32.

    Raises UserError where there is none, or where it is damaged or of another format.
    """
    folder = Path(path)
    if not folder.exists() and len(folder.parts) == 1:
        if folder.name not in shipped():
            raise unknown("classifier", folder.name, shipped())
        folder = WEIGHTS / f"{folder.name}-classifier"
    elif (folder / RESULT / CARD).is_file():
        folder = folder / RESULT
    card = _card(folder)
    net = Classifier(Shape(**card["shape"]))
    net.load_state_dict(_weights(folder / "model.safetensors", net.state_dict()))
    found = ClassifierEvaluator(
        net.eval().requires_grad_(False),
        tuple(card["classes"]),
        card["name"],
        Accuracy(**card["accuracy"]),
        card["trained"],
    )
    if len(found.classes) != net.shape.classes:
        raise UserError(f"{folder / CARD}: {len(found.classes)} names for {net.shape.classes} classes")
    return found


def shipped() -> tuple[str, ...]:
    """Names of the classifiers that come with the package."""
    return tuple(
        sorted(p.parent.name.removesuffix("-classifier") for p in WEIGHTS.glob("*-classifier/classifier.json"))
    )


def _card(folder: Path) -> dict[str, Any]:
    path = folder / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        why = "no classifier.json, so this is no classifier; `unnoise train classifier` makes one"
        raise UserError(f"{folder}: {why}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); train the classifier again") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise UserError(f"{path}: not of the format {FORMAT}; it was written by another version of unnoise")
    _same_names(path, card, {"format", "name", "shape", "classes", "accuracy", "trained"})
    _same_names(path, card["shape"], {f.name for f in fields(Shape)})
    _same_names(path, card["accuracy"], {f.name for f in fields(Accuracy)})
    return card


def _same_names(path: Path, found: Any, wanted: set[str]) -> None:
    names = set(found) if isinstance(found, dict) else set()
    if names != wanted:
        wrong = ", ".join(sorted(names ^ wanted))
        raise UserError(f"{path}: missing or unknown: {wrong}; train the classifier again")


def _weights(path: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    try:
        state = load_file(path)
    except FileNotFoundError as error:
        why = "no model.safetensors; the directory is not whole, copy or train it again"
        raise UserError(f"{path.parent}: {why}") from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: damaged ({error}); copy or train it again") from error
    wrong = [n for n in sorted(set(state) | set(wanted)) if n not in state or n not in wanted]
    wrong += [n for n in wanted if n in state and state[n].shape != wanted[n].shape]
    if wrong:
        raise UserError(f"{path}: not the weights that classifier.json describes: {', '.join(wrong[:5])}")
    return {name: value.float() for name, value in state.items()}
