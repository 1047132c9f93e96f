"""How far a model's confidence can be believed, and one number that mends it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

BINS = 10

_COLDEST, _HOTTEST = 0.1, 10.0


@dataclass(frozen=True)
class Calibration:
    """What temperature scaling did."""

    temperature: float
    """Logits are divided by it; above 1 the model was too sure of itself."""
    before: float
    """Expected calibration error with temperature 1, in 0–1."""
    after: float
    split: str
    """Where the errors were measured: on test where there is one, else on val, where the temperature was fitted."""


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The temperature that gives the lowest cross-entropy (Guo, Pleiss, Sun, Weinberger, *ICML* 2017, section 4.2).

    1 where every image is classified correctly: any lower temperature would look better, without limit.

    Args:
        logits: ``[N, C]``.
        labels: ``[N]``.
    """
    if (logits.argmax(1) == labels).all():
        return 1.0
    rows = np.arange(len(labels))

    def cross_entropy(log_temperature: float) -> float:
        return -float(log_softmax(logits / np.exp(log_temperature), axis=1)[rows, labels].mean())

    found = minimize_scalar(cross_entropy, bounds=(np.log(_COLDEST), np.log(_HOTTEST)), method="bounded")
    return float(np.exp(found.x))


def confidences(
    logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The probability of each image's predicted class, and whether it is the right one, ``[N]`` both."""
    return softmax(logits / temperature, axis=1).max(1), logits.argmax(1) == labels


def calibration_error(confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> float:
    """The expected calibration error in 0–1: the mean distance between a bin's confidence and its accuracy, weighted by
    its images (Guo et al., equation 3)."""
    counts, confident, right = reliability_bins(confidence, correct)
    return float(np.nansum(counts * np.abs(confident - right)) / counts.sum())


def reliability_bins(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Of each of `BINS` bins of equal width, ``((i - 1) / BINS, i / BINS]``, its images, their mean confidence and
    their accuracy; NaN where it has none.

    Args:
        confidence, correct: of each image, ``[N]``.
    """
    index = np.clip(np.ceil(np.asarray(confidence, float) * BINS).astype(int) - 1, 0, BINS - 1)
    counts = np.bincount(index, minlength=BINS)
    some = np.where(counts, counts, np.nan)
    means = [np.bincount(index, np.asarray(values, float), BINS) / some for values in (confidence, correct)]
    return counts, means[0], means[1]
