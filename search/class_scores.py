"""How well a model does on each class."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from trainable.epoch import confusion_matrix


def class_scores(predictions: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Precision, recall and F1 (fractions; NaN where nothing was predicted, or is there) and support (images), a row a
    class.

    Args:
        predictions: a row an image, with class and predicted (names).
    """
    places = {name: place for place, name in enumerate(classes)}
    labels, predicted = (np.array([places[text] for text in predictions[name]]) for name in ("class", "predicted"))
    matrix = confusion_matrix(labels, predicted, len(classes))
    hit, actual, said = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    with np.errstate(invalid="ignore"):
        return pd.DataFrame(
            {
                "class": list(classes),
                "precision": hit / said,
                "recall": hit / actual,
                "f1": 2 * hit / (actual + said),
                "support": actual,
            }
        )
