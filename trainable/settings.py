"""What one trial needs to know: the contract between ``search`` and ``trainable``."""

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


def best_epoch(history: Sequence[Mapping[str, float]], metric: str) -> int:
    """The epoch, counted from 1, with the best ``metric``; of equals the one with the lower loss, then the first."""
    sign = -1 if METRICS[metric] == "maximize" else 1
    ranked = [(sign * metrics[metric], metrics["val_loss"], number) for number, metrics in enumerate(history, 1)]
    return min(ranked)[2]


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
    """When the search began, in seconds since 1970: what was used since is not removed to make room."""


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
    seed: int = 0
    threads: Annotated[int, Field(ge=1)] = 1
    """CPU threads for torch. Part of the settings, since sums in another order give other last bits."""
    folder: Path | None = None
    """Where the trial keeps its checkpoint and its best epoch's validation logits; None: nowhere."""
    memo: MemoSettings | None = None
    """None: the frozen stages' activations are computed anew, each time."""
