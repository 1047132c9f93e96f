"""When a finalist is given up."""

import pandas as pd
import pytest

from search.finalists import Finalist, hopeless

EXPENSIVE = Finalist(0, "fine-tune everything", 10, 1e12)


@pytest.mark.parametrize(
    ("scores", "in_search", "given_up"),
    [
        ({}, 0.5, False),  # nobody leads yet
        ({7: [0.85, 0.84]}, 0.5, False),  # nor is this one through
        ({7: [0.85, 0.84, 0.86]}, 0.845, True),  # below the leader's mean, though the search flatters it
        ({7: [0.85, 0.84, 0.86]}, 0.855, True),  # within one standard error of it, which is 0.0058
        ({7: [0.85, 0.84, 0.86]}, 0.857, False),
        (
            {7: [0.85, 0.84, 0.86], 0: [0.83]},
            0.99,
            True,
        ),  # what it did with other seeds counts, and no longer the search
        ({7: [0.85, 0.84, 0.86], 0: [0.83, 0.86]}, 0.99, False),
        ({7: [0.85, 0.84, 0.86], 3: [0.9, 0.9, 0.9]}, 0.87, True),  # the leader is the best of the others
        ({7: [0.85, None, 0.86], 3: [0.7, 0.7, 0.7]}, 0.75, False),  # one that diverged leads nobody
        ({0: [0.9, None]}, 0.99, True),
    ],
)
def test_a_finalist_that_cannot_win_is_given_up(scores, in_search, given_up) -> None:
    rows = [(trial, score) for trial, each in scores.items() for score in each]
    table = pd.DataFrame(rows, columns=["trial", "score"]).astype({"score": float})
    assert hopeless(table, EXPENSIVE, 3, in_search, "val_accuracy") is given_up


def test_of_losses_the_lowest_leads() -> None:
    table = pd.DataFrame({"trial": [7, 7], "score": [0.2, 0.3]})
    assert hopeless(table, EXPENSIVE, 2, 0.21, "val_loss")
    assert not hopeless(table, EXPENSIVE, 2, 0.19, "val_loss")
