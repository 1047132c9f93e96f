"""The chosen configuration, trained again to its best epoch: the model that the user is handed."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from search.calibration import confidences
from search.folder import read_settings, trial_folder
from search.results import Run
from trainable.bundle import Bundle, save_bundle
from trainable.errors import InputError
from trainable.images import ImageSet, Record
from trainable.settings import TrialSettings
from trainable.training import Training, logits_file
from trainable.trial import start_training

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Retrained:
    """A trained model; the next one takes its place in memory, so it must be judged and saved before."""

    settings: TrialSettings
    training: Training
    same_curve: bool | None
    """Whether every epoch gave the very numbers that it gave in the search; None: it was not trained again, or on other
    images."""

    def judge(self, records: Sequence[Record]) -> Logits:
        """The logits ``[N, C]`` of what the user is handed: the whole network, in full precision, on all CPUs."""
        torch.set_num_threads(_cpus())
        model = Bundle(self.training.backbone, self.training.images.classes, {})
        return torch.cat(list(model.logits([record.path for record in records]))).numpy()

    def save(self, folder: Path, facts: dict[str, Any]) -> None:
        """Write the model.

        Args:
            facts: what ``model.yaml`` should say beside how it was trained.
        """
        backbone, images = self.training.backbone, self.training.images
        trained: dict[str, Any] = {
            "epochs": len(self.training.history),
            "settings": self.settings.train.model_dump(mode="json"),
            "seed": self.settings.seed,
            "threads": self.settings.threads,
            "weights": backbone.weights_note,
            "weights_digest": backbone.digest,
            "data_digest": images.digest,
        }
        save_bundle(folder, backbone, images.classes, {**trained, **facts})


def retrain(run: Run, number: int, say: Callable[[str], None], images: ImageSet | None = None) -> Retrained:
    """Train trial ``number`` again, to its best epoch, from the same seed on the same views.

    Args:
        images: what to train on, on all CPUs, as neither numbers nor activations of the search are to be met; None:
            what the trial was trained on, with folds all of their images.
    """
    recorded = run.curves[run.curves["trial"] == number].sort_values("epoch")
    epochs = int(run.trials.loc[run.trials["trial"] == number, "best_epoch"].item())
    settings = read_settings(run.folder, number)
    threads = settings.threads if images is None else _cpus()
    settings = settings.model_copy(update={"folder": None, "folds": None, "threads": threads})
    training = start_training(settings)
    if images is not None:
        training = Training(settings, images, training.backbone)
    for _ in range(epochs):
        metrics = training.run_epoch()
        name = settings.metric if training.images.split("val") else "train_accuracy"
        say(f"retraining: epoch {metrics['epoch']} of {epochs}, {name} {metrics[name]:.4f}")
    same = None
    if training.images.split("val"):
        same = all(_same(recorded[name], training) for name in ("val_loss", "train_loss"))
    return Retrained(settings, training, same)


def load_kept(run: Run, number: int) -> Retrained | None:
    """A trial with the weights of its best epoch, as the search kept them; None where it did not."""
    settings = read_settings(run.folder, number)
    training = start_training(settings)
    return Retrained(settings, training, same_curve=None) if training.load_best() else None


def kept_logits(run: Run, number: int) -> Logits:
    """What a trial said of each validation image at its best epoch, ``[N, C]``.

    Raises:
        InputError: it is not in the run's folder.
    """
    file = logits_file(trial_folder(run.folder, number), int(run.row(number)["best_epoch"]))
    try:
        return np.asarray(np.load(file))
    except FileNotFoundError as error:
        raise InputError(
            f"a report must have what each trial said of the validation images; there is no {file}: it was removed, or "
            "the run was made by an earlier version. Search again"
        ) from error


def predictions_table(images: ImageSet, split: str, logits: Logits, temperature: float) -> pd.DataFrame:
    """A row an image: split, path, class, predicted, confidence, correct."""
    records = images.split(split)
    confidence, correct = confidences(logits, np.array([record.label for record in records]), temperature)
    return pd.DataFrame(
        {
            "split": split,
            "path": [str(record.path) for record in records],
            "class": [images.classes[record.label] for record in records],
            "predicted": [images.classes[i] for i in logits.argmax(1)],
            "confidence": confidence,
            "correct": correct,
        }
    )


def _cpus() -> int:
    return len(os.sched_getaffinity(0))


def _same(recorded: pd.Series, training: Training) -> bool:
    """Whether a recorded curve (read back from text) is the retrained one, to the last bit."""
    curve = [metrics[str(recorded.name)] for metrics in training.history]
    return bool(np.array_equal(recorded.to_numpy()[: len(curve)], np.array(curve)))
