"""Two models on the same images."""

import numpy as np
import pytest

from search.comparison import Comparison, compare, mcnemar, reality_check


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


@pytest.mark.parametrize("hard", [False, True], ids=["they fail independently", "all fail on the same images"])
def test_the_best_of_equally_good_models_is_seldom_called_better_where_the_choice_is_allowed_for(hard) -> None:
    """McNemar's test alone says so too often of the best of 30 on the images that chose it."""
    chance, rounds = np.random.default_rng(4), 120
    naive = called = 0
    for _ in range(rounds):
        right = chance.beta(2.7, 0.3, 150) if hard else np.full(150, 0.9)
        candidates = chance.random((30, 150)) < right
        others, best = chance.random(150) < right, candidates[candidates.mean(1).argmax()]
        found = compare("recipe", 0, "val", best, others, candidates)
        naive += found.chance < 0.05 and found.difference > 0
        called += (found.proven or 0) > 0
    assert naive / rounds > 0.05
    assert called / rounds <= 0.05


def test_a_lead_that_is_large_enough_is_proven_in_spite_of_the_choice() -> None:
    chance = np.random.default_rng(5)
    others = chance.random(400) < 0.7
    candidates = np.where(chance.random((20, 400)) < 0.6, True, others)
    found = compare("recipe", 0, "val", candidates[0], others, candidates)
    assert found.after_choice is not None and found.after_choice < 0.01
    assert found.proven == found.difference > 0.1


def test_what_leads_by_nothing_is_reached_always() -> None:
    others = np.random.default_rng(0).random(100) < 0.8
    assert reality_check(others[None], others, 0.0) == 1


@pytest.mark.parametrize(
    ("difference", "chance", "after_choice", "proven"),
    [
        (0.05, 0.01, None, True),
        (0.05, 0.06, None, False),
        (0.05, 0.01, 0.06, False),
        (0.05, 0.06, 0.01, False),
        (-0.05, 0.01, 1.0, True),  # a choice that flatters does not excuse it
        (-0.05, 0.06, 1.0, False),
    ],
)
def test_what_counts_as_proven(difference, chance, after_choice, proven) -> None:
    found = Comparison("recipe", 0, "val", 150, difference, -0.1, 0.1, chance, after_choice).proven
    assert found == (difference if proven else None)
