"""Two models on the same images."""

import numpy as np
import pytest

from search.comparison import compare, mcnemar


@pytest.mark.parametrize(
    ("only", "only_others", "both", "expected"),
    [(0, 0, 9, 1.0), (5, 0, 90, 2 / 2**5), (0, 5, 0, 2 / 2**5), (3, 3, 2, 1.0), (8, 2, 5, 2 * (1 + 10 + 45) / 2**10)],
)
def test_mcnemar(only, only_others, both, expected) -> None:
    correct = np.array([True] * only + [False] * only_others + [True] * both)
    others = np.array([False] * only + [True] * only_others + [True] * both)
    assert mcnemar(correct, others) == pytest.approx(expected)


def test_a_model_compared_with_itself_differs_by_nothing() -> None:
    correct = np.random.default_rng(0).random(150) < 0.9
    found = compare("itself", 0, "val", correct, correct)
    assert (found.difference, found.low, found.high, found.chance) == (0, 0, 0, 1)


@pytest.mark.parametrize("images", [150, 600])
def test_the_interval_of_the_difference_covers_what_it_says(images) -> None:
    chance, rounds, covered, called = np.random.default_rng(2), 400, 0, 0
    for _ in range(rounds):
        hard = chance.beta(2.7, 0.3, images)  # the same images are hard for both
        ours, theirs = chance.random(images) < hard * 0.98, chance.random(images) < hard * 0.93
        found = compare("recipe", 0, "val", ours, theirs)
        covered += found.low <= 0.9 * 0.05 <= found.high
        called += found.low <= found.difference <= found.high
    assert 0.92 <= covered / rounds <= 0.98
    assert called == rounds


def test_equally_good_models_are_seldom_called_different() -> None:
    chance, rounds = np.random.default_rng(3), 400
    called = 0
    for _ in range(rounds):
        hard = chance.beta(2.7, 0.3, 150)
        found = compare("recipe", 0, "val", chance.random(150) < hard, chance.random(150) < hard)
        called += found.chance < 0.05
    assert called / rounds <= 0.05
