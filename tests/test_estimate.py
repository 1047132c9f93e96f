"""Estimates from validation images, held to simulations in which the truth is known."""

import math
from itertools import product

import numpy as np
import pytest

from search.estimate import Candidates, _variance_of_maximum, bias_corrected, variance_share, wilson_interval

IMAGES, TRIALS = 150, 50


def candidates(correct) -> Candidates:
    """Of two classes, from whether each trial is right on each image."""
    trials, images = correct.shape
    labels = np.arange(images) % 2
    predicted = np.where(correct, labels, 1 - labels)
    return Candidates(tuple(range(trials)), labels, predicted, np.where(correct, 0.1, 2.0).astype(np.float32))


def equal_trials(chance, truth: float, hard: bool) -> np.ndarray:
    """Whether each trial is right on each image: all are right with the same probability, which is ``truth``; where
    some images are harder, all find the same ones hard."""
    easy = chance.beta(0.3 * truth, 0.3 * (1 - truth), IMAGES) if hard else np.full(IMAGES, truth)
    return chance.random((TRIALS, IMAGES)) < easy


@pytest.mark.parametrize(("truth", "hard"), list(product((0.8, 0.9), (False, True))))
def test_the_best_of_fifty_equal_trials_looks_better_than_it_is_and_the_estimate_does_not(truth, hard) -> None:
    chance, rounds = np.random.default_rng(1), 400
    maxima, estimates, covered = [], [], 0
    for _ in range(rounds):
        correct = equal_trials(chance, truth, hard)
        found = bias_corrected(candidates(correct), "val_accuracy")
        maxima.append(correct.mean(1).max() - truth)
        estimates.append(found.accuracy - truth)
        covered += found.low <= truth <= found.high
    assert np.mean(maxima) > 0.02
    assert abs(np.mean(estimates)) < 0.005
    assert 0.92 <= covered / rounds <= 0.98


@pytest.mark.parametrize("spread", [0.1, 0.2])
def test_where_trials_differ_the_interval_covers_the_accuracy_of_the_one_that_is_chosen(spread) -> None:
    """Outcomes of a normal-ogive model: trials differ in ability, images in difficulty."""
    from scipy.stats import norm

    chance, rounds, covered = np.random.default_rng(2), 400, 0
    for _ in range(rounds):
        truth = chance.uniform(0.9 - spread, 0.9, TRIALS)
        right = norm.cdf((norm.ppf(truth)[:, None] + math.sqrt(0.5) * chance.normal(size=IMAGES)) / math.sqrt(0.5))
        correct = chance.random((TRIALS, IMAGES)) < right
        found = bias_corrected(candidates(correct), "val_accuracy")
        covered += found.low <= truth[correct.mean(1).argmax()] <= found.high
    assert 0.92 <= covered / rounds <= 0.98


def test_the_variance_of_a_maximum() -> None:
    largest = np.random.default_rng(0).normal(size=(200_000, 10))
    for count in (1, 2, 3, 10):
        assert _variance_of_maximum(count) == pytest.approx(largest[:, :count].max(1).var(), rel=0.02)
    assert _variance_of_maximum(2) == pytest.approx(1 - 1 / math.pi, rel=1e-6)


def test_trials_that_all_fail_on_the_same_images_count_as_one() -> None:
    correct = np.tile(np.random.default_rng(0).random(200) < 0.8, (10, 1))
    assert variance_share(correct, np.full(10, 0.1)) == pytest.approx(1)


def test_a_trial_that_is_always_the_best_counts_as_one() -> None:
    correct = np.random.default_rng(0).random((3, 200)) < np.array([[0.9], [0.5], [0.5]])
    assert variance_share(correct, np.array([1.0, 0, 0])) == 1


def test_wilsons_interval_covers_what_it_says() -> None:
    """The exact coverage, from the binomial distribution."""
    for total, truth in product((50, 150, 600), (0.7, 0.9, 0.97)):
        covered = sum(
            math.comb(total, k) * truth**k * (1 - truth) ** (total - k)
            for k in range(total + 1)
            if wilson_interval(k / total, total)[0] <= truth <= wilson_interval(k / total, total)[1]
        )
        assert covered == pytest.approx(0.95, abs=0.03), (total, truth)


def test_one_trial_alone_is_estimated_as_it_is() -> None:
    correct = np.random.default_rng(0).random((1, 400)) < 0.8
    assert bias_corrected(candidates(correct), "val_accuracy").accuracy == pytest.approx(correct.mean(), abs=0.005)


def test_a_winner_that_is_not_the_best_is_not_expected_to_do_better_than_it_did() -> None:
    correct = np.random.default_rng(0).random((3, 400)) < np.array([[0.9], [0.8], [0.9]])
    best = bias_corrected(candidates(correct), "val_accuracy")
    found = bias_corrected(candidates(correct), "val_accuracy", winner=1)
    assert found.accuracy == correct[1].mean() < best.accuracy
    assert found.low < found.accuracy < found.high
    assert bias_corrected(candidates(correct), "val_accuracy", winner=int(correct.mean(1).argmax())) == best


def test_the_estimate_is_the_same_every_time() -> None:
    correct = np.random.default_rng(0).random((5, 60)) < 0.8
    assert bias_corrected(candidates(correct), "val_accuracy") == bias_corrected(candidates(correct), "val_accuracy")


@pytest.mark.parametrize("metric", ["val_loss", "val_accuracy", "val_balanced_accuracy", "val_macro_f1"])
def test_scores_of_weighted_images_are_those_of_repeated_ones(metric) -> None:
    import torch

    from trainable.epoch import score

    chance = np.random.default_rng(0)
    labels, logits = chance.integers(3, size=40), chance.normal(size=(4, 40, 3)).astype(np.float32)
    weights = chance.integers(1, 4, size=(2, 40)).astype(np.float32)
    found = Candidates.from_logits(range(4), logits, labels).scores(metric, weights)
    for row, trial in product(range(2), range(4)):
        rows = np.repeat(np.arange(40), weights[row].astype(int))
        expected = score(torch.from_numpy(logits[trial][rows]), torch.from_numpy(labels[rows]))
        sign = -1 if metric == "val_loss" else 1
        assert found[row, trial] == pytest.approx(sign * expected[metric.removeprefix("val_")], abs=1e-5)


def test_a_class_that_is_in_no_sample_harms_nothing() -> None:
    correct = np.random.default_rng(0).random((3, 2)) < 0.5
    for metric in ("val_balanced_accuracy", "val_macro_f1"):
        assert 0 <= bias_corrected(candidates(correct), metric).accuracy <= 1
