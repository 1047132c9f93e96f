"""The winner among the finalists."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from trainable.settings import sign_of


@dataclass(frozen=True)
class Choice:
    """The winner by the one-standard-error rule (Breiman et al., *Classification and Regression Trees*, 1984, section
    3.4.3): the cheapest finalist whose mean score is within one standard error of the best mean."""

    winner: int
    tied: tuple[int, ...]
    """The trials within one standard error, the winner among them, the cheapest first; of equals the best."""
    best: int
    """The trial with the best mean."""
    mean: float
    """The winner's mean score."""
    best_mean: float
    error: float
    """The standard error of the best mean, over the seeds; 0 where there is one seed only."""


def choose(table: pd.DataFrame, costs: Mapping[int, float], metric: str) -> Choice | None:
    """The winner; None where every finalist diverged with some seed.

    Args:
        table: a row a training: trial, score (NaN where it diverged).
        costs: of each trial's training.
    """
    sign = sign_of(metric)
    scores = (sign * table["score"]).groupby(table["trial"])
    means = scores.agg(lambda each: each.mean(skipna=False)).dropna()
    if means.empty:
        return None
    best = int(str(means.idxmax()))
    error = float(scores.sem().fillna(0)[best])
    tied = sorted(
        (int(trial) for trial in means.index[means >= means[best] - error - 1e-12]),
        key=lambda trial: (costs[trial], -means[trial], trial),
    )
    return Choice(tied[0], tuple(tied), best, float(sign * means[tied[0]]), float(sign * means[best]), error)
