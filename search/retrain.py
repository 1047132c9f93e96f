"""The chosen configuration, trained again to its best epoch: the model that the user is handed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from search.folder import read_settings
from search.results import Run
from trainable.bundle import Bundle, save_bundle
from trainable.epoch import score
from trainable.images import ImageSet
from trainable.settings import TrialSettings
from trainable.training import Training
from trainable.trial import start_training


@dataclass(frozen=True)
class Retrained:
    """What came of it."""

    settings: TrialSettings
    images: ImageSet
    epochs: int
    same_curve: bool
    """Whether every epoch gave the very numbers that it gave in the search."""
    val: dict[str, float]
    """The model's loss, accuracy, balanced_accuracy, macro_f1 on the validation split."""
    test: dict[str, float] | None
    """The same on the sealed test split; None where there is none, or where it stayed sealed."""
    predictions: pd.DataFrame
    """A row an image of the validation and test splits: split, path, class, predicted, confidence, correct."""


def retrain(
    run: Run, number: int, folder: Path, say: Callable[[str], None], splits: Sequence[str] = ("val", "test")
) -> Retrained:
    """Train trial ``number`` again, from the same seed on the same views, and save the model in ``folder``.

    Args:
        splits: what to score the model on.
    """
    recorded = run.curves[run.curves["trial"] == number].sort_values("epoch")
    epochs = int(run.trials.loc[run.trials["trial"] == number, "best_epoch"].item())
    settings = read_settings(run.folder, number).model_copy(update={"folder": None})
    training = start_training(settings)
    for _ in range(epochs):
        metrics = training.run_epoch()
        say(f"retraining: epoch {metrics['epoch']} of {epochs}, {settings.metric} {metrics[settings.metric]:.4f}")
    same = _same(recorded["val_loss"], training) and _same(recorded["train_loss"], training)
    # What is judged is what the user is handed: the whole network, in full precision.
    model = Bundle(training.backbone, training.images.classes, {})
    tables, scores = [], {}
    for split in splits:
        records = training.images.split(split)
        if records:
            logits = torch.cat(list(model.logits([record.path for record in records])))
            scores[split] = score(logits, torch.tensor([record.label for record in records]))
            tables.append(_table(training.images, split, logits))
    facts: dict[str, Any] = {
        "trial": number,
        "epochs": epochs,
        "settings": settings.train.model_dump(mode="json"),
        "seed": settings.seed,
        "weights": training.backbone.weights_note,
        "weights_digest": training.backbone.digest,
        "data_digest": training.images.digest,
        "metrics": scores,
    }
    save_bundle(folder, training.backbone, training.images.classes, facts)
    return Retrained(settings, training.images, epochs, same, scores["val"], scores.get("test"), pd.concat(tables))


def _same(recorded: pd.Series, training: Training) -> bool:
    """Whether a recorded curve (read back from text) is the retrained one, to the last bit."""
    curve = [metrics[str(recorded.name)] for metrics in training.history]
    return bool(np.array_equal(recorded.to_numpy()[: len(curve)], np.array(curve)))


def _table(images: ImageSet, split: str, logits: torch.Tensor) -> pd.DataFrame:
    confidence, predicted = logits.softmax(1).max(1)
    records = images.split(split)
    return pd.DataFrame(
        {
            "split": split,
            "path": [str(record.path) for record in records],
            "class": [images.classes[record.label] for record in records],
            "predicted": [images.classes[i] for i in predicted.tolist()],
            "confidence": confidence.tolist(),
            "correct": [record.label == i for record, i in zip(records, predicted.tolist(), strict=True)],
        }
    )
