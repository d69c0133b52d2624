"""What looks at the pictures of an evaluation: features for the distances, and a classifier for the accuracy.

"auto" is the set's own shipped classifier, else Inception-v3 if its weights are here, else the contrastive judge that
is named. All is checked against the pictures before anything is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from unnoise.config.evaluation import EvaluateConfig
from unnoise.data import Dataset
from unnoise.errors import UserError
from unnoise.evaluation.sample_metrics import LEAST, metric_names
from unnoise.metrics import contrastive
from unnoise.metrics.classifier import ClassifierEvaluator, check_pictures, load_classifier, shipped
from unnoise.metrics.features import Features, classifier_features, find_features
from unnoise.metrics.inception import find_weights


@dataclass(frozen=True)
class Evaluators:
    """What looks at the pictures: features for the distances; a classifier for the accuracy, where there is one."""

    features: Features
    judge: ClassifierEvaluator | None


def find_evaluators(ask: EvaluateConfig, classes: tuple[str, ...], pictures: Dataset) -> Evaluators:
    """What `ask` names, loaded. Raises UserError where there is none, it takes other pictures, or there are too few."""
    metric_names(ask.metrics)
    if ask.count < LEAST:
        raise UserError(f"{ask.count} pictures say nothing about a model; draw at least {LEAST}")
    if ask.real < 2 * LEAST or len(pictures) < 2 * LEAST:
        raise UserError(f"{min(ask.real, len(pictures))} real pictures are too few; give at least {2 * LEAST}")
    hears = ask.evaluator != "auto" and contrastive.is_evaluator(
        ask.evaluator
    )  # then it judges captions, and no classes
    name = ask.features if ask.features != "auto" else _own(pictures, ask.evaluator if hears else "")
    judge = None
    if name in shipped() or (Path(name).is_dir() and name != "inception" and not contrastive.is_evaluator(name)):
        judge = load_classifier(name)
        check_pictures(torch.empty(0, *pictures.shape), judge.net.shape, judge.name)
    features = classifier_features(judge) if judge is not None else find_features(name)
    features(torch.empty(0, *pictures.shape))  # refused here where it takes others
    own = "auto" if hears else ask.evaluator
    named = own if own != "auto" else pictures.config.path.partition(":")[0]
    if own != "auto" or (judge is None and named in shipped()):
        judge = load_classifier(named)
        check_pictures(torch.empty(0, *pictures.shape), judge.net.shape, judge.name)
        if "accuracy" in metric_names(ask.metrics) and not set(classes) <= set(judge.classes):
            missing = ", ".join(sorted(set(classes) - set(judge.classes)))
            raise UserError(f"the judge {judge.name!r} knows no {missing}; train one on these classes")
    return Evaluators(features, judge)


def _own(pictures: Dataset, hears: str) -> str:
    """The features for these pictures, where nobody named any; `hears` is a contrastive judge, or nothing."""
    name = pictures.config.path.partition(":")[0]
    if name in shipped():
        return name
    if find_weights() is not None:
        return "inception"
    if hears:
        return hears
    path, size = pictures.config.path, pictures.shape[1]
    if pictures.captions and not pictures.classes:
        raise UserError(
            f"no features to compare {path} in: train a judge of its pictures and captions (unnoise train "
            f"emoji-contrastive --data {path} --set data.size={size}) and give its run as --features, or as --judge "
            "where captions are judged too; or give Inception-v3's weight file as --features"
        )
    raise UserError(
        f"no features to compare {path} in: train a classifier on it (unnoise train classifier --data {path}) and give "
        "its directory as --features, or give Inception-v3's weight file"
    )
