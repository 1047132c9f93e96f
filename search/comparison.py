"""Two models on the same images: which is better, and could that be chance?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from search.bootstrap import resample

_ROUNDS, _RESAMPLED, _AT_ONCE = 10_000, 2000, 200

_SIGNIFICANT = 0.05


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
    after_choice: float | None = None
    """The same where the chosen model was chosen on these very images, which flatter it: see `reality_check`."""

    @property
    def proven(self) -> float | None:
        """The difference, where it is more than chance."""
        chance = self.chance
        if self.after_choice is not None and self.difference > 0:  # one that is worse was flattered for nothing
            chance = max(chance, self.after_choice)
        return self.difference if chance < _SIGNIFICANT else None


def compare(
    name: str,
    trial: int,
    split: str,
    correct: NDArray[np.bool_],
    others: NDArray[np.bool_],
    chosen_from: NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare two models that were judged on the same images.

    Args:
        correct, others: whether the chosen model, and the recipe, are right on each image, ``[N]``.
        chosen_from: the same of all models that the chosen one was chosen from on these images, ``[models, N]``.
    """
    images = len(correct)
    only, only_others = int((correct & ~others).sum()), int((others & ~correct).sum())
    # To draw images with replacement is to draw the three kinds that matter, in their shares.
    shares = np.array([only, only_others, images - only - only_others]) / images
    drawn = np.random.default_rng(seed).multinomial(images, shares, _ROUNDS)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / images, (0.025, 0.975))
    difference = (only - only_others) / images
    after_choice = None if chosen_from is None else reality_check(chosen_from, others, difference, seed)
    return Comparison(
        name, trial, split, images, difference, float(low), float(high), mcnemar(correct, others), after_choice
    )


def mcnemar(correct: NDArray[np.bool_], others: NDArray[np.bool_]) -> float:
    """The exact McNemar test (McNemar, *Psychometrika* 12, 1947): how probable so uneven a split of the images on which
    exactly one of two models is right would be, were both equally good.

    Args:
        correct, others: whether each model is right on each of the same images, ``[N]``.
    """
    only, only_others = int((correct & ~others).sum()), int((others & ~correct).sum())
    return float(binomtest(only, only + only_others).pvalue) if only + only_others else 1.0


def reality_check(candidates: NDArray[np.bool_], others: NDArray[np.bool_], difference: float, seed: int = 0) -> float:
    """White's reality check (White, *Econometrica* 68, 2000): how probable it is that the best of many candidates leads
    by as much as ``difference``, were none of them any better than the other model.

    The images are drawn again with replacement, and of each draw counts the largest lead that any candidate has there
    beyond its lead on all of them.

    Args:
        candidates: whether each is right on each image, ``[candidates, N]``.
        others: whether the other model is, ``[N]``.
        difference: by how much more accurate one of the candidates is, in 0-1.
    """
    leads = candidates.astype(np.float32) - others.astype(np.float32)
    chance, images = np.random.default_rng(seed), len(others)
    reached = 0
    for _ in range(0, _RESAMPLED, _AT_ONCE):
        beyond = resample(chance, images, _AT_ONCE) @ leads.T / images - leads.mean(1)
        reached += int((beyond.max(1) >= difference - 1e-6).sum())
    return reached / _RESAMPLED
