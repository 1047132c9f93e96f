"""One epoch: train on one pass over the batches, evaluate one split."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trainable.stages import Stage

SCORES = ("loss", "accuracy", "balanced_accuracy", "macro_f1")
"""What `score` gives, by name."""


class NonFiniteLossError(ArithmeticError):
    """Training diverged."""


def rebatch(blocks: Iterable[torch.Tensor], batch_size: int) -> Iterator[torch.Tensor]:
    """Cut a stream of blocks ``[B, …]`` into batches of ``batch_size``; the last one may be smaller."""
    held: list[torch.Tensor] = []
    for block in blocks:
        held.append(block)
        while sum(map(len, held)) >= batch_size:
            joined = torch.cat(held) if len(held) > 1 else held[0]
            yield joined[:batch_size]
            held = [joined[batch_size:]] if len(joined) > batch_size else []
    if held:
        yield torch.cat(held)


def train_epoch(
    stages: Sequence[Stage],
    batches: Iterable[torch.Tensor],
    labels: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    label_smoothing: float,
) -> tuple[float, float]:
    """One step of the optimizer a batch.

    Args:
        stages: the open stages, in training mode.
        batches: inputs of the first open stage, ``[B, …]`` each.
        labels: of all the images in the batches' order, int64 ``[N]``.

    Returns:
        The mean loss and the accuracy over the epoch, as the weights were at each step.

    Raises:
        NonFiniteLossError: the loss became infinite or NaN.
    """
    criterion = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
    loss_sum = torch.zeros((), device=labels.device)
    correct = torch.zeros((), dtype=torch.int64, device=labels.device)
    seen = 0
    for x in batches:
        y = labels[seen : seen + len(x)]
        logits = _forward(stages, x)
        loss = criterion(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum += loss.detach() * len(x)
        correct += (logits.detach().argmax(1) == y).sum()
        seen += len(x)
    if not torch.isfinite(loss_sum):
        raise NonFiniteLossError(f"the training loss became {loss_sum.item()}: the learning rate is too high")
    return loss_sum.item() / seen, correct.item() / seen


def predict(stages: Sequence[Stage], batches: Iterable[torch.Tensor]) -> torch.Tensor:
    """The logits ``[N, classes]``, float32 on the CPU, of all batches; the stages must be in evaluation mode."""
    with torch.no_grad():
        return torch.cat([_forward(stages, x).float().cpu() for x in batches])


def _forward(stages: Sequence[Stage], x: torch.Tensor) -> torch.Tensor:
    for stage in stages:
        x = stage(x)
    return x


def score(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Loss, accuracy, balanced accuracy (mean recall over the classes) and macro F1 (mean F1 over the classes).

    Args:
        logits: ``[N, C]``.
        labels: int64 ``[N]``.
    """
    matrix = confusion_matrix(labels.numpy(), logits.argmax(1).numpy(), logits.shape[1])
    hit, actual, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    present = actual > 0
    return {
        "loss": nn.functional.cross_entropy(logits, labels).item(),
        "accuracy": float(hit.sum() / matrix.sum()),
        "balanced_accuracy": float((hit[present] / actual[present]).mean()),
        "macro_f1": float((2 * hit[present] / (actual + predicted)[present]).mean()),
    }


def image_scores(logits: torch.Tensor, labels: torch.Tensor, metric: str) -> torch.Tensor:
    """A score an image ``[N]``, the higher the better, whose mean is the metric: whether it is right, for balanced
    accuracy weighted so that each class counts the same, or the negative loss. Macro F1 is no mean over images; its
    images are scored as those of balanced accuracy.

    Args:
        logits: ``[N, C]``.
        labels: int64 ``[N]``.
        metric: one of `trainable.settings.METRICS`.
    """
    if metric == "val_loss":
        return -nn.functional.cross_entropy(logits, labels, reduction="none")
    right = (logits.argmax(1) == labels).float()
    if metric == "val_accuracy":
        return right
    counts = torch.bincount(labels, minlength=logits.shape[1])
    return right * (len(labels) / (counts > 0).sum() / counts)[labels]


def confusion_matrix(labels: NDArray[np.int64], predictions: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Counts ``[C, C]``: a row a true class, a column a predicted class."""
    return np.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)
