"""How good the best of many is on new images, from what all of them said of the validation images."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, ndtr

from search.bootstrap import resample

_ROUNDS, _AT_ONCE = 2000, 200

_TIE = 1e-6
"""Scores that differ by less are seen as equal."""


@dataclass(frozen=True)
class Candidates:
    """What each of several trials, at its best epoch, said of each validation image."""

    trials: tuple[int, ...]
    """Their numbers."""
    labels: NDArray[np.int64]
    """``[N]``."""
    predicted: NDArray[np.int64]
    """``[trials, N]``."""
    losses: NDArray[np.float32]
    """Cross-entropy ``[trials, N]``."""

    @classmethod
    def from_logits(
        cls, trials: Sequence[int], logits: Iterable[NDArray[np.float32]], labels: NDArray[np.int64]
    ) -> "Candidates":
        """Args:
        logits: of each trial ``[N, C]``.
        """
        predicted, losses = [], []
        for each in logits:
            predicted.append(each.argmax(1))
            losses.append(-log_softmax(each, axis=1)[np.arange(len(labels)), labels])
        return cls(tuple(trials), labels, np.array(predicted), np.array(losses, np.float32))

    @property
    def correct(self) -> NDArray[np.bool_]:
        """``[trials, N]``."""
        return self.predicted == self.labels

    def scores(self, metric: str, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """The metric, the higher the better, of each trial on each of several weightings of the images.

        Args:
            weights: how often each image counts, ``[B, N]``.

        Returns:
            ``[B, trials]``.
        """
        if metric == "val_loss":
            return -(weights @ self.losses.T) / weights.sum(1, keepdims=True)
        if metric == "val_accuracy":
            return weights @ self.correct.T.astype(np.float32) / weights.sum(1, keepdims=True)
        each = []
        for label in np.unique(self.labels):
            inside = weights * (self.labels == label)
            hit = inside @ self.correct.T.astype(np.float32)
            actual = inside.sum(1, keepdims=True)
            predicted = weights @ (self.predicted == label).T.astype(np.float32)
            recall, f1 = hit / np.maximum(actual, 1), 2 * hit / np.maximum(actual + predicted, 1)
            each.append(recall if metric == "val_balanced_accuracy" else f1)
        return np.mean(each, axis=0)


@dataclass(frozen=True)
class Estimate:
    """The accuracy to be expected on new images, with its 95 % interval."""

    accuracy: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.accuracy:.1%} (95 % interval {self.low:.1%} to {self.high:.1%})"


def bias_corrected(candidates: Candidates, metric: str, winner: int | None = None, seed: int = 0) -> Estimate:
    """BBC-CV (Tsamardinos, Greasidou, Borboudakis, *Machine Learning* 107, 2018): the choice is made again on each of
    many bootstrap samples of the images, and what it chose is judged on the images outside of the sample. Of trials
    that score alike there, any is chosen: to take the one that is best on all images would look outside.

    It allows for the choice among trials, not for that of each trial's best epoch. The interval is Wilson's, for as
    many images as would tell the accuracy of a single trial as well: see `variance_share`.

    Args:
        metric: what trials are chosen by.
        winner: the trial that was chosen, where that need not be the best by the metric: it is not expected to do
            better than it did on these images.
    """
    chance, images = np.random.default_rng(seed), len(candidates.labels)
    correct, shares = candidates.correct, []
    times_chosen = np.zeros(len(correct))
    for _ in range(0, _ROUNDS, _AT_ONCE):
        weights = resample(chance, images, _AT_ONCE)
        scores = candidates.scores(metric, weights)
        chosen = (scores + _TIE * chance.random(scores.shape)).argmax(1)
        times_chosen += np.bincount(chosen, minlength=len(correct))
        outside = weights == 0
        count = outside.sum(1)
        shares.append((correct[chosen] & outside).sum(1)[count > 0] / count[count > 0])
    accuracy = float(np.concatenate(shares).mean())
    if winner is not None:
        accuracy = min(accuracy, float(correct[candidates.trials.index(winner)].mean()))
    share = variance_share(correct, times_chosen / times_chosen.sum())
    return Estimate(accuracy, *wilson_interval(accuracy, images / share))


def variance_share(correct: NDArray[np.bool_], chosen: NDArray[np.float64]) -> float:
    """The variance of the estimate, as a share of that of one trial's accuracy on the same images.

    Trials are taken for draws from one population whose outcomes on an image correlate by ρ. What they have in common,
    ρ of the variance, stays in the best of them; of the rest, the best of k has the variance that the maximum of k
    standard normal numbers has (k: as many as are in the running), but for the part in which trials really differ:
    there it is one trial like any other. So the share is 1 where all trials fail on the same images or where one is
    clearly the best, and smaller where many equal ones fail independently.

    Args:
        correct: ``[trials, N]``.
        chosen: how often each was the best in a bootstrap sample ``[trials]``, of sum 1.
    """
    accuracy = correct.mean(1)
    own = accuracy * (1 - accuracy)
    alone = float((chosen**2).sum())  # 1 / k
    if math.isclose(alone, 1) or not chosen @ own:
        return 1.0
    correlation = float(np.clip(((chosen @ correct).var() / (chosen @ own) - alone) / (1 - alone), 0, 1))
    noise, spread = own.mean() * (1 - correlation) / correct.shape[1], accuracy.var(ddof=1)
    differing = max(0.0, 1 - noise / spread) if spread else 0.0
    return correlation + (1 - correlation) * (differing + (1 - differing) * _variance_of_maximum(1 / alone))


def _variance_of_maximum(count: float) -> float:
    """Of so many independent standard normal numbers; what lies between whole numbers is interpolated smoothly."""
    x = np.linspace(-8, 8, 2001)
    density = np.exp(-(x**2) / 2) * ndtr(x) ** (count - 1)
    density /= density.sum()
    return float(density @ x**2 - (density @ x) ** 2)


def wilson_interval(share: float, total: float, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson score interval (Wilson, *JASA* 22, 1927; equation 4 of Brown, Cai, DasGupta, *Stat. Sci.* 16, 2001).

    Args:
        z: the normal quantile; 1.96 gives 95 %.
    """
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return max(0.0, centre - half), min(1.0, centre + half)
