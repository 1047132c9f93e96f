"""Two models on the same images: which is better, and could that be chance?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

_ROUNDS = 10_000


@dataclass(frozen=True)
class Comparison:
    """The chosen model against one of the tutorial's recipes."""

    name: str
    trial: int
    """The recipe's."""
    split: str
    """The images that both are judged on."""
    images: int
    difference: float
    """Of the accuracies, the chosen model's minus the recipe's."""
    low: float
    high: float
    """95 % interval of the difference, by the paired bootstrap."""
    chance: float
    """How probable a difference as large as this is, were both equally accurate: the exact McNemar test."""


def compare(
    name: str, trial: int, split: str, correct: NDArray[np.bool_], others: NDArray[np.bool_], seed: int = 0
) -> Comparison:
    """Compare two models that were judged on the same images.

    Args:
        correct, others: whether the chosen model, and the recipe, are right on each image, ``[N]``.
    """
    images = len(correct)
    only, only_others = int((correct & ~others).sum()), int((others & ~correct).sum())
    # To draw images with replacement is to draw the three kinds that matter, in their shares.
    shares = np.array([only, only_others, images - only - only_others]) / images
    drawn = np.random.default_rng(seed).multinomial(images, shares, _ROUNDS)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / images, (0.025, 0.975))
    difference = (only - only_others) / images
    return Comparison(name, trial, split, images, difference, float(low), float(high), mcnemar(correct, others))


def mcnemar(correct: NDArray[np.bool_], others: NDArray[np.bool_]) -> float:
    """The exact McNemar test (McNemar, *Psychometrika* 12, 1947): how probable so uneven a split of the images on which
    exactly one of two models is right would be, were both equally good.

    Args:
        correct, others: whether each model is right on each of the same images, ``[N]``.
    """
    only, only_others = int((correct & ~others).sum()), int((others & ~correct).sum())
    return float(binomtest(only, only + only_others).pvalue) if only + only_others else 1.0
