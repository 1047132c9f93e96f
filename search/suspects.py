"""Images whose labels may be wrong: those that many trials, unasked, agree to call something else."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax


def label_suspects(
    logits: Iterable[NDArray[np.float32]],
    labels: NDArray[np.int64],
    paths: Sequence[Path],
    classes: Sequence[str],
) -> pd.DataFrame:
    """Confident learning (Northcutt, Jiang, Chuang, *JAIR* 70, 2021, section 3.1) on the mean of the trials'
    probabilities: an image is suspect where another class than its label is as probable as that class is, on average,
    for the images that bear its label. Here most trials must predict that class, too.

    Args:
        logits: of each trial ``[N, C]``, of images that it was not trained on.
        labels: ``[N]``.

    Returns:
        The most suspect first: path, class, suggested, probability (the mean, of the suggested class), agreeing (the
        share of trials that predict it).
    """
    total = np.zeros((len(labels), len(classes)))
    votes = np.zeros_like(total)
    trials, rows = 0, np.arange(len(labels))
    for each in logits:
        total += softmax(each, axis=1)
        votes[rows, each.argmax(1)] += 1
        trials += 1
    columns = ["path", "class", "suggested", "probability", "agreeing"]
    if not trials:
        return pd.DataFrame(columns=columns)
    mean, share = total / trials, votes / trials
    usual = np.array([mean[labels == c, c].mean() if (labels == c).any() else np.inf for c in range(len(classes))])
    confident = np.where(mean >= usual, mean, 0)
    suggested = confident.argmax(1)
    found = (confident.max(1) > 0) & (suggested != labels) & (share[rows, suggested] > 0.5)
    table = pd.DataFrame(
        {
            "path": [str(path) for path in paths],
            "class": [classes[label] for label in labels],
            "suggested": [classes[label] for label in suggested],
            "probability": mean[rows, suggested],
            "agreeing": share[rows, suggested],
        },
        columns=columns,
    )
    return table[found].sort_values(["probability", "path"], ascending=[False, True], ignore_index=True)
