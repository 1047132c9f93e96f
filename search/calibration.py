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


def calibration_error(confidence: NDArray[np.float32], correct: NDArray[np.bool_]) -> float:
    """The expected calibration error: the mean gap, over images, between confidence and accuracy within `BINS` bins of
    equal width (Naeini, Cooper, Hauskrecht, *AAAI* 2015)."""
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    sizes = np.bincount(places, minlength=BINS)
    gaps = np.bincount(places, weights=confidence - correct, minlength=BINS)
    return float(np.abs(gaps).sum() / sizes.sum())
