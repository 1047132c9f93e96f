"""Whether a configuration that has been through some of the folds is still in the running.

As in races (Maron, Moore, *NIPS* 1993; F-Race: Birattari, Stützle, Paquete, Varrentrapp, *GECCO* 2002), the folds that
a configuration has been through are compared with the same folds of the best so far, and a configuration that is
significantly worse there is given no more. What is compared are the images, one by one: folds are too few for a test.
"""

import itertools
from collections.abc import Sequence

import numpy as np

LEVEL = 0.2
"""A lag that would be less probable than this ends a race. F-Race has 0.05, which a few dozen images in a fold hardly
ever reach. Of 40 configurations (heads on ants and bees, and on solar cells; 5 folds) in 300 random orders the best was
never lost at 0.2 with 84 % and 67 % of all folds run; at 0.05 these were 97 % and 89 %; at 0.4 it was lost in 65 % of
the orders of one data set. (Replayed from complete trials, each with its final best epoch, also in the early folds.)"""

_FEW = 13
"""Up to so many images that differ, all outcomes are counted; of more, `_DRAWS` are drawn, always the same ones."""

_DRAWS, _AT_ONCE = 10_000, 500


def chance_of_lag(scores: Sequence[float], of_best: Sequence[float]) -> float:
    """How probable it would be to lag so far behind the best, or further, were neither better on any image: the paired
    randomisation test (Fisher, *The Design of Experiments*, 1935, section 21), one-sided. Where images are right or
    wrong, it is McNemar's exact test.

    Args:
        scores: an image each, the higher the better, ``[N]``.
        of_best: the same images' first, ``[≥ N]``.
    """
    differences = np.array(scores) - np.array(of_best[: len(scores)])
    differences = differences[differences != 0]  # the sign of nothing is nothing
    lag = differences.sum() + 1e-9 * np.abs(differences).sum()  # the same lag, added up in another order, counts too
    if len(differences) <= _FEW:
        signs = np.array(list(itertools.product((-1, 1), repeat=len(differences))))
        return float((signs @ differences <= lag).mean())
    chance, further = np.random.default_rng(0), 0
    for _ in range(0, _DRAWS, _AT_ONCE):
        signs = chance.integers(0, 2, (_AT_ONCE, len(differences)), np.int8) * 2 - 1
        further += int((signs @ differences <= lag).sum())
    return (further + 1) / (_DRAWS + 1)  # what was seen is a draw, too
