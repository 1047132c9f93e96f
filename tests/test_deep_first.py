"""Cheap first: which freeze depths are open to the sampler."""

from collections.abc import Sequence

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from search.config import SearchConfig
from search.deep_first import as_likely, shallowest_open
from search.space import Int, Parameter, Space

DEPTHS = Space((Parameter("freeze_depth", "freeze_depth", Int(0, 18)),))
"""19 of them, of which 5 lie open at first, and 5 beyond the best one."""


def trial(
    depth: int, accuracy: float, loss: float = 0.5, *, fold: int | None = None, state=TrialState.COMPLETE, first=""
) -> FrozenTrial:
    epoch = {"epoch": 1, "val_loss": loss, "val_accuracy": accuracy} | ({"fold": fold} if fold else {})
    return optuna.create_trial(
        state=state,
        value=accuracy,
        params={"freeze_depth": depth},
        distributions={"freeze_depth": optuna.distributions.IntDistribution(0, 18)},
        user_attrs={"epoch:0001": epoch} | ({"first": first} if first else {}),
    )


def shallowest(trials: Sequence[FrozenTrial], images: int, metric: str = "val_accuracy") -> int:
    """The shallowest depth that lies open."""
    search = SearchConfig(order="deep_first", metric=metric)
    return shallowest_open(DEPTHS, search, trials, images)["freeze_depth"]


@pytest.mark.parametrize(
    ("trials", "images", "low"),
    [
        ([], 100, 13),
        ([trial(14, 0.9)], 100, 13),  # better than what?
        ([trial(18, 0.8), trial(14, 0.83)], 100, 13),  # a standard error of 0.83 is 0.038
        ([trial(18, 0.8), trial(14, 0.83)], 1000, 9),  # 0.012
        ([trial(18, 0.8), trial(16, 0.82), trial(14, 0.83)], 1000, 11),  # 16 is near enough to the best
        ([trial(18, 0.8), trial(2, 0.9)], 1000, 0),
        ([trial(18, 0.8), trial(14, 0.8, loss=0.1)], 10**9, 13),
        ([trial(18, 0.99), trial(14, 1.0)], 100, 9),  # no images are left to be undecided about
    ],
)  # fmt: skip
def test_depths_open_where_a_lead_is_more_than_a_standard_error(trials, images, low):
    assert shallowest(trials, images) == low


def test_the_tutorials_recipes_count_too():
    """Full fine-tuning is worth a look where it is clearly better, however deep the sampler has looked so far."""
    recipes = [trial(0, 0.9, first="fine-tune everything"), trial(18, 0.8, first="train the head only")]
    assert shallowest(recipes, 100) == 0
    assert shallowest(recipes, 5) == 13


def test_with_folds_those_that_were_stopped_early_do_not_count():
    whole = trial(18, 0.8, fold=3)
    assert shallowest([whole, trial(14, 0.99, fold=1, state=TrialState.PRUNED)], 100) == 13
    assert shallowest([whole, trial(14, 0.99, fold=3)], 100) == 9


def test_a_loss_has_no_standard_error():
    trials = [trial(18, 0.8, loss=0.5), trial(14, 0.8, loss=0.49)]
    assert shallowest(trials, 10, "val_loss") == 9
    assert shallowest(trials, 10, "val_accuracy") == 13


@pytest.mark.parametrize(
    ("order", "likely"), [("as_sampled", [1] * 8), ("deep_first", [1, 1, 2, 2, 4, 4, 8, 8])], ids=str
)
def test_depths_that_open_later_are_less_likely(order, likely):
    depths = as_likely(Parameter("freeze_depth", "freeze_depth", Int(0, 7)), SearchConfig(order=order))
    assert [depths.count(depth) for depth in range(8)] == likely
