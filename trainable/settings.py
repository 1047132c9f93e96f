"""What one trial needs to know: the contract between ``search`` and ``trainable``."""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

METRICS = {
    "val_accuracy": "maximize",
    "val_balanced_accuracy": "maximize",
    "val_macro_f1": "maximize",
    "val_loss": "minimize",
}
"""The metrics that a search can be told to optimise, and the direction of each."""

EPOCH_METRICS = (
    "epoch",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "val_balanced_accuracy",
    "val_macro_f1",
    "lr",
    "epoch_time_s",
    "images_per_s",
)
"""What a trial reports of each epoch: the epoch counted from 1, losses, fractions in 0–1, seconds, images a second."""


def sign_of(metric: str) -> int:
    """1 where more of the metric is better, -1 where less is."""
    return 1 if METRICS[metric] == "maximize" else -1


def best_epoch(history: Sequence[Mapping[str, float]], metric: str) -> int:
    """The epoch, counted from 1, with the best ``metric``; of equals the one with the lower loss, then the first.

    With folds it is one epoch for all of them, and their means decide.
    """
    sign = sign_of(metric)
    mean = across_folds(history)
    ranked = [(-sign * metrics[metric], metrics["val_loss"], number) for number, metrics in enumerate(mean, 1)]
    return min(ranked)[2]


def across_folds(history: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """The metrics of each epoch, of a trial with folds their means over the folds that are whole (while the first is
    not: of that); ``history`` has the epochs of one fold (``fold``, counted from 1) after those of another."""
    folds = [list(epochs) for _, epochs in itertools.groupby(history, key=lambda metrics: metrics.get("fold"))]
    whole = [fold for fold in folds if len(fold) == len(folds[0])]
    return [mean_metrics(epoch) for epoch in zip(*whole, strict=True)]


def mean_metrics(folds: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """The means of one epoch's metrics over folds; without folds, the metrics as they are."""
    if "fold" not in folds[0]:
        return folds[0]
    means = {name: statistics.fmean(metrics[name] for metrics in folds) for name in folds[0]}
    return {**means, "epoch": folds[0]["epoch"], "fold": folds[-1]["fold"]}


class TrainSettings(BaseModel):
    """How one configuration is fine-tuned; the defaults are those of PyTorch's transfer-learning tutorial.

    Every field but ``epochs``, ``views`` and ``precision`` may be searched.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    freeze_depth: Annotated[int, Field(ge=0)] | str = 0
    """Number of frozen stages, from 0 (nothing) to "all" (everything but the head), or the name of a stage or block:
    everything up to its end is frozen."""
    lr: Annotated[float, Field(gt=0)] = 0.001
    step_size: Annotated[int, Field(ge=1)] = 7
    """Epochs between two cuts of the learning rate (StepLR)."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """What the learning rate is multiplied by at each cut."""
    batch_size: Annotated[int, Field(ge=1)] = 4
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """SGD's momentum; AdamW does not use it."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augmentation: Literal["none", "flip", "crop"] = "crop"
    """none: resize and centre crop; flip: the same, mirrored half of the time; crop: random resized crop, mirrored
    half of the time."""
    crop_scale: Annotated[float, Field(gt=0, le=1)] = 0.08
    """The smallest share of an image's area that a random crop may show; the largest is 1."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Decides the new head's first weights, the order of the images, and dropout. It does not decide the views, which
    all trials share."""
    epochs: Annotated[int, Field(ge=1)] = 25
    views: Annotated[int, Field(ge=1)] | None = None
    """How many augmented views of each training image there are; epoch e shows view e mod views. None: as many as
    epochs, the classic fresh augmentation."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """What the frozen stages compute in, and their activations are kept in; the open stages compute in fp32. auto: bf16
    where the device has instructions for it."""


class MemoSettings(BaseModel):
    """Where the frozen stages' activations are kept, for this trial and others. It changes time, never results."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    budget: Annotated[int, Field(ge=0)]
    """Bytes that the folder may take."""
    kept: tuple[int, ...] = ()
    """The depths whose activations are stored; 0: the views themselves."""
    since: float = 0
    """When the search or the report began, in seconds since 1970: what was used since is not removed to make room."""


class TrialSettings(BaseModel):
    """One trial, complete: a trial is a function of these settings and of the files they name, and of nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: Path
    """The data set's table, ``images.csv`` (see :class:`trainable.images.ImageSet`)."""
    backbone: str
    weights: str = "pretrained"
    """pretrained, random, or a file with a state dict."""
    train: TrainSettings = TrainSettings()
    metric: str = "val_accuracy"
    """The metric, one of ``METRICS``, that decides which epoch is the best."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Folds of the training images to be trained one after another, each validated on its own images by a model that
    was trained on the others; None: one training, validated on the validation split."""
    seed: int = 0
    threads: Annotated[int, Field(ge=1)] = 1
    """CPU threads for torch. Part of the settings, since sums in another order give other last bits."""
    gpu: bool = True
    """Whether it computes on a GPU where there is one."""
    folder: Path | None = None
    """Where the trial keeps its checkpoint and its best epoch's validation logits; None: nowhere."""
    keep_best: bool = False
    """Whether the model of the best epoch is kept in the folder, for the report to judge."""
    memo: MemoSettings | None = None
    """None: the frozen stages' activations are computed anew, each time."""

    @property
    def epochs(self) -> int:
        """Of all folds together."""
        return self.train.epochs * (self.folds or 1)
