"""The race: when a configuration has no chance any more against the best one."""

import numpy as np
import pytest
from scipy.stats import binomtest, permutation_test

from search.race import LEVEL, chance_of_lag


def right(worse: int, better: int, alike: int = 50) -> tuple[list[float], list[float]]:
    """Of a trial and of the best one, which has gone on to other images."""
    mine = [0.0] * worse + [1.0] * better + [1.0, 0.0] * (alike // 2)
    best = [1.0] * worse + [0.0] * better + [1.0, 0.0] * (alike // 2)
    return mine, [*best, 1.0, 0.0, 1.0]


@pytest.mark.parametrize("worse", range(14))
@pytest.mark.parametrize("better", [0, 1, 4])
def test_of_right_and_wrong_images_it_is_mcnemars_exact_test(worse, better) -> None:
    expected = binomtest(better, worse + better, alternative="less").pvalue if worse + better else 1.0
    tolerance = 1e-12 if worse + better <= 13 else 0.015
    assert chance_of_lag(*right(worse, better)) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("count", [8, 60])
def test_of_losses_it_is_the_paired_randomisation_test(count) -> None:
    chance = np.random.default_rng(3)
    best = chance.normal(size=count)
    mine = best + chance.normal(-0.1, 0.4, count)
    expected = permutation_test(
        (mine - best,), np.mean, permutation_type="samples", alternative="less", n_resamples=20_000, rng=chance
    ).pvalue
    assert 0.01 < expected < 0.99
    assert chance_of_lag(mine.tolist(), best.tolist()) == pytest.approx(expected, abs=0.02)


def test_who_is_not_behind_is_in_the_running_and_so_is_who_lags_by_little() -> None:
    assert chance_of_lag([1.0, 0.0, 1.0], [1.0, 0.0, 1.0]) == 1
    assert chance_of_lag(*right(worse=2, better=3)) > 0.5
    assert chance_of_lag(*right(worse=2, better=0)) == 0.25 > LEVEL
    assert chance_of_lag(*right(worse=3, better=0)) == 0.125 < LEVEL
    assert chance_of_lag(*right(worse=9, better=6)) > LEVEL > chance_of_lag(*right(worse=11, better=6))


def test_it_is_the_same_every_time() -> None:
    scores = right(worse=30, better=18)
    assert len({chance_of_lag(*scores) for _ in range(3)}) == 1
