"""What the models of several folds say of the images that each was not trained on."""

from collections.abc import Sequence

import torch

from trainable.epoch import image_scores


class OutOfFold:
    """The logits of one trial's held-out images, fold by fold and epoch by epoch.

    All epochs are kept until the last fold is done: one epoch is chosen for all folds, and each fold may change it.

    Args:
        folds: of each fold, the places of its images among all.
        labels: of all images, int64 ``[N]``.
        epochs: of each fold.
    """

    def __init__(self, folds: Sequence[Sequence[int]], labels: torch.Tensor, epochs: int) -> None:
        self._folds, self._labels, self._epochs = folds, labels, epochs
        self.logits: list[torch.Tensor] = []
        """``[images of the fold, C]`` each: all epochs of the first fold, then those of the next."""

    def at(self, epoch: int) -> torch.Tensor:
        """The logits at an epoch (counted from 1) of every fold, ``[N, C]``; NaN where an image's fold is not whole
        (while the first is not: where it is in another fold)."""
        matrix = torch.full((len(self._labels), self.logits[0].shape[1]), torch.nan)
        for number in range(self._done):
            matrix[list(self._folds[number])] = self.logits[number * self._epochs + epoch - 1]
        return matrix

    def scores(self, epoch: int, metric: str) -> list[float]:
        """`image_scores` of the images in folds that are whole, in the order of the folds: of two trials, the one with
        fewer folds has scores of the images that come first in the other's."""
        scored = image_scores(self.at(epoch), self._labels, metric).tolist()
        return [round(scored[place], 6) for fold in self._folds[: self._done] for place in fold]

    @property
    def _done(self) -> int:
        return max(len(self.logits) // self._epochs, 1)
