"""Evaluators of sampled pictures: features for the distances, and a classifier for the accuracy.

"auto" is the set's own shipped classifier, else Inception-v3 where its weights are installed, else the contrastive run
that is given as the evaluator. All are checked against the pictures before anything is sampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from unnoise.config.evaluation import EvaluateConfig
from unnoise.data import Dataset
from unnoise.data.scan import listed
from unnoise.errors import UserError
from unnoise.evaluation.sample_metrics import LEAST, metric_names
from unnoise.metrics import contrastive
from unnoise.metrics.classifier import ClassifierEvaluator, check_pictures, load_classifier, shipped, train_command
from unnoise.metrics.features import Features, classifier_features, find_features
from unnoise.metrics.inception import find_weights


@dataclass(frozen=True)
class Evaluators:
    """Features for the distances, and a classifier for the accuracy, None where there is none."""

    features: Features
    classifier: ClassifierEvaluator | None


def find_evaluators(
    config: EvaluateConfig, classes: tuple[str, ...], pictures: Dataset, device: str = "cpu"
) -> Evaluators:
    """Loads what `config` names; its networks compute on `device`.

    Raises UserError where it does not exist, where it needs pictures of another kind, and for too few pictures.
    """
    names = metric_names(config.metrics)
    if config.count < LEAST:
        raise UserError(f"{config.count} sampled pictures are too few to measure: use --count {LEAST} or more")
    if config.real < 2 * LEAST or len(pictures) < 2 * LEAST:
        few = min(config.real, len(pictures))
        raise UserError(
            f"{few} real pictures are too few to compare with: use {2 * LEAST} or more{listed(pictures.broken)}"
        )
    # a contrastive run evaluates captions, not classes
    reads_captions = config.evaluator != "auto" and contrastive.is_evaluator(config.evaluator)
    name = (
        config.features if config.features != "auto" else _default(pictures, config.evaluator if reads_captions else "")
    )
    classifier = None
    if name in shipped() or (Path(name).is_dir() and name != "inception" and not contrastive.is_evaluator(name)):
        classifier = _load(name, pictures).to(device)
    features = classifier_features(classifier) if classifier is not None else find_features(name, device)
    features(torch.empty(0, *pictures.shape))  # raises UserError for pictures of another kind
    own = "auto" if reads_captions else config.evaluator
    named = own if own != "auto" else pictures.config.path.partition(":")[0]
    if own != "auto" or (classifier is None and named in shipped()):
        classifier = _load(named, pictures).to(device)
        if "accuracy" in names and not set(classes) <= set(classifier.classes):
            missing = ", ".join(sorted(set(classes) - set(classifier.classes)))
            raise UserError(
                f"the classifier {classifier.name!r} does not have the classes {missing}: train one on all classes of "
                "the model"
            )
    return Evaluators(features, classifier)


def _load(name: str, pictures: Dataset) -> ClassifierEvaluator:
    """A classifier of pictures of this size. Raises UserError for one of another size."""
    classifier = load_classifier(name)
    check_pictures(torch.empty(0, *pictures.shape), classifier.net.shape, classifier.name)
    return classifier


def _default(pictures: Dataset, contrastive_run: str) -> str:
    """The features for these pictures where none are named; `contrastive_run` may be empty."""
    name = pictures.config.path.partition(":")[0]
    if name in shipped():
        return name
    if find_weights() is not None:
        return "inception"
    if contrastive_run:
        return contrastive_run
    path = pictures.config.path
    if pictures.captions and not pictures.classes:
        raise UserError(
            f"no features to compare {path} in: train a contrastive model of its pictures and captions "
            f"({train_command(path, pictures.shape, 'emoji-contrastive')}) and give its run as --features, or as "
            "--evaluator to evaluate captions too; or give Inception-v3's weight file as --features"
        )
    raise UserError(
        f"no features to compare {path} in: train a classifier on it ({train_command(path, pictures.shape)}) and give "
        "its run as --features, or give Inception-v3's weight file"
    )
