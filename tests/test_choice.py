"""Who wins among the finalists."""

import pandas as pd
import pytest

from search.choice import Choice, choose

COSTS = {0: 1e12, 2: 1e9, 3: 1e9, 4: 1e6}


def table(**scores: list[float | None]) -> pd.DataFrame:
    """Of a trial a keyword: ``t4=[0.9, 0.92]``."""
    rows = [{"trial": int(name[1:]), "score": score} for name, each in scores.items() for score in each]
    return pd.DataFrame(rows).astype({"score": float})


@pytest.mark.parametrize(
    ("scores", "winner", "tied"),
    [
        (
            {"t4": [0.90, 0.92, 0.94], "t2": [0.91, 0.93, 0.95], "t0": [0.5, 0.5, 0.5]},
            4,
            (4, 2),
        ),  # 0.92 >= 0.93 - 0.0115
        ({"t4": [0.90, 0.90, 0.90], "t2": [0.91, 0.93, 0.95], "t0": [0.5, 0.5, 0.5]}, 2, (2,)),
        ({"t4": [0.90], "t2": [0.91], "t0": [0.91]}, 2, (2, 0)),  # one seed has no error: only equal ones tie
        ({"t4": [0.99, None, 0.99], "t2": [0.91, 0.91, 0.91], "t0": [0.9, 0.9, 0.9]}, 2, (2,)),  # diverged once
        ({"t2": [0.90, 0.92], "t3": [0.91, 0.93], "t0": [0.9, 0.9]}, 3, (3, 2)),  # of equally cheap ones, the better
        ({"t4": [0.9, 0.9], "t2": [0.9, 0.9], "t0": [0.9, 0.9]}, 4, (4, 2, 0)),
    ],
)
def test_the_cheapest_within_one_standard_error_of_the_best_wins(scores, winner, tied) -> None:
    choice = choose(table(**scores), COSTS, "val_accuracy")
    assert choice is not None
    assert (choice.winner, choice.tied) == (winner, tied)


def test_the_lowest_loss_is_the_best() -> None:
    choice = choose(table(t4=[0.5, 0.6], t2=[0.2, 0.5], t0=[0.25, 0.30]), COSTS, "val_loss")
    assert choice == Choice(0, (0,), 0, pytest.approx(0.275), pytest.approx(0.275), pytest.approx(0.025))


def test_nobody_wins_where_all_diverge() -> None:
    assert choose(table(t4=[0.9, None], t2=[None, None]), COSTS, "val_accuracy") is None
